"""Vectors once more in half precision, for scans: half the bytes to read, and the answer can be proven.

Knows arrays only. What the rounding can have hidden is bounded by the largest distance between a vector and
its code, which is measured while coding; `FlatView` runs a query again where that bound does not decide.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from faissbase.types import Float32, Metric

_STEPS = 8
_STEP_ROWS_MIN = 4096
_WORTH_NUMBERS = 1 << 20  # below, a scan takes less than what proving its answer costs
_UNDECIDED_MAX = 16
_ERROR_SLACK = 1.001  # float32 rounding of the errors themselves


@dataclass(frozen=True, slots=True)
class Coded:
    """The first ``n`` vectors in half precision; ``error`` bounds the distance of each to its code."""

    index: Any
    n: int
    error: float
    codes: npt.NDArray[np.float16]


class HalfCodes:
    """Grows with a collection; a row once coded never changes, so any number of threads may search.

    Coded a piece at a time by the scans themselves: a collection that is never scanned pays nothing.
    """

    def __init__(self, dimension: int, metric: Metric, owner: Any, *, most_bytes: int) -> None:
        self._d = dimension
        self._metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        self._owner = owner
        self._most_rows = most_bytes // (2 * dimension)
        self._lock = threading.Lock()
        self._room: npt.NDArray[np.float16] = np.zeros((0, dimension), np.float16)
        self._coded: Coded | None = None
        self._is_refused = False
        self._n_undecided = 0

    @property
    def size_bytes(self) -> int:
        return self._room.nbytes

    def of(self, vectors: Float32) -> Coded | None:
        """The codes of ``vectors`` as far as they are made, after making some more of them.

        None where they would not pay, do not fit the memory allowed or the numbers do not fit half precision.
        """
        n = len(vectors)
        if self._is_refused or n > self._most_rows or n * self._d < _WORTH_NUMBERS:
            return None
        coded = self._coded
        if (coded is None or coded.n < n) and self._lock.acquire(blocking=False):
            try:
                coded = self._advance(vectors, 0 if coded is None else coded.n)
            finally:
                self._lock.release()
        return None if coded is None or coded.n > n else coded

    def is_whole(self, n: int) -> bool:
        """Whether ``n`` vectors are all coded."""
        return self._coded is not None and self._coded.n == n

    def tell(self, is_decided: bool) -> None:
        """Take note whether a scan decided its query. Where most do not, the codes are given up."""
        self._n_undecided = max(0, self._n_undecided - 1) if is_decided else self._n_undecided + 1
        if self._n_undecided > _UNDECIDED_MAX:
            self._refuse()

    def _refuse(self) -> None:
        self._is_refused = True
        self._coded, self._room = None, self._room[:0].copy()

    def _advance(self, vectors: Float32, done: int) -> Coded | None:
        n = len(vectors)
        stop = min(n, done + max(_STEP_ROWS_MIN, n // _STEPS))
        with np.errstate(over="ignore"):
            codes = vectors[done:stop].astype(np.float16)
        errors = vectors[done:stop] - codes
        largest = float(np.einsum("ij,ij->i", errors, errors).max()) ** 0.5 * _ERROR_SLACK
        if not np.isfinite(largest):
            self._refuse()
            return None
        if len(self._room) < stop:
            room = np.empty((max(n, stop + stop // 8), self._d), np.float16)
            room[:done] = self._room[:done]
            self._room = room
        self._room[done:stop] = codes
        before = self._coded.error if self._coded else 0.0
        self._coded = Coded(self._index(stop), stop, max(before, largest), self._room)
        return self._coded

    def _index(self, n: int) -> Any:
        index = faiss.IndexScalarQuantizer(self._d, faiss.ScalarQuantizer.QT_fp16, self._metric)
        flat = self._room[:n].reshape(-1).view(np.uint8)
        index.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(flat), flat.nbytes, self._owner)
        index.ntotal = n
        return index
