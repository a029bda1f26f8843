"""Every family of index reaches the recall asked, on real vectors and queries that are not among them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from faissbase.ann.build import Builder
from faissbase.ann.calibrate import measure
from faissbase.ann.flat import FlatView, Subset
from faissbase.ann.segment import Knobs, Segment, Selector, open_segment
from faissbase.ann.spec import Spec, resolve
from faissbase.demo.dataset import load_demo
from faissbase.types import Float32, Mask, Slots

K = 10
N = 8_000
FAMILIES = [
    "HNSW_SQ8",
    "HNSW_FP16",
    "HNSW",
    "IVF_FLAT",
    "IVF_SQ8",
    "IVF_PQ_FASTSCAN",
    "IVF_RABITQ_FASTSCAN",
    "RABITQ",
    "PQ_FASTSCAN",
    "PCA128,IVF64,SQ8",
    "RR128,HNSW16,SQ8",
]


@cache
def _data() -> tuple[Float32, Float32]:
    demo = load_demo()
    xq = demo.query_vectors
    return demo.vectors[:N].copy(), (xq / np.linalg.norm(xq, axis=1, keepdims=True)).astype(np.float32)


def _built(path: Path, spec: Spec, xb: Float32) -> Segment:
    builder = Builder(spec, "cosine", xb, 0, threads=1)
    builder.train()
    assert builder.add(len(xb))
    builder.write(path)
    segment = open_segment(path, spec, "cosine", xb, 0, len(xb))
    assert segment.warm()
    return segment


def _recall(found: Slots, truth: Slots) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)]))


@pytest.mark.parametrize("index_type", FAMILIES)
def test_a_family_reaches_the_recall_asked(tmp_path: Path, index_type: str) -> None:
    xb, xq = _data()
    view = FlatView(xb, "cosine")
    segment = _built(tmp_path / "segment", resolve(index_type, N, xb.shape[1], "cosine"), xb)
    knobs = measure(segment, view, n_queries=200, seed=7, shares=()).knobs_for(0.95)
    assert knobs is not None
    exact, truth = view.search(xq, K)
    distances, found = segment.search(xq, K, knobs)
    assert _recall(found, truth) >= 0.95
    np.testing.assert_array_equal(distances[found == truth], exact[found == truth])


@pytest.mark.parametrize("index_type", ["HNSW_SQ8", "IVF_SQ8"])
def test_an_index_grown_in_steps_finds_as_much_as_one_built_at_once(tmp_path: Path, index_type: str) -> None:
    xb, xq = _data()
    spec = resolve(index_type, N, xb.shape[1], "cosine")
    first, second = tmp_path / "first", tmp_path / "second"
    builder = Builder(spec, "cosine", xb, 0, threads=1)
    builder.train()
    builder.add(N // 3)
    builder.write(first)
    builder = Builder(spec, "cosine", xb, 0, base=first, threads=1)
    assert builder.stop == N // 3
    builder.add(N)
    builder.write(second)
    grown = open_segment(second, spec, "cosine", xb, 0, N)
    at_once = _built(tmp_path / "at once", spec, xb)
    truth = FlatView(xb, "cosine").search(xq, K)[1]
    knobs = Knobs(48, 2) if spec.family == "hnsw" else Knobs(16, 2)
    recalls = [_recall(each.search(xq, K, knobs)[1], truth) for each in (grown, at_once)]
    assert recalls[0] >= recalls[1] - 0.01


def _mask(kind: str, share: float, view: FlatView, rng: np.random.Generator) -> Mask:
    order = rng.permutation(view.n)
    if kind == "ball":
        order = np.argsort(-(view.vectors @ view.vectors[order[0]]))
    mask = np.zeros(view.n, np.bool_)
    mask[order[: int(share * view.n)]] = True
    return mask


@pytest.mark.parametrize("kind", ["random", "ball"])
def test_selected_searches_reach_the_recall_asked_or_say_that_they_do_not(tmp_path: Path, kind: str) -> None:
    xb, xq = _data()
    view, rng = FlatView(xb, "cosine"), np.random.default_rng(3)
    segment = _built(tmp_path / "segment", resolve("HNSW_SQ8", N, xb.shape[1], "cosine"), xb)
    curve = measure(segment, view, n_queries=200, seed=7, shares=(0.8, 0.5))
    for share in (0.9, 0.6):
        mask = _mask(kind, share, view, rng)
        knobs = curve.knobs_for(0.95, share=0.98 * share)
        assert knobs is not None
        found = segment.search(xq, K, knobs, Selector(mask))[1]
        truth = view.search_subset(xq, K, Subset(np.flatnonzero(mask)))[1]
        is_answered = found[:, 0] >= 0
        assert is_answered.mean() >= 0.5
        assert _recall(np.where(is_answered[:, None], found, truth), truth) >= 0.95
