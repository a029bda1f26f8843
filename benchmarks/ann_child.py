"""Tasks of the approximate benchmark that need a fresh process; each prints one line of JSON.

The data come from a folder that `write_data` filled.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ann_data import AnnData, K
from benchmarks.ann_fleet import QUICK, Fleet, Pace
from benchmarks.datasets import Dataset
from benchmarks.process import mapped_kb, memory_kb
from benchmarks.systems import registry
from benchmarks.systems.interface import Effort, Place, System, disk_bytes

MODULE = "benchmarks.ann_child"
_TARGET = 0.95
_ASKED = 200
_SLOT_FILE = ".f32"
_STILL_S = 2.0


def write_data(data: AnnData, folder: Path) -> None:
    """What the tasks read."""
    dataset = data.dataset
    folder.mkdir(exist_ok=True)
    np.savez(folder / "arrays.npz", xb=dataset.xb, xq=dataset.xq, truth=dataset.truth)
    facts = {
        "name": dataset.name,
        "metric": dataset.metric,
        "ids": dataset.ids,
        "metadatas": dataset.metadatas,
    }
    (folder / "rows.json").write_text(json.dumps(facts))


def _read_data(folder: Path) -> AnnData:
    rows = json.loads((folder / "rows.json").read_text())
    with np.load(folder / "arrays.npz") as arrays:
        dataset = Dataset(**rows, documents=[], filters=[], **{name: arrays[name] for name in arrays})
        return AnnData(dataset, np.empty((len(dataset.xq), 0), np.float32))


def _cpu_s() -> float:
    """User and system time of this process and of the children it waited for."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def ingest(name: str, data_folder: str, folder: str) -> dict[str, Any]:
    """Load everything until it is durable and indexed; then the cheapest setting that reaches 0.95."""
    data = _read_data(Path(data_folder))
    gc.collect()
    gc.freeze()
    place = Place(Path(folder), data.dataset.d, data.dataset.metric)
    system = registry.opened(name, place)
    begun_s, begun = _cpu_s(), time.perf_counter()
    system.load(data.rows)
    taken_s, taken = _cpu_s() - begun_s, time.perf_counter() - begun
    reached = _reached(data, system)
    system.close()
    return {
        "system": system.name,
        "kind": system.kind,
        "n": len(data.dataset.ids),
        "cpu_s": taken_s,
        "wall_s": taken,
        "disk_bytes": disk_bytes(Path(folder)),
        **reached,
    }


def _reached(data: AnnData, system: System) -> dict[str, Any]:
    points = Fleet(data, [system], _BRIEF).sweep(system)
    able = [point for point in points if point.recall >= _TARGET] or points
    best = max(able, key=lambda point: point.per_s if point.recall >= _TARGET else point.recall)
    return {"effort": best.effort.name, "values": best.effort.values, "recall": best.recall}


_BRIEF = Pace(QUICK.rounds, 0, 0, 0, is_quick=True)


def _memory_kb() -> dict[str, int]:
    """As `memory_kb`; of faissbase also what its mapped vectors take of it."""
    return {**memory_kb(), "vectors": mapped_kb(_SLOT_FILE)}


def reopen(name: str, data_folder: str, folder: str, effort: str) -> dict[str, Any]:
    """Open what `ingest` left, answer once, then 200 queries; times and memory."""
    with np.load(Path(data_folder) / "arrays.npz") as arrays:
        xq = arrays["xq"][:_ASKED]
        shape = arrays["xb"].shape
    metric = json.loads((Path(data_folder) / "rows.json").read_text())["metric"]
    registry.importable([name])  # the code itself is not counted as the system's memory
    adapter = registry.adapter(name)
    gc.collect()
    before = _memory_kb()
    chosen = Effort("chosen", json.loads(effort))
    begun = time.perf_counter()
    system = adapter(Place(Path(folder), shape[1], metric, is_new=False))
    system.prepare(chosen)
    system.search(xq[0], K, chosen)
    answered = time.perf_counter()
    for q in xq:
        system.search(q, K, chosen)
    after = _memory_kb()
    system.close()
    return {"first_ms": 1e3 * (answered - begun), "before": before, "after": after}


def at_work(folder: str) -> dict[str, Any]:
    """Connect to faissbase, answer once, then 200 queries once the codes are in memory; times, memory."""
    import faissbase

    connect = faissbase.connect  # what it imports is not counted
    queries = np.load(Path(folder) / "queries.npy")[:_ASKED]
    gc.collect()
    before = _memory_kb()
    begun = time.perf_counter()
    collection = connect(Path(folder) / "db").get_collection("bench")
    assert collection.search(queries[0], K)[0].metadata
    answered = time.perf_counter()
    held = -1
    while held < (held := memory_kb()["anonymous"]):
        time.sleep(_STILL_S)
    for query in queries:
        assert collection.search(query, K)[0].metadata
    after = _memory_kb()
    index = str(collection.stats().index)
    return {"answer_ms": 1e3 * (answered - begun), "before": before, "after": after, "index": index}


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"ingest": ingest, "reopen": reopen, "at_work": at_work}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
