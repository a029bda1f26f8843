"""Recall against the exact answers, ties allowed. Knows arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.datasets import Dataset, Rows

# Nearness closer together than this is a tie: float32 sums differ by so much; l2 of whole numbers is exact.
_TIE = {"cosine": 1e-6, "ip": 1e-6, "l2": 0.0}


class WrongAnswerError(Exception):
    """More records came back than can match."""


def recall(dataset: Dataset, found: Sequence[Sequence[int]], truth: Rows, k: int) -> float:
    """The share of the true k nearest that came back.

    A row that is not among the true ones counts where it is as near as the k-th.

    Parameters
    ----------
    found : per query, the rows that came back
    truth : int[nq, at least k]
        Exact answers; −1 where fewer match.
    """
    n_right, n_true = 0, 0
    for query, (rows, exact) in enumerate(zip(found, truth[: len(found), :k], strict=True)):
        wanted = exact[exact >= 0]
        if len(rows) > len(wanted):
            raise WrongAnswerError(f"query {query}: {len(rows)} hits where {len(wanted)} can match")
        n_true += len(wanted)
        n_right += _n_right(dataset, query, set(rows), wanted)
    return n_right / n_true if n_true else 1.0


def _n_right(dataset: Dataset, query: int, rows: set[int], wanted: Rows) -> int:
    others = rows - set(wanted.tolist())
    n_right = len(rows) - len(others)
    if others:
        limit = _nearness(dataset, query, wanted).min() - _TIE[dataset.metric]
        n_right += int(np.count_nonzero(_nearness(dataset, query, np.array(sorted(others))) >= limit))
    return n_right


def _nearness(dataset: Dataset, query: int, rows: Rows) -> npt.NDArray[np.float64]:
    xb, xq = dataset.xb[rows].astype(np.float64), dataset.xq[query].astype(np.float64)
    nearness: npt.NDArray[np.float64]
    if dataset.metric == "l2":
        nearness = -np.square(xb - xq).sum(axis=1)
    else:
        nearness = xb @ xq
    if dataset.metric == "cosine":
        nearness /= np.linalg.norm(xb, axis=1) * np.linalg.norm(xq)
    return nearness
