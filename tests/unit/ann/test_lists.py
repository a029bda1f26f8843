"""Lists found in two levels: as near to the vectors as FAISS's own, with every transform and metric."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from faissbase.ann import coarse
from faissbase.ann.build import Builder
from faissbase.ann.engine import innermost
from faissbase.ann.lists import _shares, find_lists
from faissbase.ann.spec import resolve
from faissbase.types import Metric

N, D, NLIST = 8000, 16, 128
SPECS = [
    "IVF128,SQ8",
    "RR16,IVF128,RaBitQfs",
    "IVF128_HNSW32,SQ8",
    "IVF128,PQ4x4fs",
    "IVF128(IVF16,SQfp16),SQ8",
    "RR16,IVF128(IVF16,SQfp16),RaBitQfs",
]


def vectors(metric: Metric) -> np.ndarray:
    rng = np.random.default_rng(3)
    centers = 4 * rng.standard_normal((200, D), np.float32)
    xt = centers[rng.integers(0, 200, N)] + rng.standard_normal((N, D), np.float32)
    return xt if metric != "cosine" else xt / np.linalg.norm(xt, axis=1, keepdims=True)


def trained(spec: str, metric: Metric, monkeypatch: pytest.MonkeyPatch, least: int) -> Any:
    monkeypatch.setattr(coarse, "LISTS_LEAST", least)
    builder = Builder(resolve(spec, N, D, metric), metric, vectors(metric), 0, threads=1)
    builder.train(vectors(metric))
    assert builder.is_trained
    return builder._index


def centroids(index: Any) -> np.ndarray:
    found: np.ndarray = innermost(index).quantizer.reconstruct_n(0, NLIST)
    return found


def distance(index: Any, metric: Metric) -> float:
    """How far the vectors are from their centroids, on average; of inner products, its negative."""
    transformed = vectors(metric)
    if isinstance(faiss.downcast_index(index), faiss.IndexPreTransform):
        transformed = faiss.downcast_VectorTransform(index.chain.at(0)).apply(transformed)
    near = faiss.IndexFlat(D, innermost(index).metric_type)
    near.add(centroids(index))
    found = float(near.search(transformed, 1)[0].mean())
    return found if metric == "l2" else -found


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("spec", SPECS)
def test_vectors_are_as_near_to_their_lists_as_with_faiss_own(
    spec: str, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = trained(spec, metric, monkeypatch, 2)
    own = trained(spec.replace("(IVF16,SQfp16)", ""), metric, monkeypatch, NLIST + 1)
    assert not np.array_equal(centroids(ours), centroids(own))
    assert distance(ours, metric) <= distance(own, metric) + 0.03 * abs(distance(own, metric))


def test_training_again_finds_the_same_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (trained("IVF128,SQ8", "l2", monkeypatch, 2) for _ in range(2))
    assert np.array_equal(centroids(one), centroids(other))


@pytest.mark.parametrize("spec", ["IVF128,SQ8", "PQ4", "IMI2x5,Flat", "IVF128(PQ4),SQ8"])
def test_other_indexes_are_left_to_faiss(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "LISTS_LEAST", NLIST + 1 if spec == "IVF128,SQ8" else 2)
    index = faiss.index_factory(D, spec)
    n_before = index.quantizer.ntotal if isinstance(index, faiss.IndexIVF) else 0
    find_lists(index, vectors("l2"))
    assert not index.is_trained
    assert n_before == (index.quantizer.ntotal if isinstance(index, faiss.IndexIVF) else index.ntotal)


@pytest.mark.parametrize(
    ("spec", "nbits"), [("OPQ4,IVF16,PQ4x4fs", 4), ("OPQ4,PQ4x6", 6), ("OPQ4,IVF16,PQ4", 8)]
)
def test_a_rotation_is_for_codes_of_as_many_bits_as_follow(spec: str, nbits: int) -> None:
    xt = vectors("l2")[:1000]
    builder = Builder(resolve(spec, N, D, "l2"), "l2", xt, 0, threads=1)
    builder.train(xt)
    own = faiss.OPQMatrix(D, 4)
    own.pq = faiss.ProductQuantizer(D, 4, nbits)
    own.train(xt)
    ours = faiss.downcast_VectorTransform(builder._index.chain.at(0))
    assert ours.pq is None
    np.testing.assert_array_equal(faiss.vector_to_array(ours.A), faiss.vector_to_array(own.A))


@pytest.mark.parametrize("seed", range(20))
def test_shares_are_all_that_was_wanted_and_none_has_more_than_vectors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 50, 16) * rng.integers(0, 2, 16) + (np.arange(16) == 0)
    for n in (1, int(sizes.sum()), int(rng.integers(1, sizes.sum() + 1))):
        shares = _shares(sizes, n)
        assert shares.sum() == n
        assert ((shares >= 0) & (shares <= sizes)).all()
