"""Opening a folder, what names and settings may be, and what a closed database still does."""

from __future__ import annotations

import fcntl
import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

import faissbase
from faissbase.storage import sqlite


def test_a_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "a" / "b", str(tmp_path / "c")):
        with faissbase.connect(path) as db:
            db.create_collection("docs", 2).add("x", [1, 2])
        with faissbase.connect(path) as db:
            assert db.get_collection("docs").get("x")[0].id == "x"


def test_a_file_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for read_only in (False, True):
        with pytest.raises(faissbase.InvalidInputError, match="is a file, a database is a folder"):
            faissbase.connect(file, read_only=read_only)
    assert file.read_text() == "mine"


@pytest.mark.parametrize("stranger", ["thesis.tex", "folder/photo.jpg", "default/notes/a.txt"])
def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path, stranger: str) -> None:
    path = tmp_path / stranger
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(faissbase.InvalidInputError, match="holds other things"):
        faissbase.connect(tmp_path)
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_reading_makes_no_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(faissbase.NotFoundError, match="no database at"):
            faissbase.connect(path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_another_file_under_the_catalogs_name_is_corruption(tmp_path: Path) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(b"something else" * 1000)
    with pytest.raises(faissbase.CorruptionError):
        faissbase.connect(tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": "https://host:8000", "read_only": True},
        {"path": ":memory:", "read_only": True},
        {"path": ":memory:", "durability": "some"},
    ],
)
def test_settings_that_cannot_be_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(faissbase.InvalidInputError):
        faissbase.connect(**arguments)


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-d", "x" * 128, "catalog.sqlite", "con"])
def test_names_of_letters_and_digits_are_taken(memory: faissbase.Database, name: str) -> None:
    assert memory.create_collection(name, 2).name == name
    assert memory.list_collections() == [name]


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "é", "x" * 129, "a\0", None, 5, b"a"]
)
def test_other_names_are_refused(memory: faissbase.Database, name: Any) -> None:
    calls: list[Any] = [
        lambda: memory.create_collection(name, 2),
        lambda: memory.get_or_create_collection(name, 2),
        lambda: memory.get_collection(name),
        lambda: memory.delete_collection(name),
    ]
    for call in calls:
        with pytest.raises(faissbase.InvalidInputError, match="collection name must be 1 to 128 letters"):
            call()


def test_other_metrics_and_index_types_are_refused(memory: faissbase.Database) -> None:
    metric: Any = "euclid"
    with pytest.raises(faissbase.InvalidInputError, match="metric must be one of l2, ip, cosine"):
        memory.create_collection("docs", 2, metric)
    with pytest.raises(faissbase.InvalidInputError, match="IVF0,Flat"):
        memory.create_collection("docs", 2, "l2", "IVF0,Flat")
    with pytest.raises(faissbase.InvalidInputError, match="'IndexFlatIP' searches by ip, not by 'l2'"):
        memory.create_collection("docs", 2, "l2", "IndexFlatIP")
    assert memory.list_collections() == []


def test_a_dimension_may_be_a_numpy_integer(memory: faissbase.Database) -> None:
    assert memory.create_collection("docs", np.int64(3)).dimension == 3


def test_get_or_create_gives_the_one_that_is_there(memory: faissbase.Database) -> None:
    made = memory.get_or_create_collection("docs", 2, "l2", "Flat")
    made.add("a", [1, 2])
    assert memory.get_or_create_collection("docs", 2, "l2", "Flat") is made
    assert memory.get_collection("docs") is made


@pytest.mark.parametrize(
    ("dimension", "metric", "index_type", "message"),
    [
        (3, "l2", "Flat", "dimension=2, not 3"),
        (2, "ip", "Flat", "metric='l2', not 'ip'"),
        (2, "l2", "auto", "index_type='Flat', not 'auto'"),
    ],
)
def test_get_or_create_refuses_one_of_another_kind(
    memory: faissbase.Database, dimension: int, metric: Any, index_type: str, message: str
) -> None:
    memory.create_collection("docs", 2, "l2", "Flat")
    with pytest.raises(faissbase.ConflictError, match=message):
        memory.get_or_create_collection("docs", dimension, metric, index_type)


def test_a_name_is_taken_once_and_free_again_after_deletion(memory: faissbase.Database) -> None:
    first = memory.create_collection("docs", 2)
    first.add("a", [1, 2])
    with pytest.raises(faissbase.AlreadyExistsError, match="collection 'docs' exists already"):
        memory.create_collection("docs", 2)
    memory.delete_collection("docs")
    assert memory.create_collection("docs", 5).get() == []
    with pytest.raises(faissbase.FaissbaseError):
        first.get()


