"""Part 3: bulk load, durable, beside a plain write of the same bytes, LanceDB and Chroma."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import faissbase
from benchmarks import places
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, Target, spread
from benchmarks.peers import Chroma, Lance
from benchmarks.timing import interleaved, ratios, seconds
from faissbase.types import Float32

PART = "bulk load"
_ROUNDS = 5
_CHUNK_BYTES = 8 << 20
_OURS = "faissbase add, vectors + ids + metadata"
_WITH_DOCUMENTS = "faissbase add, documents too (full-text index)"
_NPY = "faissbase load_file, npy + rows.jsonl"
_PARQUET = "faissbase load_file, parquet"
_PLAIN = "plain write of the vectors, one fdatasync"
_LANCE = "LanceDB add (Arrow made before), not synced"
_LANCE_SYNCED = "LanceDB add (Arrow made before), its files synced after"
_LANCE_OBJECTS = "LanceDB add from the same Python objects, not synced"
_LANCE_PARQUET = "LanceDB add from the same parquet, not synced"
_CHROMA = "Chroma add"
_CHROMA_OURS = "faissbase add of the same rows as Chroma"


@dataclass(frozen=True, eq=False)
class _Rows:
    """The data set several times over, under new ids."""

    ids: list[str]
    xb: Float32
    metadatas: list[dict[str, Any]]
    documents: list[str]

    def head(self, n: int) -> _Rows:
        return _Rows(self.ids[:n], self.xb[:n], self.metadatas[:n], self.documents[:n])


def _grown(dataset: Dataset, copies: int) -> _Rows:
    ids = [f"{id}#{copy}" for copy in range(copies) for id in dataset.ids]
    xb = np.concatenate([dataset.xb] * copies)
    return _Rows(ids, xb, dataset.metadatas * copies, dataset.documents * copies)


def run(dataset: Dataset, parent: Path, copies: int) -> Iterator[Figure]:
    """Every way in turn, five rounds; Chroma, being slow, once and with one copy of the data."""
    rows = _grown(dataset, copies)
    with places.folder_in(parent) as sources:
        npy, parquet = _write_files(rows, sources)
        arrow = Lance.arrow(rows.ids, rows.xb, rows.metadatas)
        arms: dict[str, Callable[[Path], float]] = {
            _OURS: lambda folder: _add(folder, dataset, rows, with_documents=False),
            _PLAIN: lambda folder: _plain_write(folder, rows.xb),
            _LANCE: lambda folder: _lance(folder, arrow, sync=False),
            _LANCE_SYNCED: lambda folder: _lance(folder, arrow, sync=True),
            _LANCE_OBJECTS: lambda folder: _lance_objects(folder, rows, arrow.schema),
            _LANCE_PARQUET: lambda folder: _lance_parquet(folder, parquet, arrow.schema),
            _NPY: lambda folder: _load_file(folder, dataset, npy),
            _PARQUET: lambda folder: _load_file(folder, dataset, parquet),
        }
        if rows.documents:
            arms[_WITH_DOCUMENTS] = lambda folder: _add(folder, dataset, rows, with_documents=True)
        taken = interleaved({name: _apart(call, parent) for name, call in arms.items()}, _ROUNDS)
    few = rows.head(len(dataset.ids))
    small_arms: dict[str, Callable[[Path], float]] = {
        _CHROMA: lambda folder: _chroma(folder, few),
        _CHROMA_OURS: lambda folder: _add(folder, dataset, few, with_documents=False),
    }
    small = interleaved({name: _apart(call, parent) for name, call in small_arms.items()}, 1)
    yield from _figures(dataset, rows, taken)
    yield from _chroma_figures(dataset, few, small)


def _apart(call: Callable[[Path], float], parent: Path) -> Callable[[], float]:
    """The call in a folder of its own, begun when the disk has come to rest."""

    def once() -> float:
        with places.folder_in(parent) as folder:
            places.settle()
            taken = call(folder)
        places.settle()
        return taken

    return once


def _add(folder: Path, dataset: Dataset, rows: _Rows, *, with_documents: bool) -> float:
    with faissbase.connect(folder / "db") as db:
        collection = db.create_collection("bench", dataset.d, dataset.metric, "Flat")
        return seconds(lambda: _add_all(collection, rows, with_documents))


def _add_all(collection: Any, rows: _Rows, with_documents: bool) -> None:
    for start in range(0, len(rows.ids), places.LOAD_ROWS):
        piece = slice(start, start + places.LOAD_ROWS)
        documents = rows.documents[piece] if with_documents else None
        collection.add(rows.ids[piece], rows.xb[piece], rows.metadatas[piece], documents)


def _load_file(folder: Path, dataset: Dataset, path: Path) -> float:
    with faissbase.connect(folder / "db") as db:
        collection = db.create_collection("bench", dataset.d, dataset.metric, "Flat")
        return seconds(lambda: collection.load_file(path))


def _plain_write(folder: Path, xb: Float32) -> float:
    raw = memoryview(xb.data).cast("B")
    fd = os.open(folder / "plain", os.O_WRONLY | os.O_CREAT)

    def write() -> None:
        for start in range(0, len(raw), _CHUNK_BYTES):
            os.write(fd, raw[start : start + _CHUNK_BYTES])
        os.fdatasync(fd)

    try:
        return seconds(write)
    finally:
        os.close(fd)


def _lance(folder: Path, arrow: Any, *, sync: bool) -> float:
    peer = Lance(folder, arrow.schema)

    def add() -> None:
        peer.add(arrow)
        if sync:
            _sync_tree(folder)

    return seconds(add)


def _lance_objects(folder: Path, rows: _Rows, schema: Any) -> float:
    peer = Lance(folder, schema)
    return seconds(lambda: peer.add(Lance.arrow(rows.ids, rows.xb, rows.metadatas).cast(schema)))


def _lance_parquet(folder: Path, path: Path, schema: Any) -> float:
    import pyarrow.dataset as arrow_dataset

    peer = Lance(folder, schema)
    return seconds(lambda: peer.add(arrow_dataset.dataset(path, format="parquet")))


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def _chroma(folder: Path, rows: _Rows) -> float:
    metadatas = Chroma.metadatas(rows.metadatas)
    peer = Chroma(folder)
    return seconds(lambda: peer.add(rows.ids, rows.xb, metadatas))


def _write_files(rows: _Rows, folder: Path) -> tuple[Path, Path]:
    """The same records as ``.npy`` with a rows file, and as parquet."""
    import pyarrow.parquet as pq

    npy, parquet = folder / "rows.npy", folder / "rows.parquet"
    np.save(npy, rows.xb)
    with open(f"{npy}.rows.jsonl", "w") as lines:
        for id, metadata in zip(rows.ids, rows.metadatas, strict=True):
            lines.write(json.dumps({"id": id, "metadata": metadata}) + "\n")
    pq.write_table(Lance.arrow(rows.ids, rows.xb, rows.metadatas), parquet)
    return npy, parquet


def _figures(dataset: Dataset, rows: _Rows, taken: dict[str, list[float]]) -> Iterator[Figure]:
    name = f"{dataset.name} x {len(rows.ids) // len(dataset.ids)}"
    megabytes = rows.xb.nbytes / 1e6
    share = ratios(taken[_PLAIN], taken[_OURS])
    ours, shared = spread([megabytes / one for one in taken[_OURS]]), spread(share)
    met = Target("≥ 100 MB/s, or ≥ 0.5 x the plain write", ours.median >= 100 or shared.median >= 0.5)
    for arm, times in taken.items():
        target = met if arm == _OURS else None
        yield Figure(PART, name, arm, "MB/s", spread([megabytes / one for one in times]), target)
        if arm != _PLAIN:
            yield Figure(PART, name, arm, "vectors/s", spread([len(rows.ids) / one for one in times]))
    yield Figure(PART, name, "faissbase add / plain write", "x", shared, met)
    for peer in (_LANCE, _LANCE_SYNCED, _LANCE_OBJECTS):
        gain = spread(ratios(taken[peer], taken[_OURS]))
        target = Target("≥ 1", gain.median >= 1)
        note = "not synced: the files may be lost when the machine stops" if peer != _LANCE_SYNCED else ""
        yield Figure(PART, name, f"faissbase add / {peer}", "x", gain, target, note=note)
    gain = spread(ratios(taken[_LANCE_PARQUET], taken[_PARQUET]))
    target = Target("≥ 1", gain.median >= 1)
    yield Figure(PART, name, f"faissbase load_file, parquet / {_LANCE_PARQUET}", "x", gain, target)


def _chroma_figures(dataset: Dataset, rows: _Rows, taken: dict[str, list[float]]) -> Iterator[Figure]:
    for arm, times in taken.items():
        yield Figure(PART, dataset.name, arm, "vectors/s", spread([len(rows.ids) / one for one in times]))
    gain = spread(ratios(taken[_CHROMA], taken[_CHROMA_OURS]))
    note = "Chroma builds its HNSW graph while it loads; faissbase's index here is exact and needs none"
    yield Figure(
        PART,
        dataset.name,
        "faissbase add / Chroma add",
        "x",
        gain,
        Target("≥ 1", gain.median >= 1),
        note=note,
    )
