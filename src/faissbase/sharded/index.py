"""One IVF-PQ shard in memory: trained, filled, searched, written to FAISS's own file format.

Imports faiss. Knows one index and its int64 ids; no collections, no object storage.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import faiss
import numpy as np

from faissbase.ann.lists import find_lists
from faissbase.collection import inputs
from faissbase.errors import AlreadyExistsError, InvalidInputError, NotReadyError
from faissbase.sharded import shard_file
from faissbase.sharded.parameters import (
    Plan,
    calculate_optimal_nprobe,
    checked_plan,
    trainable,
    training_rows,
)
from faissbase.types import Float32, Metric, Slots

_Path: TypeAlias = "str | os.PathLike[str]"

_METRICS: dict[str, Metric] = {"cosine": "cosine", "angular": "cosine", "euclidean": "l2", "l2": "l2"}
_SEED = 1234
_ADDED_ROWS = 65_536
_MAX_ID = np.iinfo(np.int64).max


class _LoadedHere:
    """`FaissIndex.load_from_file`, of the class and of an index: both are written; neither misleads."""

    def __get__(self, index: FaissIndex | None, owner: type[FaissIndex]) -> Callable[[_Path], FaissIndex]:
        def load_from_file(path: _Path) -> FaissIndex:
            """The index in a file of `save_to_file`, or of ``faiss.write_index`` if it is an ``IndexIVFPQ``.

            ``FaissIndex.load_from_file(path)`` makes an index. ``index.load_from_file(path)`` has an index
            hold what is in the file instead of what it holds, and returns it; the dimension must be its own.
            The metric comes with the file: inner product is cosine.

            Raises
            ------
            NotFoundError
                No such file.
            CorruptionError
                Damaged, or no such index.
            InvalidInputError
                ``index.load_from_file`` of another dimension.
            """
            found = shard_file.read(Path(path))
            metric: Metric = "l2" if found.metric_type == faiss.METRIC_L2 else "cosine"
            plan = Plan(found.nlist, found.pq.M, found.pq.nbits)
            loaded = owner(found.d, plan.nlist, plan.m, plan.nbits, metric) if index is None else index
            loaded._hold(found, plan, metric)
            return loaded

        return load_from_file


class FaissIndex:
    """Approximate nearest neighbours by inverted lists and product quantization.

    Safe to share between threads: one call at a time is done.

    Parameters
    ----------
    dimension : int
    nlist, m, nbits : int
        Lists, parts of a vector, and bits of each part's code; m divides ``dimension``. See
        `calculate_optimal_nlist` and `calculate_optimal_pq_params`.
    metric : {"cosine", "angular", "euclidean", "l2"}
        ``cosine`` and ``angular``: inner product of unit vectors, larger is nearer; vectors are brought to
        unit length here. ``euclidean`` and ``l2``: squared distance, as FAISS has it, smaller is nearer.

    Attributes
    ----------
    nlist, nbits : int
        What was really trained, which is less than what was asked where the training vectors were too few.

    Raises
    ------
    InvalidInputError
        Another metric, m that does not divide the dimension, nbits beyond 1 to 12.
    """

    load_from_file = _LoadedHere()

    def __init__(self, dimension: int, nlist: int, m: int, nbits: int = 8, metric: str = "cosine") -> None:
        self.metric = _metric(metric)
        self._plan = self._asked = checked_plan(dimension, nlist, m, nbits)
        self._lock = threading.Lock()
        self._ids: Slots | None = np.empty(0, np.int64)  # sorted; None: to be read from the lists
        self._index: Any = None
        self.dimension = int(dimension)

    def __repr__(self) -> str:
        return (
            f"FaissIndex({self.dimension}, nlist={self.nlist}, m={self.m}, nbits={self.nbits}, "
            f"metric={self.metric!r}, ntotal={self.ntotal})"
        )

    def __len__(self) -> int:
        return self.ntotal

    @property
    def nlist(self) -> int:
        return self._plan.nlist

    @property
    def m(self) -> int:
        return self._plan.m

    @property
    def nbits(self) -> int:
        return self._plan.nbits

    @property
    def is_trained(self) -> bool:
        return self._index is not None

    @property
    def ntotal(self) -> int:
        """How many vectors it holds."""
        return 0 if self._index is None else int(self._index.ntotal)

    def train(self, vectors: Any) -> None:
        """Find the lists' centroids and the codes' tables from ``float32[n, d]``, or a sample of them.

        Where n is too few for nlist or nbits, a smaller plan is trained, and a `UserWarning` says which.
        Training again starts over, and needs an index without vectors.

        Raises
        ------
        InvalidInputError
            Wrong dimension, not finite, a zero vector with cosine, or fewer than two vectors.
        NotReadyError
            The index holds vectors, whose codes would mean something else.
        """
        xt = self._checked(vectors)
        plan = trainable(self._asked, len(xt))
        with self._lock:
            if self.ntotal:
                raise NotReadyError(f"the index holds {self.ntotal:,} vectors: train a new one")
            self._index = _trained(plan, self.dimension, self.metric, _sample(xt, plan))
            self._plan = Plan(plan.nlist, plan.m, plan.nbits)
        if plan.changes:
            warnings.warn(
                f"{len(xt):,} training vectors allow {' and '.join(plan.changes)}", UserWarning, stacklevel=2
            )

    def add_vectors(self, vectors: Any, ids: Any) -> int:
        """Add ``float32[n, d]`` under n ids of 0 or more; says how many were added.

        Raises
        ------
        NotReadyError
            Not trained yet.
        InvalidInputError
            Vectors or ids are wrong: nothing was added.
        AlreadyExistsError
            An id occurs twice, or is in the index: nothing was added.
        """
        xb = self._checked(vectors)
        added = _checked_ids(ids, len(xb))
        with self._lock:
            self._check_trained()
            merged = self._merged(added)
            self._ids = None  # to be read from the lists if FAISS takes a part only
            for at in range(0, len(xb), _ADDED_ROWS):
                part = slice(at, at + _ADDED_ROWS)
                self._index.add_with_ids(xb[part], added[part])
            self._ids = merged
        return len(xb)

    def search(self, query: Any, k: int = 10, nprobe: int | None = None) -> tuple[Float32, Slots]:
        """The nearest ``k`` of one query or many.

        Parameters
        ----------
        query : float32[d] or float32[nq, d]
        k : int
        nprobe : int, optional
            Lists to search. Where none is given, `calculate_optimal_nprobe` for recall 0.95 of the lists.

        Returns
        -------
        distances : float32[k] or float32[nq, k]
        ids : int64[k] or int64[nq, k]
            Nearest first. One query brings as many as were found; of many, rows that found fewer end in
            id −1. Distances are those of the codes: an inner product may pass 1 by a little.

        Raises
        ------
        NotReadyError
            Not trained yet.
        InvalidInputError
            Wrong dimension, not finite, k or nprobe below 1.
        """
        xq, is_single = inputs.check_queries(query, self.dimension, self.metric)
        wanted = inputs.check_k(k, len(xq))
        probes = self._probes(nprobe)
        with self._lock:
            self._check_trained()
            parameters = faiss.SearchParametersIVF(nprobe=probes)
            distances, ids = self._index.search(xq, wanted, params=parameters)
        if not is_single:
            return distances, ids
        found = ids[0] >= 0
        return distances[0][found], ids[0][found]

    def save_to_file(self, path: _Path) -> None:
        """Write the index as FAISS does, and a checksum after it, whole or not at all.

        ``faiss.read_index`` reads the same file.

        Raises
        ------
        NotReadyError
            Not trained yet: there is nothing to write.
        UnavailableError
            The disk is full, or failed; an older file is still there.
        """
        with self._lock:
            self._check_trained()
            shard_file.write(Path(path), self._index)

    def _hold(self, index: Any, plan: Plan, metric: Metric) -> None:
        """Take another index in the place of what there is."""
        if index.d != self.dimension:
            raise InvalidInputError(f"the file holds vectors of d={index.d}, expected d={self.dimension}")
        with self._lock:
            self._index, self._ids = index, None
            self._plan, self._asked, self.metric = plan, plan, metric

    def _checked(self, vectors: Any) -> Float32:
        return inputs.stored_form(vectors, self.dimension, self.metric)[0]

    def _check_trained(self) -> None:
        if self._index is None:
            raise NotReadyError("the index is not trained: call train(vectors) first")

    def _probes(self, nprobe: int | None) -> int:
        if nprobe is None:
            return calculate_optimal_nprobe(self.nlist)
        return min(inputs.check_count(nprobe, "nprobe"), self.nlist)

    def _merged(self, added: Slots) -> Slots:
        """All ids, sorted, if none of ``added`` is there."""
        present = _stored_ids(self._index) if self._ids is None else self._ids
        new = np.sort(added)
        places = np.searchsorted(present, new)
        taken = places < len(present)
        taken[taken] = present[places[taken]] == new[taken]
        if taken.any():
            raise AlreadyExistsError(f"id {new[taken.argmax()]} is in the index; nothing was added")
        return np.insert(present, places, new)


def build_ivfpq_index(  # the order of its arguments is its users'
    dim: int, nlist: int, m: int, nbits: int, metric: str, vectors: Any
) -> FaissIndex:
    """A `FaissIndex` trained on ``vectors``, ``float32[n, d]``, and filled with them, under ids 0 to n − 1.

    Raises
    ------
    InvalidInputError
        See `FaissIndex` and `FaissIndex.train`.
    """
    index = FaissIndex(dim, nlist, m, nbits, metric)
    index.train(vectors)
    index.add_vectors(vectors, np.arange(len(vectors), dtype=np.int64))
    return index


def _metric(metric: Any) -> Metric:
    found = _METRICS.get(metric.lower()) if isinstance(metric, str) else None
    if found is None:
        raise InvalidInputError(f"metric must be one of {', '.join(_METRICS)}, got {metric!r}")
    return found


def _checked_ids(ids: Any, n: int) -> Slots:
    try:
        found = np.asarray(ids)
    except ValueError as error:
        raise InvalidInputError(f"ids must be whole numbers: {error}") from error
    if found.shape != (n,):
        raise InvalidInputError(f"expected {n} ids, one for each vector, got shape {found.shape}")
    if n and (found.dtype.kind not in "iu" or found.min() < 0 or found.max() > _MAX_ID):
        raise InvalidInputError(
            f"ids must be whole numbers from 0 to 2^63 - 1, got {found.dtype} {found[:3]}"
        )
    added: Slots = found.astype(np.int64)
    unique, counts = np.unique(added, return_counts=True)
    if len(unique) < n:
        raise AlreadyExistsError(f"id {unique[counts.argmax()]} is given twice; nothing was added")
    return added


def _sample(xt: Float32, plan: Plan) -> Float32:
    most = training_rows(plan.nlist, plan.nbits)
    if len(xt) <= most:
        return xt
    rows = np.random.default_rng(_SEED).choice(len(xt), most, replace=False)
    return xt[np.sort(rows)]


def _trained(plan: Plan, d: int, metric: Metric, xt: Float32) -> Any:
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.index_factory(d, plan.factory, kind)
    index.do_polysemous_training = False  # reorders the codes for a search that is not used, in minutes
    for clustering in (index.cp, index.pq.cp):
        clustering.seed = _SEED
        clustering.min_points_per_centroid = 1  # what is too few has been planned for
    find_lists(index, xt)
    index.train(xt)
    return index


def _stored_ids(index: Any) -> Slots:
    """The ids in the inverted lists, sorted."""
    lists = index.invlists
    found = [
        faiss.rev_swig_ptr(lists.get_ids(i), size).copy()
        for i in range(index.nlist)
        if (size := lists.list_size(i))
    ]
    stored: Slots = np.sort(np.concatenate(found)) if found else np.empty(0, np.int64)
    return stored
