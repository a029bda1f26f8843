"""Searches of one index that come while others run there: those that wait become one call of FAISS.

Nobody waits for company. Only where the answers are the same to the last bit: for classes that search each
query by itself, and below the size of a batch from which FAISS turns to BLAS.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import faiss
import numpy as np

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


class _Waiting:
    """One search: its queries, and what became of it."""

    def __init__(self, x: Any, k: int) -> None:
        self.x, self.k = x, k
        self.turn = threading.Event()
        self.found: tuple[Any, Any] | None = None
        self.error: Exception | None = None


class Searches:
    """The searches of one index, at most ``at_once`` of them in FAISS. Thread-safe."""

    def __init__(self, index: Any, at_once: int) -> None:
        self._index = index
        numbers = int(faiss.cvar.distance_compute_blas_threshold)
        self._most = min(_MOST, (numbers - 1) // max(1, index.d)) if _may_gather(index) else 0
        self._free = at_once
        self._lock = threading.Lock()
        self._line: deque[_Waiting] = deque()

    def few(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, int] | None:
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
        mine = _Waiting(x, k)
        with self._lock:
            is_free = self._free > 0
            if is_free:
                self._free -= 1
            else:
                self._line.append(mine)
        if not is_free:
            mine.turn.wait()
        if mine.found is None and mine.error is None:
            self._run(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.found is not None
        return mine.found

    def _run(self, mine: _Waiting) -> None:
        """Search for ``mine`` and for who waits and asks alike; then it is the next one's turn."""
        group = [mine, *self._alike(mine)]
        try:
            _search(self._index, group)
        finally:
            for other in group[1:]:
                other.turn.set()
            with self._lock:
                following = self._line.popleft() if self._line else None
                self._free += following is None
            if following is not None:
                following.turn.set()

    def _alike(self, mine: _Waiting) -> list[_Waiting]:
        room, taken = self._most - len(mine.x), list[_Waiting]()
        with self._lock:
            while self._line and self._line[0].k == mine.k and len(self._line[0].x) <= room:
                taken.append(self._line.popleft())
                room -= len(taken[-1].x)
        return taken


def _search(index: Any, group: list[_Waiting]) -> None:
    if len(group) > 1:
        try:
            distances, labels = index.search(np.concatenate([each.x for each in group]), group[0].k)
        except Exception:  # noqa: BLE001  # one of them may be at fault: each is asked alone
            pass
        else:
            stops = np.cumsum([len(each.x) for each in group]).tolist()
            for each, stop in zip(group, stops, strict=True):
                part = slice(stop - len(each.x), stop)
                each.found = distances[part], labels[part]
            return
    for each in group:
        try:
            each.found = index.search(each.x, each.k)
        except Exception as error:  # noqa: BLE001  # it is the answer
            each.error = error


def _may_gather(index: Any) -> bool:
    """Whether searches of ``index`` may be run together."""
    if type(index).__name__ not in _TOGETHER:
        return False
    if not isinstance(index, faiss.IndexIVF):
        return True
    return type(faiss.downcast_index(index.quantizer)).__name__ in _QUANTIZERS
