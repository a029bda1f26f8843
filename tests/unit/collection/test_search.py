"""Answers of one collection: exact, within k, the same alone and in a batch, in every shape."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.errors import CorruptionError
from faissbase.storage.records import ReadTransaction
from faissbase.types import METRICS, Float32, Metric, Record, SearchResult

N = 1000
FIVE = [[i, 0] for i in range(5)]


def fill(docs: LocalCollection, xb: Any) -> None:
    n = len(xb)
    docs.add([str(i) for i in range(n)], xb, [{"n": i} for i in range(n)], [f"text {i}" for i in range(n)])


def filled(memory: faissbase.Database, xb: Any, metric: Metric) -> LocalCollection:
    docs = memory.create_collection("docs", len(xb[0]), metric)
    fill(docs, xb)
    return docs


@pytest.fixture(scope="module")
def five() -> Iterator[LocalCollection]:
    with faissbase.connect(":memory:") as db:
        yield filled(db, FIVE, "l2")


@pytest.fixture
def docs(five: LocalCollection) -> LocalCollection:
    """Records "0" to "4", where l2 sees them at 0 to 4 on a line."""
    five.delete([record.id for record in five.get()])
    fill(five, FIVE)
    return five


def images(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Long and near to each other, as pictures of one thing are: 784 bytes that differ by a few."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).integers(60, 200, size=784)
    return (base + rng.integers(-4, 5, size=(n, 784))).astype(np.uint8)


@pytest.mark.parametrize("nq", [1, 2, 19, 20, 25, 100])
@pytest.mark.parametrize("where", [None, {"n": {"$lt": 900}}, {"n": {"$lt": 30}}])
def test_a_batch_has_the_very_distances_of_its_queries_alone(
    memory: faissbase.Database, nq: int, where: dict[str, Any] | None
) -> None:
    docs, xq = filled(memory, images(N, 1), "l2"), images(nq, 2)
    batch = docs.search(xq, 10, where)
    for query, hits in zip(xq, batch, strict=True):
        alone = docs.search(query, 10, where)
        assert [hit.distance for hit in hits] == [hit.distance for hit in alone]
        assert {hit.id for hit in hits[:9]} <= {hit.id for hit in alone}


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_has_the_same_answer_alone_and_in_a_batch(memory: faissbase.Database, metric: Metric) -> None:
    rng = np.random.default_rng(8)
    docs = filled(memory, rng.normal(size=(N, 48)).astype(np.float32), metric)
    xq = rng.normal(size=(40, 48)).astype(np.float32)
    for query, hits in zip(xq, docs.search(xq, 5), strict=True):
        assert docs.search(query, 5) == hits


def test_a_large_batch_finds_what_its_queries_find_alone_for_ip(memory: faissbase.Database) -> None:
    rng = np.random.default_rng(0)
    docs = filled(memory, (1000 + rng.normal(size=(3000, 784))).astype(np.float32), "ip")
    xq = (1000 + rng.normal(size=(200, 784))).astype(np.float32)
    batch = docs.search(xq, 10)
    for i in range(0, 200, 4):
        assert [hit.distance for hit in batch[i]] == [hit.distance for hit in docs.search(xq[i], 10)]


def test_a_vector_is_stored_the_same_alone_and_in_a_batch(memory: faissbase.Database) -> None:
    xb = np.random.default_rng(9).normal(size=(50, 48)).astype(np.float32)
    docs = filled(memory, xb, "cosine")
    for i, vector in enumerate(xb):
        docs.upsert(f"again {i}", vector)
    for i, vector in enumerate(xb):
        first, second = docs.search(vector, 2)
        assert {first.id, second.id} == {str(i), f"again {i}"}
        assert first.distance == second.distance


def test_large_bytes_have_the_exact_integer_distances(memory: faissbase.Database) -> None:
    xb, xq = images(N, 1), images(5, 2)
    docs = filled(memory, xb, "l2")
    exact = ((xq[:, None].astype(np.int64) - xb[None]) ** 2).sum(axis=2)
    result = docs.search(xq, N)
    np.testing.assert_array_equal(result.distances, np.sort(exact, axis=1).astype(np.float32))
    found = [[int(exact[i, int(hit.id)]) for hit in hits] for i, hits in enumerate(result)]
    np.testing.assert_array_equal(found, np.sort(exact, axis=1))


@pytest.mark.parametrize("shift", [0, 1000])
def test_a_large_batch_finds_the_nearest_of_long_vectors(memory: faissbase.Database, shift: int) -> None:
    rng = np.random.default_rng(3)
    xb: Any = images(N, 1) if not shift else (shift + rng.normal(size=(N, 784))).astype(np.float32)
    xq: Any = images(200, 2) if not shift else (shift + rng.normal(size=(200, 784))).astype(np.float32)
    docs = filled(memory, xb, "l2")
    batch = docs.search(xq, 10)
    for i in range(0, 200, 5):
        assert batch.distances[i].tolist() == [hit.distance for hit in docs.search(xq[i], 10)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nq", [3, 64])
@pytest.mark.parametrize("n_matching", [1, 40, 400, 990])
def test_filtered_search_equals_search_in_the_subset(
    memory: faissbase.Database, metric: Metric, nq: int, n_matching: int
) -> None:
    rng = np.random.default_rng(4)
    xb, xq = rng.normal(size=(N, 24)).astype(np.float32), rng.normal(size=(nq, 24)).astype(np.float32)
    docs = filled(memory, xb, metric)
    chosen = rng.permutation(N)[:n_matching]
    subset = memory.create_collection("subset", 24, metric)
    subset.add([str(i) for i in chosen], xb[chosen])
    docs.delete(where={"n": {"$nin": [*chosen.tolist(), *range(0, N, 7)]}})
    found = docs.search(xq, 15, where={"n": {"$in": chosen.tolist()}})
    expected = subset.search(xq, 15)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-6)


@pytest.mark.parametrize("nq", [1, 40])
def test_cosine_scores_stay_within_one(memory: faissbase.Database, nq: int) -> None:
    rng = np.random.default_rng(5)
    xb = rng.normal(size=(N, 16)).astype(np.float32)
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    xb[500:] = xb[:500]
    docs = filled(memory, np.vstack([xb, -xb[:10]]), "cosine")
    for start in range(0, 400, nq):
        result = docs.search(xb[start : start + nq], 3)
        assert (np.abs(result.scores) <= 1).all()
        assert (np.abs(result.distances) <= 1).all()
        assert {len(hits) for hits in result} == {3}
        np.testing.assert_allclose(result.scores[:, :2], 1, atol=1e-6)
    assert all(-1 <= hit.score <= 1 for hit in docs.search(xb[0], N))


def test_cosine_scores_of_a_range_search_stay_within_one(memory: faissbase.Database) -> None:
    xb = np.random.default_rng(5).normal(size=(500, 16)).astype(np.float32)
    docs = filled(memory, xb / np.linalg.norm(xb, axis=1, keepdims=True), "cosine")
    assert np.nanmax(docs.range_search(xb, 0.9).scores) <= 1


@pytest.mark.parametrize(("radius", "n"), [(1, 0), (2, 0), (-1.0001, 500), (-2, 500)])
def test_a_range_of_cosines_ends_where_cosines_do(memory: faissbase.Database, radius: float, n: int) -> None:
    """A vector's product with itself may be 1.0000001, which is told as 1 and is not above it."""
    xb = np.random.default_rng(5).normal(size=(250, 33)).astype(np.float32)
    docs = filled(memory, np.concatenate([xb, -xb]), "cosine")
    assert [len(hits) for hits in docs.range_search(xb[:50], radius)] == [n] * 50
    assert len(docs.range_search(xb[0], radius)) == n


