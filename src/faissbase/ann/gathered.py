"""The codes of a few slots side by side, scanned whole: what a filter leaves, at a quarter of the bytes.

Knows arrays and slots. The codes of what passes a filter lie all over a segment; brought together once, they
are read as fast as memory gives them. Candidates are then ranked by their true vectors, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from faissbase.ann.codes import SignedBytes
from faissbase.ann.engine import Engine
from faissbase.ann.flat import Neighbours, lay_over, threads_for
from faissbase.types import Float32, Slots


class Codes:
    """The codes of a segment's slots from ``first`` on, ``uint8[n, code_size]``, in memory.

    ``empty`` makes an index of their kind without vectors; ``signed`` is how queries are made like them.
    ``rank``, ``int32[n]``, has the row of each slot where they lie in another order.
    """

    def __init__(
        self,
        matrix: npt.NDArray[np.uint8],
        empty: Callable[[], Any],
        signed: SignedBytes | None,
        first: int,
        rank: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self._rank = rank
        self.matrix = matrix
        self.empty = empty
        self.signed = signed
        self.first = first

    def index(self) -> Any:
        """All of them as one FAISS index, row by row, which does not own them."""
        return lay_over(self.empty(), self.matrix, len(self.matrix))

    def bytes_of(self, n_slots: int) -> int:
        """Memory that so many gathered codes take."""
        return int(n_slots * (self.matrix.shape[1] + np.dtype(np.int64).itemsize))

    def gathered(self, slots: Slots) -> Gathered:
        """The codes of ``slots``, ``int64[m]``, all of this segment."""
        rows = slots - self.first
        codes = self.matrix[rows if self._rank is None else self._rank[rows]]
        index = lay_over(self.empty(), codes, len(codes))
        return Gathered(Engine(index, codes, codes=self.signed), slots)


class Gathered:
    """Some slots of one segment by their codes alone. Any number of threads may search."""

    def __init__(self, engine: Engine, slots: Slots) -> None:
        self._engine = engine
        self.slots = slots

    def candidates(self, queries: Float32, depth: int) -> Neighbours:
        """The slots whose codes are nearest, ``(float32[nq, k'], int64[nq, k'])``, k' = min(depth, m).

        Distances are those of the codes; slot −1 where such a one is not finite.

        Queries are ``float32[nq, d]``, C-contiguous, of unit length for cosine.
        """
        depth = min(depth, len(self.slots))
        compared = self._engine.prepared(queries)
        distances = np.empty((len(queries), depth), np.float32)
        labels = np.empty((len(queries), depth), np.int64)
        pointers = (faiss.swig_ptr(compared), depth, faiss.swig_ptr(distances), faiss.swig_ptr(labels))
        with threads_for(len(queries)):
            self._engine.index.search_c(len(queries), *pointers)
        signed = self._engine.codes
        if signed is not None:
            distances /= np.float32(signed.scale) ** 2
        return distances, np.where(labels >= 0, self.slots.take(labels), -1)
