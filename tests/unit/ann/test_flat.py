"""Exact batches: filled up to a matrix product, they answer as one query alone does."""

from __future__ import annotations

import numpy as np
import pytest

from faissbase.ann.flat import FlatView, Subset, picked, product_rows
from faissbase.types import Float32, Metric

D, K = 384, 10


def _vectors(n: int, seed: int) -> Float32:
    vectors = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def test_few_queries_are_filled_up_and_very_few_are_not() -> None:
    assert [product_rows(nq, D) for nq in (1, 2, 40)] == [0, 0, 0]
    assert [product_rows(nq, D) for nq in (60, 333, 334, 500)] == [334, 334, 334, 500]
    assert product_rows(1, 65_535) == 0
    assert product_rows(2, 65_535) == 2


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("nq", [2, 46, 47, 60, 333, 334])
def test_a_batch_of_any_size_answers_as_its_queries_alone(metric: Metric, nq: int) -> None:
    xb, xq = _vectors(2000, 0), _vectors(nq, 1)
    if metric != "cosine":
        xb *= 3
    view, subset = FlatView(xb, metric), Subset(np.arange(0, 2000, 3))
    for search in (view.search, lambda queries, k: view.search_subset(queries, k, subset)):
        distances, slots = search(xq, K)
        assert distances.shape == slots.shape == (nq, K)
        alone = [search(xq[i : i + 1], K) for i in range(nq)]
        np.testing.assert_array_equal(slots, np.vstack([one[1] for one in alone]))
        np.testing.assert_array_equal(distances, np.vstack([one[0] for one in alone]))


@pytest.mark.parametrize("nq", [1, 3])
def test_columns_are_picked_from_each_row(nq: int) -> None:
    rng = np.random.default_rng(0)
    distances, slots = rng.random((nq, 7), np.float32), rng.integers(0, 99, (nq, 7))
    order = np.argsort(distances, axis=1)[:, :4]
    found = picked(distances, slots, order)
    np.testing.assert_array_equal(found[0], np.take_along_axis(distances, order, 1))
    np.testing.assert_array_equal(found[1], np.take_along_axis(slots, order, 1))
