"""Segments: right slots and distances from every family, whatever is selected and whoever else searches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from faissbase.ann import segment as segment_module
from faissbase.ann.build import Builder
from faissbase.ann.flat import FlatView, Neighbours, Subset
from faissbase.ann.grammar import parse
from faissbase.ann.segment import Knobs, Segment, Selector, open_segment
from faissbase.ann.spec import Spec, resolve
from faissbase.errors import CorruptionError, InvalidInputError, NotReadyError
from faissbase.types import METRICS, Float32, Metric

N, D, K = 4000, 32, 10
FIRST = 333
ALL = Knobs(400, 40)
COARSE = ("RQ2x4", "IVF16,RQ2x4", "LSH", "HNSW8,RaBitQ", "PCA16,HNSW8,SQ8")
FACTORIES = [
    "HNSW8",
    "HNSW8,SQ8",
    "HNSW8,SQfp16",
    "HNSW8,SQ4",
    "HNSW8,RaBitQ",
    "PCA16,HNSW8,SQ8",
    "IVF16,Flat",
    "IVF16,SQ8",
    "IVF16_HNSW8,SQ8",
    "IVF16(IVF4,SQfp16),SQ8",
    "RR,IVF16(IVF4,SQfp16),RaBitQfs",
    "IVF16,PQ8x4",
    "IVF16,PQ16x4fs",
    "IVF16,RaBitQ",
    "IVF16,RaBitQfs",
    "IVF16,RQ2x4",
    "RR,IVF16,PQ16x4fs",
    "PQ8x4",
    "PQ16x4fs",
    "RaBitQ",
    "RaBitQfs",
    "SQ8",
    "RQ2x4",
    "LSH",
    "L2norm,SQ8",
]


def _vectors(metric: Metric, seed: int = 0) -> Float32:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(40, D))
    vectors = (centres[rng.integers(0, 40, N)] + 0.5 * rng.normal(size=(N, D))).astype(np.float32)
    if metric == "cosine":
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors)


def _written(path: Path, factory: str, metric: Metric, xb: Float32, first: int = FIRST) -> Spec:
    spec = resolve(factory, len(xb) - first, D, metric)
    builder = Builder(spec, metric, xb, first, threads=1)
    builder.train()
    assert builder.add(len(xb))
    builder.write(path)
    return spec


@pytest.fixture
def graph(tmp_path: Path) -> Segment:
    xb = _vectors("l2")
    spec = _written(tmp_path / "graph", "HNSW16,SQ8", "l2", xb)
    return open_segment(tmp_path / "graph", spec, "l2", xb, FIRST, N)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("factory", FACTORIES)
def test_answers_are_selected_slots_at_their_exact_distance(
    tmp_path: Path, factory: str, metric: Metric
) -> None:
    if metric == "ip" and parse(factory).is_l2_only:
        pytest.skip("FAISS compares these codes by l2 alone")
    xb, xq = _vectors(metric), _vectors(metric, seed=1)[:30]
    spec = _written(tmp_path / "s", factory, metric, xb)
    segment = open_segment(tmp_path / "s", spec, metric, xb, FIRST, N)
    mask = np.random.default_rng(2).random(N) < 0.3
    view = FlatView(xb, metric)
    for _ in range(2):
        for selector in (None, Selector(mask)):
            among = np.arange(FIRST, N) if selector is None else FIRST + np.flatnonzero(mask[FIRST:])
            exact, truth = view.search_subset(xq, K, Subset(among))
            distances, slots = segment.search(xq, K, ALL, selector)
            one_by_one = [segment.search(xq[i : i + 1], K, ALL, selector) for i in range(len(xq))]
            np.testing.assert_array_equal(np.vstack([one[0] for one in one_by_one]), distances)
            assert np.isin(slots, among).all()
            np.testing.assert_array_equal(distances[slots == truth], exact[slots == truth])
            found = np.mean([np.isin(a, b).mean() for a, b in zip(slots, truth, strict=True)])
            assert found > (0.3 if factory in COARSE else 0.8)
        assert segment.warm()


@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "IVF16,SQ8", "PQ16x4fs", "RaBitQ"])
def test_fewer_selected_than_asked_are_followed_by_none(tmp_path: Path, factory: str) -> None:
    xb = _vectors("l2")
    spec = _written(tmp_path / "s", factory, "l2", xb)
    segment = open_segment(tmp_path / "s", spec, "l2", xb, FIRST, N)
    for chosen in ([], [FIRST, N - 1]):
        mask = np.zeros(N, np.bool_)
        mask[chosen] = True
        for xq in (xb[:1], xb[:3]):
            distances, slots = segment.search(xq, K, Knobs(N, 1), Selector(mask))
            assert (np.sort(slots[:, : len(chosen)], axis=1) == chosen).all()
            assert (slots[:, len(chosen) :] == -1).all()
            assert np.isinf(distances[:, len(chosen) :]).all()


def test_too_few_selected_candidates_give_no_answer(graph: Segment) -> None:
    xq = graph.vectors[:2].copy()
    mask = np.zeros(N, np.bool_)
    mask[FIRST : FIRST + 20] = True
    for queries in (xq, xq[:1]):
        assert (graph.search(queries, K, Knobs(64, 1, least=32), Selector(mask))[1] == -1).all()
        assert (graph.search(queries, K, Knobs(64, 1, least=32), None)[1] >= 0).all()


def test_searches_beside_warming_are_right(graph: Segment) -> None:
    xq = _vectors("l2", seed=1)[:20]
    truth = FlatView(graph.vectors, "l2").search(xq, K)[1] + FIRST
    stop, worst = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            found = np.vstack([graph.search(query[None], K, Knobs(300, 4))[1] for query in xq])
            worst.append(float((found == truth).mean()))

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    before = graph.ram_bytes
    assert not graph.warm(lambda: True)
    assert graph.warm()
    stop.set()
    for thread in threads:
        thread.join()
    assert min(worst) > 0.97
    assert graph.is_warm
    assert graph.n * D < graph.ram_bytes < before + graph.n * D  # the graph in memory has no empty places


def test_a_batch_is_searched_in_pieces_whose_tables_are_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xb, xq = _vectors("l2"), _vectors("l2", seed=1)[:300]
    spec = _written(tmp_path / "s", "IVF16,RaBitQfs", "l2", xb)
    segment = open_segment(tmp_path / "s", spec, "l2", xb, FIRST, N)
    whole, candidates = segment.search(xq, K, ALL), segment.candidates(xq, K, 4)
    asked: list[int] = []
    search = segment._candidates

    def noted(queries: Float32, *rest: Any) -> Neighbours:
        asked.append(len(queries))
        return search(queries, *rest)

    monkeypatch.setattr(segment_module, "_TABLES_BYTES", 1)
    monkeypatch.setattr(segment, "_candidates", noted)
    pieces = [*zip(segment.search(xq, K, ALL), whole, strict=True)]
    pieces += zip(segment.candidates(xq, K, 4), candidates, strict=True)
    for found, expected in pieces:
        np.testing.assert_array_equal(found, expected)
    assert asked == 2 * [64, 64, 64, 64, 44]


def test_a_graph_file_holds_no_vectors(graph: Segment) -> None:
    assert graph.file_bytes < graph.n * (8 * 16 + 16) * 1.1


@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "IVF16,Flat"])
def test_a_damaged_file_is_corruption(tmp_path: Path, factory: str) -> None:
    xb, path = _vectors("l2"), tmp_path / "s"
    spec = _written(path, factory, "l2", xb)
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:7],
        whole[:-1],
        whole[: len(whole) // 2],
        bytes(len(whole)),
        whole + b"x",
        whole[1:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError):
            open_segment(path, spec, "l2", xb, FIRST, N)
        with pytest.raises(CorruptionError):
            Builder(spec, "l2", xb, FIRST, base=path)
    path.unlink()
    with pytest.raises(CorruptionError):
        open_segment(path, spec, "l2", xb, FIRST, N)


def test_a_segment_of_something_else_is_corruption(tmp_path: Path) -> None:
    xb, path = _vectors("l2"), tmp_path / "s"
    spec = _written(path, "HNSW8,SQ8", "l2", xb)
    other = resolve("HNSW16,SQ8", N, D, "l2")
    wrong: list[tuple[Spec, Metric, int, int]] = [
        (other, "l2", FIRST, N),
        (spec, "ip", FIRST, N),
        (spec, "l2", FIRST, N - 1),
        (spec, "l2", FIRST, N + 1),
    ]
    for wanted, metric, first, stop in wrong:
        with pytest.raises(CorruptionError):
            open_segment(path, wanted, metric, xb, first, stop)


def test_building_can_be_stopped_and_gone_on_with(tmp_path: Path) -> None:
    xb = np.tile(_vectors("l2"), (6, 1))
    spec = resolve("IVF16,SQ8", len(xb), D, "l2")
    builder = Builder(spec, "l2", xb, 0, threads=1)
    with pytest.raises(NotReadyError):
        builder.add(10)
    builder.train(xb[:1000])
    seen: list[int] = []
    assert not builder.add(len(xb), progress=seen.append, should_stop=lambda: len(seen) == 1)
    assert builder.stop == seen[0] < len(xb)
    with pytest.raises(InvalidInputError):
        builder.add(len(xb) + 1)
    builder.write(tmp_path / "half")
    again = Builder(spec, "l2", xb, 0, base=tmp_path / "half", threads=1)
    assert again.is_trained
    assert again.add(len(xb), progress=seen.append)
    assert seen[-1] == again.stop == len(xb)
    again.write(tmp_path / "whole")
    assert open_segment(tmp_path / "whole", spec, "l2", xb, 0, len(xb)).n == len(xb)


def test_too_few_training_vectors_are_refused() -> None:
    xb = _vectors("l2")
    builder = Builder(Spec("IVF16,Flat", "ivf", False, True), "l2", xb, 0)
    with pytest.raises(NotReadyError, match="needs 16 vectors to train, has 5"):
        builder.train(xb[:5])


@pytest.fixture(autouse=True)
def threads_are_left_alone() -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    yield
    assert faiss.omp_get_max_threads() == before
