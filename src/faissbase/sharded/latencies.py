"""How long answers have taken: what is long enough to ask somebody else. Pure, and thread-safe."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable

_KEPT = 128
_LEAST = 16
_EVERY = 8
_QUANTILE = 0.95


class Latencies:
    """The last times by key, and the 95th of a hundred."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: dict[Hashable, deque[float]] = {}
        self._added: dict[Hashable, int] = {}
        self._p95: dict[Hashable, float] = {}

    def add(self, key: Hashable, seconds: float) -> None:
        """Count one more answer."""
        with self._lock:
            times = self._times.setdefault(key, deque(maxlen=_KEPT))
            times.append(seconds)
            added = self._added[key] = self._added.get(key, 0) + 1
            if len(times) >= _LEAST and added % _EVERY == 0:
                self._p95[key] = sorted(times)[int(len(times) * _QUANTILE)]

    def p95_s(self, key: Hashable) -> float | None:
        """The time that 19 of 20 answers kept; None while fewer than 16 have come."""
        return self._p95.get(key)
