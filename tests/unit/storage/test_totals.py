"""What a collection holds is told without opening it, and is always what the collection says."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.storage.totals import Tally, count_stored


@pytest.mark.parametrize("seed", range(6))
def test_totals_are_those_of_the_collection_after_any_operations(tmp_path: Path, seed: int) -> None:
    chance, tally = random.Random(seed), Tally()
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", 4, "l2", "HNSW")
        folder = tmp_path / "db" / "default" / db.describe("docs").uuid
        for _ in range(60):
            ids = [str(chance.randrange(200)) for _ in range(chance.randrange(1, 30))]
            ids = list(dict.fromkeys(ids))
            step = chance.choice(("upsert", "upsert", "upsert", "delete", "filter", "update", "care"))
            if step == "upsert":
                docs.upsert(ids, np.ones((len(ids), 4)), [{"n": int(id)} for id in ids])
            elif step == "delete":
                docs.delete(ids)
            elif step == "filter":
                docs.delete(where={"n": {"$lt": chance.randrange(30)}})
            elif step == "update":
                there = [record.id for record in docs.get(ids)]
                docs.update(there, [{"x": 1}] * len(there))
            elif chance.random() < 0.3:
                docs.reset()
            else:
                docs.optimize()
            stats, totals = docs.stats(), tally.of(folder)
            assert (totals.records, totals.tombstones) == (stats.ntotal, stats.tombstones)
            assert totals.unindexed == stats.slots - stats.slots_indexed
            assert tally.of(folder) == totals
            assert count_stored(folder, ids) == len(docs.get(ids))


def test_index_files_are_counted(tmp_path: Path) -> None:
    rng, tally = np.random.default_rng(0), Tally()
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", 8, "l2", "HNSW")
        docs.add([str(i) for i in range(500)], rng.standard_normal((500, 8)))
        assert docs.optimize().segments == 1
        folder = tmp_path / "db" / "default" / db.describe("docs").uuid
    [index] = folder.glob("segments/*.faiss")
    tally.of(folder)  # opening it makes files beside it
    files = [path for path in folder.rglob("*") if path.is_file()]
    counted = tally.of(folder, is_fresh=True).size_bytes
    assert counted == sum(path.stat().st_size for path in files) > index.stat().st_size > 0


def test_totals_of_a_closed_collection_change_no_file(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path / "db") as db:
        db.create_collection("docs", 1, "l2").add(["a", "b"], [[1], [2]])
        folder = tmp_path / "db" / "default" / db.describe("docs").uuid
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    totals = Tally().of(folder)
    assert (totals.records, totals.tombstones, totals.unindexed) == (2, 0, 2)
    assert totals.size_bytes == sum(path.stat().st_size for path in folder.iterdir())
    after = {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}
    assert {name: content for name, content in after.items() if content} == before


def test_what_is_deleted_has_no_totals(tmp_path: Path) -> None:
    tally = Tally()
    with faissbase.connect(tmp_path / "db") as db:
        db.create_collection("docs", 1, "l2")
        folder = tmp_path / "db" / "default" / db.describe("docs").uuid
        for _ in range(3):
            assert tally.of(folder).records == 0
        db.delete_collection("docs")
        with pytest.raises(faissbase.NotFoundError):
            tally.of(folder)
        assert not folder.exists()
