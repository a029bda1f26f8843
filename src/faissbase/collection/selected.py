"""Slots that a search may return, in each form that a path of the search wants. Knows arrays only."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

import numpy as np

from faissbase.ann.flat import Subset
from faissbase.ann.gathered import Codes, Gathered
from faissbase.ann.segment import Selector
from faissbase.types import Mask, Slots


class Room:
    """Memory for gathered codes, shared by all selections of a collection."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.RLock()  # a finalizer may come while it is held
        self.used_bytes = 0

    def has(self, n_bytes: int) -> bool:
        return self.used_bytes + n_bytes <= self._most_bytes

    def take(self, n_bytes: int) -> bool:
        """Whether there was so much left; it is then taken."""
        with self._lock:
            is_there = self.has(n_bytes)
            self.used_bytes += n_bytes if is_there else 0
        return is_there

    def give(self, n_bytes: int) -> None:
        with self._lock:
            self.used_bytes -= n_bytes


class Selection:
    """Slots that may be returned. ``mask`` is ``bool[n]``, or None where every slot may.

    ``spared_ms`` is what searches would have saved so far, had the codes been gathered. ``n_undecided`` rises
    with a query that codes could not decide, and falls with one that they could.
    """

    def __init__(self, mask: Mask | None, n: int, count: int, room: Room | None = None) -> None:
        self.mask = mask
        self.n = n
        self.count = count
        self.spared_ms = 0.0
        self._room = room
        self._subset: Subset | None = None
        self._selector: Selector | None = None
        self._shares: dict[tuple[int, int], float] = {}
        self._gathering = threading.Lock()
        self.n_undecided = 0
        self._gathered: tuple[Gathered, ...] | None = None

    @property
    def selector(self) -> Selector | None:
        """The mask as an index takes it, or None where every slot may be returned; made once."""
        if self._selector is None and self.mask is not None:
            self._selector = Selector(self.mask)
        return self._selector

    @property
    def subset(self) -> Subset:
        """The slots as an exact search takes them; made once."""
        if self._subset is None:
            self._subset = Subset(np.arange(self.n) if self.mask is None else np.flatnonzero(self.mask))
        return self._subset

    @property
    def slots(self) -> Slots:
        """The slots themselves, ascending."""
        return self.subset.slots

    def share_of(self, first: int, stop: int) -> float:
        """The part of some slots that is selected; counted once."""
        if self.mask is None:
            return 1.0
        share = self._shares.get((first, stop))
        if share is None:
            count = np.count_nonzero(self.mask[first:stop])
            share = self._shares[first, stop] = int(count) / max(1, stop - first)
        return share

    @property
    def is_gathered(self) -> bool:
        return self._gathered is not None

    def may_gather(self, codes: Sequence[Codes]) -> bool:
        """Whether there is memory for what `gather` makes, or it is made already."""
        has_room = self._room is not None and self._room.has(max(each.bytes_of(self.count) for each in codes))
        return self._gathered is not None or has_room

    def gather(self, codes: Sequence[Codes]) -> tuple[Gathered, ...] | None:
        """The codes of these slots in each segment that has some; made once, None where memory is short."""
        with self._gathering:
            return self._gathered_once(codes)

    def _gathered_once(self, codes: Sequence[Codes]) -> tuple[Gathered, ...] | None:
        if self._gathered is None:
            n_bytes = max(each.bytes_of(self.count) for each in codes)
            if self._room is None or not self._room.take(n_bytes):
                return None
            weakref.finalize(self, self._room.give, n_bytes)
            parts = ((each, self._slots_of(each)) for each in codes)
            self._gathered = tuple(each.gathered(slots) for each, slots in parts if len(slots))
        return self._gathered

    def _slots_of(self, codes: Codes) -> Slots:
        first, stop = self.slots.searchsorted((codes.first, codes.first + len(codes.matrix)))
        return self.slots[first:stop]
