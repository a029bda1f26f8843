"""How a search is run: on everything, on everything with room for what is dropped after, or on a few slots.

All paths give the exact answer; the cheapest by the costs below is taken. Knows arrays and selections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from faissbase.ann.flat import GATHER_QUERIES, MAX_THREADS, FlatView, Neighbours, uses_blas
from faissbase.collection.selection import Selection
from faissbase.types import Float32, Mask

Path = Literal["none", "scan", "wide scan", "subset"]

# Nanoseconds a float: measured on 40,000 × 384 and 500,000 × 128, FAISS 1.15.1 (see ARCHITECTURE.md).
_SCAN_NS = 0.20
_SUBSET_NS = 0.24
_SUBSET_MANY_NS = 0.55  # from a quarter of the slots on, memory is no longer read ahead
_BLAS_NS = 0.03
_GATHER_NS = 0.40
_FEW_DROPPED = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """The path taken, and what each possible one was forecast to cost in milliseconds."""

    path: Path
    n_slots: int
    n_matching: int
    predicted_ms: dict[str, float]


def choose(view: FlatView, nq: int, selection: Selection) -> Plan:
    """The cheapest path for ``nq`` queries."""
    n, m = view.n, selection.count
    if not m or not nq:
        return Plan("none", n, m, {})
    if m == n:
        return Plan("scan", n, m, {"scan": _scan_ms(n, view.d, nq)})
    predicted: dict[Path, float] = {
        "wide scan": _scan_ms(n, view.d, nq),
        "subset": _subset_ms(m, n, view.d, nq),
    }
    path = min(predicted, key=lambda name: predicted[name])
    return Plan(path, n, m, {str(name): cost for name, cost in predicted.items()})


def _scan_ms(n: int, d: int, nq: int) -> float:
    ns = _BLAS_NS if uses_blas(nq, d) else _SCAN_NS
    return n * d * nq * ns / min(nq, MAX_THREADS) / 1e6


def _subset_ms(m: int, n: int, d: int, nq: int) -> float:
    if nq >= GATHER_QUERIES:
        return m * d * _GATHER_NS / 1e6 + _scan_ms(m, d, nq)
    ns = _SUBSET_NS if m < n / 4 else _SUBSET_MANY_NS
    return m * d * nq * ns / min(nq, MAX_THREADS) / 1e6


def run(plan: Plan, view: FlatView, queries: Float32, k: int, selection: Selection) -> Neighbours:
    """The k nearest selected slots: ``(float32[nq, k'], int64[nq, k'])``, k' = min(k, matching)."""
    k = min(k, selection.count)
    if plan.path == "none":
        nq = len(queries)
        return np.empty((nq, 0), np.float32), np.empty((nq, 0), np.int64)
    if plan.path == "scan" or selection.mask is None:
        return view.search(queries, k)
    if plan.path == "subset":
        return view.search_subset(queries, k, selection.slots)
    return _wide_scan(view, queries, k, selection, selection.mask)


def _wide_scan(view: FlatView, queries: Float32, k: int, selection: Selection, mask: Mask) -> Neighbours:
    """Search everything for more than k, drop what is not selected; queries left short search the subset."""
    dropped = view.n - selection.count
    wide = k + dropped if dropped <= _FEW_DROPPED else math.ceil(1.2 * k * view.n / selection.count) + 10
    distances, slots = view.search(queries, min(wide, view.n))
    keep = mask[slots] & (slots >= 0)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    distances, slots = np.take_along_axis(distances, order, 1), np.take_along_axis(slots, order, 1)
    short = np.flatnonzero(keep.sum(axis=1) < k)
    if len(short):
        distances[short], slots[short] = view.search_subset(queries[short], k, selection.slots)
    return distances, slots


def range_search(
    view: FlatView, query: Float32, radius: float, selection: Selection
) -> tuple[Float32, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Every selected slot nearer than ``radius`` to one query, nearest first."""
    distances, slots = view.range_search(query, radius)
    if selection.mask is not None:
        keep = selection.mask[slots]
        distances, slots = distances[keep], slots[keep]
    order = np.argsort(distances if view.metric == "l2" else -distances, kind="stable")
    return distances[order], slots[order]