def test_records_with_one_vector_all_come_back(memory: faissbase.Database) -> None:
    docs = filled(memory, np.ones((50, 3), np.float32), "cosine")
    assert {hit.id for hit in docs.search([1, 1, 1], 50)} == {str(i) for i in range(50)}
    assert len(docs.search([1, 1, 1], 60)) == 50


@pytest.mark.parametrize("k", [1, 5, 6, 1 << 20, np.int32(3)])
def test_k_hits_come_back_where_there_are_so_many(docs: LocalCollection, k: Any) -> None:
    assert [hit.id for hit in docs.search([0, 0], k)] == ["0", "1", "2", "3", "4"][:k]
    assert docs.search([[0, 0]], min(k, 100)).ids == [["0", "1", "2", "3", "4"][:k]]


@pytest.mark.parametrize("k", [0, -1, (1 << 20) + 1, 1.0, "1", True, None])
def test_other_k_are_refused(docs: LocalCollection, k: Any) -> None:
    calls: list[Any] = [
        lambda: docs.search([0, 0], k),
        lambda: docs.text_search("text", k),
        lambda: docs.hybrid_search("text", [0, 0], k),
        lambda: docs.explain([0, 0], k),
    ]
    for call in calls:
        with pytest.raises(faissbase.InvalidInputError, match="k must be"):
            call()


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", True])
def test_other_limits_are_refused(docs: LocalCollection, limit: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="limit must be a whole number of 1 or more"):
        docs.get(limit=limit)
    with pytest.raises(faissbase.InvalidInputError, match="limit must be a whole number of 1 or more"):
        docs.scroll(limit=limit)


