"""JSON values as filters compare them: what equals what, and what an operand may be.

Knows only single values: no fields, no operators, no slots.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Hashable, Iterable, Mapping
from datetime import date, datetime, time
from typing import Any, Final
from uuid import UUID

import numpy as np
import orjson

from faissbase.errors import InvalidInputError

MAX_DEPTH = 32
MAX_ITEMS = 100_000
MAX_INTEGER_BITS = 1024


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""Stands for a field that the metadata does not have (null is a value, not missing)."""

_TOO_DEEP: Final = object()

_shortened = reprlib.Repr()
_shortened.maxstring = 120


def value_key(value: Any, depth: int = 0) -> Hashable:
    """A hashable stand-in for a JSON value: two values are equal exactly when their keys are.

    Numbers are equal by their exact value (``1`` and ``1.0``), booleans only to themselves, arrays item by
    item, objects key by key in any order. What nests deeper than ``MAX_DEPTH`` equals no operand.

    Examples
    --------
    >>> value_key(1) == value_key(1.0), value_key(1) == value_key(True), value_key([1]) == value_key([True])
    (True, False, False)
    """
    if type(value) is str:  # the commonest, first
        return value
    if isinstance(value, bool):
        return (value,)  # alone in a tuple, which 1 is not
    if not isinstance(value, (list, dict)):
        return value  # type: ignore[no-any-return]  # int, float, None or MISSING
    if depth == MAX_DEPTH:
        return _TOO_DEEP
    if isinstance(value, list):
        return (list, tuple([value_key(item, depth + 1) for item in value]))
    return (dict, frozenset([(key, value_key(item, depth + 1)) for key, item in value.items()]))


def plain_operand(value: Any, place: str, depth: int = 0) -> Any:
    """The JSON value that an operand stands for, built of exact ``str int float bool None list dict``.

    Dates, times, UUIDs and NumPy scalars become what is stored for them as metadata: ``np.float32(0.1)`` is
    0.1, as its own digits say, and not the float64 that is nearest to it.

    Parameters
    ----------
    place : str
        Where the operand stands, for the message: ``"field 'year': $gt"``.

    Raises
    ------
    InvalidInputError
        Not a JSON value, not finite, or over ``MAX_DEPTH``, ``MAX_ITEMS`` or ``MAX_INTEGER_BITS``.
    """
    if isinstance(value, np.generic):
        value = _unwrap(value, place)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # the text itself, also of an enum
    if isinstance(value, int | float):
        return _plain_number(value, place)
    if isinstance(value, date | time | UUID):
        return _text_as_stored(value, place)
    if isinstance(value, list | tuple | Mapping):
        return _plain_container(value, place, depth)
    raise InvalidInputError(
        f"{place} cannot compare with {shown(value)} of type {type(value).__name__}; "
        "use a string, number, boolean, None, date, or a list or dict of these"
    )


def shown(value: object) -> str:
    """The value as a message shows it: its repr, shortened."""
    return _shortened.repr(value)


def _unwrap(value: np.generic, place: str) -> Any:
    if isinstance(value, np.bool_ | np.integer | np.str_):
        return value.item()
    if isinstance(value, np.float16 | np.float32) and np.isfinite(value):
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, np.datetime64):
        return _text_as_stored(value, place)
    raise InvalidInputError(
        f"{place} cannot compare with a NumPy {value.dtype} ({value}); use a number, a string or a datetime"
    )


def _plain_number(value: float, place: str) -> float:
    if isinstance(value, int):
        if value.bit_length() > MAX_INTEGER_BITS:
            raise InvalidInputError(
                f"{place} got an integer of {value.bit_length()} bits; at most {MAX_INTEGER_BITS} are allowed"
            )
        return int.__index__(value)
    if not math.isfinite(value):
        raise InvalidInputError(f"{place} got {value}, which JSON cannot store; use a finite number")
    return float.__float__(value)


def _text_as_stored(value: date | time | UUID | np.datetime64, place: str) -> Any:
    try:
        return orjson.loads(orjson.dumps(value, plain_date, orjson.OPT_SERIALIZE_NUMPY))
    except orjson.JSONEncodeError as error:
        raise InvalidInputError(f"{place} got {value!r}: {error}; use its isoformat() text") from error


def plain_date(value: Any) -> date | time:
    """A date or time of another class, as pandas has, as Python's own, to the microsecond.

    It is orjson's ``default``, asked for what orjson does not know.

    Raises
    ------
    TypeError
        Anything else, and pandas' ``NaT``.
    """
    if isinstance(value, datetime):
        return datetime.combine(date(value.year, value.month, value.day), _plain_time(value.timetz()))
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, time):
        return _plain_time(value)
    raise TypeError


def _plain_time(value: time) -> time:
    return time(value.hour, value.minute, value.second, value.microsecond, value.tzinfo, fold=value.fold)


def _plain_container(value: Iterable[Any], place: str, depth: int) -> Any:
    items = dict(value) if isinstance(value, Mapping) else list(value)
    if depth == MAX_DEPTH:
        raise InvalidInputError(f"{place} got a value nested more than {MAX_DEPTH} deep")
    if len(items) > MAX_ITEMS:
        raise InvalidInputError(f"{place} got {len(items):,} items; at most {MAX_ITEMS:,} are allowed")
    if isinstance(items, list):
        return [plain_operand(item, place, depth + 1) for item in items]
    for key in items:
        if not isinstance(key, str):
            raise InvalidInputError(f"{place} got an object with the key {shown(key)}; keys must be strings")
    return {str.__str__(key): plain_operand(item, place, depth + 1) for key, item in items.items()}