def test_what_is_not_there_is_not_found_and_the_error_names_what_is(memory: faissbase.Database) -> None:
    with pytest.raises(faissbase.NotFoundError, match="there are: none"):
        memory.get_collection("docs")
    memory.create_collection("b", 2)
    memory.create_collection("a", 2)
    with pytest.raises(faissbase.NotFoundError, match="no collection 'docs'; there are: a, b"):
        memory.get_collection("docs")
    with pytest.raises(faissbase.NotFoundError, match="no collection 'docs'"):
        memory.delete_collection("docs")


def test_a_read_only_database_refuses_every_write(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path) as db:
        db.create_collection("docs", 2).add("a", [1, 2], {"n": 1})
    with faissbase.connect(tmp_path, read_only=True) as db:
        docs = db.get_or_create_collection("docs", 2)
        writes: list[Any] = [
            lambda: docs.add("b", [1, 2]),
            lambda: docs.upsert("a", [1, 2]),
            lambda: docs.update("a", {"n": 2}),
            lambda: docs.delete(["a"]),
            lambda: docs.delete(where={"n": 1}),
            docs.reset,
            lambda: db.create_collection("other", 2),
            lambda: db.get_or_create_collection("other", 2),
            lambda: db.delete_collection("docs"),
        ]
        for write in writes:
            with pytest.raises(faissbase.AccessError, match="read-only"):
                write()
        assert (len(docs), docs.search([1, 2])[0].id, docs.count({"n": 1})) == (1, "a", 1)


def test_a_closed_database_says_so(tmp_path: Path) -> None:
    db = faissbase.connect(tmp_path)
    docs = db.create_collection("docs", 2)
    docs.add("a", [1, 2])
    never_used = db.create_collection("other", 2)
    db.close()
    db.close()
    calls: list[Any] = [
        db.list_collections,
        lambda: db.get_collection("docs"),
        lambda: db.create_collection("new", 2),
        lambda: db.delete_collection("docs"),
        lambda: db.backup(tmp_path / "b"),
        lambda: docs.add("b", [1, 2]),
        lambda: docs.search([1, 2]),
        lambda: len(never_used),
    ]
    for call in calls:
        with pytest.raises(faissbase.NotReadyError, match="closed: connect"):
            call()


@pytest.mark.parametrize("pattern", ["catalog.sqlite", "*/*/records.sqlite"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_format_is_refused(tmp_path: Path, pattern: str, read_only: bool) -> None:
    with faissbase.connect(tmp_path) as db:
        db.create_collection("docs", 2).add("a", [1, 2])
    [path] = tmp_path.glob(pattern)
    connection = sqlite.connect(path)
    connection.execute(f"PRAGMA user_version={sqlite.FORMAT_VERSION + 1}")
    connection.close()
    with (
        pytest.raises(faissbase.CorruptionError, match=f"has format {sqlite.FORMAT_VERSION + 1}"),
        faissbase.connect(tmp_path, read_only=read_only) as db,
    ):
        len(db.get_collection("docs"))


def test_a_memory_database_goes_when_it_is_closed() -> None:
    with faissbase.connect(":memory:") as db:
        db.create_collection("docs", 2).add("a", [1, 2])
        assert db.path.is_dir()
    assert not db.path.exists()


def test_a_memory_database_goes_when_nobody_holds_it() -> None:
    docs = faissbase.connect(":memory:").create_collection("docs", 2)
    docs.add("a", [1, 2])
    path = Path(docs.stats().path)
    gc.collect()
    assert path.exists(), "a collection that is in use keeps its database"
    del docs
    gc.collect()
    assert not path.exists()


def test_memory_databases_of_dead_processes_are_cleared_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead, alive, other = (tmp_path / f"faissbase-memory-{name}" for name in ("dead", "alive", "notes"))
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "file").touch()
    (dead / ".lock").touch()
    with open(alive / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        db = faissbase.connect(":memory:")
        assert db.path.parent == tmp_path
        assert (dead.exists(), alive.exists(), other.exists()) == (False, True, True)


@pytest.mark.parametrize(
    ("is_writable", "wanted", "message"),
    [
        (False, faissbase.AccessError, r"read_only=True\) opens it"),
        (True, faissbase.UnavailableError, "no log"),
    ],
)
def test_a_folder_that_cannot_be_written_says_how_to_read_it(
    is_writable: bool,
    wanted: type[faissbase.FaissbaseError],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SQLite cannot make its log on a read-only file system, which not every test may mount."""

    def no_log(*_: Any) -> None:
        raise apsw.CantOpenError("no log")

    faissbase.connect(tmp_path).close()
    monkeypatch.setattr(sqlite, "_check_format", no_log)
    monkeypatch.setattr(os, "access", lambda *_: is_writable)
    with pytest.raises(wanted, match=message):
        faissbase.connect(tmp_path)
