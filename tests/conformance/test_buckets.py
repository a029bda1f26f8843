"""Every store passes one class: folder, memory, S3 and Google's (moto), Azure (Azurite), a faulty one."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.object_stores import BUCKET, azure_server, google_server, s3_server
from tests.unit.sharded.faulty import FaultyBucket

import faissbase
from faissbase.errors import (
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.sharded.bucket import Bucket, File, check_creates_once, checksum_of, is_url, open_bucket
from faissbase.sharded.collecting import collect
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.failures import store_errors
from faissbase.sharded.ranges import PIECE_BYTES

STORES = ("file", "memory", "s3", "google", "azure", "faulty")


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    with s3_server() as options:
        yield options


@pytest.fixture(scope="session")
def google() -> Iterator[dict[str, Any]]:
    with google_server() as options:
        yield options


@pytest.fixture(scope="session")
def azure() -> Iterator[dict[str, Any]]:
    with azure_server() as options:
        if options is None:
            pytest.skip("no command azurite-blob: npm install -g azurite brings it")
        yield options


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """The URL of an empty place in a store, and its options."""
    if request.param == "s3":
        return f"s3://{BUCKET}/{uuid.uuid4().hex}", request.getfixturevalue("s3")
    if request.param == "google":
        return f"gs://{BUCKET}/{uuid.uuid4().hex}", request.getfixturevalue("google")
    if request.param == "azure":
        return f"az://{BUCKET}/{uuid.uuid4().hex}", request.getfixturevalue("azure")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}", {}
    return (tmp_path / "bucket").as_uri(), {}


@pytest.fixture
def bucket(request: pytest.FixtureRequest, place: tuple[str, dict[str, Any]]) -> Bucket:
    url, options = place
    found = open_bucket(url, options)
    return FaultyBucket(found) if request.node.callspec.params["place"] == "faulty" else found


def keys(bucket: Bucket, prefix: str, after: str | None = None) -> list[str]:
    return sorted(stored.key for stored in bucket.list(prefix, after))


def test_a_place_with_nothing_in_it_is_named_to_who_only_reads(
    place: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    url, options = place
    connect: Any = partial(faissbase.connect, url, cache=tmp_path / "cache", storage_options=options or None)
    with pytest.raises(NotFoundError, match=f"nothing is at {re.escape(url)}"):
        connect(read_only=True)
    assert not (tmp_path / "bucket").exists()
    with connect() as db:
        db.create_collection("docs", 2)
    with connect(read_only=True) as db:
        assert db.list_collections() == ["docs"]


def test_a_bucket_that_is_not_there_is_named(s3: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"s3://vectrs/x.*no such bucket"):
        faissbase.connect("s3://vectrs/x", cache=tmp_path, storage_options=s3, read_only=True)
    with (
        faissbase.connect("s3://vectrs/x", cache=tmp_path, storage_options=s3) as db,
        pytest.raises(NotFoundError, match=r"s3://vectrs/x.*no such bucket"),
    ):
        db.create_collection("docs", 2)


class TestBucket:
    def test_an_object_is_created_once(self, bucket: Bucket) -> None:
        assert bucket.create("a/b", b"first")
        assert not bucket.create("a/b", b"second")
        assert bucket.get("a/b") == b"first"
        check_creates_once(bucket)
        assert keys(bucket, "probes") == []

    def test_of_many_writers_one_creates(self, bucket: Bucket) -> None:
        won: list[int] = []
        barrier = threading.Barrier(8)

        def create(i: int) -> None:
            barrier.wait()
            if bucket.create("race", str(i).encode()):
                won.append(i)

        threads = [threading.Thread(target=create, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(i).encode() for i in won] == [bucket.get("race")]

    def test_a_download_over_another_object_s_file_leaves_that_object_whole(
        self, bucket: Bucket, tmp_path: Path
    ) -> None:
        files = []
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(name.encode() * 1000)
            files.append(bucket.upload(tmp_path / name, name, f"objects/{name}"))
        for file in (*files, files[0]):
            bucket.download(file, tmp_path / "here")
        assert (tmp_path / "here").read_bytes() == b"one" * 1000
        assert [bucket.get(file.key) for file in files] == [b"one" * 1000, b"two" * 1000]

    def test_what_is_not_there_cannot_be_read(self, bucket: Bucket, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="nowhere"):
            bucket.get("nowhere")
        with pytest.raises(NotFoundError, match="nowhere"):
            bucket.download(File("x", "nowhere", 1, "00"), tmp_path / "x")

    def test_a_listing_is_of_a_folder_and_of_what_comes_after(self, bucket: Bucket) -> None:
        assert keys(bucket, "a") == []
        for key in ("a/1", "a/2", "a/b/3", "ab/4", "c"):
            bucket.create(key, key.encode())
        assert keys(bucket, "a") == ["a/1", "a/2", "a/b/3"]
        assert keys(bucket, "a", "a/1") == ["a/2", "a/b/3"]
        assert keys(bucket, "a", "a/b/3") == []
        assert bucket.folders() == ("a", "ab")
        [found] = [stored for stored in bucket.list("a") if stored.key == "a/1"]
        assert found.size_bytes == 3
        assert abs(datetime.now(timezone.utc) - found.modified_at) < timedelta(minutes=5)

    def test_what_is_deleted_is_gone_and_may_be_deleted_again(self, bucket: Bucket) -> None:
        for key in ("a/b/1", "a/b/c/d/2", "a/3"):
            bucket.create(key, b"x")
        bucket.delete(["a/b/1", "a/b/c/d/2", "never"])
        bucket.delete(["a/b/1"])
        assert keys(bucket, "a") == ["a/3"]
        assert bucket.create("a/b/1", b"again")

    def test_files_come_back_as_they_went(self, bucket: Bucket, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(np.random.default_rng(0).bytes(300_000))
        file = bucket.upload(source, "segments/0.faiss", "d/shards/0.faiss")
        assert file == File("segments/0.faiss", "d/shards/0.faiss", 300_000, checksum_of(source))
        target = tmp_path / "target"
        bucket.download(file, target)
        assert target.read_bytes() == source.read_bytes()
        [stored] = bucket.list("d")
        assert (stored.key, stored.size_bytes) == (file.key, 300_000)

    def test_large_files_come_in_ranges(self, bucket: Bucket, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "elsewhere" / "target"
        content = np.random.default_rng(0).bytes(2 * PIECE_BYTES + 5)
        source.write_bytes(content)
        file = bucket.upload(source, "x", "d/x")
        target.parent.mkdir()
        bucket.download(file, target)
        assert target.read_bytes() == content
        assert bucket.size("d/x") == len(content)
        assert bucket.read("d/x", PIECE_BYTES - 1, 7) == content[PIECE_BYTES - 1 : PIECE_BYTES + 6]
        for size, checksum in ((0, "0" * 32), (-9, file.checksum), (9, file.checksum)):
            wrong = File("x", "d/x", len(content) + size, checksum)
            with pytest.raises(CorruptionError, match="d/x is damaged: expected"):
                bucket.download(wrong, target.with_name("other"))
            assert not target.with_name("other").exists()
        for missing in (lambda: bucket.size("d/y"), lambda: bucket.read("d/y", 0, 1)):
            with pytest.raises(NotFoundError, match="d/y"):
                missing()

    def test_another_object_than_was_promised_is_refused(self, bucket: Bucket, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"what is there")
        file = bucket.upload(source, "x", "d/x")
        for wrong in (File("x", "d/x", 12, file.checksum), File("x", "d/x", 13, "0" * 32)):
            with pytest.raises(CorruptionError, match="d/x is damaged: expected"):
                bucket.download(wrong, target)
            assert not target.exists()


class Overwriting:
    """A store that takes every write, as some that call themselves S3 do."""

    def __init__(self) -> None:
        self.url = "fake://"
        self.objects: dict[str, bytes] = {}

    def get(self, key: str) -> bytes:
        return self.objects[key]

    def create(self, key: str, content: bytes) -> bool:
        self.objects[key] = content
        return True

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            del self.objects[key]


class Denying(Overwriting):
    """A store that says no, and writes all the same."""

    def create(self, key: str, content: bytes) -> bool:
        is_new = key not in self.objects
        return super().create(key, content) and is_new


@pytest.mark.parametrize("kind", [Overwriting, Denying])
def test_a_store_that_overwrites_is_refused(kind: type[Overwriting]) -> None:
    store: Any = kind()
    with pytest.raises(NotReadyError, match="conditional put"):
        check_creates_once(store)
    assert not store.objects


def test_a_url_of_no_store_is_refused() -> None:
    assert not is_url("http://host")
    with pytest.raises(InvalidInputError, match="ftp"):
        open_bucket("ftp://host/path")


def test_a_dataset_lives_in_every_store(place: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    url, options = place
    x = np.random.default_rng(0).standard_normal((200, 16), np.float32)
    ids = [f"i{i}" for i in range(200)]

    def connect(cache: str, **more: Any) -> Any:
        return faissbase.connect(url, cache=tmp_path / cache, storage_options=options, refresh_s=0, **more)

    with ExitStack() as open_databases:
        db = open_databases.enter_context(connect("one"))
        docs = db.create_collection("docs", 16, "l2")
        other = open_databases.enter_context(connect("two", read_only=True))
        with pytest.raises(AlreadyExistsError):
            db.create_collection("docs", 16)
        docs.add(ids[:150], x[:150], [{"n": i} for i in range(150)])
        docs.upsert(ids[100:], x[100:])
        reader = other.get_collection("docs")
        docs.delete(["i0", "i199"])
        assert (len(reader), reader.refresh() == docs.version, len(reader)) == (200, True, 198)
        assert [hits[0].id for hits in reader.search(x[1:5], k=1)] == ["i1", "i2", "i3", "i4"]
        assert docs.optimize().shards_after == 1
        later = datetime.now(timezone.utc) + timedelta(hours=2)
        report = collect(Dataset(db.bucket, "docs"), 3600.0, later)
        assert (len(report.manifests), report.versions_kept) == (4, 1)
        assert [hits[0].id for hits in reader.search(x[1:5], k=1)] == ["i1", "i2", "i3", "i4"]
        assert (reader.refresh() == docs.version, len(reader), reader.verify().ok) == (True, 198, True)
        db.delete_collection("docs")
        assert db.list_collections() == []
        collect(Dataset(db.bucket, "docs"), 3600.0, later)
        assert len(list(db.bucket.list("docs"))) == 1
        assert len(db.create_collection("docs", 8)) == 0


class Failure(Exception):
    """As obstore raises them: known by module and name."""

    __module__ = "obstore.exceptions"


TOKEN = "Error performing PUT http://169.254.169.254/latest/api/token in 1s - HTTP error"
FAILURES = {
    f"Generic S3 error: {TOKEN}": (UnavailableError, "no keys were given.*AWS_ACCESS_KEY_ID"),
    f"Generic GCS error: {TOKEN}": (UnavailableError, "no keys were given.*GOOGLE_APPLICATION"),
    f"Generic MicrosoftAzure error: {TOKEN}": (UnavailableError, "no keys were given.*AZURE_STORAGE"),
    "Generic S3 error: 503 Slow Down": (UnavailableError, "503 Slow Down$"),
    'Generic S3 error: 403: <?xml version="1.0"?>\n<Error><Message>Not yours</Message></Error>': (
        UnavailableError,
        "403: Not yours$",
    ),
    "Generic MicrosoftAzure error: 404: ContainerNotFound": (NotFoundError, "no such bucket"),
}


@pytest.mark.parametrize("text", FAILURES)
def test_a_failure_of_a_store_says_what_would_help(text: str) -> None:
    kind, told = FAILURES[text]
    with pytest.raises(kind, match=f"cannot list gs://b/p: .*{told}"), store_errors("cannot list gs://b/p"):
        raise Failure(text)


@pytest.mark.parametrize("url", ["az://container/p", "azure://container/p", "abfs://container/p"])
def test_azure_without_an_account_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(InvalidInputError, match=f"{url}: .*AZURE_STORAGE_ACCOUNT_NAME"):
        open_bucket(url)


@pytest.mark.parametrize("url", ["s3://b/p", "gs://b/p", "abfss://c@account.dfs.core.windows.net/p"])
def test_a_store_is_opened_by_its_url(url: str) -> None:
    assert open_bucket(f"{url}/").url == url
