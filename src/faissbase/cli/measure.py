"""Measurements of a collection beside raw FAISS, call by call in turn, so that both meet the same machine.

Knows collections and clocks; not command lines. Only reads the collection; writes go to another database.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faissbase.ann.baseline import RawFlat, threads
from faissbase.collection.collection import LocalCollection
from faissbase.database.database import connect
from faissbase.errors import InvalidInputError
from faissbase.types import Float32, Record

BATCH = 256
QUERIES = 1024
SEED = 0

_PAGE = 4096
_NOISE = 0.3
_TIES = 32
_TIE_TOLERANCE = 1e-6
# Below FAISS's BLAS threshold every distance is computed directly.
_DIRECT = 16
_WRITTEN_AT_ONCE = 1000
_MEMORY_SHARE = 0.25
_MOST_ROUNDS = 64

Call = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """What a comparison needs of a collection: raw FAISS over its vectors, its ids, some whole records.

    ``raw`` is None where the vectors would take more than a quarter of the memory.
    """

    ids: list[str]
    records: list[Record]
    raw: RawFlat | None


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of calls, ours and raw FAISS's on the same inputs in turn; no ``raw`` where there is none."""

    ours: list[float]
    raw: list[float]

    @property
    def ratio(self) -> float | None:
        """Our median over raw FAISS's."""
        return float(np.median(self.ours) / np.median(self.raw)) if self.raw else None


def read_sample(
    collection: LocalCollection, where: dict[str, Any] | None = None, on_rows: Call = lambda n: None
) -> Sample:
    """Read the matching records once, page by page."""
    n = collection.count(where)
    raw = RawFlat(collection.dimension, collection.metric) if _fits(n, collection.dimension) else None
    ids: list[str] = []
    kept: list[Record] = []
    for records in _pages(collection, where):
        ids += [record.id for record in records]
        if raw is not None:
            raw.add(_matrix(records))
        kept += records[: max(1, math.ceil(QUERIES * len(records) / n))]
        on_rows(len(records))
    if not ids:
        raise InvalidInputError(f"collection {collection.name!r} has no record to measure with")
    return Sample(ids, kept, raw)


def _fits(n: int, d: int) -> bool:
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 4 * n * d <= _MEMORY_SHARE * memory_bytes


def _pages(collection: LocalCollection, where: dict[str, Any] | None) -> Iterator[list[Record]]:
    cursor = None
    while True:
        page = collection.scroll(where, limit=_PAGE, cursor=cursor, include_vectors=True)
        if page.records:
            yield page.records
        if page.cursor is None:
            return
        cursor = page.cursor


def _matrix(records: Sequence[Record]) -> Float32:
    return np.stack([record.vector for record in records if record.vector is not None])


def queries_near(records: Sequence[Record], n: int = QUERIES) -> Float32:
    """``float32[n, d]``: stored vectors, each with some noise of its own length."""
    random = np.random.default_rng(SEED)
    vectors = _matrix(records)[random.integers(len(records), size=n)]
    noise = random.standard_normal(vectors.shape, np.float32)
    scale = _NOISE * np.linalg.norm(vectors, axis=1, keepdims=True) / math.sqrt(vectors.shape[1])
    noisy: Float32 = (vectors + scale * noise).astype(np.float32)
    return noisy


def time_in_turn(ours: Call, raw: Call | None, inputs: Sequence[tuple[Any, Any]], budget_s: float) -> Times:
    """Call both with each pair of inputs, who goes first changing each time, until the budget is spent."""
    times = Times([], [])
    calls = [(ours, times.ours, 0)] + ([(raw, times.raw, 1)] if raw is not None else [])
    stop = time.perf_counter() + budget_s
    for turn, pair in enumerate(inputs):
        for call, seconds, which in calls if turn % 2 else reversed(calls):
            started = time.perf_counter()
            call(pair[which])
            seconds.append(time.perf_counter() - started)
        if time.perf_counter() > stop:
            break
    return times


def time_singles(
    collection: LocalCollection,
    raw: RawFlat | None,
    xq: Float32,
    k: int,
    budget_s: float,
    where: dict[str, Any] | None = None,
) -> Times:
    """One query after the other, each asked once, FAISS on one thread for both."""
    prepared = xq if raw is None else raw.prepared(xq)
    inputs = [(xq[i], prepared[i : i + 1]) for i in range(len(xq))]
    with threads(1):
        collection.search(xq[-1], k, where)
        return time_in_turn(
            lambda query: collection.search(query, k, where),
            None if raw is None else lambda query: raw.search(query, k),
            inputs,
            budget_s,
        )


