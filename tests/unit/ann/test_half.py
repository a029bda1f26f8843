"""Half-precision scans: the same answers as without them, or none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from faissbase.ann.flat import FlatView, half_codes
from faissbase.types import METRICS, Float32, Metric

N, D, K = 20_000, 96, 10

Maker = Callable[[np.random.Generator, int], np.ndarray]
KINDS: dict[str, Maker] = {
    "normal": lambda rng, n: rng.normal(size=(n, D)),
    "bytes": lambda rng, n: rng.integers(0, 255, (n, D)),
    "far from zero": lambda rng, n: rng.normal(1000, 1, (n, D)),
    "repeated": lambda rng, n: np.repeat(rng.normal(size=(n // 50 + 1, D)), 50, axis=0)[:n],
    "tiny": lambda rng, n: rng.normal(size=(n, D)) * 1e-6,
    "huge": lambda rng, n: rng.normal(size=(n, D)) * 1e6,
}


def _made(kind: str, metric: Metric, seed: int = 0) -> tuple[Float32, Float32]:
    rng = np.random.default_rng(seed)
    xb = KINDS[kind](rng, N).astype(np.float32)
    xq = (xb[rng.integers(0, N, 40)] + 0.1 * KINDS[kind](rng, 40)).astype(np.float32)
    if metric == "cosine":
        xb /= np.linalg.norm(xb, axis=1, keepdims=True)
        xq /= np.linalg.norm(xq, axis=1, keepdims=True)
    return np.ascontiguousarray(xb), np.ascontiguousarray(xq)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_in_half_precision_answers_as_one_in_full(kind: str, metric: Metric) -> None:
    xb, xq = _made(kind, metric)
    full, halved = FlatView(xb, metric), FlatView(xb, metric, half_codes(D, metric, 1 << 30))
    for query in xq:
        expected, found = full.search(query[None], K), halved.search(query[None], K)
        np.testing.assert_array_equal(found[0], expected[0])
        if kind != "repeated":
            np.testing.assert_array_equal(found[1], expected[1])


def test_scans_code_a_piece_each_and_then_read_half_the_bytes() -> None:
    xb, xq = _made("normal", "l2")
    half = half_codes(D, "l2", 1 << 30)
    view = FlatView(xb, "l2", half)
    coded = []
    for query in xq[:8]:
        view.search(query[None], K)
        found = half.of(xb)
        assert found is not None
        coded.append(found.n)
    assert coded == sorted(coded)
    assert coded[0] < N
    assert coded[-1] == N
    assert half.size_bytes == N * D * 2


def test_codes_follow_a_collection_that_grows() -> None:
    xb, xq = _made("normal", "l2")
    half = half_codes(D, "l2", 1 << 30)
    for n in (12_000, 13_000, 19_999, N):
        view, full = FlatView(xb[:n], "l2", half), FlatView(xb[:n], "l2")
        for query in xq[:6]:
            np.testing.assert_array_equal(view.search(query[None], K)[1], full.search(query[None], K)[1])


def test_an_older_view_is_never_given_rows_it_does_not_hold() -> None:
    xb, xq = _made("normal", "l2")
    half = half_codes(D, "l2", 1 << 30)
    older, newer = FlatView(xb[:12_000], "l2", half), FlatView(xb, "l2", half)
    for query in xq:
        newer.search(query[None], K)
    assert older.search(xq[:1], K)[1].max() < 12_000


def test_codes_beyond_the_memory_allowed_are_not_made() -> None:
    xb, xq = _made("normal", "l2")
    half = half_codes(D, "l2", N * D * 2 - 1)
    FlatView(xb, "l2", half).search(xq[:1], K)
    assert half.size_bytes == 0


@pytest.mark.parametrize("kind", ["huge", "far from zero"])
def test_codes_that_do_not_decide_are_given_up(kind: str) -> None:
    xb, xq = _made(kind, "l2")
    half = half_codes(D, "l2", 1 << 30)
    view = FlatView(xb, "l2", half)
    for query in xq:
        view.search(query[None], K)
    assert half.of(xb) is None
    assert half.size_bytes == 0
