"""A collection on a server answers as one in a folder does: the same results, the same exceptions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.e2e.server.running import Running, made, new_key

import faissbase
from faissbase.client import calls
from faissbase.client.aremote import AsyncCollection, AsyncDatabase
from faissbase.client.remote import RemoteCollection, RemoteDatabase
from faissbase.collection.collection import LocalCollection
from faissbase.database.backup import restore
from faissbase.database.database import Database
from faissbase.demo.dataset import load_demo

N, D = 300, 384


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a running server, and a key."""
    folder = made(tmp_path_factory.mktemp("conformance") / "data")
    _, key = new_key(folder, "acme", "admin")
    with Running(folder) as running:
        yield running.url, key
        assert running.stop() == 0


@pytest.fixture(scope="module")
def sharded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address of a running server over object storage, and a key."""
    pytest.importorskip("obstore")
    root = tmp_path_factory.mktemp("sharded")
    folder = made(root / "data")
    _, key = new_key(folder, "acme", "admin")
    with Running(folder, "--shards", (root / "bucket").as_uri()) as running:
        yield running.url, key
        assert running.stop() == 0


@pytest.fixture(params=["local", "json", "arrow", "sharded", "sharded server"])
def db(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Any]:
    """A database in a folder, in object storage, or on a server that is sent one of two forms of body."""
    if request.param == "local":
        opened: Any = faissbase.connect(tmp_path / "db")
    elif request.param == "sharded":
        pytest.importorskip("obstore")
        opened = faissbase.connect((tmp_path / "bucket").as_uri(), cache=tmp_path / "cache")
    else:
        name = "sharded_server" if request.param == "sharded server" else "server"
        server: tuple[str, str] = request.getfixturevalue(name)
        opened = faissbase.connect(server[0], api_key=server[1])
        opened._connection.forms.arrow = request.param == "arrow"
        monkeypatch.setattr(calls, "_ARROW_NUMBERS", 1)
        monkeypatch.setattr(calls, "_ARROW_ROWS", 70)
        for name in opened.list_collections():
            opened.delete_collection(name)
    with opened:
        yield opened


@pytest.fixture(scope="module")
def data() -> Any:
    return load_demo()


@pytest.fixture
def docs(db: Any, data: Any) -> Any:
    made = db.create_collection("docs", D)
    metadatas = [{"n": i, "even": i % 2 == 0} for i in range(N)]
    made.add([f"r{i}" for i in range(N)], data.vectors[:N], metadatas, data.documents[:N])
    return made


def test_collections_are_made_found_listed_and_deleted(db: Any) -> None:
    made = db.create_collection("docs", 3, "l2", "Flat")
    assert (made.name, made.dimension, made.metric, made.index_type) == ("docs", 3, "l2", "Flat")
    db.get_or_create_collection("other", 2)
    assert db.list_collections() == ["docs", "other"]
    assert db.get_or_create_collection("docs", 3, "l2", "Flat").name == "docs"
    with pytest.raises(faissbase.ConflictError, match="dimension=3, not 4"):
        db.get_or_create_collection("docs", 4, "l2", "Flat")
    with pytest.raises(faissbase.AlreadyExistsError, match="docs"):
        db.create_collection("docs", 3)
    db.delete_collection("docs")
    for call in (lambda: db.get_collection("docs"), lambda: db.delete_collection("docs"), lambda: len(made)):
        with pytest.raises((faissbase.NotFoundError, faissbase.NotReadyError)):
            call()


@pytest.mark.parametrize(
    ("name", "dimension", "metric", "index_type"),
    [("../x", 3, "l2", "auto"), ("x", 0, "l2", "auto"), ("x", 3, "hamming", "auto"), ("x", 3, "l2", "nope")],
)
def test_wrong_settings_are_refused(db: Any, name: str, dimension: int, metric: str, index_type: str) -> None:
    with pytest.raises(faissbase.InvalidInputError):
        db.create_collection(name, dimension, metric, index_type)
    assert db.list_collections() == []


def test_a_filter_may_begin_with_an_operator(docs: Any) -> None:
    where = {"$or": [{"n": {"$lt": 3}}, {"$not": {"n": {"$lt": 295}}}]}
    few = [0, 1, 2, *range(295, N)]
    assert sorted(hit.metadata["n"] for hit in docs.search([1.0] * D, k=N, where=where)) == few
    assert [record.metadata["n"] for record in docs.scroll(where).records] == few
    assert docs.count({"$and": [where, {"even": True}]}) == 4
    assert docs.delete(where=where) == len(few)


def test_operands_accents_and_the_end_of_cosines_mean_the_same_everywhere(db: Any) -> None:
    docs = db.create_collection("docs", 33, "cosine")
    xb = np.random.default_rng(5).normal(size=(20, 33)).astype(np.float32)
    metadata = {
        "share": np.float32(0.1),
        "day": pd.Timestamp("2024-05-01"),
        "at": np.datetime64("2024-05-01"),
    }
    docs.add([str(i) for i in range(20)], xb, [metadata] * 20, ["re\u0301sume\u0301"] * 20)
    for name, value in metadata.items():
        assert docs.count({name: value}) == docs.count({name: {"$gte": value}}) == 20
    assert len(docs.text_search("résumé", 30)) == len(docs.text_search("re\u0301sume\u0301", 30)) == 20
    assert [len(hits) for hits in docs.range_search(xb, 1)] == [0] * 20
    assert docs.get(include_vectors=True) == docs.get(include_vectors=True)
    with pytest.raises(faissbase.InvalidInputError, match=r"field 'tags' is \{1\}"):
        docs.upsert("x", xb[0], {"n": 1, "tags": {1}})


def test_records_come_back_as_they_were_given(db: Any) -> None:
    docs = db.create_collection("docs", 3)
    vectors = np.array([[3.0, 4.0, 0.1], [1e-3, 2.0, 7.5]], np.float32)
    when = datetime(2026, 1, 2, 3, 4)
    assert (
        docs.upsert(["a/b %", "ü"], vectors, [{"x": [1, None, {"y": 0.1}]}, {"when": when}], ["text", None])
        == 2
    )
    found = docs.get(["ü", "nobody", "a/b %"], include_vectors=True)
    assert [record.id for record in found] == ["ü", "a/b %"]
    assert found[0].metadata == {"when": when.isoformat()}
    assert found[1].metadata == {"x": [1, None, {"y": 0.1}]}
    assert [record.document for record in found] == [None, "text"]
    np.testing.assert_allclose([record.vector for record in found], vectors[::-1], rtol=1e-6)
    assert found[0].vector.dtype == np.float32
    assert docs.get(["ü"])[0].vector is None


def test_searches_find_the_same(docs: Any, data: Any, tmp_path: Path) -> None:
    twin = faissbase.connect(":memory:").create_collection("docs", D)
    records = docs.get(include_vectors=True)
    twin.add(
        [record.id for record in records],
        data.vectors[:N],
        [record.metadata for record in records],
        [record.document for record in records],
    )
    xq = data.query_vectors[:5]
    where = {"even": True}
    asked: tuple[Callable[[Any], Any], ...] = (
        lambda docs: docs.search(xq[0], 7),
        lambda docs: docs.search(xq[0].tolist(), 7, where),
        lambda docs: docs.range_search(xq[0], 0.3, where),
        lambda docs: docs.text_search("python library", 5, where),
        lambda docs: docs.hybrid_search("python library", xq[0], 5),
    )
    for call in asked:
        mine, theirs = call(docs), call(twin)
        assert mine == theirs
        assert len(mine) > 0
    mine, theirs = docs.search(xq, 7, where, recall=1.0), twin.search(xq, 7, where, recall=1.0)
    assert mine.ids == theirs.ids
    assert mine.metadatas == theirs.metadatas
    assert mine.documents == theirs.documents
    np.testing.assert_array_equal(mine.distances, theirs.distances)
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert list(mine) == list(theirs)
    few = docs.search(xq, 7, {"n": {"$lt": 3}})
    assert few.distances.shape == (5, 3) or np.isnan(few.distances[:, 3:]).all()
    assert docs.explain(xq[0], 7, where).plan.n_matching == N // 2
    assert docs.range_search(xq, 0.3).ids == twin.range_search(xq, 0.3).ids


def test_records_are_changed_counted_and_deleted(docs: Any, data: Any) -> None:
    assert (len(docs), docs.ntotal, docs.count(), docs.count({"even": True})) == (N, N, N, N // 2)
    assert docs.update(["r1", "r2"], [{"new": 1}, None]) == 2
    assert docs.get(["r1"])[0].metadata == {"n": 1, "even": False, "new": 1}
    assert docs.update(["r1"], {"only": 2}, replace=True) == 1
    assert docs.get(["r1"])[0].metadata == {"only": 2}
    docs.update(["r3"], documents=["zanzibar"], vectors=data.vectors[N : N + 1])
    assert docs.text_search("zanzibar")[0].id == "r3"
    assert docs.search(data.vectors[N], 1)[0].id == "r3"
    assert docs.delete(["r1", "nobody"]) == 1
    assert docs.delete(where={"n": {"$gte": 250}}) == 50
    assert len(docs) == N - 51
    assert docs.reset() == N - 51
    assert docs.ntotal == 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.npy"])
def test_records_go_to_a_file_and_come_back_from_it(db: Any, docs: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert docs.export(path, {"even": True}) == N // 2
    again = db.create_collection("again", D)
    for _ in range(2):  # rows that are there are replaced by themselves
        report = again.load_file(path)
        assert (report.n_rows, report.vectors_bytes, again.ntotal) == (N // 2, N // 2 * D * 4, N // 2)
    for one, other in zip(again.get(), docs.get(where={"even": True}), strict=True):
        assert (one.id, one.metadata, one.document) == (other.id, other.metadata, other.document)


def test_a_file_without_ids_is_numbered_and_a_bad_row_is_named(db: Any, data: Any, tmp_path: Path) -> None:
    docs = db.create_collection("docs", D)
    vectors = np.array(data.vectors[:40])
    np.save(tmp_path / "good.npy", vectors)
    docs.load_file(tmp_path / "good.npy", batch_rows=30)
    assert sorted(record.id for record in docs.get()) == sorted(map(str, range(40)))
    vectors[37, 3] = np.nan
    np.save(tmp_path / "bad.npy", vectors)
    with pytest.raises(faissbase.InvalidInputError, match=r"bad\.npy, rows 30 to 39: row 7 holds nan"):
        docs.load_file(tmp_path / "bad.npy", batch_rows=30)


def test_many_ids_are_deleted_in_one_call(db: Any) -> None:
    docs = db.create_collection("many", 1, "l2")
    docs.add(["first", "last"], [[1], [2]])
    assert docs.delete(["first", *(f"nobody {i}" for i in range(25_000)), "last"]) == 2
    assert docs.ntotal == 0


def test_pages_follow_one_another(docs: Any) -> None:
    seen, cursor = [], None
    while True:
        page = docs.scroll({"even": True}, limit=40, cursor=cursor)
        seen += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"r{i}" for i in range(0, N, 2)]
    assert [record.id for record in docs.get(where={"even": False}, limit=3)] == ["r1", "r3", "r5"]
    assert len(docs.get()) == N


@pytest.mark.parametrize(
    ("error", "wrong"),
    [
        (faissbase.AlreadyExistsError, lambda docs: docs.add(["new", "r5"], np.ones((2, D)))),
        (faissbase.InvalidInputError, lambda docs: docs.upsert(["a", "a"], np.ones((2, D)))),
        (faissbase.InvalidInputError, lambda docs: docs.upsert(["a"], np.ones((1, D + 1)))),
        (faissbase.InvalidInputError, lambda docs: docs.upsert(["a"], np.full((1, D), np.nan))),
        (faissbase.InvalidInputError, lambda docs: docs.upsert(["a"], np.zeros((1, D)))),
        (faissbase.InvalidInputError, lambda docs: docs.upsert([""], np.ones((1, D)))),
        (faissbase.InvalidInputError, lambda docs: docs.upsert(["a"], np.ones((1, D)), [{"x": {1, 2}}])),
        (faissbase.InvalidInputError, lambda docs: docs.search(np.ones(D), 0)),
        (faissbase.InvalidInputError, lambda docs: docs.search(np.ones(D), 1, {"x": {"$near": 1}})),
        (faissbase.InvalidInputError, lambda docs: docs.search(np.ones(D), 1, recall=2.0)),
        (faissbase.InvalidInputError, lambda docs: docs.search(np.ones(D), recall=0.9, ef_search=3)),
        (faissbase.InvalidInputError, lambda docs: docs.delete()),
        (faissbase.InvalidInputError, lambda docs: docs.delete(where={})),
        (faissbase.InvalidInputError, lambda docs: docs.scroll(cursor="rubbish")),
        (faissbase.InvalidInputError, lambda docs: docs.update(["r1"])),
        (faissbase.NotFoundError, lambda docs: docs.update(["r1", "nobody"], [{"x": 1}, {"x": 2}])),
        (faissbase.InvalidInputError, lambda docs: docs.hybrid_search("x", np.ones((2, D)))),
    ],
)
def test_wrong_calls_raise_the_same_and_change_nothing(docs: Any, error: Any, wrong: Any) -> None:
    with pytest.raises(error):
        wrong(docs)
    assert len(docs) == N
    assert docs.count({"x": {"$exists": True}}) == 0


def _is_sharded(docs: Any) -> bool:
    return getattr(docs.stats(), "placement", "folder") == "sharded"


def test_a_backup_is_restored_with_the_same_records(db: Any, docs: Any, tmp_path: Path) -> None:
    if _is_sharded(docs):
        with pytest.raises(faissbase.InvalidInputError, match="are shards, and a backup is of a folder"):
            db.backup(tmp_path / "docs.faissbase")
        assert list(tmp_path.glob("docs.faissbase")) == []
        return
    db.create_collection("empty", 2)
    docs.delete(["r7"])
    expected = docs.get(include_vectors=True)
    path = tmp_path / "docs.faissbase"
    db.backup(path)
    docs.reset()
    with faissbase.connect(restore(path, tmp_path / "again", tenant="default")) as again:
        assert again.list_collections() == ["docs", "empty"]
        found = again.get_collection("docs")
        assert found.verify().ok
        for mine, theirs in zip(found.get(include_vectors=True), expected, strict=True):
            assert (mine.id, mine.metadata, mine.document) == (theirs.id, theirs.metadata, theirs.document)
            assert mine.vector is not None
            np.testing.assert_allclose(mine.vector, theirs.vector, rtol=1e-6)
    before = path.read_bytes()
    with pytest.raises(faissbase.AlreadyExistsError, match="exists already"):
        db.backup(path)
    assert path.read_bytes() == before
    with pytest.raises(faissbase.NotFoundError, match="make the folder"):
        db.backup(tmp_path / "absent" / "docs.faissbase")


@pytest.mark.parametrize("d", [2, 300])  # as JSON and as Arrow, in pieces
def test_a_bar_counts_what_is_stored(db: Any, d: int, capfd: pytest.CaptureFixture[str]) -> None:
    docs = db.create_collection("docs", d)
    vectors = np.random.default_rng(0).standard_normal((2500, d), np.float32)
    ids = [f"r{i}" for i in range(2500)]
    assert docs.add(ids, vectors) == docs.upsert(ids, vectors) == 2500
    assert capfd.readouterr().err == ""
    docs.upsert(ids, vectors, progress=True)
    told = capfd.readouterr().err
    assert "store in docs" in told
    assert "2.50k" in told.replace("\r", "\n").splitlines()[-1]
    with pytest.raises(faissbase.AlreadyExistsError, match="r0"):
        docs.add(ids, vectors, progress=True)
    assert docs.ntotal == 2500


def test_care_is_told(docs: Any) -> None:
    docs.delete(["r0"])
    docs.train()
    assert docs.verify().ok
    assert docs.optimize(wait=False, progress=True) is not None
    if _is_sharded(docs):  # a shard is merged once a tenth of it is dead
        docs.delete([f"r{i}" for i in range(N // 2)])
        assert docs.optimize().slots_after == docs.stats().slots == docs.ntotal == N // 2
        return
    assert docs.optimize().slots_after == N - 1
    stats = docs.stats()
    assert (stats.ntotal, stats.slots, stats.tombstones) == (N - 1, N - 1, 0)


def test_what_is_sound_stays_as_it_is_when_it_is_repaired(docs: Any) -> None:
    if _is_sharded(docs):
        return
    report = docs.repair()
    assert (report.quarantined_ids, report.quarantine_path) == ([], None)
    assert (len(docs), docs.verify().ok) == (N, True)


def test_recall_is_measured_on_the_questions_that_were_asked(docs: Any) -> None:
    for query in np.random.default_rng(5).standard_normal((5, D)):
        docs.search(query, 3)
        docs.search(query, 3, {"n": {"$lt": N // 2}})
    report = docs.recall_report(budget_s=2.0)
    assert (report.n_sampled, report.n_measured, report.recall) == (10, 10, 1.0)
    assert [(band.n_queries, band.n_exact) for band in report.bands] == [(5, 5), (5, 5)]
    assert "recall of 10 of 10" in str(report)
    with pytest.raises(faissbase.InvalidInputError, match="budget_s"):
        docs.recall_report(budget_s=0)


def _public_functions(kind: type) -> set[str]:
    return {name for name, it in vars(kind).items() if inspect.isfunction(it) and not name.startswith("_")}


def _parameters(kind: type, name: str) -> list[tuple[str, Any, Any]]:
    """What a method takes, but for the types, which may have other names."""
    found = inspect.signature(getattr(kind, name)).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


def test_both_clients_take_the_arguments_of_the_protocol_and_of_a_folder() -> None:
    for name, method in vars(faissbase.Collection).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            wanted = list(inspect.signature(method).parameters.values())
            for kind in (RemoteCollection, AsyncCollection):
                assert list(inspect.signature(getattr(kind, name)).parameters.values()) == wanted, name
    for local, remote in (
        (LocalCollection, RemoteCollection),
        (LocalCollection, AsyncCollection),
        (Database, RemoteDatabase),
        (Database, AsyncDatabase),
    ):
        for name in _public_functions(remote) & _public_functions(local):
            assert _parameters(remote, name) == _parameters(local, name), name
    for mine, theirs in ((RemoteDatabase, AsyncDatabase), (RemoteCollection, AsyncCollection)):
        public = {name for name in vars(mine) if not name.startswith("_")}
        assert public == {name for name in vars(theirs) if not name.startswith("_")}


@pytest.mark.parametrize("arrow", [False, True])
def test_the_asynchronous_twin_gives_the_same(
    server: tuple[str, str], data: Any, arrow: bool, tmp_path: Path
) -> None:
    async def run() -> list[list[str]]:
        async with faissbase.aconnect(server[0], api_key=server[1]) as db:
            db._connection.forms.arrow = arrow
            docs = await db.get_or_create_collection("twin", D)
            await docs.upsert([f"r{i}" for i in range(N)], data.vectors[:N])
            found = await asyncio.gather(*(docs.search(query, 5) for query in data.query_vectors[:40]))
            many = await docs.search(data.vectors[:N], 5)
            assert list(many) == list(memory.search(data.vectors[:N], 5))
            assert await docs.export(tmp_path / "twin.jsonl") == N
            assert (await docs.load_file(tmp_path / "twin.jsonl")).n_rows == N == await docs.ntotal()
            await docs.delete([f"r{i}" for i in range(N // 2)])
            await docs.optimize(progress=lambda *each: told.append(each))
            await db.delete_collection("twin")
            with pytest.raises(faissbase.NotFoundError):
                await db.get_collection("twin")
            await db.backup(tmp_path / "twin.faissbase")
            with pytest.raises(faissbase.AlreadyExistsError):
                await db.backup(tmp_path / "twin.faissbase")
        return [[hit.id for hit in hits] for hits in found]

    told: list[tuple[str, int, int]] = []
    memory = faissbase.connect(":memory:").create_collection("twin", D)
    memory.upsert([f"r{i}" for i in range(N)], data.vectors[:N])
    assert asyncio.run(run()) == memory.search(data.query_vectors[:40], 5).ids
    assert told[-1] == ("compacting", N // 2, N // 2)


def test_what_is_wrong_with_a_connection_is_told(server: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(faissbase.AccessError, match="not known"):
        faissbase.connect(server[0], api_key="fb_00_nothing").list_collections()
    with pytest.raises(faissbase.UnavailableError, match="does not answer"):
        faissbase.connect("http://127.0.0.1:9", api_key=None).create_collection("x", 2)
    for url in ("ftp://x", "http://", "http://x/path", "http://a:b@x", "http://x:99999"):
        with pytest.raises(faissbase.InvalidInputError, match="address"):
            faissbase.connect(url, api_key=None)
    with pytest.raises(faissbase.InvalidInputError, match="read_only is for a folder"):
        faissbase.connect(server[0], read_only=True)
    with pytest.raises(faissbase.InvalidInputError, match="is a folder"):
        faissbase.connect(str(tmp_path), api_key="x")
    for timeout_s in (0, -1, "x", None, True):
        with pytest.raises(faissbase.InvalidInputError, match="timeout_s must be a number above 0"):
            faissbase.connect(server[0], timeout_s=timeout_s)  # type: ignore[call-overload]
    (tmp_path / "no.pem").write_text("no certificate")
    for file in ("no.pem", "absent.pem"):
        with pytest.raises(faissbase.InvalidInputError, match=rf"verify='.*{file}': "):
            faissbase.connect("https://x:1", api_key=None, verify=str(tmp_path / file))
    closed = faissbase.connect(server[0], api_key=server[1])
    closed.close()
    with pytest.raises(faissbase.NotReadyError, match="closed"):
        closed.list_collections()


def test_optimize_tells_how_far_it_is(docs: Any) -> None:
    told: list[tuple[str, int, int]] = []
    docs.delete(where={"even": True})
    docs.optimize(progress=lambda *each: told.append(each))
    assert told
    assert all("compacting" in phase and 0 <= done <= total for phase, done, total in told)
    assert told[-1][1:] == (N // 2, N // 2)
