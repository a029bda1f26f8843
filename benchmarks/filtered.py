"""Part 2: filtered search beside the unfiltered scan, and whether it is exact."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import places
from benchmarks.datasets import Dataset, Filter
from benchmarks.figures import Figure, Range, at_least, spread
from benchmarks.search import BATCH, K, read_hits
from benchmarks.timing import interleaved, ratios, seconds
from benchmarks.truth import recall

PART = "filtered search"
_QUERIES = 200
_FIRST_USES = 3
_ROUNDS = 5


def run(dataset: Dataset, parent: Path) -> Iterator[Figure]:
    """Each filter: exactness, speed against the scan, the price of its first use."""
    with places.folder_in(parent) as folder:
        places.make(folder, dataset)
        for one in dataset.filters:
            first_s = [_first_use(dataset, folder, one) for _ in range(_FIRST_USES)]
            yield from _measured(dataset, folder, one)
            yield _figure(dataset, f"{one.name}: first use", "ms", [1e3 * taken for taken in first_s])


def _figure(dataset: Dataset, name: str, unit: str, values: list[float], **more: Any) -> Figure:
    range: Range = more.pop("range", "min to max")
    return Figure(PART, dataset.name, name, unit, spread(values, range), **more)


def _first_use(dataset: Dataset, folder: Path, one: Filter) -> float:
    """Seconds of the first search with the filter after opening: its columns are read from the rows."""
    with places.reopened(folder) as collection:
        collection.search(dataset.xq[0], k=K)
        return seconds(lambda: read_hits(collection, dataset.xq[0], one.wheres[0]))


def _measured(dataset: Dataset, folder: Path, one: Filter) -> Iterator[Figure]:
    row_of = {id: row for row, id in enumerate(dataset.ids)}
    xq, wheres = dataset.xq, one.wheres
    with places.reopened(folder) as collection:
        found = [
            [row_of[id] for id in read_hits(collection, xq[query], wheres[query])] for query in range(len(xq))
        ]
        right = recall(dataset, found, one.truth, K)
        scan_s, filtered_s = _pairs(dataset, collection, one)
        batch = _batch(dataset, collection, one)
    share = one.n_matching / len(dataset.ids)
    gain = ratios(scan_s, filtered_s)
    median = spread(gain, "quartiles").median
    met = at_least(10, median) if share < 0.01 else None
    yield _figure(
        dataset, f"{one.name}: one query", "ms", [1e3 * taken for taken in filtered_s], range="quartiles"
    )
    name = f"{one.name} ({100 * share:.3g} % match): times faster than the scan"
    yield _figure(dataset, name, "x", gain, target=met, recall=right, range="quartiles")
    if batch:
        yield _figure(dataset, f"{one.name}: the same, batch of {BATCH}", "x", batch[0], recall=batch[1])


def _pairs(dataset: Dataset, collection: Any, one: Filter) -> tuple[list[float], list[float]]:
    scan_s: list[float] = []
    filtered_s: list[float] = []
    for query in range(min(_QUERIES, len(dataset.xq))):
        xq, where = dataset.xq[query], one.wheres[query]
        arms = {
            "scan": partial(seconds, partial(read_hits, collection, xq)),
            "filtered": partial(seconds, partial(read_hits, collection, xq, where)),
        }
        taken = interleaved(arms if query % 2 else dict(reversed(arms.items())), 1)
        scan_s += taken["scan"]
        filtered_s += taken["filtered"]
    return scan_s, filtered_s


def _batch(dataset: Dataset, collection: Any, one: Filter) -> tuple[list[float], float] | None:
    """Times faster than the scan, and recall, for all queries at once where they share the filter."""
    where = one.wheres[0]
    if any(other != where for other in one.wheres):
        return None
    row_of = {id: row for row, id in enumerate(dataset.ids)}
    xq = dataset.xq[:BATCH]
    arms = {
        "scan": lambda: seconds(lambda: collection.search(xq, k=K)),
        "filtered": lambda: seconds(lambda: collection.search(xq, k=K, where=where)),
    }
    taken = interleaved(arms, _ROUNDS)
    found = [[row_of[id] for id in ids] for ids in collection.search(xq, k=K, where=where).ids]
    return ratios(taken["scan"], taken["filtered"]), recall(dataset, found, one.truth, K)
