"""FAISSVectorStore: what its users rely on, whatever index and metric."""

from __future__ import annotations

import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from faissbase.ann import resident
from faissbase.errors import InvalidInputError, NotFoundError, NotReadyError
from faissbase.rag import FAISSVectorStore
from faissbase.types import Float32

D = 16
SPECS = ["Flat", "IVFFlat", "HNSW", "HNSW_SQ8", "IVF8,SQ8", "PQ8", "IVF4,PQ4x4fs", "PCA8,Flat", "auto"]
METRICS = ["L2", "IP", "cosine"]


def vectors(n: int, seed: int = 0, d: int = D) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def numbered(n: int) -> list[dict[str, Any]]:
    return [{"n": i, "even": i % 2 == 0, "text": f"chunk {i}"} for i in range(n)]


def exact(xb: Float32, query: Float32, k: int, metric: str) -> tuple[Float32, list[int]]:
    """The answer by NumPy alone: distances and rows, nearest first."""
    base, asked = xb.astype(np.float64), query.astype(np.float64)
    if metric == "cosine":
        base = base / np.linalg.norm(base, axis=1, keepdims=True)
        asked = asked / np.linalg.norm(asked)
    near = ((base - asked) ** 2).sum(axis=1) if metric == "L2" else -(base @ asked)
    order = np.argsort(near, kind="stable")[:k]
    distances = np.abs(near[order]) if metric == "L2" else -near[order]
    return distances.astype(np.float32), order.tolist()


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are searched however small the store is, and however fast a scan would be."""
    monkeypatch.setattr(resident, "EXACT_NUMBERS", 0)
    monkeypatch.setattr(resident.Resident, "_exact_us", lambda *_: float("inf"))
    monkeypatch.setattr(resident, "_QUERIES", 30)
    monkeypatch.setattr(resident, "_SHARES", (0.5,))


def test_the_lines_of_the_readme_run_as_written() -> None:
    embeddings = vectors(500, d=384)
    meta = numbered(500)
    store = FAISSVectorStore(dimension=384, index_type="HNSW", metric="IP")
    store.add(embeddings, meta)
    dist, idx, metadata = store.search(embeddings[0], k=3)
    distances, rows = exact(embeddings, embeddings[0], 3, "IP")
    assert idx.tolist() == rows
    assert metadata == [meta[row] for row in rows]
    np.testing.assert_allclose(dist, distances, rtol=1e-5)
    assert store.index == "HNSW32,Flat"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", ["Flat", "IVFFlat", "HNSW", "auto"])
def test_distances_are_those_of_faiss_and_sorted_nearest_first(spec: str, metric: str) -> None:
    xb = vectors(300)
    store = FAISSVectorStore(D, spec, metric)
    assert store.add(xb) == list(range(300))
    for query in vectors(5, seed=1):
        distances, ids, metadata = store.search(query, k=7)
        wanted, rows = exact(xb, query, 7, metric)
        assert ids.tolist() == rows
        np.testing.assert_allclose(distances, wanted, rtol=1e-4, atol=1e-5)
        assert (str(distances.dtype), str(ids.dtype)) == ("float32", "int64")
        assert metadata == [{}] * 7


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.usefixtures("indexed")
def test_every_index_finds_what_exact_search_finds(spec: str, metric: str) -> None:
    xb = vectors(1200)
    store = FAISSVectorStore(D, spec, metric)
    for start in range(0, 1200, 400):
        store.add(xb[start : start + 400], numbered(1200)[start : start + 400])
    queries = 0.8 * xb[:40] + 0.2 * vectors(40, seed=1)
    found = store.batch_search(queries, k=10)[1]
    true = store.batch_search(queries, k=10, recall=1.0)[1]
    hits = [len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(found, true, strict=True)]
    assert np.mean(hits) >= 0.9  # 0.95 is asked; forty queries
    for ids, query in zip(true, queries, strict=True):
        assert ids.tolist() == exact(xb, query, 10, metric)[1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.usefixtures("indexed")
def test_what_is_deleted_is_never_found_and_k_still_come_back(spec: str, metric: str) -> None:
    xb = vectors(800)
    store = FAISSVectorStore(D, spec, metric)
    store.add(xb, numbered(800))
    gone = [i for i in range(800) if i % 5 == 0]
    assert store.delete(gone) == 160
    assert store.delete([*gone, 0, 0]) == 0
    assert len(store) == store.ntotal == 640
    for query in xb[:20]:
        distances, ids, metadata = store.search(query, k=12)
        assert len(distances) == len(ids) == len(metadata) == 12
        assert not set(ids.tolist()) & set(gone)
        assert [each["n"] for each in metadata] == ids.tolist()
    assert sorted(store.search(xb[0], k=5000)[1].tolist()) == [i for i in range(800) if i % 5]


@pytest.mark.parametrize("spec", SPECS)
def test_ids_stay_after_deletion_compaction_and_more(spec: str) -> None:
    xb = vectors(400)
    store = FAISSVectorStore(D, spec, "cosine")
    store.add(xb[:300], numbered(300))
    store.delete(list(range(200)))
    store.compact()
    assert store.add(xb[300:], [{"n": i} for i in range(300, 400)]) == list(range(300, 400))
    for i in (200, 299, 300, 399):
        _, ids, metadata = store.search(xb[i], k=1)
        assert (ids.tolist(), metadata[0]["n"]) == ([i], i)
    assert store.get([399, 200]) == [{"n": 399}, numbered(300)[200]]
    with pytest.raises(NotFoundError, match="no vector with id 7"):
        store.get([200, 7])


@pytest.mark.parametrize("spec", SPECS)
def test_fewer_come_back_where_there_are_fewer_and_none_is_padded(spec: str) -> None:
    store = FAISSVectorStore(D, spec, "L2")
    distances, ids, metadata = store.search(vectors(1)[0], k=5)
    assert (len(distances), len(ids), metadata) == (0, 0, [])
    store.add(vectors(3), numbered(3))
    distances, ids, metadata = store.search(vectors(1)[0], k=5)
    assert len(distances) == len(ids) == len(metadata) == 3
    assert np.isfinite(distances).all()
    assert ids.min() >= 0


def test_ivf_is_exact_until_it_has_enough_and_trains_itself_then() -> None:
    store = FAISSVectorStore(D, "IVFFlat", "L2")
    store.add(vectors(100))
    assert (store.is_trained, store.index) == (False, "Flat")
    assert store.search(vectors(100)[9], k=1)[1].tolist() == [9]
    store.add(vectors(400, seed=1))
    assert (store.is_trained, store.index) == (True, "IVF4,Flat")
    store.add(vectors(9500, seed=2))
    assert store.index == "IVF128,Flat"  # more lists for more vectors


def test_an_ivf_with_its_size_named_waits_for_enough_but_can_be_told_not_to() -> None:
    store = FAISSVectorStore(D, "IVF16,Flat", "L2")
    store.add(vectors(10))
    with pytest.raises(NotReadyError, match="needs 16 vectors to train, has 10"):
        store.train()
    store.add(vectors(190, seed=1))
    assert store.index == "Flat"
    store.train()
    assert store.index == "IVF16,Flat"
    assert store.search(vectors(10)[3], k=1)[1].tolist() == [3]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.usefixtures("indexed")
def test_a_filter_leaves_only_what_matches_and_all_of_that(spec: str) -> None:
    xb = vectors(700)
    store = FAISSVectorStore(D, spec, "cosine")
    store.add(xb, numbered(700))
    store.delete([1, 3, 5])
    for where, rows in (
        ({"even": True}, list(range(0, 700, 2))),
        ({"n": {"$lt": 9}}, [0, 2, 4, 6, 7, 8]),
        ({"n": {"$gt": 900}}, []),
        ({}, [i for i in range(700) if i not in (1, 3, 5)]),
    ):
        _, ids, _ = store.search(xb[4], k=700, where=where, recall=1.0)
        assert sorted(ids.tolist()) == rows
        _, near, _ = store.search(xb[4], k=3, where=where)
        assert set(near.tolist()) <= set(rows)
        assert len(near) == min(3, len(rows))


def test_delete_by_filter_takes_what_matches() -> None:
    store = FAISSVectorStore(D)
    store.add(vectors(10), numbered(10))
    assert store.delete(where={"even": True}) == 5
    assert store.search(vectors(1)[0], k=10)[1].size == 5
    assert store.delete(where={"even": True}) == 0
    with pytest.raises(InvalidInputError, match="would remove every vector"):
        store.delete(where={})
    with pytest.raises(InvalidInputError, match="either ids or where"):
        store.delete([1], where={"even": True})


def test_a_threshold_of_the_score_drops_what_is_farther() -> None:
    xb = np.eye(4, dtype=np.float32)
    for metric, threshold, wanted in (("cosine", 0.5, [0]), ("IP", 0.0, [0, 1, 2, 3]), ("L2", 0.4, [0])):
        store = FAISSVectorStore(4, metric=metric)
        store.add(xb)
        assert sorted(store.search(xb[0], k=4, score_threshold=threshold)[1].tolist()) == wanted
    with pytest.raises(InvalidInputError, match="score_threshold must be a finite number, got nan"):
        store.search(xb[0], score_threshold=float("nan"))


def test_mmr_takes_the_nearest_first_and_then_what_is_different() -> None:
    store = FAISSVectorStore(3, metric="cosine")
    store.add([[1, 0, 0], [0.99, 0.1, 0], [0.98, 0.15, 0], [0.7, 0, 0.7], [0, 1, 0]])
    query = [1, 0.05, 0]
    near = store.search(query, k=3)[1].tolist()
    assert near == [0, 1, 2] or near == [1, 0, 2]
    _, mixed, metadata = store.mmr_search(query, k=2, fetch_k=4, lambda_mult=0.3)
    assert mixed.tolist()[0] == near[0]
    assert mixed.tolist()[1] == 3
    assert len(metadata) == 2
    assert store.mmr_search(query, k=3, lambda_mult=1.0)[1].tolist() == near
    assert len(store.mmr_search(query, k=9)[1]) == 5
    with pytest.raises(InvalidInputError, match="lambda_mult must be from 0 to 1, got 2"):
        store.mmr_search(query, lambda_mult=2)


def test_batch_search_answers_each_query_as_search_does() -> None:
    xb = vectors(200)
    store = FAISSVectorStore(D, "HNSW", "IP")
    store.add(xb, numbered(200))
    distances, ids, metadata = store.batch_search(xb[:30], k=4, where={"even": True})
    assert len(distances) == len(ids) == len(metadata) == 30
    for i in range(30):
        one = store.search(xb[i], k=4, where={"even": True})
        np.testing.assert_allclose(distances[i], one[0], rtol=1e-5)
        assert (ids[i].tolist(), metadata[i]) == (one[1].tolist(), one[2])
    assert store.batch_search(np.empty((0, D), np.float32)) == ([], [], [])


def test_one_vector_may_come_as_a_row_but_many_are_for_batch_search() -> None:
    store = FAISSVectorStore(2)
    assert store.add([1, 2], {"a": 1}) == [0]
    assert store.search([[1, 2]], k=1)[1].tolist() == [0]
    with pytest.raises(InvalidInputError, match=r"one vector, got 2: use batch_search"):
        store.search([[1, 2], [3, 4]])


def test_metadata_come_back_as_json_and_belong_to_the_caller() -> None:
    store = FAISSVectorStore(2)
    given: dict[str, Any] = {"day": datetime.date(2024, 5, 1), "tags": ["a"], "none": None}
    store.add([[1, 2]], [given])
    given["tags"].append("b")
    found = store.search([1, 2], k=1)[2][0]
    assert found == {"day": "2024-05-01", "tags": ["a"], "none": None}
    found["tags"].append("c")
    assert store.search([1, 2], k=1)[2][0]["tags"] == ["a"]


def test_cosine_takes_any_length_and_changes_nothing_of_the_caller() -> None:
    xb = vectors(5) * 40
    before = xb.copy()
    store = FAISSVectorStore(D, metric="COSINE")
    store.add(xb)
    assert store.search(xb[2] * 0.001, k=1)[0][0] == pytest.approx(1.0, abs=1e-5)
    assert (xb == before).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.add(np.ones((2, 5))), "expected vectors of d=4, got d=5"),
        (lambda s: s.add([[1, 2, 3, np.nan]]), "row 0 holds nan at position 3"),
        (lambda s: s.add([[1, 2, 3, 4], [0, 0, 0, 0]]), "row 1 is the zero vector"),
        (lambda s: s.add([["a", "b", "c", "d"]]), "vectors must be numbers"),
        (lambda s: s.add(np.ones((2, 4)), [{}]), "expected 2 metadatas, one for each id, got 1"),
        (lambda s: s.add(np.ones((1, 4)), [{"a": {1}}]), "metadata of row 0 cannot be stored as JSON"),
        (lambda s: s.add(np.ones((1, 4)), [{"a": float("inf")}]), "metadata of row 0 holds inf"),
        (lambda s: s.add(np.ones((1, 4)), ["text"]), "metadata of row 0 must be an object"),
        (lambda s: s.search([1, 2, 3, 4], k=0), "k must be between 1 and"),
        (lambda s: s.search([1, 2, 3, 4], k=2.5), "k must be a whole number, got 2.5"),
        (lambda s: s.search([1, 2, 3]), "expected vectors of d=4, got d=3"),
        (lambda s: s.search([1, 2, 3, 4], recall=0), "recall must be above 0"),
        (lambda s: s.search([1, 2, 3, 4], where={"$bad": 1}), "unknown operator"),
        (lambda s: s.delete(["1"]), "ids must be whole numbers, got '1' at position 0"),
        (lambda s: s.delete([-1]), "id -1 at position 0 is none"),
        (lambda s: s.mmr_search([1, 2, 3, 4], fetch_k=0), "fetch_k must be a whole number of 1 or more"),
    ],
)
def test_bad_input_is_refused_with_its_value_and_nothing_is_stored(call: Any, message: str) -> None:
    store = FAISSVectorStore(4, "HNSW", "cosine")
    store.add([[1, 0, 0, 0]])
    with pytest.raises(InvalidInputError, match=message.replace("(", r"\(")):
        call(store)
    assert len(store) == 1
    assert store.add([[0, 1, 0, 0]]) == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "dimension must be a whole number from 1 to 65535, got 0"),
        ((True,), "got True"),
        ((4, "Flatt"), "index_type 'Flatt' is not known"),
        ((4, ""), "index_type must be a string that is not empty"),
        ((4, "FlatL2", "IP"), "'IndexFlatL2' searches by l2, not by 'ip'"),
        ((4, "IVF0,Flat"), "expected 1 to 1048576 lists, got 0"),
        ((5, "PQ4"), "m=4 does not divide d=5"),
        ((4, "Flat", "L1"), "metric must be 'L2', 'IP' or 'cosine', got 'L1'"),
    ],
)
def test_a_store_that_cannot_be_is_not_made(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FAISSVectorStore(*arguments)


def test_an_add_that_fails_within_faiss_stores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FAISSVectorStore(D, "HNSW", "L2")
    store.add(vectors(50))

    def fail(*_: Any, **__: Any) -> bool:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr("faissbase.ann.build.Builder.add", fail)
    with pytest.raises(MemoryError):
        store.add(vectors(10, seed=1))
    monkeypatch.undo()
    assert len(store) == 50
    assert store.add(vectors(1, seed=2)) == [50]
    assert store.index == "HNSW8,Flat"  # built anew
    assert store.search(vectors(50)[7], k=1)[1].tolist() == [7]


@pytest.mark.usefixtures("indexed")
def test_many_threads_search_add_and_delete_at_once() -> None:
    xb = vectors(900)
    store = FAISSVectorStore(D, "HNSW", "L2")
    store.add(xb[:300], numbered(300))

    def search() -> None:
        for i in range(150):
            distances, ids, metadata = store.search(xb[i % 300], k=5, where={"n": {"$gte": 0}})
            assert len(distances) == len(ids) == len(metadata) == 5
            assert [each["n"] for each in metadata] == ids.tolist()

    def add() -> None:
        for start in range(300, 900, 20):
            store.add(xb[start : start + 20], [{"n": i} for i in range(start, start + 20)])

    def delete() -> None:
        for i in range(0, 250, 2):
            store.delete([i])

    with ThreadPoolExecutor(5) as threads:
        for done in [threads.submit(run) for run in (search, search, search, add, delete)]:
            done.result()
    assert len(store) == 900 - 125
    for i in (1, 251, 899):
        assert store.search(xb[i], k=1)[1].tolist() == [i]


def test_deleting_gives_the_memory_back() -> None:
    store = FAISSVectorStore(D, "HNSW")
    store.add(vectors(1000))
    store.delete(list(range(900)))
    assert store._rows.resident.n == 100
    assert len(store._rows.metadata) == len(store._rows.ids) == 100
    assert store.index == "HNSW8,Flat"


def test_an_index_that_compaction_has_built_otherwise_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faissbase.ann.resident.EXACT_NUMBERS", 1)
    vectors = np.random.default_rng(0).standard_normal((4_000, 8)).astype(np.float32)
    store = FAISSVectorStore(8, "IVFFlat")
    store.add(vectors)
    before = store.index
    store.delete(range(3_000))
    assert store.index != before
    assert store._rows.resident._curve is not None
