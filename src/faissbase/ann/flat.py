"""Exact search by FAISS's kernels over vectors that stay where they are, in a mapped file.

Knows arrays and slots: no storage, no ids, no tombstones. A `FlatView` is never changed after it is made,
so any number of threads may search one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import faiss
import numpy as np

from faissbase.ann.cores import threads
from faissbase.ann.half import Coded, HalfCodes
from faissbase.storage.arrival import Arrival
from faissbase.types import Float32, Metric, Slots

_MANY = 8  # times k: from there on, a part is chosen before it is sorted
_GATHER_BYTES = 16 << 20
# From this many queries on, copying a subset together pays.
GATHER_QUERIES = 20
SCAN_NS = 0.20
"""Nanoseconds a number of an exact search of one query usually takes; other costs are told beside it."""
# FAISS turns to BLAS from this many numbers in a batch of queries on.
_BLAS_NUMBERS = int(faiss.cvar.distance_compute_blas_threshold)
_FILLED_K = 64  # what is found for the zeros takes memory and time too
_FILLED_SHARE = 0.14  # measured 0.09 at 384 dimensions, 0.13 at 128
MAX_THREADS = threads()

Neighbours = tuple[Float32, Slots]


def _foreign_owner() -> tuple[Any, Any]:
    """An owner for memory that is not FAISS's: borrowed from an index read without a copy, kept alive."""
    index = faiss.IndexFlatL2(1)
    index.add(np.zeros((1, 1), np.float32))
    blob = faiss.serialize_index(index)
    borrowed = faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(blob), blob.size))
    return borrowed.codes.owner, (borrowed, blob)


# OpenMP's threads do not survive a fork, and a child that waits for them waits for ever.
_PROCESS = os.getpid()
_OWNER, _OWNER_KEPT = _foreign_owner()


def lay_over(index: Any, memory: Any, n: int) -> Any:
    """``index`` (flat or a scalar quantizer) with the ``n`` vectors that lie in ``memory``, not copied.

    The caller keeps ``memory``, a contiguous array, alive.
    """
    if n:
        flat = memory.reshape(-1).view(np.uint8)
        index.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(flat), flat.nbytes, _OWNER)
        index.ntotal = n
    return index


def lay_ints_over(memory: Any) -> Any:
    """FAISS's vector of ``int32`` over ``memory``, a contiguous array that the caller keeps alive."""
    return faiss.MaybeOwnedVectorInt32.create_view(faiss.swig_ptr(memory), memory.size, _OWNER)


def half_codes(dimension: int, metric: Metric, most_bytes: int) -> HalfCodes:
    """Room for half-precision copies of a collection's vectors, up to ``most_bytes``."""
    return HalfCodes(dimension, metric, _OWNER, most_bytes=most_bytes)


@contextmanager
def one_thread_a_batch() -> Iterator[None]:
    """What this thread searches meanwhile takes one OpenMP thread, for others search beside it.

    OpenMP's threads wait by turning round: a batch on two takes half as much processor time again.
    """
    with threads_a_batch(1):
        yield


@contextmanager
def threads_a_batch(n: int) -> Iterator[None]:
    """What this thread searches meanwhile takes ``n`` OpenMP threads, for the other cores are others'."""
    _batches.threads = n
    try:
        yield
    finally:
        _batches.threads = MAX_THREADS


def own_thread() -> None:
    """In the thread that calls this nobody else sets OpenMP's threads: they need not be asked for again.

    A call of FAISS's, however small, lets go of Python's lock, and may wait for it as long as a search takes.
    """
    faiss.omp_set_num_threads(1)
    _batches.set_to = 1


_batches = threading.local()


class threads_for:
    """One OpenMP thread for one query, all for more; the caller's own setting comes back after."""

    __slots__ = ("_before", "_known", "_wanted")

    def __init__(self, nq: int) -> None:
        is_many = nq > 1 and os.getpid() == _PROCESS
        self._wanted: int = getattr(_batches, "threads", MAX_THREADS) if is_many else 1

    def __enter__(self) -> None:
        self._known: int | None = getattr(_batches, "set_to", None)
        self._before = faiss.omp_get_max_threads() if self._known is None else self._known
        if self._before != self._wanted:
            faiss.omp_set_num_threads(self._wanted)
        _batches.set_to = self._wanted

    def __exit__(self, *_: object) -> None:
        if self._before != self._wanted:
            faiss.omp_set_num_threads(self._before)
        _batches.set_to = self._known


