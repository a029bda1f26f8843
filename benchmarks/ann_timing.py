"""Searches timed three ways: one thread on one core, two threads, batches. Keeps the answers it timed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ann_data import AnnData, K
from benchmarks.datasets import Rows
from benchmarks.machine import cores
from benchmarks.systems.interface import Effort, Key, System, Where
from benchmarks.truth import recall

BATCH = 64
_MAX_S = 4.0  # of one timing; a slow system answers fewer queries
_WARM_UP = 30


@dataclass(slots=True)
class Timed:
    """``n`` answers in ``seconds``, the latest to each query kept."""

    n: int = 0
    seconds: float = 0.0
    answers: dict[int, list[Key]] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        return self.n / self.seconds


@contextmanager
def one_core(number: int) -> Iterator[None]:
    """All threads of this process on one core, those that libraries started too."""
    allowed = sorted(os.sched_getaffinity(0))
    _pin({allowed[number % len(allowed)]})
    try:
        yield
    finally:
        _pin(set(allowed))


def _pin(allowed: set[int]) -> None:
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), allowed)
        except ProcessLookupError:
            continue  # the thread has ended since


@dataclass(frozen=True, eq=False)
class Arm:
    """A system at one effort, with the filter of each query if there are any."""

    system: System
    effort: Effort
    data: AnnData
    wheres: Sequence[Where] | None = None

    def one(self, query: int) -> list[Key]:
        where = self.wheres[query] if self.wheres else None
        return self.system.search(self.data.dataset.xq[query], K, self.effort, where)


def one_thread(arm: Arm, min_s: float, *, core: int = 0, max_s: float = _MAX_S) -> Timed:
    """One query after another on one core."""
    arm.system.use_threads(1)
    with one_core(core):
        return _asked(arm, range(len(arm.data.dataset.xq)), min_s, max(min_s, max_s))


def two_threads(arm: Arm, min_s: float) -> Timed:
    """Two threads, each with half of the queries, one after another."""
    nq = len(arm.data.dataset.xq)
    parts: list[Timed] = []

    def work(first: int) -> None:
        arm.system.use_threads(1)
        parts.append(_asked(arm, range(first, nq, 2), min_s, _MAX_S))

    workers = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = time.perf_counter() - start
    together = Timed(sum(part.n for part in parts), taken)
    for part in parts:
        together.answers.update(part.answers)
    return together


def batches(arm: Arm, min_s: float) -> Timed:
    """Batches of 64, on as many threads as the system likes."""
    arm.system.use_threads(cores())
    xq, timed = arm.data.dataset.xq, Timed()
    start = time.perf_counter()
    while True:
        for first in range(0, len(xq) - BATCH + 1, BATCH):
            found = arm.system.search_batch(xq[first : first + BATCH], K, arm.effort)
            timed.n += BATCH
            timed.answers.update(enumerate(found, first))
            timed.seconds = time.perf_counter() - start
            if timed.seconds > _MAX_S:
                return timed
        if timed.seconds >= min_s:
            return timed


def _asked(arm: Arm, queries: range, min_s: float, max_s: float) -> Timed:
    """All queries, again and again until ``min_s`` have passed; some of them where ``max_s`` have."""
    timed = Timed()
    start = time.perf_counter()
    while True:
        for query in queries:
            timed.answers[query] = arm.one(query)
            timed.n += 1
            if timed.n % 8 == 0 and time.perf_counter() - start > max_s:
                break
        timed.seconds = time.perf_counter() - start
        if timed.seconds >= min_s:
            return timed


def warm_up(arm: Arm) -> None:
    """Untimed queries, after the effort was set."""
    arm.system.prepare(arm.effort)
    arm.system.use_threads(1)
    for query in range(min(_WARM_UP, len(arm.data.dataset.xq))):
        arm.one(query)


def recall_of(data: AnnData, answers: Mapping[int, Sequence[Key]], truth: Rows) -> float:
    """Recall@10 of the answers that there are."""
    found = [
        [key if isinstance(key, int) else data.row_of[key] for key in answers.get(query, ())]
        for query in range(len(truth))
    ]
    asked = truth.copy()
    asked[[query for query in range(len(truth)) if query not in answers]] = -1
    return recall(data.dataset, found, asked, K)