def time_batches(
    collection: LocalCollection, raw: RawFlat | None, xq: Float32, k: int, budget_s: float
) -> Times:
    """Batches of 256, FAISS on every core for both."""
    prepared = xq if raw is None else raw.prepared(xq)
    starts = range(0, len(xq) - BATCH + 1, BATCH)
    inputs = _MOST_ROUNDS * [(xq[start : start + BATCH], prepared[start : start + BATCH]) for start in starts]
    return time_in_turn(
        lambda queries: collection.search(queries, k),
        None if raw is None else lambda queries: raw.search(queries, k),
        inputs,
        budget_s,
    )


def recall(
    collection: LocalCollection,
    sample: Sample,
    xq: Float32,
    k: int,
    where: dict[str, Any] | None = None,
) -> float | None:
    """recall@k against raw FAISS over the sample's vectors; a record as near as the k-th counts as well."""
    if sample.raw is None:
        return None
    k = min(k, len(sample.ids))
    row_of = {id: row for row, id in enumerate(sample.ids)}
    prepared = sample.raw.prepared(xq)
    n_found = 0
    for start in range(0, len(xq), _DIRECT):
        queries = slice(start, start + _DIRECT)
        distances, rows = sample.raw.search(prepared[queries], min(k + _TIES, len(sample.ids)))
        found = collection.search(xq[queries], k, where).ids
        for answer in zip(found, distances, rows, strict=True):
            n_found += _n_true(*answer, k, row_of)
    return n_found / (k * len(xq))


def _n_true(found: list[str], distances: Float32, rows: Any, k: int, row_of: dict[str, int]) -> int:
    farthest = distances[k - 1]
    is_true = np.arange(len(rows)) < k
    is_true |= np.abs(distances - farthest) <= _TIE_TOLERANCE * max(1.0, abs(float(farthest)))
    true = set(rows[is_true].tolist())
    return sum(row_of.get(id) in true for id in found)


@contextmanager
def scratch_folder(data: Path) -> Iterator[Path]:
    """A folder on the disk of ``data`` that goes away again."""
    folder = Path(tempfile.mkdtemp(prefix=".faissbase-bench-", dir=_beside(data.resolve())))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(data: Path) -> Path:
    """The folder that holds ``data``, or ``data`` where that is another disk or not ours to write."""
    if not data.exists():
        return next(folder for folder in data.parents if folder.exists())
    is_mount = data.stat().st_dev != data.parent.stat().st_dev
    return data if is_mount or not os.access(data.parent, os.W_OK) else data.parent


@dataclass(frozen=True, slots=True)
class Writes:
    """Durable upserts: ``singles`` seconds of one record each, ``batches`` of 1,000 records each."""

    singles: list[float]
    batches: list[float]
    n_batch: int


def time_writes(
    collection: LocalCollection, records: Sequence[Record], folder: Path, budget_s: float
) -> Writes:
    """Upsert the collection's own records, vectors, metadata and text, into a new one in ``folder``."""
    singles: list[float] = []
    batches: list[float] = []
    copies = [records[i % len(records)] for i in range(_WRITTEN_AT_ONCE)]
    with connect(folder) as db:
        target = db.create_collection("bench", collection.dimension, collection.metric, collection.index_type)
        stop = time.perf_counter() + budget_s / 2
        while time.perf_counter() < stop:
            singles.append(_upsert(target, f"s{len(singles)}.", [copies[len(singles) % len(copies)]]))
        stop += budget_s / 2
        while not batches or time.perf_counter() < stop:
            batches.append(_upsert(target, f"b{len(batches)}.", copies))
    return Writes(singles, batches, len(copies))


def _upsert(target: LocalCollection, prefix: str, records: Sequence[Record]) -> float:
    ids = [f"{prefix}{i}" for i in range(len(records))]
    vectors, metadatas = _matrix(records), [record.metadata for record in records]
    documents = [record.document for record in records]
    started = time.perf_counter()
    target.upsert(ids, vectors, metadatas, documents)
    return time.perf_counter() - started
