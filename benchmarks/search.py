"""Part 1: exact search beside FAISS's own flat index on the same vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks import places
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, Range, Target, at_least, at_most, spread
from benchmarks.machine import cores
from benchmarks.timing import interleaved, ratios, seconds
from benchmarks.truth import recall

PART = "exact search"
K = 10
BATCH = 500
_ROUNDS = 40
_PASSES = 2
_SMALL = 1_000


@dataclass(frozen=True, eq=False)
class Raw:
    """FAISS alone: a flat index with its own copy of the vectors, and the queries as it needs them."""

    index: Any
    xq: Any
    kind: int

    def batch(self) -> Any:
        return self.index.search(self.xq[:BATCH], K)

    def one(self, query: int) -> float:
        """Seconds of one query on one thread."""
        row = self.xq[query : query + 1]
        return _on_one_thread(lambda: self.index.search(row, K))

    def one_mapped(self, query: int, mapped: Any) -> float:
        """The same over a mapped file, by FAISS's function for arrays, which copies nothing."""
        row = self.xq[query : query + 1]
        return _on_one_thread(lambda: faiss.knn(row, mapped, K, metric=self.kind))


def _on_one_thread(call: Callable[[], object]) -> float:
    faiss.omp_set_num_threads(1)
    taken = seconds(call)
    faiss.omp_set_num_threads(cores())
    return taken


def raw_faiss(dataset: Dataset) -> Raw:
    kind = faiss.METRIC_L2 if dataset.metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexFlat(dataset.d, kind)
    index.add(dataset.searched_form(dataset.xb))
    return Raw(index, dataset.searched_form(dataset.xq), kind)


def read_hits(collection: Any, xq: Any, where: Any = None) -> list[str]:
    """One query asked as a user asks it: every hit's id and metadata are read."""
    hits = collection.search(xq, k=K, where=where)
    return [hit.id for hit in hits if hit.metadata is not None]


def run(dataset: Dataset, parent: Path) -> Iterator[Figure]:
    """Throughput of a batch, and what one query costs above FAISS."""
    faiss.omp_set_num_threads(cores())
    raw = raw_faiss(dataset)
    with places.folder_in(parent) as folder:
        places.make(folder, dataset)
        yield from _batch(dataset, raw, folder)
        yield from _single(dataset, raw, folder)
    with places.folder_in(parent) as folder:
        yield from _small(dataset, folder)


def _figure(dataset: Dataset, name: str, unit: str, values: list[float], **more: Any) -> Figure:
    range: Range = more.pop("range", "min to max")
    return Figure(PART, dataset.name, name, unit, spread(values, range), **more)


def _batch(dataset: Dataset, raw: Raw, folder: Path) -> Iterator[Figure]:
    xq = dataset.xq[:BATCH]
    row_of = {id: row for row, id in enumerate(dataset.ids)}
    with places.reopened(folder) as collection:
        first = seconds(lambda: collection.search(xq, k=K))
        arms = {
            "raw": lambda: seconds(raw.batch),
            "ours": lambda: seconds(lambda: collection.search(xq, k=K)),
        }
        taken = interleaved(arms, _ROUNDS)
        found = [[row_of[id] for id in ids] for ids in collection.search(xq, k=K).ids]
    right = recall(dataset, found, dataset.truth, K)
    raw_right = recall(dataset, raw.batch()[1].tolist(), dataset.truth, K)
    per_s = {name: [len(xq) / one for one in times] for name, times in taken.items()}
    share = ratios(taken["raw"], taken["ours"])
    yield _figure(dataset, f"raw FAISS, batch of {len(xq)}", "queries/s", per_s["raw"], recall=raw_right)
    yield _figure(dataset, f"faissbase, batch of {len(xq)}", "queries/s", per_s["ours"], recall=right)
    met = at_least(0.95, spread(share).median)
    fastest = min(taken["raw"]) / min(taken["ours"])
    note = f"throughput, round by round; {fastest:.3f} by the fastest round of each"
    yield _figure(dataset, "batch: faissbase / raw FAISS", "x", share, target=met, recall=right, note=note)
    yield _figure(
        dataset, "first batch after opening", "queries/s", [len(xq) / first], note="checksums, rows and all"
    )


