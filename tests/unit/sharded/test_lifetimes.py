"""Versions that come and go under readers, closing, and caches that are full, shared or emptied."""

from __future__ import annotations

import os
import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.sharded.faulty import FaultyBucket

from faissbase.errors import NotReadyError, UnavailableError
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.cache import Cache
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.storage.files import FolderLock

D = 8


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


def names(n: int, first: int = 0) -> list[str]:
    return [f"i{i}" for i in range(first, first + n)]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ShardedDatabase]:
    with opened(tmp_path, "cache")[0] as db:
        yield db


@pytest.fixture
def docs(db: ShardedDatabase) -> ShardedCollection:
    docs = db.create_collection("docs", D, "l2")
    docs.upsert(names(50), vectors(50))
    return docs


def opened(folder: Path, cache: str, **options: Any) -> tuple[ShardedDatabase, FaultyBucket]:
    bucket = FaultyBucket(open_bucket(f"memory://{folder}"))
    return ShardedDatabase(bucket, folder / cache, refresh_s=0, **options), bucket


def n_open() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_searches_go_on_while_a_newer_version_is_fetched(docs: ShardedCollection, tmp_path: Path) -> None:
    db, bucket = opened(tmp_path, "other")
    with db:
        reader = db.get_collection("docs")
        docs.upsert(names(10, 50), vectors(10, 1))
        is_fetching, may_go_on = threading.Event(), threading.Event()

        def hold(operation: str, call: int) -> None:
            if operation == "download":
                is_fetching.set()
                assert may_go_on.wait(30)

        bucket.choose = hold
        refreshing = threading.Thread(target=reader.refresh)
        refreshing.start()
        assert is_fetching.wait(30)
        assert len(reader.search(vectors(1)[0], k=60)) == len(reader) == 50
        may_go_on.set()
        refreshing.join()
        assert len(reader.search(vectors(1)[0], k=60)) == len(reader) == 60


def test_a_reader_that_nobody_asks_follows_many_versions(docs: ShardedCollection, tmp_path: Path) -> None:
    db, _ = opened(tmp_path, "other", read_only=True)
    with db:
        reader = db.get_collection("docs")
        counts: list[int] = []
        for i in range(40):
            docs.delete(f"i{i}")
            docs.upsert(f"new{i}", vectors(1, i))
            reader.refresh()
            counts.append(n_open())
        assert max(counts[20:]) <= max(counts[:20]) + 10
        assert len(reader.search(vectors(1)[0], k=100)) == len(reader) == 50
        [folder] = (tmp_path / "other").iterdir()
        assert len(list(folder.iterdir())) <= 2 * len(docs.stats().shards) + 2


def test_closing_waits_for_calls_and_ends_all_files(docs: ShardedCollection) -> None:
    before = n_open()
    docs.upsert(names(50, 50), vectors(50, 1))
    wrong: list[Exception] = []
    n_searches = 0
    is_searching = threading.Event()

    def search() -> None:
        nonlocal n_searches
        try:
            while True:
                assert len(docs.search(vectors(1)[0], k=9)) == 9
                assert len(docs.get(names(5))) == 5
                n_searches += 1
                is_searching.set()
        except NotReadyError:
            pass
        except Exception as error:  # noqa: BLE001  # told by the thread that asserts
            wrong.append(error)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert is_searching.wait(30)
    docs.close()
    for thread in threads:
        thread.join()
    assert not wrong
    assert n_searches
    assert n_open() <= before
    for call in (lambda: docs.search(vectors(1)[0]), lambda: docs.upsert("x", vectors(1)), docs.stats):
        with pytest.raises(NotReadyError, match="closed"):
            call()
    docs.close()


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """As a disk that is full: what is longer cannot be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_and_leaves_nothing(docs: ShardedCollection, tmp_path: Path) -> None:
    db, _ = opened(tmp_path, "other")
    with db:
        with files_of_at_most(20_000), pytest.raises(UnavailableError, match=r"other.*free some space"):
            db.get_collection("docs")
        assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file()]
        assert len(db.get_collection("docs").get()) == 50
        version = docs.version
        with files_of_at_most(20_000), pytest.raises(UnavailableError):
            docs.upsert(names(50), vectors(50, 3))
        assert (docs.refresh(), len(docs)) == (version, 50)
        assert docs.upsert(names(50), vectors(50, 3)) == 50


def test_a_cache_that_was_emptied_is_filled_again(docs: ShardedCollection, tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path, "other")[0] as db:
            assert len(db.get_collection("docs").get()) == 50
        shutil.rmtree(tmp_path / "other")


def test_two_readers_of_different_versions_share_a_cache(docs: ShardedCollection, tmp_path: Path) -> None:
    with opened(tmp_path, "shared")[0] as old, opened(tmp_path, "shared")[0] as new:
        before = old.get_collection("docs")
        docs.upsert(names(50), vectors(50, 4))
        after = new.get_collection("docs")
        docs.upsert(names(50), vectors(50, 5))
        after.refresh()
        for reader, seed in ((before, 0), (after, 5)):
            found = reader.get(names(50), include_vectors=True)
            np.testing.assert_array_equal([record.vector for record in found], vectors(50, seed))
            assert reader.search(vectors(50, seed)[3], k=1)[0].distance == 0


def test_a_shard_that_another_process_removes_while_it_is_opened_is_fetched_again(
    docs: ShardedCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db, bucket = opened(tmp_path, "other")
    moments = 0

    def take(lock: FolderLock, *, shared: bool) -> bool:
        nonlocal moments
        if shared:  # opened by its path, not locked yet: the other process is faster
            moments += 1
            if moments == 1:
                Cache(other, bucket).keep_only([])
        return take_as_ever(lock, shared=shared)

    with db:
        other = tmp_path / "other" / docs.config.uuid
        take_as_ever = FolderLock.take
        monkeypatch.setattr(FolderLock, "take", take)
        assert len(db.get_collection("docs").get()) == 50
    assert moments > 1


def test_a_cache_whose_records_are_gone_is_filled_again(docs: ShardedCollection, tmp_path: Path) -> None:
    with opened(tmp_path, "other")[0] as db:
        db.get_collection("docs")
    (records,) = (tmp_path / "other").rglob("records.sqlite")
    records.unlink()
    with opened(tmp_path, "other")[0] as db:
        assert len(db.get_collection("docs").get()) == 50


def test_names_are_listed_without_looking_at_every_object(
    db: ShardedDatabase, docs: ShardedCollection
) -> None:
    db.create_collection("other", D)
    bucket = db.bucket
    assert isinstance(bucket, FaultyBucket)
    asked: list[str] = []
    bucket.choose = lambda operation, call: asked.append(operation)
    assert db.list_collections() == ["docs", "other"]
    assert asked.count("folders") == 1
    assert "download" not in asked
