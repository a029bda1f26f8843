"""What the demo does, step by step, each giving its findings as values; `cli.demo` shows them.

Knows the demo data and a database; not terminals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faissbase.collection.collection import LocalCollection
from faissbase.database.database import Database
from faissbase.demo.dataset import DemoQueries, Question, demo_shape, iter_batches
from faissbase.types import Batch, Float32, Hit

COLLECTION = "debian"
PROBE = "demo-durability-probe"
TEXT = "sudoku puzzle"
HYBRID_TEXT = "moon"
HYBRID_QUESTION = 1
K = 10

OnRows = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The records that are there now: ``ids`` in row order, ``n_new`` of them loaded just now."""

    ids: list[str]
    n_new: int
    seconds: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A question and its nearest records, without its filter and, where it has one, with it."""

    text: str
    question: Question
    n_matching: int
    hits: list[Hit]
    filtered_hits: list[Hit] | None


@dataclass(frozen=True, slots=True)
class Recall:
    """recall@10 against the stored exact answers, over ``nq`` queries; ``filter`` None is all records."""

    filter: str | None
    nq: int
    recall: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of ``n`` calls, one after the other."""

    n: int
    total_s: float
    p50_s: float
    p95_s: float


def open_collection(db: Database, *, fresh: bool) -> LocalCollection:
    """The demo's collection; with ``fresh`` a new one, the old one deleted."""
    if fresh and COLLECTION in db.list_collections():
        db.delete_collection(COLLECTION)
    return db.get_or_create_collection(COLLECTION, demo_shape()[1], "cosine")


def load(collection: LocalCollection, on_rows: OnRows = lambda n: None) -> Loaded:
    """Store every batch of which something is missing, so that an interrupted load goes on."""
    ids: list[str] = []
    n_new, size_bytes = 0, 0
    started = time.perf_counter()
    for batch in iter_batches():
        assert batch.ids is not None
        if len(collection.get(ids=batch.ids)) < len(batch.ids):
            n_new += collection.upsert(batch.ids, batch.vectors, batch.metadatas, batch.documents)
            size_bytes += _size_bytes(batch)
        ids += batch.ids
        on_rows(len(batch.ids))
    return Loaded(ids, n_new, time.perf_counter() - started, size_bytes)


def _size_bytes(batch: Batch) -> int:
    return batch.vectors.nbytes + sum(len(document or "") for document in batch.documents or [])


def answers(collection: LocalCollection, queries: DemoQueries, k: int) -> list[Answered]:
    """Every question of the data set, asked without and with its filter."""
    return [_answer(collection, queries, question, k) for question in queries.questions]


def _answer(collection: LocalCollection, queries: DemoQueries, question: Question, k: int) -> Answered:
    xq = queries.query_vectors[question.query]
    filtered = None if question.where is None else collection.search(xq, k, question.where)
    return Answered(
        queries.query_texts[question.query],
        question,
        collection.count(question.where),
        collection.search(xq, k),
        filtered,
    )


def recalls(
    collection: LocalCollection, queries: DemoQueries, ids: Sequence[str], wanted: float
) -> list[Recall]:
    """recall@10 of all queries where ``wanted`` is asked, without a filter and with each of the data set."""
    found = [unfiltered_recall(collection, queries, ids, wanted)]
    for name, truth in queries.filter_truth.items():
        answered = _filtered_ids(collection, queries, name, wanted)
        found.append(Recall(name, len(answered), _recall(answered, truth, ids)))
    return found


def unfiltered_recall(
    collection: LocalCollection, queries: DemoQueries, ids: Sequence[str], wanted: float
) -> Recall:
    """recall@10 of all queries without a filter."""
    everything = collection.search(queries.query_vectors, K, recall=wanted).ids
    return Recall(None, len(everything), _recall(everything, queries.truth_ids[:, :K], ids))


def _filtered_ids(
    collection: LocalCollection, queries: DemoQueries, name: str, wanted: float
) -> list[list[str]]:
    xq = queries.query_vectors
    wheres = [queries.where_for(name, query) for query in range(len(xq))]
    if all(where == wheres[0] for where in wheres):
        found: list[list[str]] = collection.search(xq, K, wheres[0], recall=wanted).ids
        return found
    return [
        [hit.id for hit in collection.search(vector, K, where, recall=wanted)]
        for vector, where in zip(xq, wheres, strict=True)
    ]


def _recall(found: Sequence[Sequence[str]], truth: np.ndarray[Any, Any], ids: Sequence[str]) -> float:
    """The share of the true neighbours that were found; 1 where there are none and none was given."""
    n_true, n_found = 0, 0
    for given, rows in zip(found, truth.tolist(), strict=True):
        true = {ids[row] for row in rows if row >= 0}
        n_true += max(len(true), len(given))
        n_found += len(true.intersection(given))
    return n_found / n_true if n_true else 1.0


def time_singles(
    collection: LocalCollection, xq: Float32, where: dict[str, Any] | None = None, wanted: float = 1.0
) -> Latency:
    """Ask one query after the other."""
    collection.search(xq[0], K, where, recall=wanted)
    seconds = []
    for vector in xq:
        started = time.perf_counter()
        collection.search(vector, K, where, recall=wanted)
        seconds.append(time.perf_counter() - started)
    return _latency(seconds)


def time_batch(collection: LocalCollection, xq: Float32, wanted: float = 1.0, repeats: int = 3) -> float:
    """Queries a second when all are asked at once; the median of some repeats."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        collection.search(xq, K, recall=wanted)
        seconds.append(time.perf_counter() - started)
    return float(len(xq) / np.median(seconds))


def time_durable_upserts(db: Database, xq: Float32, budget_s: float = 1.5) -> Latency:
    """Upsert single records into a collection of its own, each durable before the next begins."""
    if PROBE in db.list_collections():
        db.delete_collection(PROBE)
    probe = db.create_collection(PROBE, xq.shape[1], "cosine")
    seconds: list[float] = []
    try:
        while sum(seconds) < budget_s:
            started = time.perf_counter()
            probe.upsert([str(len(seconds))], xq[len(seconds) % len(xq)][None])
            seconds.append(time.perf_counter() - started)
    finally:
        db.delete_collection(PROBE)
    return _latency(seconds)


def _latency(seconds: Sequence[float]) -> Latency:
    p50, p95 = np.percentile(seconds, [50, 95]).tolist()
    return Latency(len(seconds), sum(seconds), p50, p95)
