"""Signed bytes: what is rounded, cut and kept."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from faissbase.ann.codes import SignedBytes
from faissbase.types import METRICS, Metric

D = 32


@pytest.mark.parametrize("metric", METRICS)
def test_codes_are_what_faiss_would_keep(metric: Metric) -> None:
    sample = np.random.default_rng(0).normal(3.0, 2.0, (500, D)).astype(np.float32)
    codes = SignedBytes.fitted(sample, metric)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexScalarQuantizer(D, faiss.ScalarQuantizer.QT_8bit_direct_signed, kind)
    index.train(sample)
    kept = index.sa_encode(codes.rounded(sample))
    np.testing.assert_array_equal(kept, codes.encode(sample))


def test_differences_and_products_keep_their_order_of_size() -> None:
    rng = np.random.default_rng(1)
    sample = rng.normal(100.0, 1.0, (2000, D)).astype(np.float32)
    codes = SignedBytes.fitted(sample, "l2")
    numbers = codes.rounded(sample)
    true = ((sample[:1] - sample) ** 2).sum(axis=1)
    rough = ((numbers[:1] - numbers) ** 2).sum(axis=1) / codes.scale**2
    np.testing.assert_allclose(rough, true, rtol=0.05, atol=0.2)


def test_queries_beyond_the_range_are_cut_not_wrapped() -> None:
    sample = np.random.default_rng(2).normal(size=(500, D)).astype(np.float32)
    codes = SignedBytes.fitted(sample, "ip")
    far = codes.rounded(np.full((1, D), 1e6, np.float32))
    assert far.max() == 127.0
    assert codes.rounded(np.full((1, D), -1e6, np.float32)).min() == -128.0
    assert (codes.rounded(sample) == np.rint(codes.rounded(sample))).all()


def test_few_outliers_do_not_cost_the_others_their_digits() -> None:
    sample = np.random.default_rng(3).normal(size=(20_000, D)).astype(np.float32)
    plain = SignedBytes.fitted(sample, "ip").scale
    sample[7, 3] = 1e4
    assert SignedBytes.fitted(sample, "ip").scale > 0.9 * plain


@pytest.mark.parametrize("metric", METRICS)
def test_ranges_tell_all(metric: Metric) -> None:
    sample = np.random.default_rng(4).normal(size=(100, D)).astype(np.float32)
    codes = SignedBytes.fitted(sample, metric)
    again = SignedBytes.from_ranges(codes.ranges)
    np.testing.assert_array_equal(again.rounded(sample), codes.rounded(sample))


def test_vectors_of_zeros_can_be_coded() -> None:
    zeros = np.zeros((10, D), np.float32)
    assert (SignedBytes.fitted(zeros, "ip").encode(zeros) == 128).all()
