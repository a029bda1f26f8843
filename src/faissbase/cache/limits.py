"""How much a cache may hold, and which entries go first. Knows keys, sizes and uses: no storage, no clock."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from faissbase.cache.entries import Entry
from faissbase.cache.matching import CacheHit
from faissbase.errors import InvalidInputError

Eviction: TypeAlias = Literal["lru", "lfu"]
_BATCH_SHARE = 1024  # a thousandth more than needed is evicted at once, so that few stores pay for it


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_entries`` and ``max_bytes`` (values, prompts and vectors); None is no limit."""

    max_entries: int | None = None
    max_bytes: int | None = None
    eviction: Eviction = "lru"

    def __post_init__(self) -> None:
        for name in ("max_entries", "max_bytes"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InvalidInputError(f"{name} must be a whole number from 1, got {value!r}")
        if self.eviction not in ("lru", "lfu"):
            raise InvalidInputError(f"eviction must be 'lru' or 'lfu', got {self.eviction!r}")

    @property
    def is_set(self) -> bool:
        return self.max_entries is not None or self.max_bytes is not None


@dataclass(slots=True)
class _Use:
    size_bytes: int
    expires_at: float | None
    uses: int
    used_at: float
    is_new: bool = False  # used since it was last stored how often

    def has_expired(self, now: float) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Ledger:
    """Which entries there are and how they are used, the one used longest ago first. Thread-safe."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._uses: OrderedDict[str, _Use] = OrderedDict()
        self._is_loaded = False
        self._n_storing = 0
        self.total_bytes = 0

    def __len__(self) -> int:
        return len(self._uses)

    def load(self, entries: Iterable[Entry]) -> None:
        """Begin anew with these; what is known of their use is kept."""
        found = sorted(entries, key=lambda entry: max(entry.used_at, entry.stored_at))
        with self._lock:
            self._is_loaded = True
            known, self._uses, self.total_bytes = self._uses, OrderedDict(), 0
            for entry in found:
                self._put(entry)
            for key, use in known.items():
                if key in self._uses:
                    self._uses[key].uses, self._uses[key].is_new = use.uses, use.is_new
                    self._uses[key].used_at = use.used_at
                    self._uses.move_to_end(key)

    @contextmanager
    def storing(self, entry: Entry) -> Iterator[None]:
        """Around its storing: what is there and not known here meanwhile is not somebody else's writing."""
        with self._lock:
            self._n_storing += 1
        try:
            yield
        except BaseException:
            with self._lock:
                self._n_storing -= 1
            raise
        with self._lock:
            self._n_storing -= 1
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        previous = self._uses.pop(entry.key, None)
        self.total_bytes += entry.size_bytes - (previous.size_bytes if previous else 0)
        self._uses[entry.key] = _Use(entry.size_bytes, entry.expires_at, entry.uses, entry.used_at)

    def note_used(self, hit: CacheHit, now: float) -> None:
        """Somebody was served by this entry, which may be unknown here: another process has stored it."""
        with self._lock:
            use = self._uses.get(hit.key)
            if use is None:
                use = self._uses[hit.key] = _Use(hit.size_bytes, hit.expires_at, 0, now)
                self.total_bytes += hit.size_bytes
            use.uses, use.used_at, use.is_new = use.uses + 1, now, True
            self._uses.move_to_end(hit.key)

    def must_load(self, count: Callable[[], int]) -> bool:
        """Whether as many entries as there are would exceed a limit, and not all of them are known.

        They are taken to be as large as those known. Neither may those known exceed a limit: evicting by
        entries that others have removed would spare them and take those that are there.
        """
        limits = self.limits
        known_before = len(self._uses)
        n_entries = count()
        with self._lock:  # what was stored here since the counting began is known, or is being stored
            if known_before <= n_entries <= len(self._uses) + self._n_storing:
                return False
        if not self._is_loaded or max(self._over()) > 0:
            return True
        if limits.max_entries is not None and n_entries > limits.max_entries:
            return True
        size_bytes = self.total_bytes * n_entries / max(1, len(self._uses))
        return limits.max_bytes is not None and size_bytes > limits.max_bytes

    def forget(self, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                use = self._uses.pop(key, None)
                self.total_bytes -= use.size_bytes if use else 0

    def new_uses(self) -> dict[str, tuple[int, float]]:
        """How often and when last those were used whose use is not stored yet; it counts as stored now."""
        with self._lock:
            found = {key: (use.uses, use.used_at) for key, use in self._uses.items() if use.is_new}
            for key in found:
                self._uses[key].is_new = False
        return found

    def excess(self, now: float, newest: str) -> list[str]:
        """The keys to remove so that the limits hold, and a few more; ``newest``, just stored, stays."""
        with self._lock:
            n_over, bytes_over = self._over()
            if n_over <= 0 and bytes_over <= 0:
                return []
            n_over += (self.limits.max_entries or 0) // _BATCH_SHARE if n_over > 0 else 0
            bytes_over += (self.limits.max_bytes or 0) // _BATCH_SHARE if bytes_over > 0 else 0
            victims: list[str] = []
            for key in self._order(now):
                if n_over <= 0 and bytes_over <= 0:
                    break
                if key != newest:
                    victims.append(key)
                    n_over, bytes_over = n_over - 1, bytes_over - self._uses[key].size_bytes
            return victims

    def _over(self) -> tuple[int, int]:
        limits = self.limits
        n_over = len(self._uses) - limits.max_entries if limits.max_entries is not None else 0
        bytes_over = self.total_bytes - limits.max_bytes if limits.max_bytes is not None else 0
        return n_over, bytes_over

    def _order(self, now: float) -> Iterable[str]:
        """Who goes first: what has expired, then by use."""
        expired = [key for key, use in self._uses.items() if use.has_expired(now)]
        yield from expired
        gone = set(expired)
        if self.limits.eviction == "lru":
            yield from (key for key in self._uses if key not in gone)
            return
        by_use = [(use.uses, place, key) for place, (key, use) in enumerate(self._uses.items())]
        heapq.heapify(by_use)
        while by_use:
            key = heapq.heappop(by_use)[2]
            if key not in gone:
                yield key
