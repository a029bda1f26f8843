"""An immutable approximate index over a range of slots, searched with every hit re-ranked by its true vector.

Knows arrays and slots: no storage, no ids. A segment never changes what it answers; `Segment.warm` makes it
faster while others search.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import faiss
import numpy as np

from faissbase.ann import files
from faissbase.ann.arranged import Arrangement, arranged
from faissbase.ann.codes import SignedBytes
from faissbase.ann.engine import Engine, Selected, Selector, omp_threads
from faissbase.ann.flat import Neighbours, lay_over, picked, threads_for
from faissbase.ann.gathered import Codes
from faissbase.ann.grammar import Family, parse
from faissbase.ann.spec import Spec
from faissbase.errors import CorruptionError
from faissbase.storage.arrival import Arrival
from faissbase.types import Float32, Metric, Slots

__all__ = ["Knobs", "Segment", "Selector", "open_segment"]

_WARM_BYTES = 1 << 20  # of vectors that are coded at once: malloc keeps what larger pieces needed meanwhile
_BATCH_ROWS = 4096  # queries whose candidates are held at once
_BATCH_ROWS_LEAST = 64
# FastScan makes a table of 16 numbers for each part of a code, query and list; of a billion bytes if it may.
_TABLES_BYTES = 256 << 20
_TABLE_BYTES = 40  # a number of a vector, at most
_K_MEASURED = 10


@dataclass(frozen=True, slots=True)
class Knobs:
    """How hard to search.

    Attributes
    ----------
    effort : int
        ``ef_search`` of HNSW, ``nprobe`` of IVF; without meaning for codes alone.
    rerank : int
        Candidates computed again by their true vectors, for each hit asked; see `depth`.
    least : int
        With a selector: how many selected candidates must turn up for a query to count as answered, at
        most ``effort``. Where fewer do, what is selected lies elsewhere than where the graph was searched,
        and the query's answer is all −1: search what is selected exactly.
    """

    effort: int
    rerank: int = 1
    least: int = 0

    def depth(self, k: int, n: int) -> int:
        """Candidates for k hits among n vectors: ``rerank`` times k, and at least as many as for ten hits."""
        return min(n, max(k, self.rerank * max(k, _K_MEASURED)))


class _Room:
    """Arrays and FAISS's pointers to them, for one query of one thread at a time."""

    __slots__ = (
        "compared",
        "compared_at",
        "exact",
        "exact_at",
        "labels",
        "labels_at",
        "query",
        "query_at",
        "rough",
        "rough_at",
        "slots",
        "slots_at",
    )

    def __init__(self, depth: int, d: int) -> None:
        self.query, self.compared = np.empty((1, d), np.float32), np.empty((1, d), np.float32)
        self.rough, self.exact = np.empty(depth, np.float32), np.empty(depth, np.float32)
        self.labels, self.slots = np.empty(depth, np.int64), np.empty(depth, np.int64)
        self.query_at, self.compared_at = faiss.swig_ptr(self.query), faiss.swig_ptr(self.compared)
        self.rough_at, self.exact_at = faiss.swig_ptr(self.rough), faiss.swig_ptr(self.exact)
        self.labels_at, self.slots_at = faiss.swig_ptr(self.labels), faiss.swig_ptr(self.slots)


class _Rooms(threading.local):
    """A thread's rooms by depth and dimension."""

    def __init__(self) -> None:
        self.by_size: dict[tuple[int, int], _Room] = {}


_ROOMS = _Rooms()
_MOST_ROOMS = 64


def _room(depth: int, d: int) -> _Room:
    rooms = _ROOMS.by_size
    room = rooms.get((depth, d))
    if room is None:
        if len(rooms) >= _MOST_ROOMS:
            rooms.clear()
        room = rooms[depth, d] = _Room(depth, d)
    return room


class _Storage(Protocol):
    """What an HNSW graph compares: made over the mapped vectors at once, over codes in memory later."""

    def flat(self) -> Engine: ...
    def coded(self, should_stop: Callable[[], bool]) -> tuple[Engine, Codes, int] | None: ...


