"""Hits that are near the question and unlike each other. Knows arrays only."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from faissbase.types import Float32

Float64 = npt.NDArray[np.float64]

_LEAST_NORM = 1e-30


def diverse(query: Float32, candidates: Float32, k: int, lambda_mult: float) -> list[int]:
    """The rows of ``candidates`` to take, in order: maximal marginal relevance.

    The next one is always that with the largest ``λ · sim(query, c) − (1 − λ) · max sim(c, taken)``, where
    sim is the cosine. λ = 1 is the order of similarity, λ = 0 takes what is least like what was taken.

    Parameters
    ----------
    query : float32[d]
    candidates : float32[m, d]
    k : int
        At most m are returned.
    lambda_mult : float
        λ, 0 to 1.

    **Source**: J. Carbonell and J. Goldstein, The use of MMR, diversity-based reranking for reordering
    documents and producing summaries, SIGIR 1998.
    """
    unit = _unit(candidates.astype(np.float64))
    relevance = unit @ _unit(query.astype(np.float64)[None])[0]
    likeness = np.full(len(unit), -np.inf)
    is_left = np.ones(len(unit), np.bool_)
    taken: list[int] = []
    while len(taken) < min(k, len(unit)):
        penalty = likeness if taken else np.zeros(len(unit))
        worth = np.where(is_left, lambda_mult * relevance - (1.0 - lambda_mult) * penalty, -np.inf)
        best = int(worth.argmax()) if taken else int(np.where(is_left, relevance, -np.inf).argmax())
        taken.append(best)
        is_left[best] = False
        likeness = np.maximum(likeness, unit @ unit[best])
    return taken


def _unit(rows: Float64) -> Float64:
    unit: Float64 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), _LEAST_NORM)
    return unit
