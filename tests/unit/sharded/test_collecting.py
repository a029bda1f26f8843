"""What is collected, and what is spared: by age, by what versions name, and by what is under way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.sharded.bucket import Bucket, Stored, open_bucket
from faissbase.sharded.collecting import collect
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.making import shard_of

D = 4
START = datetime(2030, 1, 1, tzinfo=timezone.utc)
HOUR = 3600.0


class DatedBucket:
    """A bucket whose objects are as old as the clock said when a listing first met them."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self.url = bucket.url
        self.get, self.create, self.folders = bucket.get, bucket.create, bucket.folders
        self.upload, self.download = bucket.upload, bucket.download
        self.is_here, self.size, self.read = bucket.is_here, bucket.size, bucket.read
        self.hour = 0.0
        self._dates: dict[str, datetime] = {}
        self.deleted: list[str] = []

    @property
    def now(self) -> datetime:
        return START + timedelta(hours=self.hour)

    def pass_hours(self, hours: float) -> None:
        list(self.list(""))
        self.hour += hours

    def list(self, prefix: str, after: str | None = None) -> Iterator[Stored]:
        for stored in self._bucket.list(prefix, after):
            yield Stored(stored.key, stored.size_bytes, self._dates.setdefault(stored.key, self.now))

    def delete(self, keys: Sequence[str]) -> None:
        self.deleted += keys
        self._bucket.delete(keys)


@pytest.fixture
def bucket(tmp_path: Path) -> DatedBucket:
    return DatedBucket(open_bucket(f"memory://{tmp_path}"))


@pytest.fixture
def db(bucket: DatedBucket, tmp_path: Path) -> Iterator[ShardedDatabase]:
    with ShardedDatabase(bucket, tmp_path / "cache", refresh_s=0) as db:
        yield db


@pytest.fixture
def docs(db: ShardedDatabase, bucket: DatedBucket) -> ShardedCollection:
    """Versions 1 to 4, an hour between them; 4 names one shard, which replaced those of 2 and 3."""
    docs = db.create_collection("docs", D, "l2")
    for i in range(2):
        bucket.pass_hours(1)
        docs.upsert([f"{i}a", f"{i}b"], vectors(2, i))
    bucket.pass_hours(1)
    docs.optimize()
    bucket.pass_hours(0)
    return docs


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


def collected(bucket: DatedBucket, grace_h: float, *, dry_run: bool = False) -> tuple[list[int], int]:
    """The versions that were removed, and how many objects."""
    report = collect(Dataset(bucket, "docs"), grace_h * HOUR, bucket.now, dry_run=dry_run)
    versions = [int(key.rpartition("/")[2].removesuffix(".json")) for key in report.manifests]
    return versions, len(report.objects)


def test_a_version_goes_when_it_was_followed_longer_ago_than_the_grace(
    docs: ShardedCollection, bucket: DatedBucket
) -> None:
    assert collected(bucket, 2.5) == ([], 0)  # 1 was followed two hours ago
    bucket.pass_hours(1)
    assert collected(bucket, 2.5) == ([1], 0)
    assert collected(bucket, 1.5) == ([2], 0), "3 was the newest until an hour ago, and names what 2 does"
    bucket.pass_hours(1)
    assert collected(bucket, 1.5) == ([3], 4)
    bucket.pass_hours(100)
    assert collected(bucket, 1.5) == ([], 0)
    assert len(docs.get()) == 4


def test_a_fresh_reader_opens_what_is_kept(
    docs: ShardedCollection, bucket: DatedBucket, tmp_path: Path
) -> None:
    bucket.pass_hours(2.5)
    collected(bucket, 3)
    for version in Dataset(bucket, "docs").versions():
        manifest = Dataset(bucket, "docs").read(version)
        for key in [key for shard in manifest.shards for key in shard.keys]:
            assert bucket.get(key)
    with ShardedDatabase(bucket, tmp_path / "other", refresh_s=0) as other:
        assert len(other.get_collection("docs").get()) == 4


