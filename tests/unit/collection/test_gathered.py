"""Filters that come again are searched by their gathered codes: the same hits, within the memory allowed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.collection.selected import Room
from faissbase.demo.dataset import load_demo
from faissbase.types import Float32

N, K = 12_000, 10
TENTH: dict[str, object] = {"tenth": 3}


@pytest.fixture(scope="module")
def data() -> tuple[Float32, Float32]:
    demo = load_demo()
    return demo.vectors[: N + 10], demo.query_vectors


@pytest.fixture(scope="module")
def built(data: tuple[Float32, Float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an index of which is known what filters do to it; copy it before writing to it."""
    path = tmp_path_factory.mktemp("gathered") / "db"
    with faissbase.connect(path) as db:
        docs = db.create_collection("docs", data[0].shape[1], index_type="HNSW_SQ8")
        docs.add([f"r{i}" for i in range(N)], data[0][:N], [{"tenth": i % 10, "n": i} for i in range(N)])
        docs.optimize()
        docs._parts().store.tuning.wants_filters = True
        docs.optimize()
    return path


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    import shutil

    shutil.copytree(built, tmp_path / "db")
    return tmp_path / "db"


@pytest.fixture
def docs(folder: Path) -> Iterator[LocalCollection]:
    with faissbase.connect(folder) as db:
        yield _warm(db.get_collection("docs"))


def _warm(docs: LocalCollection) -> LocalCollection:
    docs._parts().store.settle()
    return docs


def _path(docs: LocalCollection, query: Float32, where: dict[str, object]) -> str:
    return docs.explain(query, K, where).plan.path


def _search_often(docs: LocalCollection, xq: Float32, where: dict[str, object]) -> list[list[str]]:
    return [[hit.id for hit in docs.search(query, K, where)] for query in xq]


def test_a_filter_that_comes_again_is_scanned_by_its_codes(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    xq = data[1][:100]
    assert _path(docs, xq[0], TENTH) == "subset"  # once, gathering does not pay
    found = _search_often(docs, xq, TENTH)
    explanation = docs.explain(xq[0], K, TENTH)
    assert explanation.plan.path == "codes"
    assert "approximate (recall 0.95 wanted: rerank" in str(explanation)
    exact = docs.search(xq, K, TENTH, recall=1.0)
    assert docs.explain(xq[0], K, TENTH, recall=1.0).plan.path == "subset"
    right = [len(set(a) & set(b)) / K for a, b in zip(found, exact.ids, strict=True)]
    assert np.mean(right) >= 0.95
    for hit, distance in zip(docs.search(xq[0], K, TENTH), exact.distances[0], strict=True):
        assert hit.distance == pytest.approx(distance, abs=1e-6) or hit.id not in exact.ids[0]


def test_records_that_lie_close_together_are_not_left_to_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    xb = rng.normal(size=(8000, 64)).astype(np.float32)
    xb[:2000] = xb[0] + 0.1 * rng.normal(size=(2000, 64))  # variants of one thing, within the step of a code
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", 64, index_type="HNSW_SQ8")
        docs.add([f"r{i}" for i in range(len(xb))], xb, [{"variant": i < 2000} for i in range(len(xb))])
        docs.optimize()
        docs._parts().store.tuning.wants_filters = True
        docs.optimize()
        where: dict[str, object] = {"variant": True}
        queries = xb[:100] + 0.1 * rng.normal(size=(100, 64)).astype(np.float32)
        for _ in range(3):
            found = _search_often(docs, queries, where)
        exact = docs.search(queries, K, where, recall=1.0).ids
    assert np.mean([len(set(a) & set(b)) / K for a, b in zip(found, exact, strict=True)]) >= 0.95


def test_many_queries_at_once_find_the_same(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    xq = data[1][:8]
    found = _search_often(docs, np.repeat(xq, 3, axis=0), TENTH)[::3]
    together = docs.search(xq, K, TENTH)
    assert docs.explain(xq, K, TENTH).plan.path == "codes"
    assert together.ids == found


def test_what_is_written_and_deleted_is_seen_at_once(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    query = data[0][3]
    _search_often(docs, data[1][:20], TENTH)
    assert docs.search(query, 1, TENTH)[0].id == "r3"
    docs.delete(["r3"])
    docs.add(["new"], data[0][N : N + 1], [{"tenth": 3}])
    for _ in range(20):
        assert "r3" not in [hit.id for hit in docs.search(query, K, TENTH)]
        assert docs.search(data[0][N], 1, TENTH)[0].id == "new"
    assert _path(docs, query, TENTH) == "codes"


def test_all_matching_records_come_back_where_they_are_few(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    where: dict[str, object] = {"tenth": 3, "n": {"$lt": 40}}
    for _ in range(100):
        assert {hit.id for hit in docs.search(data[1][0], K, where)} == {f"r{i}" for i in range(3, 40, 10)}


def test_memory_for_codes_is_given_back(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    selector = docs._parts().selector
    before = selector.size_bytes
    _search_often(docs, data[1][:20], TENTH)
    gathered = selector.size_bytes - before
    assert gathered >= N // 10 * data[0].shape[1]
    docs.delete(["r0"])
    docs.search(data[1][0], K, {"n": 1})
    gc.collect()
    assert selector.size_bytes - before < 0.6 * gathered


def test_a_small_budget_leaves_them_out(folder: Path, data: tuple[Float32, Float32]) -> None:
    with faissbase.connect(folder, memory_budget=3_500 << 10) as db:
        docs = _warm(db.get_collection("docs"))
        _search_often(docs, data[1][:50], TENTH)
        assert _path(docs, data[1][0], TENTH) == "subset"


def test_room_is_never_given_twice() -> None:
    room = Room(100)
    assert [room.take(60), room.take(60), room.take(40)] == [True, False, True]
    room.give(60)
    assert room.has(60)
    assert not room.has(61)
    assert room.used_bytes == 40
