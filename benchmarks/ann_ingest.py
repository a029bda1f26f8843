"""Part 3: bulk ingest until durable and indexed, in vectors per second of processor time."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import places
from benchmarks.ann_child import MODULE, write_data
from benchmarks.ann_data import AnnData
from benchmarks.ann_fleet import Pace
from benchmarks.ann_search import OURS, fastest
from benchmarks.figures import Figure, at_least, spread
from benchmarks.process import in_fresh_process
from benchmarks.timing import interleaved, ratios

PART = "bulk ingest, durable and indexed"
_TARGET = 0.95


def run(names: Sequence[str], data: AnnData, parent: Path, pace: Pace) -> Iterator[Figure]:
    """Every system in a fresh process with an empty folder; each round begins with another one."""
    rounds = 1 if pace.is_quick else 3
    last: dict[str, dict[str, Any]] = {}
    with places.folder_in(parent) as folder:
        write_data(data, folder)
        able = [name for name in names if name != "faiss-flat"]
        taken = interleaved({name: partial(_once, name, folder, last) for name in able}, rounds)
    per_s = {seen["system"]: taken[name] for name, seen in last.items()}
    for seen in last.values():
        yield _figure(data, seen, per_s[seen["system"]])
    yield from _ratio(data, list(last.values()), per_s)


def _once(name: str, folder: Path, last: dict[str, dict[str, Any]]) -> float:
    """Vectors per second of processor time; 0 where the system failed, which is printed."""
    with places.folder_in(folder) as empty:
        places.settle()
        try:
            seen = in_fresh_process("ingest", name, folder, empty, module=MODULE)
        except subprocess.CalledProcessError as error:
            if name == OURS:
                raise
            print(f"left out: {name}: its process ended with {error.returncode}", flush=True)
            return 0.0
    last[name] = seen
    return float(seen["n"] / seen["cpu_s"])


def _figure(data: AnnData, seen: dict[str, Any], per_s: list[float]) -> Figure:
    note = f"{seen['wall_s']:.1f} s by the clock in the last round"
    if seen["recall"] < _TARGET:
        note += f"; it never reached {_TARGET:g}"
    title = f"{seen['system']} (recall measured at {seen['effort']})"
    return Figure(
        PART, data.dataset.name, title, "vectors/CPU-s", spread(per_s), recall=seen["recall"], note=note
    )


def _ratio(data: AnnData, seen: list[dict[str, Any]], per_s: dict[str, list[float]]) -> Iterator[Figure]:
    ours = [one for one in seen if one["system"] == OURS]
    able = {
        one["system"]: per_s[one["system"]]
        for one in seen
        if one["kind"] == "database" and one["recall"] >= _TARGET
    }
    best = fastest(able)
    if not ours or not best:
        return
    gain = spread(ratios(per_s[OURS], able[best]))
    name = f"faissbase / best database ({best})"
    met = at_least(1, gain.median)
    yield Figure(PART, data.dataset.name, name, "x", gain, met, ours[0]["recall"])
