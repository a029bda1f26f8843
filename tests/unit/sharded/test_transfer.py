"""Files into shards and back: a shard at a time, and on from where an interrupted load stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tests.unit.sharded.faulty import FaultyBucket, at, nowhere

from faissbase.errors import InvalidInputError, UnavailableError
from faissbase.sharded import transfer
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase

D = 8
N = 100


@pytest.fixture
def bucket(tmp_path: Path) -> FaultyBucket:
    return FaultyBucket(open_bucket(f"memory://{tmp_path}"))


@pytest.fixture
def db(bucket: FaultyBucket, tmp_path: Path) -> Iterator[ShardedDatabase]:
    with ShardedDatabase(bucket, tmp_path / "cache", refresh_s=0) as db:
        yield db


@pytest.fixture
def docs(db: ShardedDatabase, monkeypatch: pytest.MonkeyPatch) -> ShardedCollection:
    """An empty collection whose loads make a shard of about 30 records."""
    monkeypatch.setattr(transfer, "SHARD_BYTES", 30 * 4 * D)
    return db.create_collection("docs", D, "cosine")


def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A hundred records, the last two of which have ids that came before."""
    path = tmp_path / "records.jsonl"
    ids = [*(f"i{i}" for i in range(N - 2)), "i3", "i95"]
    lines = [
        orjson.dumps({"id": id, "vector": row.tolist(), "n": at, "document": f"text {at}"})
        for at, (id, row) in enumerate(zip(ids, vectors(), strict=True))
    ]
    path.write_bytes(b"\n".join(lines))
    return path


def contents(docs: ShardedCollection) -> dict[str, Any]:
    records = docs.get(include_vectors=True)
    assert len(records) == len(docs)
    return {record.id: (record.metadata["n"], record.document) for record in records}


EXPECTED = {f"i{i}": (i, f"text {i}") for i in range(N - 2)} | {"i3": (98, "text 98"), "i95": (99, "text 99")}


def test_a_file_becomes_shards_of_bounded_size(docs: ShardedCollection, file: Path) -> None:
    report = docs.load_file(file, batch_rows=10)
    assert (report.n_rows, report.n_resumed, report.vectors_bytes) == (N, 0, N * D * 4)
    assert contents(docs) == EXPECTED
    assert len(docs.stats().shards) >= 3
    assert all(shard.rows <= 40 for shard in docs.stats().shards)
    assert docs.load_file(file, batch_rows=10).n_rows == N, "a finished load is not remembered"
    assert contents(docs) == EXPECTED


def test_an_id_twice_in_one_shard_is_the_later_record(docs: ShardedCollection, file: Path) -> None:
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], lines[1], lines[0].replace(b'"n":0', b'"n":77'), lines[2]]))
    docs.load_file(file, batch_rows=1)
    assert (len(docs), docs.get("i0")[0].metadata["n"], docs.count({"n": {"$gte": 0}})) == (3, 77, 3)


@pytest.mark.parametrize("nth", range(8))
def test_an_interrupted_load_goes_on(
    docs: ShardedCollection, bucket: FaultyBucket, file: Path, nth: int
) -> None:
    bucket.choose = at("upload", bucket.calls["upload"] + nth, "fail")
    with pytest.raises(UnavailableError, match="fault"):
        docs.load_file(file, batch_rows=10)
    bucket.choose = nowhere
    n_before = len(docs)
    report = docs.load_file(file, batch_rows=10)
    assert report.n_resumed == n_before
    assert report.n_rows == N - n_before
    assert contents(docs) == EXPECTED
    assert not list(bucket.list("docs/loads"))


def test_a_load_can_be_begun_anew(docs: ShardedCollection, bucket: FaultyBucket, file: Path) -> None:
    bucket.choose = at("upload", bucket.calls["upload"] + 4, "fail")
    with pytest.raises(UnavailableError):
        docs.load_file(file, batch_rows=10)
    bucket.choose = nowhere
    assert docs.load_file(file, batch_rows=10, restart=True).n_resumed == 0


def test_a_wrong_row_is_named_and_what_came_before_stays(docs: ShardedCollection, file: Path) -> None:
    lines = file.read_bytes().splitlines()
    lines[65] = orjson.dumps({"id": "", "vector": [1.0] * D})
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(InvalidInputError, match="rows 60 to 69"):
        docs.load_file(file, batch_rows=10)
    assert len(docs) == 60


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_what_is_exported_can_be_loaded_again(
    db: ShardedDatabase, docs: ShardedCollection, file: Path, tmp_path: Path, name: str
) -> None:
    docs.load_file(file)
    docs.delete(["i0", "i1"])
    assert docs.export(tmp_path / name) == N - 4
    again = db.create_collection("again", D, "cosine")
    again.load_file(tmp_path / name)
    assert contents(again) == contents(docs)
    for one, other in zip(docs.get(include_vectors=True), again.get(include_vectors=True), strict=True):
        assert one.vector is not None
        assert other.vector is not None
        assert np.abs(one.vector - other.vector).max() < 1e-6
    assert docs.export(tmp_path / ("few-" + name), {"n": {"$lt": 10}}) == 7