class Segment:
    """The vectors of slots ``first`` to ``stop``, searched approximately. Any number of threads may search.

    Attributes
    ----------
    n, d : int
    first, stop : int
        Its slots.
    family : {'hnsw', 'ivf', 'codes'}
        What `Knobs.effort` means.
    n_lists : int
        Lists of IVF; 0 otherwise.
    reranks : tuple of int
        Re-ranking depths worth measuring, ascending.
    codes : Codes or None
        What is compared instead of the vectors, once `warm` has made it.
    file_bytes : int
    """

    def __init__(  # noqa: PLR0913  # what it is made of, by name
        self,
        engine: Engine,
        vectors: Float32,
        metric: Metric,
        first: int,
        *,
        family: Family,
        file_bytes: int,
        reranks: tuple[int, ...] = (1,),
        storage: _Storage | None = None,
        arrival: Arrival | None = None,
    ) -> None:
        self._vectors = vectors
        self._arrival = arrival
        self.n, self.d = vectors.shape
        self.metric = metric
        self.first, self.stop = first, first + len(vectors)
        self.family: Family = family
        self.file_bytes = file_bytes
        self.n_lists = engine.n_lists
        self.reranks = reranks
        self._engine = engine
        self._storage = storage
        self.codes: Codes | None = None
        self._graph_bytes = 0
        self._is_nearer_smaller = metric == "l2"
        self._kernel = faiss.fvec_L2sqr_by_idx if metric == "l2" else faiss.fvec_inner_products_by_idx
        self._vectors_at = faiss.swig_ptr(vectors)

    @property
    def vectors(self) -> Float32:
        """The true vectors, ``float32[n, d]``, once all are there."""
        if self._arrival is not None:
            self._arrival.need_all()
        return self._vectors

    def _need(self, labels: Slots) -> None:
        """Wait for the vectors of candidates."""
        if self._arrival is not None:
            self._arrival.need(labels[labels >= 0] + self.first)

    @property
    def ram_bytes(self) -> int:
        """Bytes that searches keep busy: the mapped file, or graph and codes in memory; not the vectors."""
        return self.file_bytes if self.codes is None else self._graph_bytes + self.codes.matrix.nbytes

    @property
    def is_warm(self) -> bool:
        """Whether `warm` has nothing to do any more."""
        return self._storage is None

    def search(self, queries: Float32, k: int, knobs: Knobs, selector: Selector | None = None) -> Neighbours:
        """The nearest found: ``(float32[nq, k'], int64[nq, k'])`` with slots, nearest first; k' = min(k, n).

        Distances are computed by the true vectors, exactly as `FlatView` does. Missing ones come last: slot
        −1 at distance ±inf. With a selector, a query that found fewer than ``knobs.least`` gets none at all.

        Parameters
        ----------
        queries : float32[nq, d]
            C-contiguous; of unit length for cosine.
        k : int
        knobs : Knobs
        selector : Selector, optional
            Which slots may be found.
        """
        engine = self._engine  # this one throughout: `warm` may put another in its place
        selected = self._selected(engine, selector)
        if len(queries) == 1 and (selected is None or engine.takes_selector):
            return self._search_one(engine, queries, k, knobs, selected)
        return self._search_many(engine, queries, k, knobs, selected)

    def _selected(self, engine: Engine, selector: Selector | None) -> Selected | None:
        return None if selector is None else selector.part(self.first, self.stop, engine.order)

    def _search_one(
        self, engine: Engine, query: Float32, k: int, knobs: Knobs, selected: Selected | None
    ) -> Neighbours:
        """Without FAISS's Python wrappers, whose checks cost as much as searching a few hundred vectors."""
        depth, least = knobs.depth(k, self.n), 0
        if selected is not None and knobs.least:
            least = min(knobs.least, self.n)
            depth = max(depth, least)
        room = _room(depth, self.d)
        parameters = engine.parameters(knobs.effort, selected)
        room.query[:] = query
        engine.prepared(query, room.compared)
        with threads_for(1):
            engine.index.search_c(1, room.compared_at, depth, room.rough_at, room.labels_at, parameters)
            labels, labels_at = room.labels, room.labels_at
            if engine.order is not None:
                engine.order.take(room.labels, out=room.slots, mode="wrap")  # −1 leads to the last, −1
                labels, labels_at = room.slots, room.slots_at
            self._need(labels)
            self._kernel(room.exact_at, room.query_at, self._vectors_at, labels_at, self.d, 1, depth)
        exact = room.exact
        if least and labels[least - 1] < 0:
            return self._nothing(1, k)
        order = (exact if self._is_nearer_smaller else -exact).argsort(kind="stable")[:k]
        slots = labels.take(order)
        if self.first:
            slots[slots >= 0] += self.first
        return exact.take(order)[None], slots[None]

    def _search_many(
        self, engine: Engine, queries: Float32, k: int, knobs: Knobs, selected: Selected | None
    ) -> Neighbours:
        depth = knobs.depth(k, self.n)
        least = min(knobs.least, self.n) if selected is not None else 0
        pieces: list[Neighbours] = []
        step = self._rows_at_once(knobs.effort)
        for start in range(0, len(queries), step):
            piece = queries[start : start + step]
            exact, slots = self._candidates(piece, max(depth, least), knobs.effort, engine, selected)
            order = np.argsort(exact if self._is_nearer_smaller else -exact, axis=1, kind="stable")[:, :k]
            found = picked(exact, slots, order)
            if least:
                is_short = slots[:, least - 1] < 0
                found[0][is_short], found[1][is_short] = self._nothing(1, k)
            pieces.append(found)
        if len(pieces) == 1:
            return pieces[0]
        if not pieces:
            return self._nothing(0, k)
        return np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])

    def _nothing(self, nq: int, k: int) -> Neighbours:
        width, far = min(k, self.n), np.inf if self._is_nearer_smaller else -np.inf
        return np.full((nq, width), far, np.float32), np.full((nq, width), -1, np.int64)

    def candidates(
        self, queries: Float32, depth: int, effort: int, selector: Selector | None = None
    ) -> Neighbours:
        """What the index itself puts first: ``(float32[nq, depth], int64[nq, depth])``, in its own order.

        Distances are those of the true vectors, slots as in `search`. For measuring how deep to re-rank.
        """
        engine = self._engine
        selected = self._selected(engine, selector)
        step, width = self._rows_at_once(effort), min(depth, self.n)
        pieces = [
            self._candidates(queries[start : start + step], width, effort, engine, selected)
            for start in range(0, max(1, len(queries)), step)
        ]
        return np.concatenate([piece[0] for piece in pieces]), np.concatenate([piece[1] for piece in pieces])

    def _rows_at_once(self, effort: int) -> int:
        """Queries to search together, so that what FAISS keeps for them stays small."""
        if self.family != "ivf":
            return _BATCH_ROWS
        each: int = max(1, min(effort, self.n_lists)) * self.d * _TABLE_BYTES
        return max(_BATCH_ROWS_LEAST, min(_BATCH_ROWS, _TABLES_BYTES // each))

    def _candidates(
        self, queries: Float32, depth: int, effort: int, engine: Engine, selected: Selected | None
    ) -> Neighbours:
        x = np.ascontiguousarray(queries)
        with threads_for(len(x)):
            _, labels = engine.search(x, depth, effort, selected)
            labels, exact = np.ascontiguousarray(labels), np.empty(labels.shape, np.float32)
            self._need(labels)
            pointers = (faiss.swig_ptr(exact), faiss.swig_ptr(x), self._vectors_at, faiss.swig_ptr(labels))
            self._kernel(*pointers, self.d, *labels.shape)
        return exact, np.where(labels >= 0, labels + self.first, -1) if self.first else labels

    def warm(self, should_stop: Callable[[], bool] = lambda: False, *, threads: int = 1) -> bool:
        """Bring codes into memory and search them from then on; True when that is done.

        Until then, and where ``should_stop`` ends it or the file is gone, a graph is searched by the mapped
        vectors themselves.
        Others may search meanwhile; call it from one thread.
        """
        storage = self._storage
        if storage is not None:
            with omp_threads(threads):
                made = storage.coded(should_stop)
            if made is None:
                return False
            self._engine, self.codes, self._graph_bytes = made
            self._storage = None
        return True


class _GraphStorage:
    """Reads the graph of ``path`` anew for each storage: an engine in use is never changed."""

    def __init__(
        self, path: Path, ranges: Float32, quantizer: int, vectors: Float32, metric: int, first: int
    ) -> None:
        self._path = path
        self._first = first
        self._ranges = ranges
        self._quantizer = quantizer
        self._vectors = vectors
        self._metric = metric

    def flat(self) -> Engine:
        flat = faiss.IndexFlat(self._vectors.shape[1], self._metric)
        index, storage = self._graph(), lay_over(flat, self._vectors, len(self._vectors))
        index.storage, index.own_fields = storage, False
        return Engine(index, storage, self._vectors)

    def _graph(self) -> Any:
        return files.read_index(self._path, faiss.IO_FLAG_MMAP_IFC)

    def coded(self, should_stop: Callable[[], bool]) -> tuple[Engine, Codes, int] | None:
        """The graph over codes, both arranged anew; and the bytes of the graph."""
        if not self._path.exists():  # replaced meanwhile: nobody needs this segment fast any more
            return None
        index = self._graph()
        arrangement = arranged(index, should_stop)
        codes = None if arrangement is None else self._codes(arrangement, should_stop)
        if arrangement is None or codes is None:
            return None
        arrangement.lay_over(index)
        storage = codes.index()
        index.storage, index.own_fields = storage, False
        kept = storage, codes.matrix, arrangement
        return Engine(index, *kept, codes=codes.signed, order=arrangement.order), codes, arrangement.n_bytes

    def _codes(self, arrangement: Arrangement, should_stop: Callable[[], bool]) -> Codes | None:
        n, d = self._vectors.shape
        empty = partial(scalar_quantizer, d, self._quantizer, self._metric, self._ranges)
        signed = SignedBytes.from_ranges(self._ranges) if self._quantizer == SIGNED_BYTES else None
        index, rank = empty(), arrangement.rank
        codes = np.empty((n, index.code_size), np.uint8)
        step = max(1, _WARM_BYTES // (4 * d))
        for start in range(0, n, step):
            if should_stop():
                return None
            piece = self._vectors[start : start + step]
            if signed is not None:
                made = signed.encode(piece)
            else:
                made = np.empty((len(piece), index.code_size), np.uint8)
                index.sa_encode_c(len(piece), faiss.swig_ptr(piece), faiss.swig_ptr(made))
            codes[rank[start : start + step]] = made
        return Codes(codes, empty, signed, self._first, rank)


def scalar_quantizer(d: int, quantizer: int, metric: int, ranges: Float32) -> Any:
    """An empty scalar quantizer index with the trained ``ranges``."""
    index = faiss.IndexScalarQuantizer(d, quantizer, metric)
    if quantizer == SIGNED_BYTES:
        index.is_trained = True  # its ranges are ours: see `SignedBytes`
        return index
    faiss.copy_array_to_vector(np.ascontiguousarray(ranges, np.float32), index.sq.trained)
    index.is_trained = True
    return index


SIGNED_BYTES = faiss.ScalarQuantizer.QT_8bit_direct_signed
QUANTIZERS = {
    "SQ4": faiss.ScalarQuantizer.QT_4bit,
    "SQ6": faiss.ScalarQuantizer.QT_6bit,
    "SQ8": SIGNED_BYTES,
    "SQfp16": faiss.ScalarQuantizer.QT_fp16,
    "SQbf16": faiss.ScalarQuantizer.QT_bf16,
}


def bare_graph(spec: Spec) -> str | None:
    """The code of an HNSW index whose file is the graph alone; None where the whole index is written."""
    code = spec.factory.partition(",")[2]
    is_bare = spec.factory.startswith("HNSW") and (code == "Flat" or code in QUANTIZERS)
    return code if is_bare else None


def reranks_of(spec: Spec) -> tuple[int, ...]:
    """Re-ranking depths worth measuring: none for true vectors, shallow for scalars, deep for few bits."""
    if not spec.is_lossy:
        return (1,)
    parsed = parse(spec.factory)
    is_fine = not parsed.transforms and parsed.code in ("SQ8", "SQ6", "SQfp16", "SQbf16")
    return (1, 2, 4) if is_fine else (1, 2, 4, 8, 16, 32, 64)


def open_segment(
    path: Path,
    spec: Spec,
    metric: Metric,
    vectors: Float32,
    first: int,
    stop: int,
    arrival: Arrival | None = None,
) -> Segment:
    """The segment in file ``path``, mapped, ready to search at once.

    Parameters
    ----------
    path : Path
        Written by `Builder.write`; must stay readable until `Segment.warm` is through.
    spec : Spec
        What was built.
    metric : Metric
    vectors : float32[n, d]
        All mapped vectors of the collection, of which the segment covers ``first`` to ``stop``.
    first, stop : int
    arrival : Arrival, optional
        Where vectors may not be there yet: candidates are waited for; under a graph over vectors, all.

    Raises
    ------
    CorruptionError
        Cut short, damaged so that FAISS notices, or something else than ``spec`` over these slots.
    """
    rows = vectors[first:stop]
    n, d = stop - first, vectors.shape[1]
    if len(rows) != n:
        raise CorruptionError(f"{path} covers slots {first:,} to {stop:,} of {len(vectors):,}")
    trailer = files.read_trailer(path, spec, metric, n, d)
    storage, code = None, bare_graph(spec)
    if code is not None:
        if arrival is not None:
            arrival.need_all()
        faiss_metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        storage = _GraphStorage(path, trailer.ranges, QUANTIZERS.get(code, -1), rows, faiss_metric, first)
        engine = storage.flat()
    else:
        engine = Engine(files.read_index(path, faiss.IO_FLAG_MMAP_IFC))
    if (engine.index.ntotal, engine.index.d) != (n, d):
        raise CorruptionError(f"{path} holds {engine.index.ntotal:,} vectors, expected {n:,}")
    return Segment(
        engine,
        rows,
        metric,
        first,
        family=spec.family,
        file_bytes=path.stat().st_size,
        reranks=reranks_of(spec),
        storage=storage if code in QUANTIZERS else None,
        arrival=arrival,
    )
