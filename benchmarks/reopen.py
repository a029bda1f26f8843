"""Part 5: from nothing to the first answer of a large collection, in a fresh process, and the memory then."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import faissbase
from benchmarks import places
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, Target, at_most, spread
from benchmarks.process import in_fresh_process

PART = "reopening"
_ROUNDS = 5
_NOISE = 0.02
_WHERE = {"section": "database"}
_LIMIT_MS = 100
_LIMIT_MB = 150


def run(dataset: Dataset, parent: Path, n_rows: int, seed: int) -> Iterator[Figure]:
    """Get by id, a filtered and an unfiltered search, each as the first thing a new process does."""
    if not n_rows:
        return
    with places.folder_in(parent) as folder:
        grow(dataset, folder, n_rows, seed)
        places.settle()
        name = f"{n_rows:,} x {dataset.d}, grown from {dataset.name}"
        tasks = {
            "get by id": ("get", f"row-{n_rows // 2}"),
            "search with a filter not used before": ("filter", json.dumps(_WHERE)),
            "exact search of everything": ("search", ""),
        }
        for title, (kind, argument) in tasks.items():
            seen = [in_fresh_process("first_answer", kind, folder, argument) for _ in range(_ROUNDS)]
            yield from _figures(name, title, seen, has_target=kind != "search")
        _forget_pages(folder)
        seen = [in_fresh_process("first_answer", "get", folder, f"row-{n_rows // 2}")]
        yield _figure(name, "get by id, nothing of the files in the page cache", "ms", _values(seen))
        yield _figure(name, "import faissbase", "ms", [one["import_ms"] for one in seen])


def grow(dataset: Dataset, folder: Path, n_rows: int, seed: int, index_type: str = "Flat") -> None:
    """Rows of the data set again and again, each time with fresh noise, and small metadata."""
    random = np.random.default_rng(seed)
    np.save(folder / "query.npy", dataset.xq[0])
    n = len(dataset.ids)
    with faissbase.connect(folder / "db") as db:
        collection = db.create_collection("bench", dataset.d, dataset.metric, index_type)
        for start in range(0, n_rows, places.LOAD_ROWS):
            numbers = range(start, min(start + places.LOAD_ROWS, n_rows))
            rows = np.array(numbers) % n
            noise = random.standard_normal((len(rows), dataset.d), dtype=np.float32)
            metadatas = [
                _small(dataset.metadatas[row], number) for row, number in zip(rows, numbers, strict=True)
            ]
            collection.add(
                [f"row-{number}" for number in numbers], dataset.xb[rows] + _NOISE * noise, metadatas
            )


def _small(metadata: dict[str, Any], number: int) -> dict[str, Any]:
    return {"section": metadata.get("section", "none"), "number": number}


def _forget_pages(folder: Path) -> None:
    """Ask the kernel to drop the files from its cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def _figure(data: str, name: str, unit: str, values: list[float], target: Target | None = None) -> Figure:
    return Figure(PART, data, name, unit, spread(values), target)


def _values(seen: list[dict[str, Any]]) -> list[float]:
    return [one["answer_ms"] for one in seen]


def _figures(data: str, title: str, seen: list[dict[str, Any]], *, has_target: bool) -> Iterator[Figure]:
    answer = spread(_values(seen))
    met = at_most(_LIMIT_MS, answer.median) if has_target else None
    yield Figure(PART, data, f"{title}: connect and answer", "ms", answer, met)
    for part, words in (
        ("rss", "resident"),
        ("anonymous", "of it anonymous"),
        ("file", "of it mapped files"),
    ):
        held = spread([one["after"][part] / 1e3 for one in seen])
        met = at_most(_LIMIT_MB, held.median) if has_target and part == "rss" else None
        yield Figure(PART, data, f"{title}: {words} then", "MB", held, met)
    base = [one["before"]["rss"] / 1e3 for one in seen]
    yield _figure(data, f"{title}: resident after import alone", "MB", base)
