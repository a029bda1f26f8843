"""Part 5: bytes on the disk at rest, memory in use, and reopening a million vectors with their index."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
    raw, system = data.raw_bytes, loaded["system"]
    others = 0 if loaded["kind"] == "library" else _metadata_bytes(data)
    disk = (loaded["disk_bytes"] - others) / raw
    memory = {part: 1024 * (opened["after"][part] - opened["before"][part]) / raw for part in opened["after"]}
    note = f"{loaded['disk_bytes'] / 1e6:.1f} MB, of which ids and metadata as JSON {others / 1e6:.1f} MB"
    lines = (
        ("disk less ids and metadata / raw float32", disk, at_most(_DISK, disk), note),
        (
            "resident memory after 200 queries / raw float32",
            memory["rss"],
            at_most(_MEMORY, memory["rss"]),
            "",
        ),
        ("of it nobody's file / raw float32", memory["anonymous"], None, ""),
        ("of it mapped files / raw float32", memory["file"], None, ""),
    )
    dataset, recall = data.dataset.name, loaded["recall"]
    for name, value, target, text in lines:
        met = target if system == OURS else None
        yield Figure(PART, dataset, f"{system}: {name}", "x", spread([value]), met, recall, text)
    first = spread([opened["first_ms"]])
    yield Figure(PART, dataset, f"{system}: open and answer once", "ms", first)


def _metadata_bytes(data: AnnData) -> int:
    dataset = data.dataset
    return sum(
        len(id.encode()) + len(json.dumps(metadata, separators=(",", ":")).encode())
        for id, metadata in zip(dataset.ids, dataset.metadatas, strict=True)
    )


def reopening(dataset: Dataset, parent: Path, n_rows: int, seed: int) -> Iterator[Figure]:
    """A new process connects to a large collection with its index and answers once, ids and metadata read."""
    if not n_rows:
        return
    with places.folder_in(parent) as folder:
        reopen.grow(dataset, folder, n_rows, seed)
        with faissbase.connect(folder / "db") as db:
            db.get_collection("bench").optimize()
        places.settle()
        seen = [in_fresh_process("first_answer", "search", folder, "") for _ in range(_ROUNDS)]
    name = f"{n_rows:,} x {dataset.d}, grown from {dataset.name}"
    first = spread([one["answer_ms"] for one in seen])
    met = at_most(_FIRST_MS, first.median)
    yield Figure(PART, name, "faissbase: connect and answer once, with its index", "ms", first, met)
    held = spread([one["after"]["rss"] / 1e3 for one in seen])
    yield Figure(PART, name, "faissbase: resident then", "MB", held)
