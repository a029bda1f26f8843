"""Part 4: one reader alone, and beside one writer at full speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ann_fleet import Fleet, attempt, curve_point
from benchmarks.ann_search import OURS
from benchmarks.ann_timing import Arm, Timed, recall_of, warm_up
from benchmarks.figures import Figure, at_least, at_most, spread
from benchmarks.systems.interface import System
from benchmarks.timing import ratios

PART = "reading while writing"
_TARGET = 0.95
_KEPT = 0.5
_SLOWER = 10.0
_NOTE = (
    "the writer stores records again one by one under their ids, with the vectors they have, "
    "so that the exact answers stay what they are"
)


@dataclass(slots=True)
class _Reading:
    """What one reader saw: its answers and the time of each call."""

    timed: Timed = field(default_factory=Timed)
    calls_s: list[float] = field(default_factory=list)

    @property
    def p99_ms(self) -> float:
        return 1e3 * float(np.percentile(self.calls_s, 99))


@dataclass(slots=True)
class _Seen:
    """The rounds of one system."""

    quiet: list[_Reading] = field(default_factory=list)
    busy: list[_Reading] = field(default_factory=list)
    writes_per_s: list[float] = field(default_factory=list)
    recalls: list[float] = field(default_factory=list)


def run(fleet: Fleet, curves: list[dict[str, Any]], seed: int) -> Iterator[Figure]:
    """Every database in turn, at its cheapest setting that reaches 0.95 when nothing is written."""
    for system in fleet.systems:
        effort = fleet.cheapest(system, _TARGET)
        if system.kind == "library" or effort is None:
            continue
        arm = Arm(system, effort, fleet.data)
        seen = attempt(system.name, partial(_rounds, fleet, arm, seed))
        if seen is not None:
            yield from _figures(fleet, system, seen, curves)


def _rounds(fleet: Fleet, arm: Arm, seed: int) -> _Seen:
    seen = _Seen()
    rows = np.random.default_rng(seed).permutation(len(fleet.data.dataset.ids)).tolist()
    for _ in range(1 if fleet.pace.is_quick else 3):
        warm_up(arm)
        seen.quiet.append(_read(arm, fleet.pace.live_s))
        reading, writes_per_s = _beside_a_writer(arm, rows, fleet.pace.live_s)
        seen.busy.append(reading)
        seen.writes_per_s.append(writes_per_s)
        truth = fleet.data.dataset.truth
        seen.recalls.append(recall_of(fleet.data, reading.timed.answers, truth))
    return seen


def _read(arm: Arm, during_s: float) -> _Reading:
    nq, reading = len(arm.data.dataset.xq), _Reading()
    start = now = time.perf_counter()
    while now - start < during_s:
        query = reading.timed.n % nq
        reading.timed.answers[query] = arm.one(query)
        before, now = now, time.perf_counter()
        reading.calls_s.append(now - before)
        reading.timed.n += 1
    reading.timed.seconds = now - start
    return reading


def _beside_a_writer(arm: Arm, rows: list[int], during_s: float) -> tuple[_Reading, float]:
    """The reading, and upserts per second meanwhile."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(_write, arm, rows, stop)
        try:
            reading = _read(arm, during_s)
        finally:
            stop.set()
        return reading, writing.result()


def _write(arm: Arm, rows: list[int], stop: threading.Event) -> float:
    dataset, n = arm.data.dataset, 0
    start = time.perf_counter()
    while not stop.is_set():
        row = rows[n % len(rows)]
        arm.system.upsert(dataset.ids[row], dataset.xb[row], dataset.metadatas[row])
        n += 1
    return n / (time.perf_counter() - start)


def _figures(fleet: Fleet, system: System, seen: _Seen, curves: list[dict[str, Any]]) -> Iterator[Figure]:
    data, right = fleet.data.dataset.name, min(seen.recalls)
    quiet = [reading.timed.per_s for reading in seen.quiet]
    busy = [reading.timed.per_s for reading in seen.busy]
    quiet_p99 = [reading.p99_ms for reading in seen.quiet]
    busy_p99 = [reading.p99_ms for reading in seen.busy]
    kept, slower = spread(ratios(busy, quiet)), spread(ratios(busy_p99, quiet_p99))
    is_ours = system.name == OURS
    lines = (
        ("reader alone", "queries/s", spread(quiet), None, None),
        ("reader beside the writer", "queries/s", spread(busy), None, right),
        ("writer beside the reader", "upserts/s", spread(seen.writes_per_s), None, None),
        ("reader: beside / alone", "x", kept, at_least(_KEPT, kept.median), right),
        ("reader alone: p99", "ms", spread(quiet_p99), None, None),
        ("reader beside the writer: p99", "ms", spread(busy_p99), None, right),
        ("reader p99: beside / alone", "x", slower, at_most(_SLOWER, slower.median), right),
    )
    for name, unit, middle, target, recall in lines:
        met = target if is_ours else None
        yield Figure(
            PART, data, f"{system.name}, {name}", unit, middle, met, recall, _NOTE if is_ours else ""
        )
    values = {"quiet_per_s": spread(quiet).median, "busy_per_s": spread(busy).median}
    writes = spread(seen.writes_per_s).median
    curves.append(curve_point("live", fleet.data, system, **values, writes_per_s=writes, recall=right))