def test_what_is_uploaded_and_not_committed_yet_is_spared(
    docs: ShardedCollection, bucket: DatedBucket, tmp_path: Path
) -> None:
    bucket.pass_hours(50)
    shard_of([], docs._manifest, bucket, tmp_path)
    bucket.pass_hours(1)
    assert collected(bucket, 2) == ([1, 2, 3], 4)
    bucket.pass_hours(2)
    assert collected(bucket, 2) == ([], 2)


def test_what_a_running_build_has_made_is_spared(docs: ShardedCollection, bucket: DatedBucket) -> None:
    bucket.pass_hours(50)
    bucket.create("docs/builds/b1/plan.json", b"{}")
    bucket.pass_hours(0)
    bucket.create("docs/shards/x/0", b"")
    bucket.create("docs/quantizers/q.faiss", b"")
    bucket.pass_hours(10)
    bucket.create("docs/builds/b1/shard-0.json", b"{}")
    bucket.pass_hours(1)
    assert collected(bucket, 2) == ([1, 2, 3], 4)
    bucket.pass_hours(2)
    assert collected(bucket, 2) == ([], 4), "it has recorded nothing for longer than the grace"


def test_a_dry_run_tells_and_removes_nothing(docs: ShardedCollection, bucket: DatedBucket) -> None:
    bucket.pass_hours(50)
    bucket.deleted.clear()
    assert collected(bucket, 1, dry_run=True) == ([1, 2, 3], 4)
    assert bucket.deleted == []
    assert collected(bucket, 1) == ([1, 2, 3], 4)
    assert bucket.deleted[0].startswith("docs/manifests/"), "versions before what they name"
    assert len(bucket.deleted) == 7


def test_of_a_deleted_dataset_only_the_last_version_stays(
    db: ShardedDatabase, docs: ShardedCollection, bucket: DatedBucket
) -> None:
    bucket.create("docs/quantizers/q", b"")
    db.delete_collection("docs")
    bucket.pass_hours(1)
    assert collected(bucket, 2) == ([1], 0)
    bucket.pass_hours(2)
    assert collected(bucket, 2) == ([2, 3, 4], 7)
    assert [stored.key for stored in bucket.list("docs")] == [f"docs/manifests/{5:020d}.json"]
    anew = db.create_collection("docs", 2 * D)
    assert anew.version == 6, "versions never begin anew: readers of the old one would miss the new"


def test_a_collection_that_was_made_anew_is_another_one(
    db: ShardedDatabase, docs: ShardedCollection, bucket: DatedBucket, tmp_path: Path
) -> None:
    with ShardedDatabase(bucket, tmp_path / "other", refresh_s=0) as other:
        stale = other.get_collection("docs")
        db.delete_collection("docs")
        db.create_collection("docs", 2 * D)
        for call in (stale.refresh, lambda: stale.upsert("x", vectors(1, 0)), lambda: stale.delete("0a")):
            with pytest.raises(NotFoundError, match="made anew"):
                call()
        assert len(stale) == 4
        assert other.get_collection("docs").dimension == 2 * D


def test_other_datasets_and_strangers_are_left_alone(
    db: ShardedDatabase, docs: ShardedCollection, bucket: DatedBucket
) -> None:
    db.create_collection("docs2", D).upsert("a", vectors(1, 0))
    bucket.create("docs/vectors/v.parquet", b"")
    bucket.create("probes/left", b"")
    bucket.pass_hours(50)
    assert collected(bucket, 1) == ([1, 2, 3], 5)
    assert bucket.get("docs/vectors/v.parquet") == b""
    assert len(db.get_collection("docs2").get()) == 1
    with pytest.raises(NotFoundError):
        bucket.get("probes/left")


def test_wrong_calls_are_refused(docs: ShardedCollection, bucket: DatedBucket) -> None:
    with pytest.raises(InvalidInputError, match="grace_s must be a number above 0"):
        collect(Dataset(bucket, "docs"), -1, bucket.now)
    with pytest.raises(NotFoundError, match="nothing"):
        collect(Dataset(bucket, "nothing"), 1, bucket.now)
