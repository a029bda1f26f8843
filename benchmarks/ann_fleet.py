"""The systems of one run with one data set in them, and the efforts that reach a recall.

A peer that fails is left out with its reason printed: its failure is a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import places
from benchmarks.ann_data import AnnData
from benchmarks.ann_timing import Arm, one_thread, recall_of, warm_up
from benchmarks.systems import registry
from benchmarks.systems.interface import Effort, Place, System
from benchmarks.timing import seconds

T = TypeVar("T")
ENOUGH_RECALL = 0.9975  # efforts beyond it are not tried
_MANY_EFFORTS = 30


@dataclass(frozen=True, slots=True)
class Pace:
    """How long everything is measured."""

    rounds: int
    min_s: float
    sweep_s: float
    live_s: float
    is_quick: bool


QUICK = Pace(rounds=2, min_s=0.15, sweep_s=0.05, live_s=1.5, is_quick=True)
FULL = Pace(rounds=5, min_s=1.0, sweep_s=0.3, live_s=10.0, is_quick=False)


def efforts_of(system: System, pace: Pace) -> Sequence[Effort]:
    """The efforts to try; in a quick run some of them, in steps that meet every kind of them."""
    if not pace.is_quick:
        return system.efforts
    return system.efforts[:: 5 if len(system.efforts) > _MANY_EFFORTS else 2]


@dataclass(frozen=True, slots=True)
class Point:
    """What one effort of a system gave on one thread."""

    effort: Effort
    recall: float
    per_s: float


@dataclass(frozen=True, eq=False)
class Fleet:
    """Loaded systems; sweeps are made once and kept."""

    data: AnnData
    systems: list[System]
    pace: Pace
    _sweeps: dict[str, list[Point]] = field(default_factory=dict)

    def sweep(self, system: System) -> list[Point]:
        """Recall and queries/s of every effort, up to one with almost all the recall there is."""
        if system.name not in self._sweeps:
            points: list[Point] = []
            for effort in efforts_of(system, self.pace):
                points.append(self._point(system, effort))
                if points[-1].recall >= ENOUGH_RECALL:
                    break
            self._sweeps[system.name] = points
        return self._sweeps[system.name]

    def _point(self, system: System, effort: Effort) -> Point:
        arm = Arm(system, effort, self.data)
        warm_up(arm)
        timed = one_thread(arm, self.pace.sweep_s, max_s=2.0)
        return Point(effort, recall_of(self.data, timed.answers, self.data.dataset.truth), timed.per_s)

    def cheapest(self, system: System, target: float) -> Effort | None:
        """The fastest effort whose recall@10 reached ``target``, if one did."""
        able = [point for point in self.sweep(system) if point.recall >= target]
        return max(able, key=lambda point: point.per_s).effort if able else None


@contextmanager
def loaded(names: Sequence[str], data: AnnData, parent: Path, pace: Pace) -> Iterator[Fleet]:
    """All systems with the data in them, in folders that go away at the end."""
    with places.folder_in(parent) as folder:
        systems: list[System] = []
        for name in names:
            system = attempt(name, partial(_load, name, data, folder / name))
            if system is not None:
                systems.append(system)
        try:
            yield Fleet(data, systems, pace)
        finally:
            for system in systems:
                attempt(system.name, system.close)


def _load(name: str, data: AnnData, folder: Path) -> System:
    folder.mkdir()
    system = registry.opened(name, Place(folder, data.dataset.d, data.dataset.metric))
    taken = seconds(lambda: system.load(data.rows))
    print(f"loaded {system.name}: {data.dataset.name}, {taken:.1f} s", flush=True)
    return system


def attempt(name: str, call: Callable[[], T]) -> T | None:
    """What the call returns; or None, with the reason printed, if a peer fails. faissbase may not."""
    try:
        return call()
    except Exception as error:  # every peer has errors of its own; none is hidden
        if name == "faissbase":
            raise
        print(f"left out: {name}: {type(error).__name__}: {error}", flush=True)
        return None


def curve_point(part: str, data: AnnData, system: System, **values: Any) -> dict[str, Any]:
    """One point for the plots."""
    return {"part": part, "data": data.dataset.name, "system": system.name, "kind": system.kind, **values}
