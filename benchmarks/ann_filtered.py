"""Part 2: filtered search from 0.01 % to 80 %, with filters that go with the vectors and against them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.ann_data import AnnData, K, nearest
from benchmarks.ann_fleet import Fleet, curve_point, efforts_of
from benchmarks.ann_search import OURS, fastest
from benchmarks.ann_timing import Arm, Timed, one_thread, recall_of, warm_up
from benchmarks.datasets import Rows
from benchmarks.figures import Figure, at_least, spread
from benchmarks.systems.interface import Below, Effort, Equal, System, Where
from benchmarks.systems.ours import Faissbase
from benchmarks.timing import interleaved, ratios

PART = "filtered approximate search"
_TARGET = 0.95
_SHARES = (0.0001, 0.001, 0.004, 0.016, 0.06, 0.19, 0.51, 0.8)
_QUICK_SHARES = (0.0001, 0.001, 0.016, 0.19, 0.8)
_GAIN = 1.2
_OURS_EFFORT = Effort(f"recall={_TARGET:g}", {"recall": _TARGET})


@dataclass(frozen=True, eq=False)
class Band:
    """A filter for each query, with the exact answers; ``share`` is the mean share of rows that match."""

    name: str
    wheres: Sequence[Where]
    truth: Rows
    share: float
    is_random: bool


@dataclass(frozen=True, slots=True)
class _Chosen:
    arm: Arm
    recall: float


def run(fleet: Fleet, curves: list[dict[str, Any]]) -> Iterator[Figure]:
    """Each band: every peer's cheapest setting that reaches 0.95, else its best; faissbase asked for it."""
    shares = _QUICK_SHARES if fleet.pace.is_quick else _SHARES
    for band in bands(fleet.data, shares):
        yield from _measured(fleet, band, curves)


def bands(data: AnnData, shares: Sequence[float]) -> Iterator[Band]:
    """Random subsets by ``rank``; the query's nearest cluster; its farthest."""
    n, nq = len(data.dataset.ids), len(data.dataset.xq)
    ranks = data.column("rank")
    for share in shares:
        limit = max(1, round(share * n))
        truth = _truth(data, np.arange(nq), np.flatnonzero(ranks < limit))
        wheres = [Below("rank", limit)] * nq
        yield Band(f"random {100 * share:g} %", wheres, truth, limit / n, True)
    order = np.argsort(data.distances_to_clusters, axis=1)
    yield _by_cluster(data, "correlated: the query's own cluster", order[:, 0])
    yield _by_cluster(data, "anti-correlated: the farthest cluster", order[:, -1])


def _truth(data: AnnData, queries: Rows, among: Rows) -> Rows:
    dataset = data.dataset
    return nearest(dataset.xb, dataset.xq[queries], K, dataset.metric, among.astype(np.int64))


def _by_cluster(data: AnnData, name: str, wanted: Rows) -> Band:
    clusters = data.column("cluster")
    truth = np.full((len(wanted), K), -1, np.int64)
    for cluster in np.unique(wanted):
        queries = np.flatnonzero(wanted == cluster)
        truth[queries] = _truth(data, queries, np.flatnonzero(clusters == cluster))
    sizes = np.bincount(clusters, minlength=int(wanted.max()) + 1)
    share = float(sizes[wanted].mean()) / len(clusters)
    wheres = [Equal("cluster", int(cluster)) for cluster in wanted]
    return Band(f"{name}, {100 * share:.2g} %", wheres, truth, share, False)


def _measured(fleet: Fleet, band: Band, curves: list[dict[str, Any]]) -> Iterator[Figure]:
    chosen = {system.name: _choose(fleet, system, band) for system in fleet.systems if system.has_filters}
    last: dict[str, Timed] = {}
    for system in fleet.systems:
        if isinstance(system, Faissbase):
            system.settle()

    def once(name: str) -> float:
        warm_up(chosen[name].arm)
        last[name] = one_thread(chosen[name].arm, fleet.pace.min_s / 2)
        return last[name].per_s

    taken = interleaved({name: partial(once, name) for name in chosen}, fleet.pace.rounds)
    recalls = {name: recall_of(fleet.data, timed.answers, band.truth) for name, timed in last.items()}
    data = fleet.data.dataset.name
    for name, per_s in taken.items():
        title = f"{band.name}: {name} ({chosen[name].arm.effort.name})"
        middle = spread(per_s)
        yield Figure(PART, data, title, "queries/s", middle, recall=recalls[name])
        values = {"share": band.share, "recall": recalls[name], "per_s": middle.median}
        if band.is_random:
            curves.append(curve_point("filtered", fleet.data, chosen[name].arm.system, **values))
    yield from _verdicts(data, band, taken, recalls)


def _choose(fleet: Fleet, system: System, band: Band) -> _Chosen:
    """The first effort, from the cheapest, whose recall reaches 0.95 under the filter; else the best one."""
    tried: list[_Chosen] = []
    for effort in _efforts(fleet, system):
        arm = Arm(system, effort, fleet.data, band.wheres)
        warm_up(arm)
        timed = one_thread(arm, 0, max_s=0.5 if fleet.pace.is_quick else 2.0)
        tried.append(_Chosen(arm, recall_of(fleet.data, timed.answers, band.truth)))
        if tried[-1].recall >= _TARGET:
            return tried[-1]
    return max(tried, key=lambda one: one.recall)


def _efforts(fleet: Fleet, system: System) -> Sequence[Effort]:
    if system.name == OURS:
        return [_OURS_EFFORT]
    return efforts_of(system, fleet.pace)


def _verdicts(
    data: str, band: Band, taken: dict[str, list[float]], recalls: dict[str, float]
) -> Iterator[Figure]:
    if OURS not in taken:
        return
    right = recalls[OURS]
    name = f"{band.name}: recall@10 of faissbase, asked for {_TARGET:g}"
    yield Figure(PART, data, name, "recall", spread([right]), at_least(_TARGET, right), right)
    able = {name: per_s for name, per_s in taken.items() if name != OURS and recalls[name] >= _TARGET}
    best = fastest(able)
    if best:
        gain = spread(ratios(taken[OURS], taken[best]))
        name = f"{band.name}: faissbase / fastest peer at {_TARGET:g} ({best})"
        yield Figure(PART, data, name, "x", gain, at_least(_GAIN, gain.median), right)
