"""The list of collections: lost and found again, interrupted and finished, contested."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

import faissbase
from faissbase.collection.store import Config
from faissbase.database.catalog import make_folder
from faissbase.database.database import Database
from faissbase.storage import sqlite


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two collections, "a" with a record, closed."""
    with faissbase.connect(tmp_path / "db") as db:
        db.create_collection("a", 2, "l2").add("x", [1, 2], {"n": 1}, "text")
        db.create_collection("b", 3, "ip", "Flat")
    return tmp_path / "db"


def folders(root: Path) -> set[Path]:
    return {path for path in root.glob("*/*") if path.is_dir()}


def lose_catalog(root: Path) -> None:
    for path in root.glob("catalog.sqlite*"):
        path.unlink()


def test_a_lost_catalog_is_made_again_from_the_folders(root: Path) -> None:
    lose_catalog(root)
    with pytest.raises(faissbase.NotFoundError):
        faissbase.connect(root, read_only=True)
    with faissbase.connect(root) as db:
        assert db.list_collections() == ["a", "b"]
        a, b = db.get_collection("a"), db.get_collection("b")
        assert (a.dimension, a.metric, a.index_type) == (2, "l2", "auto")
        assert (b.dimension, b.metric, b.index_type) == (3, "ip", "Flat")
        [record] = a.get(include_vectors=True)
        assert (record.id, record.metadata, record.document) == ("x", {"n": 1}, "text")
        with pytest.raises(faissbase.AlreadyExistsError):
            db.create_collection("a", 2)


def test_a_catalog_lost_after_a_crash_does_not_come_back_from_its_old_log(root: Path) -> None:
    """The log of the lost file is still there, with pages that are not those of the new one."""
    connection = sqlite.connect(root / "catalog.sqlite")
    connection.execute("UPDATE collections SET name = 'old' || name")
    wal = (root / "catalog.sqlite-wal").read_bytes()
    assert wal
    connection.execute("UPDATE collections SET name = substr(name, 4)")
    connection.close()
    lose_catalog(root)
    (root / "catalog.sqlite-wal").write_bytes(wal)
    with faissbase.connect(root) as db:
        assert db.list_collections() == ["a", "b"]


def test_deleted_collections_do_not_come_back_with_a_new_catalog(root: Path) -> None:
    with faissbase.connect(root) as db:
        db.delete_collection("a")
    lose_catalog(root)
    with faissbase.connect(root) as db:
        assert db.list_collections() == ["b"]


def test_a_lost_catalog_of_no_collections_is_made_again(root: Path) -> None:
    with faissbase.connect(root) as db:
        db.delete_collection("a")
        db.delete_collection("b")
    lose_catalog(root)
    with faissbase.connect(root) as db:
        assert db.list_collections() == []


def test_a_creation_cut_short_is_undone_at_the_next_open(root: Path) -> None:
    before = folders(root)
    config = Config("f" * 32, "late", 2, "l2", "auto")
    make_folder(root / "default" / config.uuid, "default", config)
    (root / "default" / ("e" * 32)).mkdir()
    (root / "default" / ("e" * 32) / "unfinished").touch()
    with faissbase.connect(root, read_only=True) as db:
        assert db.list_collections() == ["a", "b"]
    assert len(folders(root)) == 4
    with faissbase.connect(root) as db:
        assert db.list_collections() == ["a", "b"]
        assert folders(root) == before
        db.create_collection("late", 5)


def test_creations_cut_short_are_undone_by_their_tenant_or_by_who_opens_the_folder(root: Path) -> None:
    def left(tenant: str) -> Path:
        folder = root / tenant / ("e" * 32)
        folder.mkdir(parents=True)
        (folder / "unfinished").touch()
        return folder

    mine, theirs = left("mine"), left("theirs")
    Database(root, read_only=False, durability="full", tenant="mine").close()
    assert (mine.exists(), theirs.exists()) == (False, True)
    faissbase.connect(root).close()
    assert not theirs.exists()


