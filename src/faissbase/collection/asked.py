"""What has been asked of a collection lately: a sample of the real questions, to measure recall with."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from faissbase.collection.planner import Wanted
from faissbase.filters.tree import Filter
from faissbase.types import Float32

_KEPT = 256
_EVERY = 16


@dataclass(frozen=True, slots=True)
class Question:
    """One query ``float32[1, d]`` as it was asked."""

    query: Float32
    k: int
    where: Filter
    wanted: Wanted


class Asked:
    """The latest questions: all of the first ones, then every sixteenth."""

    def __init__(self) -> None:
        self._kept: deque[Question] = deque(maxlen=_KEPT)
        self._n = 0
        self._lock = threading.Lock()

    def note(self, queries: Float32, k: int, where: Filter, wanted: Wanted) -> None:
        """Take note of a search; of a batch, its first query."""
        self._n = n = self._n + 1  # a lost count between threads does no harm
        if (n % _EVERY and n > _KEPT) or not len(queries):
            return
        question = Question(queries[:1].copy(), k, where, wanted)
        with self._lock:
            self._kept.append(question)

    def questions(self) -> list[Question]:
        """The sample, oldest first."""
        with self._lock:
            return list(self._kept)
