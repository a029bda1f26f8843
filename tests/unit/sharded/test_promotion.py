"""Moves between a folder and shards: every record the same to the bit, whatever happens meanwhile."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase
from faissbase.cli.main import main
from faissbase.collection.frozen import ArrivingCollection
from faissbase.collection.inputs import Rows
from faissbase.database.catalog import Catalog
from faissbase.sharded import carrying, follower, promotion
from faissbase.sharded.bucket import ObjectBucket
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.draft import Draft
from faissbase.storage.checksums import row_checksums

pytest.importorskip("obstore")

D, N = 8, 200
Held = dict[str, tuple[str, str | None, bytes]]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(params=["cosine", "l2"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """200 records, some of them replaced or deleted."""
    with faissbase.connect(tmp_path / "data") as db:
        docs = db.create_collection("docs", D, metric=request.param)
        x = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32) * 3
        metadatas = [{"n": i, "deep": {"t": True, "f": 1.0, "x": [None, "ü"]}} for i in range(N)]
        docs.upsert(
            [f"i{i}" for i in range(N)], x, metadatas, [f"doc {i}" if i % 3 else None for i in range(N)]
        )
        docs.delete(["i5"])
        docs.upsert(["i7"], x[:1] / 7, [{"again": 1}])
    return tmp_path / "data"


def held(where: str | Path, name: str = "docs") -> Held:
    with faissbase.connect(where) as db:
        records = db.get_collection(name).get(include_vectors=True)
    return {
        record.id: (repr(record.metadata), record.document, record.vector.tobytes())
        for record in records
        if record.vector is not None
    }


def run(*words: object) -> int:
    return main([*map(str, words), "--quiet"])


def test_there_and_back_every_record_is_the_same(folder: Path, tmp_path: Path) -> None:
    before, url = held(folder), (tmp_path / "bucket").as_uri()
    with faissbase.connect(folder) as db:
        identity = db.describe("docs")
    assert run("promote", folder / "docs", url) == 0
    assert held(folder) == held(url) == before
    assert not list(folder.glob("default/*/records.sqlite"))
    with faissbase.connect(folder) as db:
        assert db.describe("docs") == identity
        assert (db.list_collections(), db.verify_catalog()) == (["docs"], [])
        with pytest.raises(faissbase.InvalidInputError, match="faissbase demote brings it back"):
            db.backup(tmp_path / "x.tar")
    assert run("demote", folder / "docs") == 0
    assert held(folder) == before
    with faissbase.connect(folder) as db:
        assert db.get_collection("docs").verify().ok
        assert (db.describe("docs"), db.verify_catalog()) == (identity, [])
    with faissbase.connect(url) as there:
        assert there.list_collections() == []


def test_a_copy_leaves_what_it_is_a_copy_of(folder: Path, tmp_path: Path) -> None:
    before, url = held(folder), (tmp_path / "bucket").as_uri()
    assert run("promote", folder / "docs", url, "--keep") == 0
    with faissbase.connect(folder) as db:
        assert db.placement(db.describe("docs")) == "folder"
        db.get_collection("docs").upsert("late", [1.0] * D)
    assert held(url) == before
    assert run("promote", folder / "docs", url) == 2  # it is another dataset by now
    assert held(url) == before
    assert run("demote", f"{url}/docs", "--to", tmp_path / "other", "--keep") == 0
    assert held(tmp_path / "other") == held(url) == before


def test_a_placed_collection_is_written_to_and_deleted_through_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    url = (tmp_path / "bucket").as_uri()
    assert run("promote", folder / "docs", url) == 0
    with faissbase.connect(folder) as db:
        docs = db.get_collection("docs")
        docs.upsert("late", [1.0] * D)
        assert (len(docs), docs.search([1.0] * D, 1)[0].id) == (N, "late")
        with pytest.raises(faissbase.AlreadyExistsError):
            db.create_collection("docs", 3)
    with faissbase.connect(folder, read_only=True) as db, pytest.raises(faissbase.AccessError):
        db.get_collection("docs").upsert("x", [1.0] * D)
    assert "late" in held(url)
    with faissbase.connect(folder) as db:
        db.delete_collection("docs")
        assert db.list_collections() == []
        db.create_collection("docs", 3)
    with faissbase.connect(url) as there:
        assert there.list_collections() == []


def test_what_is_written_between_proof_and_switch_is_carried_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, original, n_calls = (tmp_path / "bucket").as_uri(), Catalog.place, 0

    def place(self: Catalog, *arguments: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls <= 2:
            with faissbase.connect(folder) as other:
                other.get_collection("docs").upsert(f"late{n_calls}", [1.0] * D)
                other.get_collection("docs").delete([f"i{n_calls}"])
        original(self, *arguments)

    monkeypatch.setattr(Catalog, "place", place)
    before = held(folder)
    assert run("promote", folder / "docs", url) == 0
    assert n_calls == 1
    assert held(folder).keys() == before.keys() - {"i1"} | {"late1"}


def test_a_move_gives_up_where_writers_never_pause(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, original = (tmp_path / "bucket").as_uri(), Catalog.place

    def place(self: Catalog, *arguments: Any) -> None:
        with faissbase.connect(folder) as other:
            other.get_collection("docs").upsert("late", [1.0] * D)
        original(self, *arguments)

    monkeypatch.setattr(promotion, "_PASSES", 3)
    monkeypatch.setattr(promotion, "_LAST_CHANGES", 0)
    with monkeypatch.context() as patched:
        patched.setattr(Catalog, "place", place)
        assert run("promote", folder / "docs", url) == 2
    before = held(folder)
    assert "late" in before
    with faissbase.connect(url) as there:
        assert there.list_collections() == []
    assert run("promote", folder / "docs", url) == 0
    assert held(folder) == before


class Unresting(threading.Thread):
    """Writes to ``docs`` as fast as it can until the records have moved away; knows what is acknowledged."""

    def __init__(self, place: Path | str) -> None:
        super().__init__(daemon=True)
        self.place = place
        self.known: dict[str, tuple[int, float] | None] = dict.fromkeys(f"i{i}" for i in range(N) if i != 5)
        self.n_written = 0
        self.has_begun = threading.Event()

    def run(self) -> None:
        with suppress(faissbase.NotFoundError), faissbase.connect(self.place) as db:
            docs = db.get_collection("docs")
            for n in itertools.count():
                self._write(docs, n)
                self.n_written = n
                self.has_begun.set()

    def _write(self, docs: Any, n: int) -> None:
        id, gone = f"i{n * 7 % 300}", f"i{n * 13 % 300}"
        docs.upsert(id, [1.0 + n] * D, {"n": n})
        self.known[id] = n, 1.0 + n
        if n % 3 == 0:
            docs.delete([gone])
            self.known.pop(gone, None)
        elif n % 3 == 1:
            docs.update(id, [{"n": -n}])
            self.known[id] = -n, 1.0 + n


def test_a_move_ends_while_somebody_writes_all_the_time(folder: Path, tmp_path: Path) -> None:
    url, writer = (tmp_path / "bucket").as_uri(), Unresting(folder)
    writer.start()
    assert writer.has_begun.wait(30)
    assert run("promote", folder / "docs", url) == 0
    writer.join(30)
    assert not writer.is_alive()
    assert_written(url, writer)


def assert_written(place: Path | str, writer: Unresting) -> None:
    """Every acknowledged write is there, and nothing else."""
    with faissbase.connect(place) as db:
        found = {record.id: record for record in db.get_collection("docs").get(include_vectors=True)}
    assert found.keys() == writer.known.keys()
    for id, written in writer.known.items():
        if written is not None:
            assert found[id].metadata["n"] == written[0]
            assert found[id].vector == pytest.approx([written[1]] * D)
    unwritten = {id for id, written in writer.known.items() if written is None and id != "i7"}
    assert all(found[id].metadata["deep"]["f"] == 1.0 for id in unwritten)


def test_a_way_back_ends_while_somebody_writes_all_the_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, original = (tmp_path / "bucket").as_uri(), carrying.differing
    assert run("promote", folder / "docs", url) == 0
    looked_at: list[int] = []

    def differing(rows: Rows, found: Any) -> Rows:
        looked_at.append(len(rows))
        return original(rows, found)

    monkeypatch.setattr(promotion, "differing", differing)
    writer = Unresting(url)
    writer.start()
    assert writer.has_begun.wait(30)
    assert run("demote", folder / "docs") == 0
    writer.join(30)
    assert not writer.is_alive()
    assert_written(folder, writer)
    assert np.median([2, *looked_at[2:]]) <= 2, "later passes look at what was written since"


def test_a_copy_is_of_one_moment_while_somebody_writes(folder: Path, tmp_path: Path) -> None:
    url, writer = (tmp_path / "bucket").as_uri(), Unresting(folder)
    writer.start()
    assert writer.has_begun.wait(30)
    assert run("promote", folder / "docs", url, "--keep") == 0
    with faissbase.connect(folder) as db:
        db.delete_collection("docs")
    writer.join(30)
    with faissbase.connect(url) as db:
        numbers = [
            r.metadata.get("n", -1) for r in db.get_collection("docs").get() if "deep" not in r.metadata
        ]
    assert 0 <= max(numbers) <= writer.n_written


def test_a_collection_numbered_anew_between_two_moments_is_compared_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, original = (tmp_path / "bucket").as_uri(), Catalog.place

    def place(self: Catalog, *arguments: Any) -> None:
        monkeypatch.setattr(Catalog, "place", original)
        with faissbase.connect(folder) as other:
            other.get_collection("docs").delete(["i1"])
            other.get_collection("docs").optimize()
            other.get_collection("docs").upsert("late", [1.0] * D)
        original(self, *arguments)

    monkeypatch.setattr(Catalog, "place", place)
    before = held(folder)
    assert run("promote", folder / "docs", url) == 0
    assert held(url).keys() == before.keys() - {"i1"} | {"late"}


WRONG: dict[str, Callable[[Rows], Rows]] = {
    "a vector": lambda rows: replace(rows, vectors=np.nextafter(rows.vectors, np.float32(9))),
    "metadata": lambda rows: replace(
        rows, metadata_json=[text.replace(b"true", b"1") for text in rows.metadata_json]
    ),
    "a document": lambda rows: replace(rows, documents=[None] * len(rows)),
    "a length": lambda rows: replace(rows, norms=[norm + 1e-3 for norm in rows.norms]),
    "nothing": lambda rows: carrying.taken(rows, [*range(1, len(rows))]),
    "too much": lambda rows: replace(carrying.taken(rows, [*range(len(rows))]), ids=["more", *rows.ids[1:]]),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("way", ["there", "back"])
def test_what_arrives_wrong_is_found_and_put_right(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, way: str
) -> None:
    before, url = held(folder), (tmp_path / "bucket").as_uri()
    owner, name = (ShardedCollection, "put_stored") if way == "there" else (ArrivingCollection, "put")
    original: Callable[..., Any] = getattr(owner, name)
    n_calls = 0

    def put(self: Any, rows: Rows) -> int:
        nonlocal n_calls
        n_calls += 1
        wrong = WRONG[what](rows) if n_calls == 1 else rows
        sums = row_checksums(wrong.ids, wrong.metadata_json, wrong.documents, wrong.norms, wrong.vectors)
        return int(original(self, replace(wrong, checksums=sums)))

    monkeypatch.setattr(owner, name, put)
    assert run("promote", folder / "docs", url) == 0
    assert held(folder) == held(url) == before
    assert run("demote", folder / "docs") == 0
    assert held(folder) == before
    assert n_calls == 2


def test_what_is_written_to_a_dataset_on_its_way_back_is_carried_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, original = (tmp_path / "bucket").as_uri(), promotion._ended
    assert run("promote", folder / "docs", url) == 0
    before = held(folder)

    def ended(*arguments: Any) -> bool:
        monkeypatch.setattr(promotion, "_ended", original)
        with faissbase.connect(url) as other:
            other.get_collection("docs").upsert("late", [1.0] * D)
            other.get_collection("docs").delete(["i1"])
        return original(*arguments)

    monkeypatch.setattr(promotion, "_ended", ended)
    assert run("demote", folder / "docs") == 0
    assert held(folder).keys() == before.keys() - {"i1"} | {"late"}


class Killed(BaseException):
    """The end of the process, as far as the code under test can tell."""


STEPS: dict[str, tuple[type, str]] = {
    "a shard": (ShardedCollection, "put_stored"),
    "the publication": (Draft, "publish"),
    "the draft": (Draft, "_save"),
    "the switch": (Catalog, "place"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("is_before", [True, False])
def test_a_promotion_goes_on_after_an_end_at_any_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, is_before: bool
) -> None:
    before, url = held(folder), (tmp_path / "bucket").as_uri()
    owner, name = STEPS[step]
    original: Callable[..., Any] = getattr(owner, name)

    def ended(*arguments: Any) -> None:
        if not is_before:
            original(*arguments)
        raise Killed

    monkeypatch.setattr(follower, "_SHARD_BYTES", 30_000)
    monkeypatch.setattr(carrying, "BATCH_BYTES", 10_000)
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, ended)
        with pytest.raises(Killed):
            run("promote", folder / "docs", url)
    assert held(folder) == before
    is_done = step == "the switch" and not is_before
    assert run("promote", folder / "docs", url) == (2 if is_done else 0)
    assert held(folder) == held(url) == before


def test_a_demotion_goes_on_after_an_end_at_any_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, url = held(folder), (tmp_path / "bucket").as_uri()
    for owner, name, is_before in (
        (promotion, "_carry_back", False),
        (promotion, "_ended", True),
        (promotion, "_ended", False),
        (Catalog, "bring", True),
        (Catalog, "bring", False),
    ):
        assert run("promote", folder / "docs", url) == 0
        original: Callable[..., Any] = getattr(owner, name)

        def ended(*arguments: Any, call: Any = original, is_first: bool = is_before) -> None:
            if not is_first:
                call(*arguments)
            raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, ended)
            with pytest.raises(Killed):
                run("demote", folder / "docs")
        is_done = owner is Catalog and not is_before
        assert run("demote", folder / "docs") == (2 if is_done else 0), name
        assert held(folder) == before


@pytest.mark.parametrize(
    "sign", ["data/.moves/*/draft.json", "bucket/docs/shards/*", "bucket/docs/manifests/*"]
)
def test_a_promotion_goes_on_after_kill_9(tmp_path: Path, sign: str) -> None:
    folder, url = tmp_path / "data", (tmp_path / "bucket").as_uri()
    with faissbase.connect(folder) as db:
        db.create_collection("docs", D).add(
            [f"i{i}" for i in range(3000)], np.eye(D)[np.arange(3000) % D] + 0.1
        )
    before = held(folder)
    words = [sys.executable, "-m", "faissbase", "promote", str(folder / "docs"), url, "--quiet"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        if any(tmp_path.glob(sign)):
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.0005)
    process.wait(60)
    assert held(folder) == before
    assert run("promote", folder / "docs", url) in (0, 2)
    assert held(folder) == held(url) == before


def test_a_store_that_overwrites_is_refused_before_anything_is_copied(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ObjectBucket, "create", lambda bucket, key, content: True)
    assert run("promote", folder / "docs", (tmp_path / "bucket").as_uri()) == 4
    assert "conditional put" in capfd.readouterr().err
    assert list((tmp_path / "bucket").rglob("*")) == []


def test_what_cannot_be_moved_is_told(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = (tmp_path / "bucket").as_uri()
    for words, code, text in (
        (("promote", folder / "nobody", url), 3, "no collection 'nobody'"),
        (("promote", f"{url}/docs", url), 2, "faissbase demote"),
        (("promote", folder / "docs", "gopher://x"), 2, "gopher"),
        (("demote", folder / "docs"), 2, "already"),
        (("demote", f"{url}/docs"), 2, "--to FOLDER"),
        (("demote", f"{url}/docs", "--to", tmp_path / "other"), 3, "no collection 'docs'"),
    ):
        assert run(*words) == code
        assert text in capfd.readouterr().err