def test_a_creation_cut_short_after_its_commit_stands(root: Path) -> None:
    for folder in folders(root):
        (folder / "unfinished").touch()
    with faissbase.connect(root) as db:
        assert db.list_collections() == ["a", "b"]
        assert len(db.get_collection("a")) == 1
    assert not list(root.rglob("unfinished"))


@pytest.mark.parametrize("damage", ["nothing", "records.sqlite", "vectors.0.f32", "everything"])
def test_a_deletion_cut_short_is_finished_at_the_next_open(root: Path, damage: str) -> None:
    connection = sqlite.connect(root / "catalog.sqlite")
    [(uuid,)] = connection.execute("SELECT uuid FROM collections WHERE name = 'a'").fetchall()
    connection.execute("UPDATE collections SET is_deleting = 1 WHERE name = 'a'")
    connection.close()
    folder = root / "default" / str(uuid)
    if damage == "everything":
        shutil.rmtree(folder)
    elif damage != "nothing":
        (folder / damage).unlink()
    with faissbase.connect(root, read_only=True) as db:
        assert db.list_collections() == ["b"]
    with faissbase.connect(root) as db:
        assert db.list_collections() == ["b"]
        assert not folder.exists()
        db.create_collection("a", 7)


def once(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, before: Callable[..., None]) -> None:
    """Call ``before`` ahead of the first call of a method."""
    real = getattr(owner, method)

    def hooked(*args: object, **keywords: object) -> object:
        monkeypatch.setattr(owner, method, real)
        before(*args)
        return real(*args, **keywords)

    monkeypatch.setattr(owner, method, hooked)


def test_others_may_connect_between_the_commit_of_a_creation_and_its_end(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faissbase.connect(root) as db:
        once(monkeypatch, Path, "unlink", lambda _: faissbase.connect(root).close())
        assert db.create_collection("c", 2).add("x", [1, 2]) == 1
    assert not list(root.rglob("unfinished"))


def test_of_many_deletions_at_once_one_succeeds(root: Path) -> None:
    def delete(db: faissbase.Database) -> str:
        try:
            db.delete_collection("a")
        except faissbase.NotFoundError:
            return "not found"
        return "deleted"

    with ExitStack() as stack, ThreadPoolExecutor(6) as pool:
        connections = [stack.enter_context(faissbase.connect(root)) for _ in range(6)]
        assert sorted(pool.map(delete, connections)) == ["deleted"] + ["not found"] * 5


def test_a_collection_that_is_held_says_that_it_was_deleted(root: Path) -> None:
    with faissbase.connect(root) as db:
        held = db.get_collection("a")
        assert held.search([1, 2])
        db.delete_collection("a")
        for call in (held.count, lambda: held.upsert("z", [1, 2]), lambda: held.search([1, 2])):
            with pytest.raises(faissbase.NotFoundError, match="collection 'a' was deleted"):
                call()


def test_a_collection_deleted_through_another_connection_is_not_found(root: Path) -> None:
    with faissbase.connect(root) as db, faissbase.connect(root) as other:
        used, unused = other.get_collection("a"), other.get_collection("b")
        assert used.upsert("y", [3, 4]) == 1
        db.delete_collection("a")
        db.delete_collection("b")
        calls: list[Callable[[], object]] = [
            lambda: used.search([1, 2]),
            lambda: used.get("x"),
            lambda: len(used),
            lambda: used.upsert("z", [1, 2]),
            lambda: used.delete(["x"]),
            lambda: used.delete(where={"n": 1}),
            lambda: used.update("x", {"n": 2}),
            used.reset,
            lambda: unused.add("z", [1, 2, 3]),
            lambda: other.get_collection("a"),
            lambda: other.delete_collection("a"),
        ]
        for call in calls:
            with pytest.raises(faissbase.NotFoundError, match=r"was deleted|no collection 'a'|is gone"):
                call()
        assert folders(root) == set()
        other.create_collection("a", 9)
        assert db.get_collection("a").dimension == 9
