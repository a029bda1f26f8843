"""Numbers by slot that grow by one at a time, and who stands beside whom in a session."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from faissbase.memory.bm25 import Scores


class Column:
    """A NumPy array that can be appended to; `values` is a view and ends at the last value."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._array: NDArray[Any] = np.zeros(64, dtype)
        self._n = 0

    @property
    def values(self) -> NDArray[Any]:
        return self._array[: self._n]

    def append(self, value: float) -> None:
        if self._n == len(self._array):
            self._array = np.concatenate([self._array, np.zeros_like(self._array)])
        self._array[self._n] = value
        self._n += 1


class Neighbours:
    """The slot before and after each slot within its session; -1 where there is none."""

    def __init__(self) -> None:
        self._before, self._after = Column(np.int64), Column(np.int64)
        self._last: dict[int, int] = {}

    def append(self, session: int) -> None:
        """The next slot ends ``session`` for now."""
        slot = len(self._before.values)
        before = self._last.get(session, -1)
        self._before.append(before)
        self._after.append(-1)
        if before >= 0:
            self._after.values[before] = slot
        self._last[session] = slot

    def remove(self, slot: int, session: int) -> None:
        """Those beside ``slot`` become neighbours of each other."""
        before, after = int(self._before.values[slot]), int(self._after.values[slot])
        if after >= 0:
            self._before.values[after] = before
        if before >= 0:
            self._after.values[before] = after
        if self._last[session] == slot:
            self._last[session] = before
        if self._last[session] < 0:
            del self._last[session]
        self._before.values[slot] = self._after.values[slot] = -1

    def share(self, scores: Scores, before: float, after: float) -> Scores:
        """``before`` times the score of the slot before plus ``after`` times that of the slot after."""
        padded = np.append(scores, 0.0)  # -1 is its last place
        shared: Scores = before * padded[self._before.values] + after * padded[self._after.values]
        return shared
