"""Filters over all slots at once: one bool per slot, from columns that are built as filters ask for them.

Columns and answers are caches of what was read and may be forgotten at any time. Knows nothing of where
metadata is stored, of ids or of tombstones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice
from threading import Lock
from typing import Any, Final, TypeAlias

import numpy as np
import orjson

from faissbase.errors import CorruptionError
from faissbase.filters.column import Column, grown
from faissbase.filters.recent import Recent
from faissbase.filters.tree import And, Comparison, Filter, Not, Or, comparisons, fields, lookup, matches
from faissbase.filters.values import MISSING
from faissbase.types import Mask

Read: TypeAlias = Callable[[int, int], Iterator[tuple[int, bytes]]]
"""``read(first, stop)`` yields (slot, metadata JSON) of the live records in ``first..stop-1``, ascending."""

_BLOCK_ROWS: Final = 256  # parsed rows held at once; many more fall out of the processor's cache

# Estimates: a node of the tree; an operand as Python values against its JSON text.
_NODE_BYTES: Final = 500
_OPERAND_FACTOR: Final = 12


class Columns:
    """Masks of filters over slots ``0..n_slots-1``, equal to `tree.matches` on every live record.

    The metadata of a slot must never change once it was read; slots are only appended, and one that had no
    live record when it was read stays without. Several threads may call at once: one lock, also held while
    reading, so ``read`` must not call back.

    Parameters
    ----------
    budget_bytes : int
        What columns and remembered answers may hold together; the least recently used go first. A column
        that alone is larger is built for the call and then dropped.
    few_slots : int
        An answer that is at most so many slots behind is completed by `tree.matches` on those records, which
        is cheaper than extending columns.
    """

    def __init__(self, budget_bytes: int = 256 << 20, *, few_slots: int = 32) -> None:
        self._few_slots = few_slots
        self._lock = Lock()
        self._columns_and_answers = Recent[str | Filter, Column | _Answer](budget_bytes)

    @property
    def size_bytes(self) -> int:
        """Memory held, never more than the budget; estimated for values that are not numbers."""
        return self._columns_and_answers.size_bytes

    def clear(self) -> None:
        """Forget everything, as after slots were numbered anew."""
        with self._lock:
            self._columns_and_answers.clear()

    def mask(self, where: Filter, n_slots: int, read: Read) -> Mask:
        """Which slots match, as read-only ``bool[n_slots]``; a slot without a live record may say either.

        Raises
        ------
        CorruptionError
            What was read is not a JSON object. Whatever ``read`` raises comes through; nothing is lost.
        """
        with self._lock:
            answer = self._columns_and_answers.get(where)
            if not isinstance(answer, _Answer):
                answer = _Answer(where)
            if answer.n < n_slots:
                answer.append(self._evaluate(where, answer.n, n_slots, read))
                self._columns_and_answers.put(where, answer)
            return answer.view(n_slots)

    def _evaluate(self, where: Filter, first: int, stop: int, read: Read) -> Mask:
        if stop - first > self._few_slots:
            return _evaluate(where, self._columns_covering(stop, fields(where), read), first, stop)
        mask = np.zeros(stop - first, dtype=np.bool_)
        for slots, metadatas in _blocks(read(first, stop)):
            for slot, metadata in zip(slots, metadatas, strict=True):
                mask[slot - first] = matches(where, metadata)
        return mask

    def _columns_covering(self, n: int, names: set[str], read: Read) -> dict[str, Column]:
        columns = {name: self._column(name) for name in names}
        stale = {name: column for name, column in columns.items() if column.n < n}
        if stale:
            _extend(stale, n, read)
        for name, column in stale.items():
            self._columns_and_answers.put(name, column)
        return columns

    def _column(self, name: str) -> Column:
        held = self._columns_and_answers.get(name)
        return held if isinstance(held, Column) else Column()


class _Answer:
    """The mask of one filter for slots ``0..n-1``; bits are only appended, so views stay true."""

    def __init__(self, where: Filter) -> None:
        self.n = 0
        self._bits = np.empty(0, dtype=np.bool_)
        self._filter_bytes = sum(
            _NODE_BYTES + _OPERAND_FACTOR * len(comparison.text) for comparison in comparisons(where)
        )

    @property
    def size_bytes(self) -> int:
        return _NODE_BYTES + self._filter_bytes + self._bits.nbytes

    def append(self, bits: Mask) -> None:
        n = self.n + len(bits)
        if self.n == 0:
            self._bits = bits
        else:
            self._bits = grown(self._bits, n, False)
            self._bits[self.n : n] = bits
        self.n = n

    def view(self, n: int) -> Mask:
        view = self._bits[:n]
        view.flags.writeable = False
        return view


def _evaluate(where: Filter, columns: Mapping[str, Column], first: int, stop: int) -> Mask:
    match where:
        case Comparison():
            return columns[where.field].evaluate(where, first, stop)
        case Not():
            return ~_evaluate(where.part, columns, first, stop)
        case And():
            return reduce(np.logical_and, (_evaluate(part, columns, first, stop) for part in where.parts))
        case Or():
            return reduce(np.logical_or, (_evaluate(part, columns, first, stop) for part in where.parts))
    return np.ones(stop - first, dtype=np.bool_)


def _extend(columns: Mapping[str, Column], n: int, read: Read) -> None:
    """Bring columns up to n slots in one pass; those further on skip the rows they have."""
    for column in columns.values():
        column.reserve(n)
    for slots, metadatas in _blocks(read(min(column.n for column in columns.values()), n)):
        for name, column in columns.items():
            start = bisect_left(slots, column.n)
            if start < len(slots):
                column.write(slots[start:], _values(metadatas[start:], name))
    for column in columns.values():
        column.cover(n)


def _values(metadatas: Sequence[dict[str, Any]], name: str) -> list[Any]:
    if "." in name:
        return [lookup(metadata, name) for metadata in metadatas]
    return [metadata.get(name, MISSING) for metadata in metadatas]


def _blocks(rows: Iterator[tuple[int, bytes]]) -> Iterator[tuple[list[int], list[dict[str, Any]]]]:
    """Slots and metadata of a few hundred records at a time."""
    while block := list(islice(rows, _BLOCK_ROWS)):
        yield [slot for slot, _ in block], _parsed(block)


def _parsed(block: Sequence[tuple[int, bytes]]) -> list[dict[str, Any]]:
    try:
        metadatas = [orjson.loads(text) for _, text in block]
    except orjson.JSONDecodeError:
        metadatas = [_parsed_one(slot, text) for slot, text in block]  # finds the slot
    if set(map(type, metadatas)) != {dict}:
        slot = next(
            slot for (slot, _), found in zip(block, metadatas, strict=True) if type(found) is not dict
        )
        raise CorruptionError(f"the metadata of slot {slot} is not a JSON object")
    return metadatas


def _parsed_one(slot: int, text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise CorruptionError(f"the metadata of slot {slot} is not JSON: {error}") from error
