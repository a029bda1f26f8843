"""A catalog that is damaged or lost is made again from the collections."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

import faissbase
from faissbase.storage import sqlite


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with faissbase.connect(tmp_path / "data") as db:
        for name in ("a", "b"):
            db.create_collection(name, 2).add(["x"], [[1, 0]])
        db.create_collection("gone", 2)
        db.delete_collection("gone")
    return tmp_path / "data"


def test_a_damaged_catalog_is_an_error_that_says_what_to_do(folder: Path) -> None:
    catalog = folder / "catalog.sqlite"
    data = bytearray(catalog.read_bytes())
    data[5000] ^= 0x10
    catalog.write_bytes(data)
    with pytest.raises(faissbase.CorruptionError, match="repair_catalog"):
        faissbase.connect(folder).list_collections()
    assert faissbase.repair_catalog(folder) == ["a", "b"]
    with faissbase.connect(folder) as db:
        assert db.list_collections() == ["a", "b"]
        assert len(db.get_collection("b")) == 1
    assert (folder / "catalog.sqlite.damaged").exists()


def test_a_catalog_whose_page_checksums_were_turned_off_is_an_error_and_made_again(folder: Path) -> None:
    with open(folder / "catalog.sqlite", "r+b") as file:
        file.seek(20)
        file.write(b"\x09")
    with pytest.raises(faissbase.CorruptionError, match="repair_catalog"):
        faissbase.connect(folder)
    assert faissbase.repair_catalog(folder) == ["a", "b"]


@pytest.mark.parametrize("at", [20, 700, 4096 + 4000, 3 * 4096 + 2000])
def test_a_catalog_is_made_again_also_where_a_collection_is_damaged(folder: Path, at: int) -> None:
    """Else the collection could not even be reached, to repair it."""
    for path in folder.glob("*/*/records.sqlite"):
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(data)
    assert faissbase.repair_catalog(folder) == ["a", "b"]
    with faissbase.connect(folder) as db:
        assert not db.get_collection("a").verify().ok
        db.get_collection("a").repair()
        assert db.get_collection("a").verify().ok


def test_what_no_damaged_file_tells_any_more_comes_from_the_old_catalog(folder: Path) -> None:
    for path in folder.glob("*/*/records.sqlite"):
        path.write_bytes(b"nothing" * 1000)
    data = bytearray((folder / "catalog.sqlite").read_bytes())
    data[20] = 9
    (folder / "catalog.sqlite").write_bytes(data)
    assert faissbase.repair_catalog(folder) == ["a", "b"]
    with faissbase.connect(folder) as db:
        assert db.get_collection("a").dimension == 2


def test_a_collection_of_which_nothing_can_be_read_is_told(folder: Path) -> None:
    (folder / "catalog.sqlite").unlink()
    for path in folder.glob("*/*/records.sqlite"):
        path.write_bytes(b"nothing" * 1000)
    with pytest.raises(faissbase.CorruptionError, match="of 2 collections"):
        faissbase.repair_catalog(folder)
    with faissbase.connect(folder) as db:
        assert db.list_collections() == []
        assert len(db.verify_catalog()) == 2


def _lose_entry(folder: Path, name: str) -> None:
    connection = sqlite.connect(folder / "catalog.sqlite")
    connection.execute("DELETE FROM collections WHERE name = ?", (name,))
    connection.close()


def test_a_collection_that_the_catalog_has_lost_is_told(folder: Path) -> None:
    _lose_entry(folder, "a")
    with faissbase.connect(folder) as db:
        assert db.list_collections() == ["b"]
        [problem] = db.verify_catalog()
        assert "repair_catalog" in problem.message
        with pytest.raises(faissbase.NotFoundError, match=r"does not know.*repair_catalog"):
            db.get_collection("a")
        for make in (db.create_collection, db.get_or_create_collection):
            with pytest.raises(faissbase.CorruptionError, match=r"holds 'a', .*repair_catalog"):
                make("a", 2)
        db.create_collection("c", 2)
    assert faissbase.repair_catalog(folder) == ["a", "b", "c"]
    with faissbase.connect(folder) as db:
        assert db.verify_catalog() == []


def test_an_entry_whose_folder_is_missing_is_told(folder: Path) -> None:
    with faissbase.connect(folder) as db:
        shutil.rmtree(db.get_collection("a").stats().path)
        [problem] = db.verify_catalog()
    assert "'a' is missing" in problem.message


def test_changes_of_the_catalog_do_not_stay_in_its_log(folder: Path, tmp_path: Path) -> None:
    """Damage there would undo them without an error."""
    with faissbase.connect(folder) as db, faissbase.connect(folder) as idle:
        assert idle.list_collections() == ["a", "b"]
        db.create_collection("c", 2)
        db.delete_collection("b")
        copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    with faissbase.connect(copy) as db:
        assert db.list_collections() == ["a", "c"]


def test_a_reader_of_the_catalog_delays_no_change_for_long(folder: Path) -> None:
    reader = sqlite.connect(folder / "catalog.sqlite", read_only=True)
    reader.execute("BEGIN; SELECT * FROM collections").fetchall()
    with faissbase.connect(folder) as db:
        started = time.perf_counter()
        db.create_collection("c", 2)
        assert time.perf_counter() - started < 5
        assert db.list_collections() == ["a", "b", "c"]
    reader.close()


def test_a_lost_catalog_is_not_mistaken_for_no_database(folder: Path) -> None:
    (folder / "catalog.sqlite").unlink()
    with pytest.raises(faissbase.NotFoundError, match="open it once for writing"):
        faissbase.connect(folder, read_only=True)
    with faissbase.connect(folder) as db:
        assert db.list_collections() == ["a", "b"]


def test_a_folder_without_collections_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(faissbase.NotFoundError, match="no collection"):
        faissbase.repair_catalog(tmp_path)
    assert list(tmp_path.iterdir()) == []
