"""Recall over the fan-out: what each shard finds for held-out queries, and what all of them find together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faissbase.ann.curve import Curve
from faissbase.ann.segment import Knobs
from faissbase.collection.frozen import Measurable
from faissbase.collection.recall import interval
from faissbase.collection.store import NOTHING
from faissbase.types import Float32, Metric, SearchResult, Slots

K = 10
_SPARE = 20  # true neighbours beyond K, for those that turn out to be replaced
_TOLERANCE = 1e-5  # float32 rounding, relative: a hit as near as the k-th counts

Found = tuple[Float32, Slots]


@dataclass(frozen=True, slots=True)
class Recall:
    """Recall@k of the whole dataset, with its 95 % interval; the mean is None where nothing can be asked."""

    k: int
    n_queries: int
    mean: float | None
    low: float
    high: float


def answers_of(collection: Measurable, queries: Float32, ids: Sequence[str], target: float) -> dict[str, Any]:
    """What a shard finds for ``float32[nq, d]``, the records ``ids`` themselves left out.

    Returns
    -------
    dict
        ``exact`` and ``found``, each ``distances`` and ``slots`` of every query; ``found`` is None of a shard
        without an index. Of all knobs that were measured to reach ``target`` it is what those find that find
        least, for which of them is the fastest, and is taken, varies from machine to machine. ``knobs``,
        ``recall_low``, the lower bound that was measured with them (None without an index), and ``reaches``:
        whether there are such knobs; otherwise those that find most are taken.
    """
    exact = _others(collection.search(queries, K + _SPARE, recall=1.0), ids)
    curve = collection.curve()
    if curve is None:
        return {"exact": _listed(exact), "found": None, "knobs": None, "reaches": True, "recall_low": None}
    choices = curve.choices_for(target)
    tried = [(choice.knobs, choice.recall_low) for choice in choices] or [_hardest(curve)]
    answers = [_others(collection.search_index(queries, K + 1, knobs), ids) for knobs, _ in tried]
    shares = [_recall_of(exact, found, collection.metric) for found in answers]
    worst = shares.index(min(shares))
    knobs = tried[worst][0]
    return {
        "exact": _listed(exact),
        "found": _listed(answers[worst]),
        "knobs": {"effort": knobs.effort, "rerank": knobs.rerank},
        "reaches": bool(choices),
        "recall_low": min(recall_low for _, recall_low in tried),
    }


def _hardest(curve: Curve) -> tuple[Knobs, float]:
    """The knobs that find most, and the lower bound of their recall."""
    best = max(curve.points, key=lambda point: (point.recall_low, -point.effort, -point.rerank))
    return Knobs(best.effort, best.rerank), best.recall_low


def _recall_of(exact: Found, found: Found, metric: Metric) -> float:
    """Of one shard by itself."""
    merging = Merging(len(exact[0]), metric)
    merging.add({"exact": _listed(exact), "found": _listed(found)}, NOTHING)
    return merging.recall().mean or 0.0


def _others(result: SearchResult, ids: Sequence[str]) -> Found:
    """Distances and slots without the query's own record; −1 and NaN at the end where there are fewer."""
    distances, slots = result.distances.copy(), result.slots.copy()
    rows = result.rows
    for i, own in enumerate(ids):
        is_own = np.array([slot >= 0 and rows[slot].id == own for slot in slots[i].tolist()], np.bool_)
        order = np.argsort(is_own, kind="stable")
        distances[i], slots[i] = distances[i][order], slots[i][order]
        if is_own.any():
            distances[i, -1], slots[i, -1] = np.nan, -1
    return distances, slots


def _listed(found: Found) -> dict[str, Any]:
    distances, slots = found
    return {"distances": distances.tolist(), "slots": slots.tolist()}


class Merging:
    """Takes the answers of one shard after another, and tells the recall of all."""

    def __init__(self, n_queries: int, metric: Metric) -> None:
        self._sign = np.float32(1.0 if metric == "l2" else -1.0)
        self._exact = np.empty((n_queries, 0), np.float32)
        self._found = np.empty((n_queries, 0), np.float32)

    def add(self, answers: dict[str, Any], hidden: Slots) -> None:
        """The answers of a shard, some of whose slots have been replaced since."""
        exact = self._kept(answers["exact"], hidden)
        found = exact if answers["found"] is None else self._kept(answers["found"], hidden)
        self._exact = np.sort(np.concatenate([self._exact, exact], axis=1), axis=1)[:, :K]
        self._found = np.sort(np.concatenate([self._found, found], axis=1), axis=1)[:, :K]

    def _kept(self, listed: dict[str, Any], hidden: Slots) -> Float32:
        """Distances, smaller for nearer; infinite where there is none."""
        slots = np.array(listed["slots"], np.int64)
        distances = np.array(listed["distances"], np.float64).astype(np.float32)  # None becomes NaN
        is_none = (slots < 0) | np.isin(slots, hidden)
        kept: Float32 = np.where(is_none, np.float32(np.inf), self._sign * distances)
        return kept

    def recall(self) -> Recall:
        """Over all that was added."""
        n_true = np.isfinite(self._exact).sum(axis=1)
        asked = np.flatnonzero(n_true)
        if not len(asked):
            return Recall(0, 0, None, 0.0, 1.0)
        shares = []
        for i in asked.tolist():
            kth = float(self._exact[i, n_true[i] - 1])
            slack = _TOLERANCE * (abs(kth) + 1e-30)
            near = int((self._found[i] <= kth + slack).sum())
            shares.append(min(1.0, near / int(n_true[i])))
        low, high = interval(shares)
        return Recall(int(n_true.max()), len(shares), math.fsum(shares) / len(shares), low, high)