def _single(dataset: Dataset, raw: Raw, folder: Path) -> Iterator[Figure]:
    queries = range(min(BATCH, len(dataset.xq)))
    cold: list[_Pass] = []
    warm: list[_Pass] = []
    for _ in range(_PASSES):
        with places.reopened(folder) as collection:
            collection.search(dataset.xq[-1], k=1)
            cold.append(_pass(dataset, raw, collection, queries))
            warm.append(_pass(dataset, raw, collection, queries))
    raw_us = [1e6 * one for each in cold + warm for one in each.raw_s]
    right = recall(dataset, cold[0].found, dataset.truth, K)
    yield _figure(dataset, "raw FAISS, one query, one thread", "µs", raw_us, range="quartiles")
    for name, passes in (("rows not read before", cold), ("rows read before", warm)):
        yield _added(dataset, f"one query, {name}: above raw FAISS", passes, right)
    added = [
        1e6 * (ours - raw) for each in warm for ours, raw in zip(each.ours_s, each.mapped_s, strict=True)
    ]
    note = "faiss.knn over the slot file mapped by NumPy: the kernel's pages instead of FAISS's own copy"
    name = "one query, rows read before: above FAISS on the same mapped file"
    yield _figure(dataset, name, "µs", added, range="quartiles", note=note)


@dataclass(frozen=True, slots=True)
class _Pass:
    raw_s: list[float]
    mapped_s: list[float]
    ours_s: list[float]
    found: list[list[int]]


def _pass(dataset: Dataset, raw: Raw, collection: Any, queries: range) -> _Pass:
    """Each query asked three ways. Before ours and the mapped one, FAISS's own copy is scanned, so that
    neither finds parts of the slot file in the processor's caches that the other left there.
    """
    row_of = {id: row for row, id in enumerate(dataset.ids)}
    mapped = _mapped(dataset, collection)
    taken = _Pass([], [], [], [])
    for query in queries:
        taken.raw_s.append(raw.one(query))
        start = time.perf_counter()
        ids = read_hits(collection, dataset.xq[query])
        taken.ours_s.append(time.perf_counter() - start)
        raw.one(query)
        taken.mapped_s.append(raw.one_mapped(query, mapped))
        taken.found.append([row_of[id] for id in ids])
    return taken


def _mapped(dataset: Dataset, collection: Any) -> Any:
    """The collection's slot file as an array."""
    [path] = Path(collection.stats().path).glob("vectors.*.f32")
    return np.memmap(path, np.float32, mode="r", shape=dataset.xb.shape)


def _added(dataset: Dataset, name: str, passes: list[_Pass], right: float) -> Figure:
    added = [1e6 * (ours - raw) for each in passes for ours, raw in zip(each.ours_s, each.raw_s, strict=True)]
    met: Target = at_most(60, spread(added).median)
    note = "ids and metadata of all 10 hits read; each query beside the same one asked of FAISS"
    return _figure(dataset, name, "µs", added, target=met, recall=right, range="quartiles", note=note)


def _small(dataset: Dataset, folder: Path) -> Iterator[Figure]:
    """The same on so few vectors that the scan is nothing: what is left is the price of a call."""
    few = replace(
        dataset, ids=dataset.ids[:_SMALL], xb=dataset.xb[:_SMALL], metadatas=dataset.metadatas[:_SMALL]
    )
    raw = raw_faiss(few)
    places.make(folder, few)
    with places.reopened(folder) as collection:
        queries = range(min(BATCH, len(few.xq)))
        _pass(few, raw, collection, queries)
        passes = [_pass(few, raw, collection, queries) for _ in range(4)]
    added = [1e6 * (b - a) for each in passes for a, b in zip(each.raw_s, each.ours_s, strict=True)]
    raw_us = float(np.median([1e6 * one for each in passes for one in each.raw_s]))
    note = f"raw FAISS takes {raw_us:.0f} µs there"
    name = f"one query among {_SMALL:,} vectors, rows read before: above raw FAISS"
    yield _figure(dataset, name, "µs", added, range="quartiles", note=note)
