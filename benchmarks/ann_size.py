"""Part 5: bytes on the disk at rest, memory in use, and reopening a million vectors with their index."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import faissbase
from benchmarks import places, reopen
from benchmarks.ann_child import MODULE, write_data
from benchmarks.ann_data import AnnData
from benchmarks.ann_search import OURS
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, at_most, spread
from benchmarks.process import in_fresh_process

PART = "size, memory, reopening"
_DISK = 1.35
_MEMORY = 0.6
_FIRST_MS = 300
_OWN_NOTE = (
    "graph and codes; the mapped vectors are the kernel's cache, which it takes back for whoever needs it"
)
_ROUNDS = 5


def run(names: Sequence[str], data: AnnData, parent: Path) -> Iterator[Figure]:
    """Every system loaded once in a process of its own, then opened in another."""
    with places.folder_in(parent) as folder:
        write_data(data, folder)
        for name in names:
            yield from _system(name, data, folder)


def _system(name: str, data: AnnData, folder: Path) -> Iterator[Figure]:
    with places.folder_in(folder) as own:
        try:
            loaded = in_fresh_process("ingest", name, folder, own, module=MODULE)
            values = json.dumps(loaded["values"])
            opened = in_fresh_process("reopen", name, folder, own, values, module=MODULE)
        except subprocess.CalledProcessError as error:
            if name == OURS:
                raise
            print(f"left out: {name}: its process ended with {error.returncode}", flush=True)
            return
    yield from _figures(data, loaded, opened)


def _figures(data: AnnData, loaded: dict[str, Any], opened: dict[str, Any]) -> Iterator[Figure]:
    system, dataset, recall = loaded["system"], data.dataset.name, loaded["recall"]
    others = 0 if loaded["kind"] == "library" else _metadata_bytes(data)
    disk = (loaded["disk_bytes"] - others) / data.raw_bytes
    note = f"{loaded['disk_bytes'] / 1e6:.1f} MB, of which ids and metadata as JSON {others / 1e6:.1f} MB"
    met = at_most(_DISK, disk) if system == OURS else None
    title = f"{system}: disk less ids and metadata / raw float32"
    yield Figure(PART, dataset, title, "x", spread([disk]), met, recall, note)
    yield from _memory(dataset, system, data.raw_bytes, [opened])
    yield Figure(PART, dataset, f"{system}: open and answer once", "ms", spread([opened["first_ms"]]))


def _memory(
    dataset: str, system: str, raw_bytes: int, seen: Sequence[dict[str, Any]], limit: float | None = None
) -> Iterator[Figure]:
    """What a process has grown by until 200 queries were answered, by kind."""
    rises = [{part: one["after"][part] - one["before"][part] for part in one["after"]} for one in seen]
    parts = {
        "resident memory less the mapped vectors": [rise["rss"] - rise["vectors"] for rise in rises],
        "resident memory": [rise["rss"] for rise in rises],
        "of it nobody's file": [rise["anonymous"] for rise in rises],
        "of it mapped files": [rise["file"] for rise in rises],
    }
    for part, values_kb in parts.items():
        middle = spread([1024 * value / raw_bytes for value in values_kb])
        is_own = part.endswith("vectors")
        met = at_most(limit, middle.median) if limit is not None and is_own else None
        note = _OWN_NOTE if is_own and system == OURS else ""
        yield Figure(PART, dataset, f"{system}: {part} / raw float32", "x", middle, met, note=note)


def _metadata_bytes(data: AnnData) -> int:
    dataset = data.dataset
    return sum(
        len(id.encode()) + len(json.dumps(metadata, separators=(",", ":")).encode())
        for id, metadata in zip(dataset.ids, dataset.metadatas, strict=True)
    )


def reopening(dataset: Dataset, parent: Path, n_rows: int, seed: int) -> Iterator[Figure]:
    """New processes connect to a large collection with its index, answer once, then 200 queries."""
    if not n_rows:
        return
    with places.folder_in(parent) as folder:
        reopen.grow(dataset, folder, n_rows, seed, "auto")
        with faissbase.connect(folder / "db") as db:
            db.get_collection("bench").optimize()
        np.save(folder / "queries.npy", dataset.xq)
        places.settle()
        seen = [in_fresh_process("at_work", folder, module=MODULE) for _ in range(_ROUNDS)]
    name = f"{n_rows:,} x {dataset.d}, grown from {dataset.name}"
    first = spread([one["answer_ms"] for one in seen])
    met = at_most(_FIRST_MS, first.median)
    yield Figure(PART, name, "faissbase: connect and answer once, with its index", "ms", first, met)
    yield from _memory(name, OURS, 4 * n_rows * dataset.d, seen, _MEMORY)
