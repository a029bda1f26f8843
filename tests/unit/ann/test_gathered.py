"""Scans of gathered codes: which slots they find, and what is known of their recall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faissbase.ann.build import Builder
from faissbase.ann.calibrate import Curve, Scan, measure
from faissbase.ann.curve import CODES_NS
from faissbase.ann.flat import FlatView
from faissbase.ann.segment import Segment, open_segment
from faissbase.ann.spec import resolve
from faissbase.types import Float32, Metric

N, D, FIRST = 3000, 24, 100
SLOTS = FIRST + np.arange(0, N, 7)


def _segment(path: Path, factory: str, metric: Metric, xb: Float32) -> Segment:
    spec = resolve(factory, N, D, metric)
    builder = Builder(spec, metric, xb, FIRST, threads=1)
    builder.train()
    builder.add(len(xb))
    builder.write(path)
    return open_segment(path, spec, metric, xb, FIRST, len(xb))


def _vectors(n: int, seed: int) -> Float32:
    vectors = np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "HNSW8,SQ6", "HNSW8,SQfp16"])
def test_gathered_codes_lead_to_the_true_neighbours(tmp_path: Path, factory: str, metric: Metric) -> None:
    xb, xq = _vectors(N + FIRST, 0), _vectors(30, 1)
    segment = _segment(tmp_path / "s", factory, metric, xb)
    assert segment.codes is None  # the graph alone is on disk
    segment.warm()
    assert segment.codes is not None
    found = segment.codes.gathered(SLOTS).candidates(xq, 40)[1]
    distances = xq @ xb[SLOTS].T if metric != "l2" else -((xq[:, None] - xb[SLOTS]) ** 2).sum(axis=2)
    for query, row in zip(distances, found, strict=True):
        nearest = SLOTS[np.argsort(-query)[:10]]
        assert set(nearest) <= set(row)
        assert set(nearest[:1]) <= set(row[:4])
    alone = [segment.codes.gathered(SLOTS).candidates(xq[i : i + 1], 40)[1][0] for i in range(len(xq))]
    np.testing.assert_array_equal(alone, found)


def test_no_more_candidates_than_slots(tmp_path: Path) -> None:
    segment = _segment(tmp_path / "s", "HNSW8,SQ8", "ip", _vectors(N + FIRST, 0))
    segment.warm()
    assert segment.codes is not None
    found = segment.codes.gathered(SLOTS[:5]).candidates(_vectors(3, 1), 20)[1]
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(SLOTS[:5], (3, 1)))


def test_an_index_without_codes_in_memory_has_none(tmp_path: Path) -> None:
    for number, factory in enumerate(("HNSW8,Flat", "IVF16,SQ8")):
        segment = _segment(tmp_path / str(number), factory, "l2", _vectors(N + FIRST, 0))
        segment.warm()
        assert segment.codes is None


def test_recall_of_scans_is_measured_where_filters_are(tmp_path: Path) -> None:
    segment = _segment(tmp_path / "s", "HNSW8,SQ4", "ip", _vectors(N + FIRST, 0))
    segment.warm()
    view = FlatView(segment.vectors, "ip")
    assert measure(segment, view, n_queries=40, shares=()).scans == ()
    curve = measure(segment, view, n_queries=80, shares=(0.5, 0.1))
    assert [scan.rerank for scan in curve.scans] == list(segment.reranks)
    recalls = [scan.recall for scan in curve.scans]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.95 < recalls[-1]  # four bits put the nearest out of order
    assert all(scan.recall_low < scan.recall for scan in curve.scans)
    assert Curve.from_dict(curve.as_dict()) == curve


def test_the_shallowest_depth_that_reaches_the_recall_is_taken() -> None:
    curve = Curve(10, (), (Scan(1, 0.95, 0.94), Scan(2, 0.99, 0.98), Scan(4, 1.0, 0.997)))
    assert [curve.scan_rerank(recall) for recall in (0.9, 0.95, 0.99, 0.998)] == [1, 2, 4, None]
    assert replace(curve, scans=()).scan_rerank(0.5) is None


def test_what_a_scan_of_codes_costs_is_kept_and_older_curves_have_the_usual_cost() -> None:
    measured = Curve(10, (), (Scan(1, 0.95, 0.94, 0.12), Scan(2, 0.99, 0.98, 0.12)))
    assert Curve.from_dict(measured.as_dict()).scan_ns == 0.12
    older = measured.as_dict()
    for scan in older["scans"]:
        del scan["ns"]
    assert Curve.from_dict(older).scan_ns == Curve(10, ()).scan_ns == CODES_NS