@pytest.mark.parametrize("recall", [0, 1.1, -0.5, "1", True, float("nan")])
def test_a_recall_that_cannot_be_is_refused(docs: LocalCollection, recall: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="recall must be above 0 and at most 1"):
        docs.search([0, 0], recall=recall)
    assert len(docs.search([0, 0], recall=0.95)) == 5


@pytest.mark.parametrize("query", [[np.nan, 0], [0, np.inf], [0, 0, 0], [[[0, 0]]], "ab", None])
def test_a_query_is_checked_like_a_vector(docs: LocalCollection, query: Any) -> None:
    for call in (docs.search, lambda xq: docs.range_search(xq, 1.0), docs.explain):
        with pytest.raises(faissbase.InvalidInputError):
            call(query)
    with pytest.raises(faissbase.InvalidInputError, match="row 1 holds nan"):
        docs.search([[0, 0], [np.nan, 0]])
    if query is not None:
        with pytest.raises(faissbase.InvalidInputError):
            docs.search(np.array([np.nan, 0], np.float32))


def test_cosine_refuses_a_query_without_direction(memory: faissbase.Database) -> None:
    docs = filled(memory, [[1, 0], [0, 1]], "cosine")
    for query in ([0, 0], np.zeros(2, np.float32), [[1, 1], [0, 0]]):
        with pytest.raises(faissbase.InvalidInputError, match="is the zero vector"):
            docs.search(query)


def test_a_query_is_not_changed(memory: faissbase.Database) -> None:
    docs = filled(memory, [[1, 0], [0, 1]], "cosine")
    query = np.array([3, 4], np.float32)
    docs.search(query)
    docs.hybrid_search("text", query)
    assert query.tolist() == [3, 4]


@pytest.mark.parametrize("radius", [float("nan"), float("inf"), "1", None, True])
def test_a_radius_that_is_no_number_is_refused(docs: LocalCollection, radius: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="radius must be a finite number"):
        docs.range_search([0, 0], radius)


@pytest.mark.parametrize("radius", [1e300, 10**400], ids=["float", "int"])
def test_a_radius_beyond_float32_is_refused(docs: LocalCollection, radius: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="radius"):
        docs.range_search([0, 0], radius)


