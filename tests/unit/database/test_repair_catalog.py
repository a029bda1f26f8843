"""A catalog that is damaged or lost is made again from the collections."""

from __future__ import annotations

from pathlib import Path

import pytest

import faissbase


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


def test_more_collections_than_may_be_open_still_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.database.database._MAX_OPEN", 3)
    with faissbase.connect(tmp_path / "data", durability="relaxed") as db:
        collections = [db.create_collection(f"c{i}", 2) for i in range(8)]
        for i, collection in enumerate(collections):
            collection.add([str(i)], [[1, i]])
        for i, collection in enumerate(collections):
            assert [hit.id for hit in collection.search([1, i])] == [str(i)]
        assert sum(collection._open_parts is not None for collection in collections) == 3
