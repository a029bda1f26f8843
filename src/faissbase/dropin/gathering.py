"""Searches of one index that come while others run there: those that wait become one call of FAISS.

Nobody waits for company. Only where the answers are the same to the last bit: for classes that search each
query by itself, and below the size of a batch from which FAISS turns to BLAS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import faiss
import numpy as np

from faissbase.gathering import Gathering

_MOST = 64
_TOGETHER = (
    "IndexFlat",
    "IndexFlatL2",
    "IndexFlatIP",
    "IndexScalarQuantizer",
    "IndexHNSWFlat",
    "IndexHNSWSQ",
    "IndexIVFFlat",
    "IndexIVFPQ",
    "IndexIVFScalarQuantizer",
)
_QUANTIZERS = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexHNSWFlat")


_Few: TypeAlias = tuple[Any, int]
"""Queries, ``float32[nq, d]``, and k."""


class Searches:
    """The searches of one index, at most ``at_once`` of them in FAISS. Thread-safe."""

    def __init__(self, index: Any, at_once: int) -> None:
        self._index = index
        numbers = int(faiss.cvar.distance_compute_blas_threshold)
        self._most = min(_MOST, (numbers - 1) // max(1, index.d)) if _may_gather(index) else 0
        self._gathering: Gathering[_Few, tuple[Any, Any]] = Gathering(self._found, self._fits, at_once)

    def few(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Few | None:
        """The few queries and the k of a search that asks for nothing else; None for any other."""
        if not self._most or kwargs.keys() - {"x", "k"} or len(args) + len(kwargs) != 2:
            return None
        x, k = (*args, *(kwargs[name] for name in ("x", "k") if name in kwargs))
        is_plain = isinstance(x, np.ndarray) and x.dtype == np.float32 and x.ndim == 2 and type(k) is int
        if not is_plain or k < 1 or x.shape[1] != self._index.d:
            return None
        return (x, k) if 0 < len(x) <= self._most else None

    def search(self, x: Any, k: int) -> tuple[Any, Any]:
        """What ``index.search(x, k)`` gives."""
        return self._gathering.ask((x, k))

    def _fits(self, taken: Sequence[_Few], other: _Few) -> bool:
        return other[1] == taken[0][1] and sum(len(x) for x, _ in taken) + len(other[0]) <= self._most

    def _found(self, group: Sequence[_Few]) -> list[tuple[Any, Any]]:
        if len(group) == 1:
            return [self._index.search(*group[0])]
        distances, labels = self._index.search(np.concatenate([x for x, _ in group]), group[0][1])
        stops = np.cumsum([len(x) for x, _ in group]).tolist()
        parts = [slice(stop - len(x), stop) for (x, _), stop in zip(group, stops, strict=True)]
        return [(distances[part], labels[part]) for part in parts]


def _may_gather(index: Any) -> bool:
    """Whether searches of ``index`` may be run together."""
    if type(index).__name__ not in _TOGETHER:
        return False
    if not isinstance(index, faiss.IndexIVF):
        return True
    return type(faiss.downcast_index(index.quantizer)).__name__ in _QUANTIZERS