def test_results_and_records_can_be_looked_at_and_compared(docs: LocalCollection) -> None:
    assert repr(docs.search([[0, 0], [4, 0]], 9)) == "<SearchResult: 2 queries, 9 hits each at most>"
    assert docs.get(include_vectors=True) == docs.get(include_vectors=True)
    assert docs.get("1", include_vectors=True) != docs.get("1")
    assert docs.get("1", include_vectors=True) != docs.get("2", include_vectors=True)
    [record] = docs.get("1", include_vectors=True)
    assert record != Record(record.id, record.metadata, record.document, np.zeros(2, np.float32))
    assert record != "1"


def test_range_search_takes_what_is_strictly_nearer(docs: LocalCollection) -> None:
    assert [hit.id for hit in docs.range_search([0, 0], 4)] == ["0", "1"]
    assert [hit.id for hit in docs.range_search([0, 0], np.float32(4.5), {"n": {"$gt": 0}})] == ["1", "2"]
    assert docs.range_search([0, 0], -1) == []
    result = docs.range_search([[0, 0], [9, 9], [4, 0]], 2)
    assert result.ids == [["0", "1"], [], ["4", "3"]]
    np.testing.assert_array_equal(result.distances, [[0, 1], [np.nan, np.nan], [0, 1]])


def test_an_empty_collection_answers_everything(memory: faissbase.Database) -> None:
    docs = memory.create_collection("docs", 2)
    assert docs.search([1, 0]) == docs.range_search([1, 0], 0.5) == docs.text_search("x") == []
    assert docs.hybrid_search("x", [1, 0]) == docs.get() == docs.scroll().records == []
    assert (len(docs), docs.count({"n": 1}), docs.scroll().cursor) == (0, 0, None)
    assert docs.search([[1, 0]] * 30, 2).ids == [[]] * 30
    assert docs.delete(where={"n": 1}) == docs.reset() == 0


def test_no_queries_have_no_answers(docs: LocalCollection) -> None:
    for result in (docs.search([], 3), docs.search(np.zeros((0, 2), np.float32)), docs.range_search([], 1.0)):
        assert (len(result), result.ids) == (0, [])


def result_of_three(docs: LocalCollection) -> SearchResult:
    result = docs.search([[0, 0], [4, 0], [1, 0]], 3, where={"n": {"$lt": 2}})
    assert isinstance(result, SearchResult)
    return result


def test_a_result_is_padded_where_fewer_match(docs: LocalCollection) -> None:
    result = result_of_three(docs)
    assert result.ids == [["0", "1"], ["1", "0"], ["1", "0"]]
    np.testing.assert_array_equal(result.distances, [[0, 1, np.nan], [9, 16, np.nan], [0, 1, np.nan]])
    np.testing.assert_allclose(result.scores, 1 / (1 + result.distances))
    assert result.distances.dtype == result.scores.dtype == np.float32
    assert result.metadatas[1] == [{"n": 1}, {"n": 0}]
    assert result.documents[1] == ["text 1", "text 0"]


def test_a_result_is_a_sequence_of_lists_of_hits(docs: LocalCollection) -> None:
    result = result_of_three(docs)
    assert len(result) == 3
    assert [[hit.id for hit in hits] for hits in result] == result.ids
    assert result[-1] == result[2] == list(result)[2]
    assert result[1:] == [result[1], result[2]]
    with pytest.raises(IndexError):
        result[3]


def test_columns_of_a_result_are_made_once(docs: LocalCollection) -> None:
    """Who reads them query by query in a loop pays once, not once a query."""
    result = result_of_three(docs)
    assert result.ids is result.ids
    assert result.metadatas is result.metadatas
    assert result.documents is result.documents
    assert result.metadatas == [[hit.metadata for hit in hits] for hits in result]
    assert result.documents == [[hit.document for hit in hits] for hits in result]


def test_results_of_pages_do_not_change_with_the_collection(docs: LocalCollection) -> None:
    result = result_of_three(docs)
    docs.reset()
    docs.upsert([str(i) for i in range(5)], np.ones((5, 2)), [{"n": -1}] * 5)
    assert result.metadatas[0] == [{"n": 0}, {"n": 1}]
    assert [hit.document for hit in result[0]] == ["text 0", "text 1"]


