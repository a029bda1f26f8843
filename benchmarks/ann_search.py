"""Part 1: queries/s at recall@10 of 0.95 and 0.99: one thread, two threads, batches of 64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

from benchmarks.ann_fleet import Fleet, curve_point
from benchmarks.ann_timing import BATCH, Arm, Timed, batches, one_thread, recall_of, two_threads, warm_up
from benchmarks.figures import Figure, Spread, Target, at_least, spread
from benchmarks.systems.interface import System
from benchmarks.timing import interleaved, ratios

PART = "approximate search"
OURS = "faissbase"
_TARGETS = (0.95, 0.99)
_ONE, _TWO, _BATCHES = "one thread", "two threads", f"batches of {BATCH}"
_LIMITS = {
    (_ONE, 0.95): 1.2,
    (_ONE, 0.99): 1.0,
    (_TWO, 0.95): 1.5,
    (_TWO, 0.99): 1.5,
    (_BATCHES, 0.95): 1.5,
    (_BATCHES, 0.99): 1.5,
}
_OF_RAW_FAISS = 0.9
_RAW_FAISS = "FAISS HNSW"


def run(fleet: Fleet, curves: list[dict[str, Any]]) -> Iterator[Figure]:
    """Sweep every system, then measure the cheapest sufficient settings in turn."""
    for system in fleet.systems:
        for point in fleet.sweep(system):
            curves.append(
                curve_point(
                    "search",
                    fleet.data,
                    system,
                    effort=point.effort.name,
                    recall=point.recall,
                    per_s=point.per_s,
                )
            )
    for target in _TARGETS:
        yield from _at(fleet, target)


def _at(fleet: Fleet, target: float) -> Iterator[Figure]:
    arms: dict[str, Arm] = {}
    for system in fleet.systems:
        effort = fleet.cheapest(system, target)
        if effort is None:
            yield _falls_short(fleet, system, target)
        else:
            arms[system.name] = Arm(system, effort, fleet.data)
    modes: dict[str, Callable[[Arm], Timed]] = {
        _ONE: partial(_on_alternate_cores, count(), fleet.pace.min_s),
        _TWO: lambda arm: two_threads(arm, fleet.pace.min_s),
        _BATCHES: lambda arm: batches(arm, fleet.pace.min_s),
    }
    for mode, measure in modes.items():
        yield from _measured(fleet, target, mode, arms, measure)


def _on_alternate_cores(numbers: Iterator[int], min_s: float, arm: Arm) -> Timed:
    return one_thread(arm, min_s, core=next(numbers))


def _falls_short(fleet: Fleet, system: System, target: float) -> Figure:
    best = max(fleet.sweep(system), key=lambda point: point.recall)
    met = Target(f"≥ {target:g}", False) if system.name == OURS else None
    name = f"recall {target:g}: never reached by {system.name}; its best recall ({best.effort.name})"
    return Figure(PART, fleet.data.dataset.name, name, "recall", spread([best.recall]), met, best.recall)


def _measured(
    fleet: Fleet, target: float, mode: str, arms: dict[str, Arm], measure: Callable[[Arm], Timed]
) -> Iterator[Figure]:
    last: dict[str, Timed] = {}

    def once(name: str) -> float:
        warm_up(arms[name])
        last[name] = measure(arms[name])
        return last[name].per_s

    taken = interleaved({name: partial(once, name) for name in arms}, fleet.pace.rounds)
    truth = fleet.data.dataset.truth
    recalls = {name: recall_of(fleet.data, timed.answers, truth) for name, timed in last.items()}
    data = fleet.data.dataset.name
    for name, per_s in taken.items():
        title = f"recall {target:g}, {mode}: {name} ({arms[name].effort.name})"
        yield Figure(PART, data, title, "queries/s", spread(per_s), recall=recalls[name])
    if OURS in arms:
        yield from _ratios(fleet, target, mode, taken, recalls[OURS])


def _ratios(
    fleet: Fleet, target: float, mode: str, taken: dict[str, list[float]], recall: float
) -> Iterator[Figure]:
    data = fleet.data.dataset.name
    databases = {system.name for system in fleet.systems if system.kind == "database"}
    best = fastest({name: per_s for name, per_s in taken.items() if name in databases})
    if best:
        gain = spread(ratios(taken[OURS], taken[best]))
        met = _reached(gain, _LIMITS[mode, target], recall, target)
        name = f"recall {target:g}, {mode}: faissbase / fastest database ({best})"
        yield Figure(PART, data, name, "x", gain, met, recall)
    raw = fastest({name: per_s for name, per_s in taken.items() if name.startswith(_RAW_FAISS)})
    if raw:
        gain = spread(ratios(taken[OURS], taken[raw]))
        wanted = _reached(gain, _OF_RAW_FAISS, recall, target) if mode == _BATCHES else None
        yield Figure(PART, data, f"recall {target:g}, {mode}: faissbase / {raw}", "x", gain, wanted, recall)


def _reached(gain: Spread, limit: float, recall: float, target: float) -> Target:
    """Speed counts only with the recall."""
    met = at_least(limit, gain.median)
    return Target(met.text, met.is_met and recall >= target)


def fastest(per_s: dict[str, list[float]]) -> str | None:
    """The name with the highest median."""
    return max(per_s, key=lambda name: spread(per_s[name]).median) if per_s else None
