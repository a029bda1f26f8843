"""Grows one approximate index over a range of slots, a few thousand vectors at a time.

Knows arrays and slots; writes a file that `open_segment` reads. Not for many threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faissbase.ann import files
from faissbase.ann.checked import check_like
from faissbase.ann.coarse import TRAIN_ROWS, sample_rows
from faissbase.ann.codes import SignedBytes
from faissbase.ann.engine import Engine, innermost, omp_threads
from faissbase.ann.flat import MAX_THREADS
from faissbase.ann.grammar import Parsed, parse
from faissbase.ann.lists import find_lists
from faissbase.ann.segment import QUANTIZERS, SIGNED_BYTES, Segment, bare_graph, reranks_of, scalar_quantizer
from faissbase.ann.spec import Spec
from faissbase.errors import CorruptionError, InvalidInputError, NotReadyError
from faissbase.types import Float32, Metric

_CHUNK_ROWS = 8192
_SAMPLE_ROWS_CODES = 1 << 18  # enough for codes, where the lists are found
_SAMPLE_ROWS_SIGNED = 4096  # one scale is found, from a million numbers or more
_SEED = 1234
_TABLE_ROWS = 256  # for each entry of a table, as FAISS has it
_FAISS_BITS = 8  # of the tables that it rotates for


class Builder:
    """An index over slots ``first`` to ``stop``, growing.

    Parameters
    ----------
    spec : Spec
        What to build; not ``"Flat"``.
    metric : Metric
    vectors : float32[n, d]
        All mapped vectors of the collection; unit vectors for cosine. A longer mapping may be given to `add`.
    first : int
        The slot that becomes label 0.
    base : Path, optional
        An earlier file of the same spec over slots from ``first`` on, to go on from where it ends.
    threads : int
        OpenMP threads; the calling thread's own setting comes back after each call.

    Attributes
    ----------
    stop : int
        The slot after the last one added.

    Raises
    ------
    CorruptionError
        ``base`` is damaged or something else.
    """

    def __init__(
        self,
        spec: Spec,
        metric: Metric,
        vectors: Float32,
        first: int,
        *,
        base: Path | None = None,
        threads: int = MAX_THREADS,
    ) -> None:
        if spec.family == "flat":
            raise InvalidInputError("Flat is searched without an index: nothing to build")
        self.spec = spec
        self.metric = metric
        self.first = self.stop = first
        self._vectors = vectors
        self._threads = threads
        self._d = int(vectors.shape[1])
        is_l2 = metric == "l2" or parse(spec.factory).is_l2_only
        self._faiss_metric = faiss.METRIC_L2 if is_l2 else faiss.METRIC_INNER_PRODUCT
        self._code = bare_graph(spec)
        self._storage: Any = None
        self._signed: SignedBytes | None = None
        with omp_threads(threads):
            self._index = self._made() if base is None else self._resumed(base)

    @property
    def is_trained(self) -> bool:
        is_ready = self._signed is not None or QUANTIZERS.get(self._code or "") != SIGNED_BYTES
        return bool(self._index.is_trained) and is_ready

    def _made(self) -> Any:
        if QUANTIZERS.get(self._code or "") == SIGNED_BYTES:
            n_links = parse(self.spec.factory, self._d).n_links
            index = faiss.IndexHNSWSQ(self._d, SIGNED_BYTES, n_links, self._faiss_metric)
        else:
            index = faiss.index_factory(self._d, self.spec.factory, self._faiss_metric)
        inner = innermost(index)
        if isinstance(inner, faiss.IndexHNSW):
            inner.hnsw.efConstruction = self.spec.ef_construction
        if isinstance(inner, faiss.IndexIVFPQ | faiss.IndexPQ):
            inner.do_polysemous_training = False  # minutes, for a search that is not used
        _seed(inner)
        return index

    def _resumed(self, base: Path) -> Any:
        trailer = files.read_trailer(base, self.spec, self.metric, None, self._d)
        index = files.read_index(base)
        self.stop = self.first + trailer.n
        if index.ntotal != trailer.n or self.stop > len(self._vectors):
            raise CorruptionError(f"{base} holds {index.ntotal:,} vectors, expected {trailer.n:,}")
        if self._code is not None:
            index.storage = self._storage = self._storage_of(trailer.ranges)
            index.own_fields = False
        inner = innermost(index)
        if isinstance(inner, faiss.IndexHNSW):
            inner.hnsw.efConstruction = self.spec.ef_construction
        return index

    def _storage_of(self, ranges: Float32) -> Any:
        if self._code == "Flat":
            storage = faiss.IndexFlat(self._d, self._faiss_metric)
        else:
            assert self._code is not None
            quantizer = QUANTIZERS[self._code]
            storage = scalar_quantizer(self._d, quantizer, self._faiss_metric, ranges)
            self._signed = SignedBytes.from_ranges(ranges) if quantizer == SIGNED_BYTES else None
        for start in range(self.first, self.stop, _CHUNK_ROWS):
            storage.add(self._coded(self._vectors[start : min(start + _CHUNK_ROWS, self.stop)]))
        return storage

    def _coded(self, piece: Float32) -> Float32:
        return piece if self._signed is None else self._signed.rounded(piece)

    def train(self, xt: Float32 | None = None) -> None:
        """Train on ``xt``, ``float32[m, d]``, or on a seeded sample of the vectors, where training is needed.

        Raises
        ------
        NotReadyError
            Too few vectors.
        """
        if self.is_trained:
            return
        parsed = parse(self.spec.factory, self._d)
        sample = self._sample(parsed) if xt is None else np.ascontiguousarray(xt, np.float32)
        if len(sample) < parsed.min_points:
            wanted = f"{self.spec.factory} needs {parsed.min_points:,} vectors to train"
            raise NotReadyError(f"{wanted}, has {len(sample):,}")
        if QUANTIZERS.get(self._code or "") == SIGNED_BYTES:
            self._signed = SignedBytes.fitted(sample, self.metric)
        with omp_threads(self._threads), _rotated_for_codes(self._index):
            coded = self._coded(sample)
            if find_lists(self._index, coded):
                coded = np.ascontiguousarray(coded[:: max(1, len(coded) // _SAMPLE_ROWS_CODES)])
            self._index.train(coded)

    def _sample(self, parsed: Parsed) -> Float32:
        n = len(self._vectors) - self.first
        wanted = sample_rows(parsed.good_points, parsed.nlist, self._d)
        if QUANTIZERS.get(self._code or "") == SIGNED_BYTES:
            wanted = _SAMPLE_ROWS_SIGNED
        if n <= wanted:
            return np.ascontiguousarray(self._vectors[self.first :])
        rows = np.random.default_rng(_SEED).choice(n, wanted, replace=False)
        return np.ascontiguousarray(self._vectors[self.first + np.sort(rows)])

    def add(
        self,
        stop: int,
        *,
        progress: Callable[[int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        vectors: Float32 | None = None,
        threads: int | None = None,
    ) -> bool:
        """Add slots up to ``stop``; True when they are all in, False where ``should_stop`` ended it.

        Parameters
        ----------
        stop : int
        progress : callable, optional
            Called with ``self.stop`` after every few thousand vectors.
        should_stop : callable, optional
            Asked before every few thousand vectors.
        vectors : float32[n, d], optional
            A newer, longer mapping of the same vectors.
        threads : int, optional
            OpenMP threads for this call: a few vectors are added by one in less time than two take to meet.

        Raises
        ------
        NotReadyError
            Not trained.
        """
        if vectors is not None:
            self._vectors = vectors
        if not self.is_trained:
            raise NotReadyError(f"{self.spec.factory} is not trained")
        if stop > len(self._vectors):
            raise InvalidInputError(f"expected slots up to {len(self._vectors):,}, got {stop:,}")
        with omp_threads(self._threads if threads is None else threads):
            while self.stop < stop:
                if should_stop is not None and should_stop():
                    return False
                upto = min(stop, self.stop + _CHUNK_ROWS)
                self._index.add(self._coded(self._vectors[self.stop : upto]))
                self.stop = upto
                if progress is not None:
                    progress(upto)
        return True

    def check(self, base: Path) -> None:
        """See that what came out of ``base`` may be searched, whoever wrote it; `CorruptionError` if not."""
        try:
            check_like(self._index, self._made(), self.stop - self.first)
        except CorruptionError as error:
            raise CorruptionError(f"{base}: {error}") from error

    def segment(self) -> Segment:
        """What there is so far, to search it where it is: until `add` is called again, and not meanwhile."""
        return Segment(
            Engine(self._index, self._storage, codes=self._signed),
            self._vectors[self.first : self.stop],
            self.metric,
            self.first,
            family=self.spec.family,
            file_bytes=0,
            reranks=reranks_of(self.spec),
        )

    def write(self, path: Path) -> None:
        """Write what there is so far to a new file. Neither synced nor renamed."""
        ranges = np.empty(0, np.float32)
        flags = 0
        if self._code is not None:
            flags = faiss.IO_FLAG_SKIP_STORAGE
            storage = faiss.downcast_index(self._index.storage)
            if self._signed is not None:
                ranges = self._signed.ranges
            elif self._code in QUANTIZERS:
                ranges = faiss.vector_to_array(storage.sq.trained)
        trailer = files.Trailer(self.spec.factory, self.metric, self.stop - self.first, self._d, ranges)
        files.write(path, self._index, flags, trailer)


def _seed(index: Any) -> None:
    if isinstance(index, faiss.IndexIVF):
        index.cp.seed = _SEED
        index.cp.max_points_per_centroid = TRAIN_ROWS


@contextmanager
def _rotated_for_codes(index: Any) -> Iterator[None]:
    """Have an OPQ that is trained in the block rotate for codes of as many bits as there are.

    FAISS rotates for tables of 8 bits whatever the codes: with codes of 4 bits that takes sixteen times as
    long, minutes on a few thousand rows, and is for other codes than those that follow.
    """
    index, tables = faiss.downcast_index(index), getattr(innermost(index), "pq", None)
    if not isinstance(index, faiss.IndexPreTransform) or tables is None or tables.nbits >= _FAISS_BITS:
        yield
        return
    chain = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
    rotations = [transform for transform in chain if isinstance(transform, faiss.OPQMatrix)]
    lent = [faiss.ProductQuantizer(each.d_out, each.M, tables.nbits) for each in rotations]
    for rotation, pq in zip(rotations, lent, strict=True):
        rotation.pq, rotation.max_train_points = pq, _TABLE_ROWS << tables.nbits
    try:
        yield
    finally:
        for rotation, pq in zip(rotations, lent, strict=True):
            rotation.pq, pq.thisown = None, True  # FAISS would not free it
