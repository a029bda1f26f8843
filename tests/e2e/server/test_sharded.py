"""Servers over object storage: written to, killed, followed, and reached through a folder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.server.running import PATIENCE_S, Running, done, made, new_key, refused, run

import faissbase
from faissbase.sharded.reports import ShardedExplanation, ShardedStats

pytest.importorskip("obstore")

D = 16


def vectors(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def names(n: int, first: int = 0) -> list[str]:
    return [f"i{i}" for i in range(first, first + n)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return (tmp_path / "bucket").as_uri()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "data")


def test_a_store_is_served_and_another_server_finds_it(url: str, folder: Path, tmp_path: Path) -> None:
    _, key = new_key(folder, "acme", "admin")
    with Running(folder, "--shards", url) as running, faissbase.connect(running.url, api_key=key) as db:
        docs = db.create_collection("docs", D, metric="l2")
        docs.upsert(names(50), vectors(50), [{"n": i} for i in range(50)])
        assert docs.delete(["i3"]) == 1
        assert [hit.id for hit in docs.search(vectors(50)[7], 1, where={"n": {"$gt": 3}})] == ["i7"]
        assert running.stop() == 0
    other = made(tmp_path / "other")
    _, key = new_key(other, "acme", "read")
    bucket = url.removeprefix("file://")  # a folder may be given as one
    with Running(other, "--shards", bucket) as running, faissbase.connect(running.url, api_key=key) as db:
        assert db.list_collections() == ["docs"]
        docs = db.get_collection("docs")
        assert (len(docs), docs.count({"n": {"$lt": 10}})) == (49, 9)
        assert running.stop() == 0


def test_how_each_shard_was_searched_is_told_to_clients(url: str, folder: Path) -> None:
    _, key = new_key(folder, "acme", "read", "write")
    with Running(folder, "--shards", url) as running, faissbase.connect(running.url, api_key=key) as db:
        docs = db.create_collection("docs", D, metric="l2")
        for first in (0, 30):
            docs.upsert(names(30, first), vectors(30, first), [{"n": i} for i in range(30)])
        told, stats = docs.explain(vectors(30)[7], 2, {"n": {"$lt": 10}}), docs.stats()
        assert isinstance(told, ShardedExplanation)
        assert isinstance(stats, ShardedStats)
        assert (told.version, list(told.shards)) == (stats.version, [shard.name for shard in stats.shards])
        assert [each.plan.n_matching for each in told.shards.values()] == [10, 10]
        assert (told.plan.n_matching, told.plan.n_slots, told.result.ids[0][0]) == (20, 60, "i7")
        assert str(told).count("10 of 30 slots") == 2
        assert running.stop() == 0


def test_tenants_see_nothing_of_one_another(url: str, folder: Path) -> None:
    keys = {tenant: new_key(folder, tenant, "read", "write")[1] for tenant in ("acme", "bolt")}
    with Running(folder, "--shards", url) as running:
        with running.client(keys["acme"]) as acme, running.client(keys["bolt"]) as bolt:
            index = done(acme.post("/index", json={"name": "docs", "dimension": 2}), 201)
            assert index["placement"] == "sharded"
            for name in (index["id"], "docs"):
                refused(bolt.get(f"/index/{name}"), 404, "not_found")
            assert done(bolt.get("/index")) == {"indexes": []}
            done(bolt.post("/index", json={"name": "docs", "dimension": 3}), 201)
            assert done(acme.get(f"/index/{index['id']}"))["dimension"] == 2
        assert running.stop() == 0


def test_what_a_folder_alone_has_is_refused_in_words(url: str, folder: Path) -> None:
    _, key = new_key(folder, "acme", "admin")
    media = {"content-type": "application/vnd.faissbase.faiss"}
    with Running(folder, "--shards", url) as running, running.client(key) as http:
        message = refused(http.post("/backup", json={}), 422, "invalid_input")
        assert "copy the bucket" in message
        assert str(folder.parent) not in message
        assert "shards" in refused(http.post("/faiss", content=b"", headers=media), 422, "invalid_input")


def test_quotas_hold_for_shards(url: str, folder: Path) -> None:
    _, key = new_key(folder, "acme", "read", "write")
    options = ("--shards", url, "--max-tenant-vectors", 30, "--max-indexes", 1)
    with Running(folder, *options) as running, faissbase.connect(running.url, api_key=key) as db:
        docs = db.create_collection("docs", D)
        docs.upsert(names(30), vectors(30))
        with pytest.raises(faissbase.AccessError, match="may hold 30"):
            docs.upsert(names(1, 30), vectors(1))
        docs.upsert(names(30), vectors(30, 1))  # in the place of others
        with pytest.raises(faissbase.AccessError, match="may have no more"):
            db.create_collection("other", D)


def test_what_was_acknowledged_outlives_a_kill(url: str, folder: Path) -> None:
    _, key = new_key(folder, "acme", "read", "write")
    acknowledged: list[str] = []

    def write(address: str, reached: threading.Event) -> None:
        with faissbase.connect(address, api_key=key) as db, suppress(faissbase.UnavailableError):
            docs = db.get_or_create_collection("docs", D)
            while True:
                n = len(acknowledged)
                docs.add(names(1, n), vectors(1, n))
                acknowledged.extend(names(1, n))
                if n == 5:
                    reached.set()

    with Running(folder, "--shards", url) as running:
        reached = threading.Event()
        writer = threading.Thread(target=write, args=(running.url, reached))
        writer.start()
        assert reached.wait(PATIENCE_S)
        running.kill()
        writer.join(PATIENCE_S)
        assert not writer.is_alive()
    with Running(folder, "--shards", url) as running, faissbase.connect(running.url, api_key=key) as db:
        found = {record.id for record in db.get_collection("docs").get()}
        assert set(acknowledged) <= found
        assert len(found) <= len(acknowledged) + 1


class Asking:
    """Searches in a loop, in a thread; whatever goes wrong is kept."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.errors: list[Exception] = []
        self.answers: list[Any] = []
        self._changed = threading.Condition()
        self._is_over = False
        self._ask = ask
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over:
            try:
                answer = self._ask()
            except Exception as error:  # noqa: BLE001  # all of them are the test's business
                self.errors.append(error)
                answer = None
            with self._changed:
                self.answers.append(answer)
                self._changed.notify_all()

    def wait_for(self, is_so: Callable[[Any], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.answers and is_so(self.answers[-1]), PATIENCE_S)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join(PATIENCE_S)


def _is(id: str, hit: Any) -> bool:
    return hit is not None and hit.id == id


@pytest.fixture
def followed(url: str, folder: Path, tmp_path: Path) -> Iterator[tuple[Any, Running, str]]:
    """The collection ``docs`` of a writer, a follower, and a key of the latter."""
    key = new_key(folder, "acme", "admin")[1]
    with faissbase.connect(f"{url}/acme", cache=tmp_path / "cache") as db:
        docs = db.create_collection("docs", D, metric="l2")
        docs.upsert(names(20), vectors(20))
        with Running(folder, "--follow", url, "--refresh-s", 0.05) as running:
            yield docs, running, key
            assert running.stop() == 0


def test_a_follower_takes_up_new_versions_and_no_query_fails(followed: tuple[Any, Running, str]) -> None:
    docs, running, key = followed
    query = vectors(1, 9)[0]
    with faissbase.connect(running.url, api_key=key) as db:
        found = db.get_collection("docs")
        with Asking(lambda: found.search(query, 1, recall=1.0)[0]) as asking:
            for i in range(5):
                docs.upsert([f"near{i}"], query[None] + 0.1 / (i + 1))
                asking.wait_for(partial(_is, f"near{i}"))
            docs.optimize()
            docs.delete(["near4"])
            asking.wait_for(partial(_is, "near3"))
        assert asking.errors == []


def test_a_follower_tells_how_old_it_is_and_takes_no_writes(followed: tuple[Any, Running, str]) -> None:
    docs, running, key = followed
    with running.client(key) as http:
        assert done(http.get("/index/docs/ntotal")) == {"ntotal": 20}
        assert 0 <= done(http.get("/health/ready"))["age_s"] < PATIENCE_S
        metrics = http.get("/metrics").text
        assert f'faissbase_index_version{{index="docs"}} {docs.version}' in metrics
        assert 'faissbase_index_age_seconds{index="docs"} ' in metrics
        record = {"id": "x", "values": [0.0] * D}
        for response in (
            http.post("/index/docs/vectors", json={"vectors": [record]}),
            http.post("/index/docs/reset", json={}),
            http.post("/index", json={"name": "other", "dimension": 2}),
            http.delete("/index/docs"),
        ):
            assert "read-only" in refused(response, 403, "access")
    assert len(docs) == 20


def test_a_deleted_dataset_is_gone_from_a_follower(
    followed: tuple[Any, Running, str], url: str, tmp_path: Path
) -> None:
    _, running, key = followed
    with running.client(key) as http, faissbase.connect(f"{url}/acme", cache=tmp_path / "c") as db:
        assert done(http.get("/index/docs/ntotal")) == {"ntotal": 20}
        db.delete_collection("docs")
        with Asking(lambda: http.get("/index/docs/ntotal").status_code) as asking:
            asking.wait_for(lambda status: status == 404)
        assert set(asking.answers) <= {200, 404}


def test_a_promotion_behind_a_server_is_not_noticed(url: str, folder: Path) -> None:
    """Reads and writes go on through the switch, with the same client, index id and address."""
    _, key = new_key(folder, "acme", "read", "write")
    written: list[str] = []
    with Running(folder) as running, faissbase.connect(running.url, api_key=key) as db:
        docs = db.create_collection("docs", D, metric="l2")
        docs.upsert(
            names(300), vectors(300), [{"n": i} for i in range(300)], [f"doc {i}" for i in range(300)]
        )
        before: dict[str, Any] = {record.id: record for record in docs.get(include_vectors=True)}

        def write() -> str:
            docs.add(names(1, 300 + len(written)), vectors(1, len(written)))
            written.extend(names(1, 300 + len(written)))
            return written[-1]

        with Asking(lambda: docs.search(vectors(300)[5], 1, recall=1.0)[0].id) as asking:
            moved = run("promote", folder / "docs", url, "--tenant", "acme", "--quiet")
            assert moved.returncode == 0, moved.stderr
            with Asking(write) as writing:
                writing.wait_for(lambda id: len(written) >= 3)
        assert (asking.errors, writing.errors) == ([], [])
        assert set(asking.answers) == {"i5"}
        with running.client(key) as http:
            assert done(http.get("/index"))["indexes"][0]["placement"] == "sharded"
        after: dict[str, Any] = {record.id: record for record in docs.get(include_vectors=True)}
        assert after.keys() == before.keys() | set(written)
        for id, record in before.items():
            assert record.vector is not None
            assert after[id].vector.tobytes() == record.vector.tobytes()
            assert (after[id].metadata, after[id].document) == (record.metadata, record.document)
        assert isinstance(docs.stats(), ShardedStats)
        back = run("demote", folder / "docs", "--tenant", "acme", "--quiet")
        assert back.returncode == 0, back.stderr
        assert docs.get(["i5"])[0].document == "doc 5"
        assert len(docs) == 300 + len(written)
        assert running.stop() == 0


def test_writers_that_never_pause_lose_nothing_to_a_promotion(url: str, folder: Path) -> None:
    _, key = new_key(folder, "acme", "read", "write")
    written: list[str] = []
    with Running(folder) as running, faissbase.connect(running.url, api_key=key) as db:
        docs = db.create_collection("docs", D)

        def write() -> None:
            docs.add(names(1, len(written)), vectors(1, len(written)))
            written.extend(names(1, len(written)))

        with Asking(write) as writing:
            writing.wait_for(lambda _: len(written) > 10)
            moved = run("promote", folder / "docs", url, "--tenant", "acme", "--quiet")
        assert writing.errors == []
        assert moved.returncode == 0, moved.stderr
        assert {record.id for record in docs.get()} == set(written)
        assert len(written) == len(docs)
        assert running.stop() == 0


def test_settings_that_do_not_fit_are_refused(folder: Path) -> None:
    assert (
        "give one of both"
        in run("serve", "--data", folder, "--shards", "s3://a", "--follow", "s3://b").stderr
    )
    assert "must be a URL" in run("serve", "--data", folder, "--follow", "./somewhere").stderr
