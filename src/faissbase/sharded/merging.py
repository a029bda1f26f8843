"""Answers of several shards as one. Knows hits and arrays: no shards, no files."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from itertools import chain

import numpy as np

from faissbase.collection.answers import fused_ranks
from faissbase.types import Float32, Hit, Metric, Row, SearchResult, Slots


class ShardHits(list[Hit]):
    """Hits of one query, nearest first.

    Attributes
    ----------
    complete : bool
        Whether every shard has answered. False only where that was allowed.
    shards_missing : tuple of str
        The shards that have not.
    """

    def __init__(self, hits: Sequence[Hit], shards_missing: tuple[str, ...] = ()) -> None:
        super().__init__(hits)
        self.shards_missing = shards_missing

    @property
    def complete(self) -> bool:
        return not self.shards_missing


class ShardResult(SearchResult):
    """Answers to many queries; ``complete`` and ``shards_missing`` as `ShardHits` has them."""

    __slots__ = ("shards_missing",)

    def __init__(
        self,
        slots: Slots,
        distances: Float32,
        metric: Metric,
        rows: dict[int, Row],
        shards_missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__(slots, distances, metric, rows)
        self.shards_missing = shards_missing

    @property
    def complete(self) -> bool:
        return not self.shards_missing


def missing_in(answer: object) -> tuple[str, ...]:
    """The shards that have not taken part in an answer."""
    return answer.shards_missing if isinstance(answer, ShardHits | ShardResult) else ()


def nearest_hits(parts: Sequence[Sequence[Hit]], k: int | None, metric: Metric) -> list[Hit]:
    """The k nearest of several answers to one query, by (distance, id)."""
    sign = 1.0 if metric == "l2" else -1.0
    hits = chain.from_iterable(parts)
    ranked = sorted(hits, key=lambda hit: (sign * _distance(hit), hit.id))
    return ranked if k is None else ranked[:k]


def _distance(hit: Hit) -> float:
    assert hit.distance is not None
    return hit.distance


def best_scores(parts: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """The k of highest score, by (score, id)."""
    return nsmallest(k, chain.from_iterable(parts), key=lambda hit: (-hit.score, hit.id))


def nearest_results(
    parts: Sequence[SearchResult], k: int | None, metric: Metric, missing: tuple[str, ...] = ()
) -> ShardResult:
    """The k nearest of several answers to the same queries, by (distance, id).

    So it does not matter who merges what first.
    """
    labels, rows = _renumbered(parts)
    distances = np.concatenate([part.distances for part in parts], axis=1)
    signed = distances if metric == "l2" else -distances
    order = np.argsort(signed, axis=1, kind="stable")  # NaN comes last
    _sort_ties(order, signed, labels, rows)
    order = order if k is None else order[:, :k]
    found = np.take_along_axis(labels, order, axis=1)
    near = np.take_along_axis(distances, order, axis=1)
    if k is not None and found.shape[1] < k:
        room = ((0, 0), (0, k - found.shape[1]))
        found, near = np.pad(found, room, constant_values=-1), np.pad(near, room, constant_values=np.nan)
    return ShardResult(found, near, metric, rows, missing)


def _sort_ties(order: Slots, signed: Float32, labels: Slots, rows: dict[int, Row]) -> None:
    """Put what is equally far in the order of its ids, where there is such: ``order`` is changed."""
    sorted_ = np.take_along_axis(signed, order, axis=1)
    for i in np.flatnonzero((sorted_[:, 1:] == sorted_[:, :-1]).any(axis=1)).tolist():
        n = int(np.count_nonzero(labels[i] >= 0))
        known = sorted(order[i, :n].tolist(), key=lambda j: (signed[i, j], rows[int(labels[i, j])].id))
        order[i, :n] = known


def _renumbered(parts: Sequence[SearchResult]) -> tuple[Slots, dict[int, Row]]:
    """Labels of all parts that do not collide, ``int64[nq, sum of k]``, and the rows by them."""
    labels: list[Slots] = []
    rows: dict[int, Row] = {}
    for part in parts:
        slots, places = np.unique(part.slots, return_inverse=True)
        own = np.full(len(slots), -1, np.int64)
        for i, slot in enumerate(slots.tolist()):
            if slot >= 0:
                own[i] = len(rows)
                rows[len(rows)] = part.rows[slot]
        labels.append(own[places.reshape(part.slots.shape)])
    return np.concatenate(labels, axis=1), rows


def fused(by_text: Sequence[Hit], near: Sequence[Hit], k: int) -> list[Hit]:
    """Reciprocal rank fusion of two rankings of one dataset."""
    scores = fused_ranks([hit.id for hit in by_text], [hit.id for hit in near])
    hits = {hit.id: hit for hit in (*by_text, *near)}  # the one with a distance stays
    best = sorted(scores, key=lambda id: (-scores[id], id))[:k]
    return [hits[id].with_score(scores[id]) for id in best]


def narrowed(result: ShardResult, k: int) -> ShardResult:
    """The first k of each answer."""
    return ShardResult(
        result.slots[:, :k], result.distances[:, :k], result.metric, dict(result.rows), result.shards_missing
    )


def nothing(nq: int, k: int, metric: Metric, missing: tuple[str, ...] = ()) -> ShardResult:
    """The answer of a dataset without records, or without an answer of any shard."""
    slots, distances = np.full((nq, k), -1, np.int64), np.full((nq, k), np.nan, np.float32)
    return ShardResult(slots, distances, metric, {}, missing)