@pytest.mark.parametrize(
    ("order", "wrong"), [([0, 2, 1, 3, 4], 1), ([0, 1, 2, 3, 9], 9), ([0, 1, 1, 3, 4], 1)]
)
def test_metadata_that_comes_from_a_wrong_place_is_no_answer(
    memory: faissbase.Database, monkeypatch: pytest.MonkeyPatch, order: list[int], wrong: int
) -> None:
    docs = filled(memory, FIVE, "l2")
    rows = iter([(slot, b'{"n": 1}') for slot in order])
    monkeypatch.setattr(ReadTransaction, "metadata_of", lambda *_: rows)
    with pytest.raises(CorruptionError, match=f"slot {wrong} is out of order"):
        docs.search([0, 0], 5, where={"n": 1})


def test_a_hit_decodes_its_metadata_when_asked(docs: LocalCollection) -> None:
    first, again = docs.search([0, 0], 1)[0], docs.search([0, 0], 1)[0]
    assert "_metadata" in type(first).__slots__
    first.metadata["n"] = "changed"
    assert first.metadata == {"n": "changed"}
    assert again.metadata == docs.search([0, 0], 1)[0].metadata == docs.get("0")[0].metadata == {"n": 0}
    assert first != again
    assert again == docs.search([[0, 0]], 1)[0][0]
    assert repr(again) == "Hit(id='0', score=1, distance=0.0, metadata={'n': 0})"


def test_a_result_becomes_an_arrow_table(docs: LocalCollection) -> None:
    table = result_of_three(docs).to_arrow()
    assert table.column_names == ["query", "rank", "id", "score", "distance", "metadata", "document"]
    assert table["query"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert table["rank"].to_pylist() == [0, 1] * 3
    assert table["id"].to_pylist() == ["0", "1", "1", "0", "1", "0"]
    assert table["distance"].to_pylist() == [0, 1, 9, 16, 0, 1]
    assert [json.loads(text) for text in table["metadata"].to_pylist()][:2] == [{"n": 0}, {"n": 1}]
    assert docs.search([[0, 0]], where={"n": 99}).to_arrow().num_rows == 0


def test_a_result_becomes_a_data_frame(docs: LocalCollection) -> None:
    frame = result_of_three(docs).to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame["id"].tolist() == ["0", "1", "1", "0", "1", "0"]
    assert frame["document"].tolist()[:2] == ["text 0", "text 1"]


def test_a_scroll_goes_on_where_the_page_ended_whatever_is_written(docs: LocalCollection) -> None:
    page = docs.scroll(limit=2)
    assert ([record.id for record in page.records], page.cursor is None) == (["0", "1"], False)
    docs.delete(["2"])
    docs.upsert(["0", "9"], [[0, 0], [9, 0]])
    page = docs.scroll(limit=4, cursor=page.cursor)
    assert [record.id for record in page.records] == ["3", "4", "0", "9"]
    assert page.cursor is None


def test_a_cursor_from_before_a_reset_is_refused(docs: LocalCollection) -> None:
    cursor = docs.scroll(limit=2).cursor
    docs.reset()
    with pytest.raises(faissbase.ConflictError, match="start again"):
        docs.scroll(cursor=cursor)


@pytest.mark.parametrize("cursor", ["", "1", "0-", "a-b", "0-1-2", 5])
def test_a_cursor_that_no_scroll_made_is_refused(docs: LocalCollection, cursor: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="was not made by scroll"):
        docs.scroll(cursor=cursor)


def test_get_by_ids_keeps_their_order_and_leaves_unknown_ones_out(docs: LocalCollection) -> None:
    assert [record.id for record in docs.get(["3", "x", "0"])] == ["3", "0"]
    assert [record.vector for record in docs.get(["3"])] == [None]
    with pytest.raises(faissbase.InvalidInputError, match="ids or where, not both"):
        docs.get(["3"], where={"n": 3})


def test_a_vector_that_was_got_is_the_callers_own(docs: LocalCollection) -> None:
    [record] = docs.get("3", include_vectors=True)
    vector: Float32 | None = record.vector
    assert vector is not None
    vector[:] = 99
    np.testing.assert_array_equal(docs.get("3", include_vectors=True)[0].vector, [3, 0])


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("TEXT", ["0", "1", "2", "3", "4"]),
        ("3 absent", ["3"]),
        ('"3" OR *', ["3"]),
        ("text:3 AND NEAR(", ["0", "1", "2", "3", "4"]),
        ("_ 2", ["2"]),
        ("", []),
        ("*\"'();-- \0 🙂", []),
        (" ".join(f"w{i}" for i in range(3000)), []),
    ],
)
def test_text_search_takes_any_text_as_words(docs: LocalCollection, query: str, ids: list[str]) -> None:
    assert sorted(hit.id for hit in docs.text_search(query)) == ids


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "word", ["résumé", "RÉSUMÉ", "resume", "Việt", "Ångström", "한국어", "국어", "x\u0302y"]
)
def test_text_search_takes_letters_with_their_accents_or_apart(
    docs: LocalCollection, stored: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"], word: str
) -> None:
    """Names of files come apart from a Mac, for instance."""
    text = "Mon résumé, Tiếng Việt, Ångström, 한국어 문서, x\u0302y"
    docs.upsert(["accents"], [[1, 0]], documents=[unicodedata.normalize(stored, text)])
    docs.upsert(["others"], [[1, 0]], documents=["re sume vie t x y"])
    assert [hit.id for hit in docs.text_search(unicodedata.normalize(asked, word))] == ["accents"]