def uses_blas(nq: int, d: int) -> bool:
    """Whether FAISS runs a batch as a matrix product by itself."""
    return nq * d >= _BLAS_NUMBERS


def product_rows(nq: int, d: int) -> int:
    """Queries in the matrix product that answers ``nq`` of them, zeros included; 0 where it does not pay.

    FAISS makes one only for so many numbers, and then takes an eighth of the time or less for each query. So
    it is worth while to fill a smaller batch up with queries of zeros.
    """
    least = -(-_BLAS_NUMBERS // d)
    return max(nq, least) if nq >= max(2, _FILLED_SHARE * least) else 0


def _filled(queries: Float32) -> Float32:
    """The queries, with as many of zeros after them as make a matrix product."""
    nq, d = queries.shape
    rows = product_rows(nq, d)
    return queries if rows == nq else np.pad(queries, ((0, rows - nq), (0, 0)))


def picked(distances: Float32, slots: Slots, order: Slots) -> Neighbours:
    """The columns ``order`` of each row of both: ``np.take_along_axis`` without its cost for one query."""
    if len(order) == 1:
        columns = order[0]
        return distances[0].take(columns)[None], slots[0].take(columns)[None]
    places = order + np.arange(0, distances.size, distances.shape[1])[:, None]
    return distances.take(places), slots.take(places)


def _widened(k: int) -> int:
    return k + max(5, k // 4)


def _faiss_metric(metric: Metric) -> int:
    return int(faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT)


class Subset:
    """Slots to search among: int64, ascending, none twice. FAISS's objects for them are made once."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def __len__(self) -> int:
        return len(self.slots)

    @cached_property
    def parameters(self) -> Any:
        return faiss.SearchParameters(sel=faiss.IDSelectorArray(self.slots))


def _search_alone(index: Any, query: Float32, k: int, parameters: Any = None) -> Neighbours:
    """One query, without FAISS's Python wrapper, which costs as much as searching some thousand vectors."""
    distances, slots = np.empty((1, k), np.float32), np.empty((1, k), np.int64)
    pointers = (faiss.swig_ptr(query), k, faiss.swig_ptr(distances), faiss.swig_ptr(slots))
    with threads_for(1):
        index.search_c(1, *pointers, parameters)
    return distances, slots


class FlatView:
    """``float32[n, d]`` as an exact index, without a copy.

    Distances are FAISS's: squared for l2, the inner product for ip and cosine. A missing neighbour has
    slot −1.
    """

    def __init__(
        self,
        vectors: Float32,
        metric: Metric,
        half: HalfCodes | None = None,
        arrival: Arrival | None = None,
    ) -> None:
        self._vectors = vectors
        self.metric = metric
        self._half = half
        self._arrival = arrival
        self.n, self.d = vectors.shape
        self._longest_norm: float | None = None

    @property
    def vectors(self) -> Float32:
        """All of them, once they are there."""
        self.need_all()
        return self._vectors

    @property
    def is_whole(self) -> bool:
        """Whether every vector is there, and none has to be waited for."""
        return self._arrival is None or self._arrival.is_whole

    def rows(self, slots: Slots | int) -> Float32:
        """The vectors in some slots, once these are there."""
        self._need(np.atleast_1d(slots))
        found: Float32 = self._vectors[slots]
        return found

    def _need(self, slots: Slots) -> None:
        if self._arrival is not None:
            self._arrival.need(slots)

    def need_all(self) -> None:
        """Return once every vector is there."""
        if self._arrival is not None:
            self._arrival.need_all()

    @cached_property
    def _index(self) -> Any:
        """Made when first searched: a moment whose index answers needs none.

        Over what may not be there yet: whoever searches it has asked for what it will read.
        """
        return lay_over(faiss.IndexFlat(self.d, _faiss_metric(self.metric)), self._vectors, self.n)

    @property
    def _index_of_all(self) -> Any:
        self.need_all()
        return self._index

    @property
    def is_halved(self) -> bool:
        """Whether one query alone is scanned in half precision."""
        return self._half is not None and self._half.is_whole(self.n)

    @property
    def half_bytes(self) -> int:
        """Memory that the half-precision copy takes, beyond the mapped vectors."""
        return self._half.size_bytes if self._half is not None else 0

    def search(self, queries: Float32, k: int) -> Neighbours:
        """The k nearest of all: ``(float32[nq, k], int64[nq, k])``, nearest first."""
        if len(queries) == 1:
            return self._search_one(queries, k)
        nq = len(queries)
        if not product_rows(nq, self.d) or (k > _FILLED_K and not uses_blas(nq, self.d)):
            return self._search_directly(queries, k)
        wide = min(self.n, _widened(k))
        with threads_for(nq):
            distances, slots = self._index_of_all.search(_filled(queries), wide)
        return self._settle(queries, k, distances[:nq], slots[:nq], self.n, None)

    def search_subset(self, queries: Float32, k: int, subset: Subset) -> Neighbours:
        """The k nearest among a subset."""
        self._need(subset.slots)
        if len(queries) == 1:
            return _search_alone(self._index, queries, k, subset.parameters)
        if len(queries) < GATHER_QUERIES:
            return self._search_directly(queries, k, subset)
        distances, found = self._search_gathered(queries, min(len(subset), _widened(k)), subset.slots)
        return self._settle(queries, k, distances, found, len(subset), subset)

    def _search_one(self, query: Float32, k: int) -> Neighbours:
        wide = _widened(k)
        half = self._half
        coded = half.of(self.vectors) if half is not None else None
        if half is not None and coded is not None and wide <= coded.n:
            found = self._search_half(query, k, wide, half, coded)
            if found is not None:
                return found
        return _search_alone(self._index_of_all, query, k)

    def _search_half(
        self, query: Float32, k: int, wide: int, half: HalfCodes, coded: Coded
    ) -> Neighbours | None:
        """The k nearest by a scan of half the bytes; None where rounding may have kept a nearer one out."""
        rough, slots = _search_alone(coded.index, query, wide)
        if coded.n < self.n:
            rest = self.vectors[coded.n :]
            with threads_for(1):
                _, late = faiss.knn(query, rest, min(k, len(rest)), metric=_faiss_metric(self.metric))
            slots = np.concatenate([slots, late + coded.n], axis=1)
        distances, found = self.nearest_of(query, k, slots)
        is_decided = not self._may_have_missed(query, distances[:, -1], rough[:, -1], coded.error)[0]
        half.tell(is_decided)
        return (distances, found) if is_decided else None

    def _search_directly(self, queries: Float32, k: int, subset: Subset | None = None) -> Neighbours:
        """By the kernels that subtract, piece by piece, whatever the number of queries."""
        parameters = None if subset is None else subset.parameters
        index = self._index_of_all if subset is None else self._index
        step = max(1, (_BLAS_NUMBERS - 1) // self.d)
        pieces = []
        for start in range(0, len(queries), step):
            piece = queries[start : start + step]
            with threads_for(len(piece)):
                pieces.append(index.search(piece, k, params=parameters))
        if len(pieces) == 1:
            distances, found = pieces[0]
            return distances, found
        return np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])

    def _search_gathered(self, queries: Float32, k: int, slots: Slots) -> Neighbours:
        """Copy the subset together piece by piece: a batch then reads it in order, in constant memory."""
        rows = max(1, _GATHER_BYTES // (4 * self.d))
        nq = len(queries)
        if product_rows(nq, self.d) and k <= _FILLED_K:
            queries = _filled(queries)
        merged = faiss.ResultHeap(len(queries), k, keep_max=self.metric != "l2")
        with threads_for(nq):
            for start in range(0, len(slots), rows):
                piece = slots[start : start + rows]
                n_found = min(k, len(piece))
                distances, local = faiss.knn(
                    queries, self._vectors[piece], n_found, metric=_faiss_metric(self.metric)
                )
                merged.add_result(distances, piece[local])
            merged.finalize()
        return merged.D[:nq], merged.I[:nq]

    def _settle(
        self, queries: Float32, k: int, rough: Float32, slots: Slots, n: int, subset: Subset | None
    ) -> Neighbours:
        """The k nearest out of more that BLAS found, with the very distances that one query alone gets.

        BLAS computes l2 as ``x² + y² − 2xy``, which loses digits where vectors are long and near. What it
        found is computed again, directly. Where rounding could have kept a nearer vector out, the query is
        run again without BLAS.
        """
        distances, found = self.nearest_of(queries, k, slots)
        if slots.shape[1] < n:
            doubtful = np.flatnonzero(self._may_have_missed(queries, distances[:, -1], rough[:, -1]))
            if len(doubtful):
                again = self._search_directly(queries[doubtful], distances.shape[1], subset)
                distances[doubtful], found[doubtful] = again
        return distances, found

    def nearest_of(self, queries: Float32, k: int, slots: Slots) -> Neighbours:
        """The k nearest of each query's candidates ``int64[nq, m]``, their distances computed directly."""
        exact = self.distances_of(queries, slots)
        if slots.shape[1] > _MANY * k:
            signed = exact if self.metric == "l2" else -exact
            few = np.argpartition(signed, k, axis=1)[:, : k + 1]
            exact, slots = picked(exact, slots, few)
        order = np.argsort(exact if self.metric == "l2" else -exact, axis=1, kind="stable")[:, :k]
        return picked(exact, slots, order)

    def distances_of(self, queries: Float32, slots: Slots) -> Float32:
        """The distance of each query to its own ``int64[nq, m]``, computed directly."""
        self._need(slots)
        exact = np.empty(slots.shape, np.float32)
        kernel = faiss.fvec_L2sqr_by_idx if self.metric == "l2" else faiss.fvec_inner_products_by_idx
        x, slots = np.ascontiguousarray(queries), np.ascontiguousarray(slots)
        pointers = (faiss.swig_ptr(array) for array in (exact, x, self._vectors, slots))
        with threads_for(len(queries)):
            kernel(*pointers, self.d, *slots.shape)
        return exact

    def _may_have_missed(self, queries: Float32, kth: Float32, last: Float32, error: float = 0.0) -> Any:
        """Whether a vector nearer than the k-th may lie beyond the last one found roughly, ``bool[nq]``.

        The error of a rough distance is bounded by ``(4 + √d) ε (|x|² + |y|²)``: rounding errors of d sums
        add up as a random walk does. For l2, whatever is nearer than the k-th has ``|y| ≤ |x| + √distance``;
        for ip, none is longer than the longest. Where the vectors searched were codes, each within ``error``
        of its vector, that moves an inner product by ``|x| error`` and a distance (not squared) by ``error``.

        **Source**: N. Higham, Accuracy and Stability of Numerical Algorithms, 2002, sections 2.8 and 3.1;
        for the codes, the inequalities of Cauchy-Schwarz and of the triangle.
        """
        relative = (4.0 + self.d**0.5) * float(np.finfo(np.float32).eps)
        if self.metric == "cosine":
            return kth < last + (2.0 * relative + error)
        x_squared = np.einsum("ij,ij->i", queries, queries, dtype=np.float64)
        if self.metric == "ip":
            return kth < last + np.sqrt(x_squared) * (relative * self._longest() + error)
        y_squared = (np.sqrt(x_squared) + np.sqrt(kth)) ** 2
        nearest_code = np.sqrt(np.maximum(last - relative * (x_squared + y_squared), 0.0))
        return kth > np.maximum(nearest_code - error, 0.0) ** 2

    def _longest(self) -> float:
        """The length of the longest vector, found once."""
        if self._longest_norm is None:
            squares = np.empty(self.n, np.float32)
            with threads_for(2):
                faiss.fvec_norms_L2sqr(faiss.swig_ptr(squares), faiss.swig_ptr(self.vectors), self.d, self.n)
            self._longest_norm = float(squares.max()) ** 0.5
        return self._longest_norm

    def range_search(self, query: Float32, radius: float) -> Neighbours:
        """Everything nearer than ``radius`` to one query ``float32[1, d]``, unsorted.

        Returns ``(float32[m], int64[m])``. Nearer is a squared distance below ``radius`` for l2, an inner
        product above it otherwise.
        """
        with threads_for(1):
            _, distances, slots = self._index_of_all.range_search(query, radius)
        return distances, slots
