"""The entries of a cache within their limits: found until they expire or must make room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from faissbase.cache.counters import Counting
from faissbase.cache.entries import Entries, Entry, Selection
from faissbase.cache.limits import Ledger, Limits
from faissbase.cache.matching import CacheHit
from faissbase.errors import FaissbaseError, InvalidInputError
from faissbase.types import Float32

Clock = Callable[[], float]
_PURGE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """An answer that is to be kept: what is known of it before it is there, and how long it is good."""

    facts: Entry
    ttl_s: float | None
    keep_if: Callable[[Any], bool] | None = None


class Shelf:
    """Puts, uses and removes entries, and keeps the limits. Thread-safe."""

    def __init__(self, entries: Entries, limits: Limits, counting: Counting, clock: Clock) -> None:
        self.entries = entries
        self._counting = counting
        self._clock = clock
        self._ledger = Ledger(limits) if limits.is_set else None
        self._making_room = threading.Lock()
        self._next_purge = clock() + _PURGE_EVERY_S

    def put(self, order: Order, value: Any, vector: Float32, seconds: float) -> bool:
        """Keep an answer; False where it alone is larger than the cache may be.

        Raises
        ------
        InvalidInputError
            The value is not JSON, and not kept in memory.
        """
        now = self._clock()
        with self.entries.writing():  # or a removal between the two would leave a record without its value
            entry = self._entry_of(order, value, seconds, now)
            if not self._put(entry, vector):
                return False
        self._counting.add(stored=1)
        if self._ledger is not None:
            self._make_room(self._ledger, now, entry.key)
        if now >= self._next_purge:
            self.purge()
        return True

    def _put(self, entry: Entry, vector: Float32) -> bool:
        if self._ledger is None:
            self.entries.put(entry, vector)
            return True
        if entry.size_bytes > (self._ledger.limits.max_bytes or entry.size_bytes):
            self.entries.forget(entry)
            return False
        with self._ledger.storing(entry):
            self.entries.put(entry, vector)
        return True

    def _entry_of(self, order: Order, value: Any, seconds: float, now: float) -> Entry:
        text = self.entries.encode(value)
        return replace(
            order.facts,
            text=text,
            stored_at=now,
            expires_at=None if order.ttl_s is None else now + order.ttl_s,
            seconds=seconds,
            size_bytes=self.entries.size_bytes(value, order.facts.prompt, text),
            used_at=now,
        )

    def _make_room(self, ledger: Ledger, now: float, newest: str) -> None:
        with self._making_room:
            if ledger.must_load(lambda: len(self.entries)):  # others write here, too
                ledger.load(self.entries.all())
            excess = ledger.excess(now, newest)
            self.entries.remove(excess)
            ledger.forget(excess)
        if excess:
            self._counting.add(evicted=len(excess))

    def note_used(self, hit: CacheHit) -> None:
        if self._ledger is not None:
            self._ledger.note_used(hit, self._clock())

    def remove(self, keys: list[str]) -> int:
        n_removed = self.entries.remove(keys)
        if self._ledger is not None:
            self._ledger.forget(keys)
        return n_removed

    def remove_selected(self, selection: Selection) -> int:
        if selection.key is not None:
            return self.remove([selection.key])
        n_removed, keys = self.entries.remove_where(selection.where())
        if self._ledger is not None:
            self._ledger.forget(keys)
        return n_removed

    def purge(self) -> int:
        """Remove what has expired, which is not served even before; how many entries that were."""
        now = self._clock()
        self._next_purge = now + _PURGE_EVERY_S
        n_removed, keys = self.entries.remove_where({"expires_at": {"$lte": now}})
        if self._ledger is not None:
            self._ledger.forget(keys)
        return n_removed

    def clear(self) -> None:
        self.entries.clear()
        if self._ledger is not None:
            self._ledger.load([])

    def close(self) -> None:
        """Store how entries were used, for the eviction of those who open the cache next."""
        if self._ledger is not None:
            with suppress(FaissbaseError):  # only the order of eviction hangs on it
                self.entries.note_uses(self._ledger.new_uses())


def check_ttl(ttl_s: float | None) -> float | None:
    """``ttl_s``, a positive number of seconds, or None for ever."""
    if ttl_s is None:
        return None
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s < float("inf"):
        raise InvalidInputError(f"ttl_s must be a positive number of seconds or None, got {ttl_s!r}")
    return float(ttl_s)