def test_text_search_passes_over_accents_and_case(docs: LocalCollection) -> None:
    docs.upsert(["é"], [[0, 0]], documents=["Été à la plage"])
    assert [hit.id for hit in docs.text_search("ete")] == ["é"]
    assert [hit.id for hit in docs.text_search("ÉTÉ", where={"n": {"$exists": False}})] == ["é"]
    docs.update("é", documents=["Hiver"])
    assert docs.text_search("ete") == []


def test_hybrid_search_puts_first_what_both_rank_high(docs: LocalCollection) -> None:
    hits = docs.hybrid_search("3", [3, 0], k=2)
    assert hits[0].id == "3"
    assert hits[0].score == pytest.approx(2 / 61)
    assert hits[0].distance == 0
    assert hits[1].score == pytest.approx(1 / 62)
    with pytest.raises(faissbase.InvalidInputError, match="takes one vector, got 2"):
        docs.hybrid_search("3", [[3, 0], [4, 0]])
    with pytest.raises(faissbase.InvalidInputError, match="text must be a string"):
        docs.hybrid_search(3, [3, 0])  # type: ignore[arg-type]  # what a caller may do


def test_explain_tells_path_and_times(docs: LocalCollection) -> None:
    explanation = docs.explain([0, 0], 3, where={"n": {"$lt": 2}})
    assert explanation.result.ids == [["0", "1"]]
    assert (explanation.plan.n_matching, explanation.plan.n_slots) == (2, docs.stats().slots)
    assert set(explanation.times_ms) == {"filter", "search", "rows"}
    assert f"2 of {docs.stats().slots} slots" in str(explanation)


def test_stats_count_slots_and_tombstones(memory: faissbase.Database) -> None:
    docs = filled(memory, FIVE, "l2")
    docs.delete(["1", "2"])
    docs.upsert(["0"], [[7, 7]])
    stats = docs.stats()
    assert (stats.ntotal, stats.slots, stats.tombstones) == (3, 6, 3)
    assert (stats.name, stats.dimension, stats.metric, stats.index_type) == ("docs", 2, "l2", "auto")
    assert stats.as_dict()["vectors_bytes"] == 6 * 2 * 4
    assert docs.ntotal == len(docs) == 3
