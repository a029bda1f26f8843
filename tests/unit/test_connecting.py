"""What ``connect`` takes depends on where it leads: an option of another kind of place is refused."""

from __future__ import annotations

import copy
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.errors import InvalidInputError, NotFoundError, UnavailableError

PLACES = {
    "folder": "data",
    "server": "http://localhost:1",
    "bucket": "memory://options",
    "ray": "ray://auto",
}
OPTIONS: dict[str, tuple[Any, set[str]]] = {
    "durability": ("relaxed", {"folder"}),
    "memory_budget": (1 << 30, {"folder", "bucket"}),
    "read_only": (True, {"folder", "bucket", "ray"}),
    "api_key": ("fb_x", {"server"}),
    "timeout_s": (1.0, {"server"}),
    "verify": (False, {"server"}),
    "storage_options": ({}, {"bucket"}),
    "cache": ("cache", {"bucket", "ray"}),
    "allow_partial": (True, {"bucket", "ray"}),
    "refresh_s": (0.0, {"bucket", "ray"}),
}
REFUSED = [(option, kind) for option, (_, kinds) in OPTIONS.items() for kind in PLACES if kind not in kinds]


@pytest.mark.parametrize(("option", "kind"), REFUSED)
def test_an_option_of_another_place_is_refused_by_name(
    option: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=f"{option} is for .* is a {kind}"):
        faissbase.connect(PLACES[kind], **{option: OPTIONS[option][0]})
    assert list(tmp_path.iterdir()) == [], "nothing is made before all is checked"


@pytest.mark.parametrize("option", [name for name, (_, kinds) in OPTIONS.items() if "bucket" in kinds])
def test_a_bucket_takes_its_options(option: str, tmp_path: Path) -> None:
    given = {"cache": tmp_path, option: OPTIONS[option][0]}
    given["cache"] = tmp_path
    with faissbase.connect(PLACES["bucket"], cache=tmp_path) as db:
        db.get_or_create_collection("docs", 2)
    with faissbase.connect(PLACES["bucket"], **given) as db:
        assert db.list_collections() == ["docs"]


def test_what_is_open_stays_where_it_is_when_the_process_changes_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with faissbase.connect("data") as db:
        first = db.create_collection("first", dimension=2)
        monkeypatch.chdir(tmp_path / "elsewhere")
        db.create_collection("second", dimension=2).add("a", [1, 0])
        first.add("a", [1, 0])
        first.optimize()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with faissbase.connect(tmp_path / "data") as db:
        assert [len(db.get_collection(name)) for name in db.list_collections()] == [1, 1]


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
def test_nothing_is_made_in_a_folder_that_is_no_longer_there(how: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with faissbase.connect(data) as db:
        if how == "removed":
            shutil.rmtree(data)
        else:
            data.rename(tmp_path / "other")
        if how == "replaced":
            faissbase.connect(data).close()
        with pytest.raises(UnavailableError, match="was removed or renamed"):
            db.create_collection("docs", dimension=2)
    assert not list(data.glob("default/*")), "and nothing is left behind"


_WRITES: dict[str, Callable[[LocalCollection], object]] = {
    "upsert": lambda docs: docs.upsert(["b"], [[0, 1]]),
    "large upsert": lambda docs: docs.upsert([f"b{i}" for i in range(40_000)], np.ones((40_000, 2))),
    "update": lambda docs: docs.update(["a"], metadatas=[{"year": 2026}]),
    "delete": lambda docs: docs.delete(["a"]),
    "reset": lambda docs: docs.reset(),
    "optimize": lambda docs: docs.optimize(),
}


@pytest.mark.parametrize("has_written", [False, True], ids=["opened", "written to"])
@pytest.mark.parametrize("how", ["removed", "renamed", "replaced"])
@pytest.mark.parametrize("write", _WRITES.values(), ids=_WRITES)
def test_nothing_is_written_where_another_folder_is_now(
    write: Callable[[LocalCollection], object], how: str, has_written: bool, tmp_path: Path
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup.tar"
    with faissbase.connect(data) as db:
        db.create_collection("docs", dimension=2).add(["a", "dead"], [[1, 0], [0, 1]])
        db.get_collection("docs").delete(["dead"])
        db.backup(backup)
    with faissbase.connect(data) as db:
        docs = db.get_collection("docs")
        assert len(docs) == 1
        if has_written:
            docs.upsert(["a"], [[1, 0]])
        if how == "removed":
            shutil.rmtree(data)
        else:
            data.rename(tmp_path / "other")
        if how == "replaced":
            faissbase.restore(backup, data)
        with pytest.raises((UnavailableError, NotFoundError)):
            write(docs)
        assert docs.search([1, 0], k=2)[0].id == "a"
    if how == "replaced":
        with faissbase.connect(data, read_only=True) as db:
            assert [record.id for record in db.get_collection("docs").get()] == ["a"]
            assert db.get_collection("docs").verify().ok
    else:
        assert not data.exists()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with faissbase.connect("~/data") as db:
        assert db.path == tmp_path / "home" / "data"
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "a database needs a folder of its own, got ''"),
        (
            "localhost:8000",
            "begins with http:// or https://, got 'localhost:8000'; a folder .* './localhost:8000'",
        ),
        ("10.0.0.7:80", "begins with http"),
        ("[::1]:8000", "begins with http"),
    ],
)
def test_a_path_that_means_something_else_makes_no_folder(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        faissbase.connect(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_is_open_says_that_it_stays_in_its_process(copied: Any, tmp_path: Path) -> None:
    with faissbase.connect(tmp_path) as db:
        for mine in (db, db.create_collection("docs", dimension=2)):
            with pytest.raises(TypeError, match="is open in this process and cannot be pickled or copied"):
                copied(mine)
    with (
        faissbase.connect("http://localhost:1") as there,
        pytest.raises(TypeError, match="cannot be pickled"),
    ):
        copied(there)


@pytest.mark.parametrize("path", [b"db", "d\0b", "\udcff"])
def test_a_path_that_sqlite_does_not_take_is_refused(path: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="a path is text of UTF-8 without NUL, got"):
        faissbase.connect(path)


def test_a_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(faissbase.UnavailableError, match="too long"):
        faissbase.connect(tmp_path / ("x" * 300))
