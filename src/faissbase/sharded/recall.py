"""Recall of a sharded collection as it really is: recent questions asked again exactly, and compared."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.collection.recall import TOLERANCE, Measured, RecallReport, band_of_measured
from faissbase.collection.tuning import band_of
from faissbase.types import Float32, Hit, Metric, Where

_KEPT = 256
_EVERY = 16
_EXACTLY = {"recall": 1.0}


class Searched(Protocol):
    """What answers the questions: the open shards of a version."""

    @property
    def ntotal(self) -> int: ...

    def search_one(
        self, query: Float32, k: int, where: Where | None, knobs: Mapping[str, Any]
    ) -> list[Hit]: ...

    def count(self, where: Where | None) -> int: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One query ``float32[d]`` as it was asked."""

    query: Float32
    k: int
    where: Where | None
    knobs: Mapping[str, Any]

    @property
    def target(self) -> float:
        """The recall that was asked for; 0 where the effort was given instead."""
        is_explicit = any(self.knobs.get(name) is not None for name in ("nprobe", "ef_search", "rerank"))
        return 0.0 if is_explicit else (self.knobs.get("recall") or DEFAULT_RECALL)


class Questions:
    """The latest questions: all of the first ones, then every sixteenth. Thread-safe."""

    def __init__(self) -> None:
        self._kept: deque[Question] = deque(maxlen=_KEPT)
        self._n = 0
        self._lock = threading.Lock()

    def note(self, queries: Float32, k: int, where: Where | None, knobs: Mapping[str, Any]) -> None:
        """Take note of a search; of a batch, its first query."""
        self._n = n = self._n + 1  # a lost count between threads does no harm
        if (n % _EVERY and n > _KEPT) or not len(queries):
            return
        with self._lock:
            self._kept.append(Question(queries[0].copy(), k, where, knobs))

    def sample(self) -> list[Question]:
        """The questions, oldest first."""
        with self._lock:
            return list(self._kept)


def measured_recall(
    group: Searched, metric: Metric, questions: Sequence[Question], budget_s: float, *, is_exact: bool
) -> RecallReport:
    """Ask each question again, exactly and as it was asked, within ``budget_s`` seconds of CPU time.

    ``is_exact`` says that no shard has an index. Efforts are not changed by what is found: a shard's are in
    its files, and those never change.
    """
    start = time.process_time()
    measured: list[Measured] = []
    for question in questions:
        if measured and time.process_time() - start > budget_s:
            break
        found = _measure(group, metric, question, is_exact=is_exact)
        if found is not None:
            measured.append(found)
    bands = tuple(
        band_of_measured(at, [each for each in measured if each.band == at])
        for at in sorted({each.band for each in measured})
    )
    return RecallReport(bands, len(questions), len(measured), time.process_time() - start)


def _measure(group: Searched, metric: Metric, question: Question, *, is_exact: bool) -> Measured | None:
    """One question; None where nothing matches any more."""
    exact = group.search_one(question.query, question.k, question.where, _EXACTLY)
    if not exact:
        return None
    found = group.search_one(question.query, question.k, question.where, question.knobs)
    kth = _distance(exact[-1])
    slack = TOLERANCE * (abs(kth) + 1e-30)
    sign = 1.0 if metric == "l2" else -1.0
    n_right = sum(sign * _distance(hit) <= sign * kth + slack for hit in found)
    share = group.count(question.where) / max(1, group.ntotal) if question.where else 1.0
    recall = min(1.0, n_right / len(exact))
    return Measured(band_of(share), recall, question.target, is_exact or question.target == 1.0)


def _distance(hit: Hit) -> float:
    assert hit.distance is not None
    return hit.distance
