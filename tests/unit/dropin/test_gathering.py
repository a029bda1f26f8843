"""Searches that come together: the answers are those of each by itself, to the last bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from faissbase.dropin.gathering import Searches

_D, _K, _PATIENCE_S = 24, 7, 30
_Job = Callable[[Searches], Any]


class _Slow:
    """An index whose first search waits until others have come."""

    def __init__(self, index: Any, sizes: list[int]) -> None:
        self.d, self._index, self.sizes = index.d, index, sizes
        self.entered, self.go_on = threading.Event(), threading.Event()

    def search(self, x: npt.NDArray[np.float32], k: int) -> Any:
        self.sizes.append(len(x))
        if len(self.sizes) == 1:
            self.entered.set()
            assert self.go_on.wait(_PATIENCE_S)
        return self._index.search(x, k)


def _asks(x: npt.NDArray[np.float32], k: int = _K) -> _Job:
    return lambda searches: searches.search(x, k)


def _index(spec: str, xb: npt.NDArray[np.float32]) -> Any:
    made = faiss.index_factory(_D, spec)
    made.train(xb)
    made.add(xb)
    return made


def _together(index: Any, jobs: list[_Job]) -> tuple[list[Any], list[int]]:
    """What jobs give that all wait for a search that is running, and how many queries each call had."""
    sizes: list[int] = []
    searches, slow = Searches(index, 1), _Slow(index, sizes)
    searches._index = slow
    found: list[Any] = [None] * len(jobs)

    def run(number: int) -> None:
        try:
            found[number] = jobs[number](searches)
        except RuntimeError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(jobs))]
    threads[0].start()
    assert slow.entered.wait(_PATIENCE_S)
    for n, thread in enumerate(threads[1:], 1):
        thread.start()
        while len(searches._gathering._line) < n:
            thread.join(0.001)
    slow.go_on.set()
    for thread in threads:
        thread.join(_PATIENCE_S)
    return found, sizes


@pytest.mark.parametrize("spec", ["Flat", "SQ8", "HNSW16", "IVF8,Flat", "IVF8,PQ4np", "IVF8,SQ8"])
def test_searches_that_wait_are_one_call_and_answered_as_if_alone(spec: str) -> None:
    rng = np.random.default_rng(0)
    xb, xq = (rng.random((n, _D), dtype=np.float32) for n in (2000, 65))
    index = _index(spec, xb)
    jobs = [_asks(xq[at : at + 1]) for at in range(65)]
    found, sizes = _together(index, jobs)
    assert sizes == [1, 64]
    for at, answer in enumerate(found):
        assert all(map(np.array_equal, answer, index.search(xq[at : at + 1], _K)))


def test_a_call_has_fewer_queries_than_faiss_would_answer_by_blas() -> None:
    xb = np.random.default_rng(0).random((500, _D), dtype=np.float32)
    jobs = [_asks(xb[:30]) for _ in range(6)]
    found, sizes = _together(_index("Flat", xb), jobs)
    assert sizes == [30, 60, 60, 30]
    assert all(np.array_equal(answer[1], found[0][1]) for answer in found)


def test_searches_for_other_numbers_of_hits_are_not_mixed() -> None:
    xb = np.random.default_rng(0).random((500, _D), dtype=np.float32)
    jobs = [_asks(xb[:1], k) for k in (3, 3, 5, 5, 3)]
    found, sizes = _together(_index("Flat", xb), jobs)
    assert [answer[1].shape for answer in found] == [(1, 3), (1, 3), (1, 5), (1, 5), (1, 3)]
    assert sizes == [1, 1, 2, 1]


def test_one_that_fails_takes_no_other_with_it() -> None:
    xb = np.random.default_rng(0).random((500, _D), dtype=np.float32)
    index = _index("Flat", xb)

    class Picky:
        d = _D

        def search(self, x: npt.NDArray[np.float32], k: int) -> Any:
            if np.isnan(x).any():
                raise RuntimeError("no number")
            return index.search(x, k)

    bad = np.full((1, _D), np.nan, np.float32)
    jobs = [_asks(x) for x in (xb[:1], xb[:1], bad, xb[1:2])]
    found, _ = _together(Picky(), jobs)
    assert isinstance(found[2], RuntimeError)
    assert [int(found[at][1][0, 0]) for at in (0, 1, 3)] == [0, 0, 1]


def test_only_plain_searches_of_few_queries_are_gathered() -> None:
    xb = np.random.default_rng(0).random((500, _D), dtype=np.float32)
    flat = Searches(_index("Flat", xb), 1)
    asked = flat.few((), {"x": xb[:2], "k": 3})
    assert asked is not None
    assert asked[1] == 3
    assert flat.few((xb[:2],), {"k": 3}) is not None
    refused: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
        ((xb[:65], 3), {}),
        ((xb[:0], 3), {}),
        ((xb[:2], 0), {}),
        ((xb[:2], np.int64(3)), {}),
        ((xb[:2].astype(np.float64), 3), {}),
        ((xb[:2, :5], 3), {}),
        ((xb[0], 3), {}),
        (([1, 2], 3), {}),
        ((xb[:2],), {}),
        ((xb[:2], 3), {"params": None}),
        ((xb[:2],), {"K": 3}),
    ]
    for args, kwargs in refused:
        assert flat.few(args, kwargs) is None
    for spec in ("PCA8,Flat", "PQ4x4fs", "IVF8,PQ4x4fs", "LSH"):
        assert Searches(_index(spec, xb), 1).few((xb[:2], 3), {}) is None


def test_wide_vectors_are_gathered_below_the_size_that_blas_takes() -> None:
    wide = faiss.IndexFlatL2(8000)
    x = np.zeros((16, 8000), np.float32)
    assert Searches(wide, 1).few((x[:15], 3), {}) is not None
    assert Searches(wide, 1).few((x, 3), {}) is None
