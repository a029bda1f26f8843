"""Which slots a search may return: what a filter matches, less what is dead, at one moment.

A slot's metadata never changes, so a mask once made is only ever extended; each moment then takes its own
dead slots away.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from itertools import islice, pairwise
from operator import lt

import numpy as np

from faissbase.collection.selected import Room, Selection
from faissbase.collection.store import Snapshot
from faissbase.errors import ConflictError, CorruptionError
from faissbase.filters.columns import Columns
from faissbase.filters.tree import Everything, Filter
from faissbase.storage import forks
from faissbase.storage.records import ReadTransaction, Records
from faissbase.types import Mask

_KEPT = 64
_KEPT_BYTES = 64 << 20
_BLOCK_ROWS = 256  # looked at together
_SLOT_BYTES = 9  # one for the mask, eight for the slot
_GATHERED_BYTES = 64 << 20


class Selector:
    """Makes selections, and keeps those that are asked for again."""

    def __init__(self, records: Records, memory_bytes: int | None = None) -> None:
        self._records = records
        most_bytes = _GATHERED_BYTES if memory_bytes is None else min(_GATHERED_BYTES, memory_bytes // 8)
        self._room = Room(most_bytes)
        self._columns = Columns()
        self.renew()
        forks.renew_after(self)
        self._generation = 0
        self._read_seq = 0
        self._kept_of: Snapshot | None = None
        self._kept: OrderedDict[Filter, tuple[Snapshot, Selection]] = OrderedDict()

    def renew(self) -> None:
        self._columns_lock = threading.Lock()

    def select(
        self, snapshot: Snapshot, where: Filter, transaction: ReadTransaction | None = None
    ) -> Selection:
        """The slots alive in ``snapshot`` that match.

        Raises
        ------
        ConflictError
            Metadata had to be read and records had gone since: take a new snapshot.
        """
        if isinstance(where, Everything):
            return snapshot.everything
        kept = self._kept.get(where)
        if kept is not None and kept[0] is snapshot:
            return kept[1]
        mask = self._mask(snapshot, where, transaction)
        if snapshot.alive is not None:
            mask = mask & snapshot.alive
        selection = Selection(mask, snapshot.view.n, int(np.count_nonzero(mask)), self._room)
        self._keep(snapshot, where, selection)
        return selection

    def _keep(self, snapshot: Snapshot, where: Filter, selection: Selection) -> None:
        most = max(1, min(_KEPT, _KEPT_BYTES // (_SLOT_BYTES * (selection.n + 1))))
        with self._columns_lock:
            if self._kept_of is not snapshot:
                self._kept.clear()
                self._kept_of = snapshot
            self._kept[where] = snapshot, selection
            while len(self._kept) > most:
                self._kept.popitem(last=False)

    def _mask(self, snapshot: Snapshot, where: Filter, transaction: ReadTransaction | None) -> Mask:
        state = snapshot.state

        def read(first_slot: int, stop_slot: int) -> Iterator[tuple[int, bytes]]:
            source = nullcontext(transaction) if transaction else self._records.read_transaction()
            with source as moment:
                now = moment.state()
                if now.generation != state.generation:
                    raise ConflictError("slots were numbered anew while their metadata was read")
                self._read_seq = max(self._read_seq, now.last_seq)
                rows = _in_order(moment.metadata_of(first_slot, stop_slot), first_slot, stop_slot)
                n_found = yield from rows
                if now.last_seq == state.last_seq and n_found != _n_stored(snapshot, first_slot, stop_slot):
                    raise CorruptionError("metadata of records cannot be found; run verify() and repair()")

        with forks.holding_off(self._records.path), self._columns_lock:
            if self._generation != state.generation:
                self._columns.clear()
                self._kept.clear()
                self._generation, self._read_seq = state.generation, 0
            mask = self._columns.mask(where, snapshot.view.n, read)
            # What was deleted before it was read is missing from the mask, and must be dead in the snapshot.
            if state.last_seq < self._read_seq:
                raise ConflictError("records were deleted while their metadata was read")
        return mask

    @property
    def size_bytes(self) -> int:
        """Memory that columns, remembered answers and gathered codes take."""
        return self._columns.size_bytes + self._room.used_bytes


def _in_order(
    rows: Iterator[tuple[int, bytes]], first_slot: int, stop_slot: int
) -> Generator[tuple[int, bytes], None, int]:
    """The rows as they come, each once and in its range; how many. A page may be in a wrong place."""
    last, n_rows = first_slot - 1, 0
    while block := list(islice(rows, _BLOCK_ROWS)):
        slots = [last, *(slot for slot, _ in block), stop_slot]
        if not all(map(lt, slots, slots[1:])):
            wrong = next(slot for before, slot in pairwise(slots[:-1]) if not before < slot < stop_slot)
            raise CorruptionError(f"metadata of slot {wrong} is out of order; run verify() and repair()")
        last = slots[-2]
        n_rows += len(block)
        yield from block
    return n_rows


def _n_stored(snapshot: Snapshot, first_slot: int, stop_slot: int) -> int:
    """How many records there are in a range of slots: those alive, and those hidden."""
    if snapshot.alive is None:
        return stop_slot - first_slot
    first, stop = snapshot.hidden.searchsorted((first_slot, stop_slot)).tolist()
    n_hidden: int = stop - first
    return int(np.count_nonzero(snapshot.alive[first_slot:stop_slot])) + n_hidden
