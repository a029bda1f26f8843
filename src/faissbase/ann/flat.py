"""Exact search by FAISS's kernels over vectors that stay where they are, in a mapped file.

Knows arrays and slots: no storage, no ids, no tombstones. A `FlatView` is never changed after it is made,
so any number of threads may search one.
"""

from __future__ import annotations

import os
from typing import Any

import faiss
import numpy as np

from faissbase.types import Float32, Metric, Slots

_GATHER_BYTES = 16 << 20
# FAISS turns to BLAS from this many queries on (cvar.distance_compute_blas_threshold).
BLAS_QUERIES = 20
MAX_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Neighbours = tuple[Float32, Slots]


def _foreign_owner() -> tuple[Any, Any]:
    """An owner for memory that is not FAISS's: borrowed from an index read without a copy, kept alive."""
    index = faiss.IndexFlatL2(1)
    index.add(np.zeros((1, 1), np.float32))
    blob = faiss.serialize_index(index)
    borrowed = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(blob), blob.size))
    return borrowed.codes.owner, (borrowed, blob)


_OWNER, _OWNER_KEPT = _foreign_owner()


class _threads:
    """One OpenMP thread for one query, all for more; the caller's own setting comes back after."""

    __slots__ = ("_before", "_wanted")

    def __init__(self, nq: int) -> None:
        self._wanted = MAX_THREADS if nq > 1 else 1
        self._before = self._wanted

    def __enter__(self) -> None:
        self._before = faiss.omp_get_max_threads()
        if self._before != self._wanted:
            faiss.omp_set_num_threads(self._wanted)

    def __exit__(self, *_: object) -> None:
        if self._before != self._wanted:
            faiss.omp_set_num_threads(self._before)


def _faiss_metric(metric: Metric) -> int:
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


class FlatView:
    """``float32[n, d]`` as an exact index, without a copy.

    Distances are FAISS's: squared for l2, the inner product for ip and cosine. A missing neighbour has
    slot −1.
    """

    def __init__(self, vectors: Float32, metric: Metric) -> None:
        self.vectors = vectors
        self.metric = metric
        self.n, self.d = vectors.shape
        self._index = faiss.IndexFlat(self.d, _faiss_metric(metric))
        if self.n:
            flat = vectors.reshape(-1).view(np.uint8)
            self._index.codes = faiss.MaybeOwnedVectorUInt8.create_view(
                faiss.swig_ptr(flat), flat.nbytes, _OWNER
            )
            self._index.ntotal = self.n

    def search(self, queries: Float32, k: int) -> Neighbours:
        """The k nearest of all: ``(float32[nq, k], int64[nq, k])``, nearest first."""
        with _threads(len(queries)):
            distances, slots = self._index.search(queries, k)
        return self._settled(queries, distances, slots)

    def search_subset(self, queries: Float32, k: int, slots: Slots) -> Neighbours:
        """The k nearest among ``slots`` (int64, ascending, none twice)."""
        if len(queries) < BLAS_QUERIES:
            selector = faiss.IDSelectorArray(slots)
            parameters = faiss.SearchParameters(sel=selector)
            with _threads(len(queries)):
                distances, found = self._index.search(queries, k, params=parameters)
            return distances, found
        distances, found = self._search_gathered(queries, k, slots)
        return self._settled(queries, distances, found)

    def _search_gathered(self, queries: Float32, k: int, slots: Slots) -> Neighbours:
        """Copy the subset together piece by piece: a batch then runs at BLAS speed in constant memory."""
        rows = max(1, _GATHER_BYTES // (4 * self.d))
        merged = faiss.ResultHeap(len(queries), k, keep_max=self.metric != "l2")
        with _threads(len(queries)):
            for start in range(0, len(slots), rows):
                piece = slots[start : start + rows]
                n_found = min(k, len(piece))
                distances, local = faiss.knn(
                    queries, self.vectors[piece], n_found, metric=_faiss_metric(self.metric)
                )
                merged.add_result(distances, piece[local])
            merged.finalize()
        return merged.D, merged.I

    def _settled(self, queries: Float32, distances: Float32, slots: Slots) -> Neighbours:
        """Give a batch the very distances that one query alone gets.

        From 20 queries on FAISS computes l2 as ``x² + y² − 2xy``, which loses digits where vectors are long
        and near; here the few that were found are computed again, directly, and put in order.
        """
        if len(queries) < BLAS_QUERIES or not self.n:
            return distances, slots
        exact = np.full_like(distances, np.inf if self.metric == "l2" else -np.inf)
        kernel = faiss.fvec_L2sqr_by_idx if self.metric == "l2" else faiss.fvec_inner_products_by_idx
        pointers = (faiss.swig_ptr(array) for array in (exact, queries, self.vectors, slots))
        with _threads(len(queries)):
            kernel(*pointers, self.d, *slots.shape)
        exact[slots < 0] = np.inf if self.metric == "l2" else -np.inf
        order = np.argsort(exact if self.metric == "l2" else -exact, axis=1, kind="stable")
        return np.take_along_axis(exact, order, 1), np.take_along_axis(slots, order, 1)

    def range_search(self, query: Float32, radius: float) -> Neighbours:
        """Everything nearer than ``radius`` to one query ``float32[1, d]``, unsorted.

        Returns ``(float32[m], int64[m])``. Nearer is a squared distance below ``radius`` for l2, an inner
        product above it otherwise.
        """
        with _threads(1):
            _, distances, slots = self._index.range_search(query, radius)
        return distances, slots
