"""Raw FAISS to compare with: an exact index in memory and nothing around it.

For benchmarks alone; knows arrays and row numbers.
"""

from __future__ import annotations

import faiss
import numpy as np

from faissbase.ann.engine import omp_threads as threads
from faissbase.ann.flat import MAX_THREADS, Neighbours
from faissbase.types import Float32, Metric

FAISS_VERSION: str = faiss.__version__

__all__ = ["FAISS_VERSION", "MAX_THREADS", "RawFlat", "threads"]


class RawFlat:
    """``faiss.IndexFlat`` over vectors added in row order; for cosine over their unit vectors."""

    def __init__(self, dimension: int, metric: Metric) -> None:
        self._metric = metric
        self._index = faiss.IndexFlat(
            dimension, faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        )

    @property
    def n(self) -> int:
        return int(self._index.ntotal)

    def prepared(self, vectors: Float32) -> Float32:
        """``vectors`` as this index wants them, ``float32[n, d]``: a copy of unit length for cosine."""
        ready: Float32 = np.ascontiguousarray(vectors, np.float32)
        if self._metric == "cosine":
            ready = ready / np.linalg.norm(ready.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
        return ready

    def add(self, vectors: Float32) -> None:
        """Append rows."""
        self._index.add(self.prepared(vectors))

    def search(self, xq: Float32, k: int) -> Neighbours:
        """The k nearest of prepared queries: ``(float32[nq, k], int64[nq, k])``; -1 where there are none."""
        distances, rows = self._index.search(xq, k)
        return distances, rows
