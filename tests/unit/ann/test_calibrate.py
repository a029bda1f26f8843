"""Curves: what is measured, what is chosen from it, and how sure that is."""

from __future__ import annotations

import itertools

import numpy as np
import orjson
import pytest

from faissbase.ann.build import Builder
from faissbase.ann.calibrate import Curve, Point, lower_bound, made_queries, measure, outward_queries
from faissbase.ann.flat import SCAN_NS, FlatView
from faissbase.ann.segment import Knobs, Segment, open_segment
from faissbase.ann.spec import resolve
from faissbase.types import Float32

N, D, FIRST = 6000, 24, 100


def _vectors() -> Float32:
    return np.random.default_rng(0).normal(size=(N + FIRST, D)).astype(np.float32)


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    xb, path = _vectors(), tmp_path_factory.mktemp("calibrate") / "s"
    spec = resolve("HNSW12,SQ8", N, D, "l2")
    builder = Builder(spec, "l2", xb, FIRST, threads=1)
    builder.train()
    builder.add(len(xb))
    builder.write(path)
    found = open_segment(path, spec, "l2", xb, FIRST, len(xb))
    found.warm()
    return found


def test_a_measured_curve_rises_and_survives_json(segment: Segment) -> None:
    alive = np.random.default_rng(1).random(N) < 0.9
    curve = measure(segment, FlatView(segment.vectors, "l2"), alive, n_queries=100, shares=(0.8, 0.3))
    plain = [point for point in curve.points if point.share == 1.0 and point.rerank == 1]
    assert plain[0].recall < plain[-1].recall
    assert plain[-1].recall > 0.9
    assert all(point.recall_low <= point.recall for point in curve.points)
    assert {point.share for point in curve.points} == {1.0, 0.8, 0.3}
    assert Curve.from_dict(orjson.loads(orjson.dumps(curve.as_dict()))) == curve


def test_own_queries_are_measured_instead(segment: Segment) -> None:
    easy = segment.vectors[:50].copy()
    curve = measure(segment, FlatView(segment.vectors, "l2"), queries=easy, shares=())
    strange = measure(segment, FlatView(segment.vectors, "l2"), shares=(), n_queries=100)
    assert curve.points[0].recall > strange.points[0].recall


def test_times_of_a_busy_machine_are_told_beside_those_of_an_exact_search(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr("faissbase.ann.calibrate.perf_counter", lambda: next(ticks) / 1000)  # all takes 1 ms
    monkeypatch.setattr("faissbase.ann.calibrate._BESIDE_LEAST", 0)
    choice = measure(segment, FlatView(_vectors()[FIRST:], "l2"), shares=()).choice_for(0.9)
    assert choice is not None
    assert choice.us_per_query == pytest.approx(1000.0)
    assert choice.usual_us == pytest.approx(SCAN_NS * N * D / 1000)


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    xb, path = _vectors()[FIRST:], tmp_path_factory.mktemp("lists") / "s"
    spec = resolve("IVF32,SQ8", N, D, "l2")
    builder = Builder(spec, "l2", xb, 0, threads=1)
    builder.train()
    builder.add(N)
    builder.write(path)
    return open_segment(path, spec, "l2", xb, 0, N)


def test_lists_are_asked_more_strange_queries_than_outward_ones(segment: Segment, lists: Segment) -> None:
    def asked(one: Segment) -> list[tuple[int, ...]]:
        view, rng = FlatView(one.vectors, "l2"), np.random.default_rng(0)
        return [queries.shape for queries in made_queries(one, view, np.arange(N), 400, rng)]

    assert asked(lists) == [(400, D), (1600, D)]
    assert asked(segment) == [(100, D), (400, D)]  # a graph


def test_outward_queries_of_an_index_are_those_of_exact_search(lists: Segment) -> None:
    view, rows = FlatView(lists.vectors, "l2"), np.arange(50)
    exact, found = outward_queries(view, rows), outward_queries(view, rows, lists)
    np.testing.assert_array_equal(exact, found)  # every list is entered: there are no more than 32


def test_a_stop_ends_measuring(segment: Segment) -> None:
    curve = measure(segment, FlatView(segment.vectors, "l2"), n_queries=20, should_stop=lambda: True)
    assert {point.effort for point in curve.points} == {16}


def test_the_budget_ends_measuring_where_the_usual_recall_is_known(segment: Segment) -> None:
    view = FlatView(segment.vectors, "l2")
    short = measure(segment, view, n_queries=100, is_over=lambda: True, shares=())
    whole = measure(segment, view, n_queries=100, shares=())
    assert short.knobs_for(0.95) is not None
    assert len(short.points) < len(whole.points)


CURVE = Curve(
    10,
    (
        Point(16, 1, 0.92, 0.90, 50.0),
        Point(32, 1, 0.96, 0.94, 80.0),
        Point(64, 1, 0.97, 0.96, 140.0),
        Point(32, 2, 0.98, 0.96, 90.0),
        Point(64, 2, 0.99, 0.98, 150.0),
        Point(64, 2, 0.97, 0.96, 160.0, share=0.5, least=32),
        Point(64, 2, 0.95, 0.94, 160.0, share=0.5),
    ),
)


@pytest.mark.parametrize(
    ("recall", "share", "k", "knobs"),
    [
        (0.9, 1.0, None, Knobs(16, 1)),
        (0.92, 1.0, None, Knobs(24, 1)),
        (0.95, 1.0, None, Knobs(32, 2)),
        (0.97, 1.0, 10, Knobs(48, 2)),
        (0.97, 1.0, 20, Knobs(78, 2)),
        (0.97, 1.0, 1, Knobs(48, 2)),
        (0.99, 1.0, None, None),
        (0.95, 0.7, None, Knobs(64, 2, 32)),
        (0.97, 0.7, None, None),
        (0.9, 0.4, None, None),
    ],
)
def test_the_cheapest_point_that_surely_reaches_the_target_is_chosen(
    recall: float, share: float, k: int | None, knobs: Knobs | None
) -> None:
    assert CURVE.knobs_for(recall, share, k) == knobs


def test_times_are_read_off_the_curve() -> None:
    assert CURVE.us_per_query(Knobs(24, 1)) == 65.0
    assert CURVE.us_per_query(Knobs(128, 2)) == 300.0
    assert CURVE.us_per_query(Knobs(64, 2), share=0.6) == 160.0
    assert CURVE.us_per_query(Knobs(39, 1), k=20) == pytest.approx(2**0.7 * 65, rel=0.01)
    assert Curve(10, ()).us_per_query(Knobs(1)) == 0.0


def test_the_lower_bound_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    for p in (0.9, 0.95, 0.99):
        # Hits of one query hang together: a beta-binomial of the same mean.
        chances = rng.beta(8 * p, 8 * (1 - p), size=(2000, 200))
        recalls = rng.binomial(10, chances) / 10
        below = np.mean([lower_bound(each, 10) <= p for each in recalls])
        assert below >= 0.92


def test_a_perfect_sample_is_not_certainty() -> None:
    assert 0.99 < lower_bound(np.ones(100), 10) < 1.0
