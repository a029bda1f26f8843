"""One field of all slots as arrays, and the answer of one comparison over a range of them.

Numbers that float64 holds exactly are compared by NumPy. Every other value is kept once in a dictionary, and
the plain test of `faissbase.filters.tree` runs once for each distinct value. Knows nothing of reading or
caches.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Sequence
from sys import getsizeof
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
import orjson

from faissbase.filters.tree import TESTS, Comparison
from faissbase.filters.values import MISSING
from faissbase.types import Mask

_MISSING_CODE: Final = -1
_NUMBER_CODE: Final = -2
_EXACT_UP_TO: Final = 2**53

# Estimates: a dictionary entry with its list item and key; parsed containers against their JSON text.
_ENTRY_BYTES: Final = 150
_CONTAINER_FACTOR: Final = 8

_Scalar = TypeVar("_Scalar", bound=np.generic)


class Column:
    """The values of one field for slots ``0..n-1``. Slots are only appended; what is written stays.

    Attributes
    ----------
    n : int
        Slots covered. Those never given a value are missing.
    """

    def __init__(self) -> None:
        self.n = 0
        self._codes = np.empty(0, dtype=np.int32)
        self._numbers = np.empty(0, dtype=np.float64)  # stays empty until the first number
        self._values: list[Any] = []
        self._code_of: dict[Hashable, int] = {}
        self._has_arrays = False
        self._dictionary_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Memory held; estimated for the dictionary, exact for the arrays."""
        return self._codes.nbytes + self._numbers.nbytes + self._dictionary_bytes

    def reserve(self, n: int) -> None:
        """Make room for n slots."""
        self._codes = grown(self._codes, n, _MISSING_CODE)
        if len(self._numbers):
            self._numbers = grown(self._numbers, n, math.nan)

    def write(self, slots: Sequence[int], values: Sequence[Any]) -> None:
        """Set the values (``MISSING`` included) of reserved slots; writing the same again changes nothing."""
        codes = self._codes_of(values)
        self._codes[slots] = codes
        if _NUMBER_CODE in codes:
            chosen = [i for i, code in enumerate(codes) if code == _NUMBER_CODE]
            self._numbers = grown(self._numbers, len(self._codes), math.nan)
            self._numbers[[slots[i] for i in chosen]] = [values[i] for i in chosen]

    def cover(self, n: int) -> None:
        """Declare slots below n written; those that were not are missing."""
        self.n = n

    def evaluate(self, comparison: Comparison, first: int, stop: int) -> Mask:
        """The comparison for slots ``first..stop-1``, as a new ``bool[stop - first]``."""
        codes = self._codes[first:stop]
        if comparison.operator == "$exists":
            return (codes != _MISSING_CODE) == comparison.operand  # type: ignore[no-any-return]
        mask = self._dictionary_mask(comparison, codes)
        if len(self._numbers):
            mask |= _number_mask(comparison, self._numbers[first:stop])
        return mask

    def _codes_of(self, values: Sequence[Any]) -> list[int]:
        kinds = set(map(type, values))
        if kinds == {float}:
            return [_NUMBER_CODE] * len(values)
        if kinds == {str}:  # nearly always seen before
            known = list(map(self._code_of.get, values))
            if None not in known:
                return known  # type: ignore[return-value]  # no None among them
        return [self._code(value) for value in values]

    def _code(self, value: Any) -> int:
        if value is MISSING:
            return _MISSING_CODE
        if _is_float64(value):
            return _NUMBER_CODE
        key = value if isinstance(value, str) else _json_key(value)
        code = self._code_of.get(key)
        return self._append(key, value) if code is None else code

    def _append(self, key: Hashable, value: Any) -> int:
        code = len(self._values)
        self._values.append(value)
        self._code_of[key] = code
        factor = 1 if isinstance(value, str) else _CONTAINER_FACTOR
        self._dictionary_bytes += _ENTRY_BYTES + factor * getsizeof(key)
        self._has_arrays |= isinstance(value, list)
        return code

    def _dictionary_mask(self, comparison: Comparison, codes: npt.NDArray[np.int32]) -> Mask:
        chosen = self._chosen_codes(comparison, codes)
        if len(chosen) == 0:
            return np.zeros(len(codes), dtype=np.bool_)
        if len(chosen) == 1:
            return np.equal(codes, chosen[0])
        table = np.zeros(len(self._values) + 2, dtype=np.bool_)  # the last two answer for codes -2 and -1
        table[chosen] = True
        return table.take(codes)

    def _chosen_codes(self, comparison: Comparison, codes: npt.NDArray[np.int32]) -> list[int]:
        """The codes, of those that may occur in ``codes``, whose values pass."""
        strings = self._strings_sought(comparison)
        if strings is not None:
            return [self._code_of[string] for string in strings if string in self._code_of]
        candidates: Iterable[int] = range(len(self._values))
        if len(codes) < len(self._values):
            candidates = {code for code in codes.tolist() if code >= 0}
        test, operand = TESTS[comparison.operator], comparison.operand
        return [code for code in candidates if test(self._values[code], operand)]

    def _strings_sought(self, comparison: Comparison) -> Collection[str] | None:
        """The strings that a field must be one of to pass, where that is all that the comparison asks."""
        operand = comparison.operand
        if comparison.operator == "$eq" and isinstance(operand, str):
            return (operand,)
        if comparison.operator == "$in" and not self._has_arrays and all(isinstance(x, str) for x in operand):
            return operand  # type: ignore[no-any-return]  # a frozenset of strings
        return None


