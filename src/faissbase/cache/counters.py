"""What a cache has done since it was opened."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Counters:
    """Numbers of one moment.

    Attributes
    ----------
    exact_hits, similar_hits, misses : int
        Look-ups by how they ended.
    shared : int
        Calls that waited for another one's computation of the same prompt and took its answer.
    false_hits : int
        Hits that were reported as wrong.
    stored, evicted : int
        Entries written, and entries removed by the limits.
    not_stored : int
        Computed answers that were returned and not kept: refused by ``keep_if``, invalidated while they were
        computed, cut off, or not storable.
    saved_seconds : float
        What computing had taken, of every answer that was served without computing it.
    """

    exact_hits: int = 0
    similar_hits: int = 0
    misses: int = 0
    shared: int = 0
    false_hits: int = 0
    stored: int = 0
    evicted: int = 0
    not_stored: int = 0
    saved_seconds: float = 0.0

    @property
    def hits(self) -> int:
        return self.exact_hits + self.similar_hits

    @property
    def hit_rate(self) -> float:
        """Share of calls that were answered without computing; 0 before the first."""
        served = self.hits + self.shared
        return served / (served + self.misses) if served + self.misses else 0.0


class Counting:
    """Counters that threads add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Counters()

    def add(self, **more: float) -> None:
        """Add to the counters named."""
        with self._lock:
            self._now = replace(
                self._now, **{name: getattr(self._now, name) + value for name, value in more.items()}
            )

    def read(self) -> Counters:
        return self._now
