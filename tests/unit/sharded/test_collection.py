"""A sharded collection in a folder bucket: what is written is found, by every reader, at every version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.errors import AccessError, AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase

D = 16


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ShardedDatabase]:
    with opened(tmp_path, "cache") as database:
        yield database


def opened(folder: Path, cache: str, **options: object) -> ShardedDatabase:
    url = (folder / "bucket").as_uri()
    db: ShardedDatabase = faissbase.connect(url, cache=folder / cache, refresh_s=0, **options)  # type: ignore[call-overload]
    return db


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


def names(n: int, first: int = 0) -> list[str]:
    return [f"i{i}" for i in range(first, first + n)]


@pytest.fixture
def docs(db: ShardedDatabase) -> ShardedCollection:
    """300 records in three shards, of which 20 were replaced and one deleted."""
    docs = db.create_collection("docs", D, metric="l2")
    docs.upsert(names(100), vectors(100), [{"n": i} for i in range(100)], [f"old {i}" for i in range(100)])
    docs.upsert(names(120, 80), vectors(120, 1), [{"n": i} for i in range(80, 200)])
    docs.upsert(names(101, 200), vectors(101, 2), [{"n": i} for i in range(200, 301)])
    assert docs.delete("i300") == 1
    return docs


def truth(queries: np.ndarray, k: int) -> list[list[str]]:
    x = np.concatenate([vectors(100)[:80], vectors(120, 1), vectors(101, 2)[:100]])
    distances = ((queries[:, None, :] - x[None]) ** 2).sum(axis=2)
    return [[f"i{i}" for i in row] for row in np.argsort(distances, axis=1, kind="stable")[:, :k]]


def test_a_search_finds_the_nearest_of_all_shards(docs: ShardedCollection) -> None:
    xq = vectors(20, 9)
    assert docs.search(xq, k=7).ids == truth(xq, 7)
    assert [[hit.id for hit in docs.search(q, k=7)] for q in xq] == truth(xq, 7)
    assert docs.search(xq, k=7).complete


def test_replaced_and_deleted_records_are_nowhere(docs: ShardedCollection) -> None:
    assert len(docs) == 300
    assert docs.count({"n": {"$gte": 0}}) == 300
    assert docs.get(["i300", "i80"])[0].document is None  # the newer one has none
    assert [hit.id for hit in docs.text_search("old 85")] == [hit.id for hit in docs.text_search("old")]
    assert "i85" not in [hit.id for hit in docs.text_search("old", k=300)]
    assert docs.search(vectors(100)[85], k=1)[0].distance > 0
    assert len(docs.range_search(vectors(1, 9)[0], 1e9)) == 300


def test_scrolling_meets_every_record_once(docs: ShardedCollection) -> None:
    found, cursor = [], None
    while True:
        page = docs.scroll(limit=37, cursor=cursor, include_vectors=True)
        found += page.records
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(record.id for record in found) == sorted(names(300))
    assert len(docs.get(where={"n": {"$lt": 90}})) == 90
    assert len(docs.get(where={"n": {"$lt": 90}}, limit=85)) == 85


def test_k_hits_come_whenever_k_match(docs: ShardedCollection) -> None:
    where = {"n": {"$in": [3, 85, 190, 250]}}
    assert {hit.id for hit in docs.search(vectors(1, 9)[0], k=10, where=where)} == {
        "i3",
        "i85",
        "i190",
        "i250",
    }
    result = docs.search(vectors(2, 9), k=10, where=where)
    assert [len(ids) for ids in result.ids] == [4, 4]
    assert result.distances.shape == (2, 10)


def test_another_reader_sees_one_version_at_a_time(docs: ShardedCollection, tmp_path: Path) -> None:
    with opened(tmp_path, "other", read_only=True) as other:
        reader = other.get_collection("docs")
        docs.upsert(["i0", "new"], vectors(2, 5))
        assert (len(reader), reader.version) == (300, docs.version - 1)
        assert not reader.get("new")
        assert reader.refresh() == docs.version
        assert (len(reader), len(reader.get(["new", "i0"]))) == (301, 2)
        with pytest.raises(AccessError, match="read-only"):
            reader.upsert("x", vectors(1))


def test_a_call_that_began_on_an_older_version_ends_on_it(docs: ShardedCollection) -> None:
    before = docs._current[1]
    docs.upsert(names(100), vectors(100, 7))
    docs.delete(names(50, 200))
    assert before.ntotal == 300
    xq = vectors(5, 9)
    assert before.search_many(xq, 7, None, {}).ids == truth(xq, 7)


def test_what_is_refused_changes_nothing(docs: ShardedCollection) -> None:
    version = docs.version
    with pytest.raises(AlreadyExistsError, match="'i7' and 1 more"):
        docs.add(["fresh", "i7", "i250"], vectors(3))
    with pytest.raises(InvalidInputError, match="d=16"):
        docs.upsert("x", [1.0, 2.0])
    with pytest.raises(NotFoundError, match="'nobody'"):
        docs.update(["i1", "nobody"], [{"a": 1}, {"a": 2}])
    with pytest.raises(InvalidInputError, match="reset"):
        docs.delete(where={})
    assert (docs.refresh(), len(docs), docs.get("fresh")) == (version, 300, [])


def test_updates_merge_what_is_stored(docs: ShardedCollection) -> None:
    assert docs.update(["i1", "i90"], [{"a": 1}, None], documents=[None, "said"]) == 2
    first, second = docs.get(["i1", "i90"], include_vectors=True)
    assert (first.metadata, first.document) == ({"n": 1, "a": 1}, "old 1")
    assert (second.metadata, second.document) == ({"n": 90}, "said")
    np.testing.assert_array_equal(first.vector, vectors(100)[1])
    assert len(docs) == 300


def test_deleting_by_filter_and_reset(docs: ShardedCollection) -> None:
    assert docs.delete(where={"n": {"$lt": 150}}) == 150
    assert docs.delete(where={"n": {"$lt": 150}}) == 0
    assert len(docs.stats().shards) == 2, "a shard of which nothing is left is dropped"
    assert docs.reset() == 150
    assert (len(docs), docs.search(vectors(1)[0]), docs.search(vectors(2)).ids) == (0, [], [[], []])


def test_a_deleted_collection_is_gone_and_its_name_free(db: ShardedDatabase, docs: ShardedCollection) -> None:
    db.delete_collection("docs")
    assert db.list_collections() == []
    with pytest.raises(NotFoundError, match="docs"):
        db.get_collection("docs")
    assert len(db.create_collection("docs", D)) == 0


def test_a_collection_of_another_kind_is_a_conflict(db: ShardedDatabase, docs: ShardedCollection) -> None:
    assert len(db.get_or_create_collection("docs", D, metric="l2")) == 300
    with pytest.raises(ConflictError, match="cosine"):
        db.get_or_create_collection("docs", D, metric="cosine")