def grown(array: npt.NDArray[_Scalar], n: int, fill: float) -> npt.NDArray[_Scalar]:
    """The array, or a copy at least twice as long where it is shorter than n; the rest holds ``fill``."""
    if len(array) >= n:
        return array
    copy = np.full(max(n, 2 * len(array)), fill, dtype=array.dtype)
    copy[: len(array)] = array
    return copy


def _is_float64(value: Any) -> bool:
    """Whether the value is a number that float64 holds exactly."""
    if type(value) is int:
        return -_EXACT_UP_TO <= value <= _EXACT_UP_TO or _neighbours(value)[0] == value
    return type(value) is float


def _json_key(value: Any) -> Hashable:
    """JSON text of a value that is neither string nor float64: bytes, so never taken for a string."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # loads nests deeper than dumps
        return object()


def _number_mask(comparison: Comparison, numbers: npt.NDArray[np.float64]) -> Mask:
    operand = comparison.operand
    if comparison.operator == "$in":
        wanted = [float(number) for number in operand if _is_float64(number)]
        return np.isin(numbers, wanted)
    if type(operand) not in (int, float):
        return np.zeros(len(numbers), dtype=np.bool_)
    low, high = _neighbours(operand)
    match comparison.operator:
        case "$gt":
            return np.greater(numbers, low)
        case "$gte":
            return np.greater_equal(numbers, high)
        case "$lt":
            return np.less(numbers, high)
        case "$lte":
            return np.less_equal(numbers, low)
        case "$eq" if low == high:
            return np.equal(numbers, low)
    return np.zeros(len(numbers), dtype=np.bool_)  # $contains, or equality with no float64


def _neighbours(operand: float) -> tuple[float, float]:
    """The nearest float64 at or below and at or above a number: both the number itself where it is one.

    An integer such as ``2**53 + 1`` lies between two. No stored number does, so comparing with the
    neighbour on the proper side is exact where rounding the operand is not.
    """
    try:
        near = float(operand)
    except OverflowError:
        near = math.inf if operand > 0 else -math.inf
    if near == operand:
        return near, near
    if near > operand:
        return math.nextafter(near, -math.inf), near
    return near, math.nextafter(near, math.inf)
