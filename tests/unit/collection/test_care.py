"""optimize, verify and repair."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.collection.collection import LocalCollection

D = 16
N = 200
VECTORS = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[faissbase.Database]:
    with faissbase.connect(tmp_path / "data", durability="relaxed") as opened:
        yield opened


@pytest.fixture
def docs(db: faissbase.Database) -> LocalCollection:
    collection = db.create_collection("docs", D, metric="l2")
    collection.add(
        [f"r{i}" for i in range(N)],
        VECTORS,
        [{"n": i} for i in range(N)],
        [f"word{i} common" for i in range(N)],
    )
    return collection


def _folder(docs: LocalCollection) -> Path:
    return Path(docs.stats().path)


def _reopened(db: faissbase.Database) -> LocalCollection:
    db.close()
    return faissbase.connect(db.path).get_collection("docs")


def _flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_optimize_drops_dead_slots_and_keeps_every_record(docs: LocalCollection) -> None:
    docs.delete([f"r{i}" for i in range(0, N, 2)])
    docs.upsert(["r1"], VECTORS[:1], [{"n": "new"}], ["fresh words"])
    before = {r.id: (r.metadata, r.document, r.vector.tobytes()) for r in _all(docs) if r.vector is not None}
    report = docs.optimize()
    assert (report.slots_before, report.slots_after) == (N + 1, N // 2)
    assert report.reclaimed_bytes == (N // 2 + 1) * D * 4
    after = {r.id: (r.metadata, r.document, r.vector.tobytes()) for r in _all(docs) if r.vector is not None}
    assert after == before
    assert docs.stats().tombstones == 0
    assert docs.text_search("fresh")[0].id == "r1"
    assert docs.search(VECTORS[0], 1)[0].id == "r1"
    assert docs.verify().ok
    assert [path.name for path in _folder(docs).glob("vectors.*")] == ["vectors.1.f32"]


def _all(docs: LocalCollection) -> list[faissbase.Record]:
    return docs.get(where={}, include_vectors=True)


def test_optimize_without_dead_slots_changes_nothing(docs: LocalCollection) -> None:
    assert docs.optimize().reclaimed_bytes == 0
    assert docs.stats().generation == 0


def test_optimize_is_seen_by_another_connection(db: faissbase.Database, docs: LocalCollection) -> None:
    with faissbase.connect(db.path) as other:
        twin = other.get_collection("docs")
        assert twin.search(VECTORS[7], 1, where={"n": 7})[0].id == "r7"
        cursor = twin.scroll(limit=10).cursor
        docs.delete([f"r{i}" for i in range(5)])
        docs.optimize()
        assert twin.search(VECTORS[7], 1, where={"n": 7})[0].id == "r7"
        assert len(twin) == N - 5
        with pytest.raises(faissbase.ConflictError, match="start again"):
            twin.scroll(limit=10, cursor=cursor)


def test_a_leftover_generation_is_removed_at_the_next_open(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    leftover = _folder(docs) / "vectors.7.f32"
    leftover.write_bytes(b"half a compaction")
    reopened = _reopened(db)
    assert len(reopened) == N
    assert not leftover.exists()


def test_verify_finds_nothing_wrong_with_a_sound_collection(docs: LocalCollection) -> None:
    docs.delete(["r3"])
    report = docs.verify()
    assert report.ok
    assert report.rows_checked == N - 1


def test_a_slot_that_has_a_redo_copy_is_put_back_on_opening(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    _flip(_folder(docs) / "vectors.0.f32", 42 * D * 4 + 5)  # as after a crash: nobody closed the collection
    with faissbase.connect(db.path) as other:
        recovered = other.get_collection("docs")
        assert recovered.search(VECTORS[42], 1)[0].distance == 0.0
        assert recovered.verify().ok


def test_a_read_only_open_does_not_recover_and_says_so(db: faissbase.Database, docs: LocalCollection) -> None:
    _flip(_folder(docs) / "vectors.0.f32", 42 * D * 4 + 5)
    with faissbase.connect(db.path, read_only=True) as other, pytest.raises(faissbase.NotReadyError):
        len(other.get_collection("docs"))


def test_a_flipped_bit_without_redo_copy_is_an_error_until_repaired(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    folder = _folder(docs)
    docs.delete(["r0"])
    docs.optimize()
    db.close()
    _flip(folder / "vectors.1.f32", 41 * D * 4 + 5)
    damaged = faissbase.connect(db.path).get_collection("docs")
    with pytest.raises(faissbase.CorruptionError, match="'r42' in slot 41"):
        damaged.search(VECTORS[42], 1)
    [problem] = damaged.verify().problems
    assert problem.kind == "record"
    assert "r42" in problem.where
    report = damaged.repair()
    assert report.quarantined_ids == ["r42"]
    assert report.quarantine_path is not None
    assert "r42" in Path(report.quarantine_path).read_text()
    assert damaged.verify().ok
    assert len(damaged) == N - 2
    assert damaged.search(VECTORS[43], 1)[0].id == "r43"


def test_a_slot_file_cut_short_loses_only_what_was_cut(db: faissbase.Database, docs: LocalCollection) -> None:
    folder = _folder(docs)
    docs.delete(["r0"])
    docs.optimize()
    db.close()
    os.truncate(folder / "vectors.1.f32", 100 * D * 4)
    damaged = faissbase.connect(db.path).get_collection("docs")
    with pytest.raises(faissbase.CorruptionError):
        damaged.search(VECTORS[1], 1)
    assert not damaged.verify().ok
    report = damaged.repair()
    assert len(report.quarantined_ids) == N - 1 - 100
    assert damaged.verify().ok
    assert len(damaged) == 100
    assert damaged.search(VECTORS[1], 1)[0].id == "r1"
    damaged.upsert("back", VECTORS[0])
    assert damaged.search(VECTORS[0], 1)[0].id == "back"


def test_a_missing_slot_file_keeps_the_rows_in_quarantine(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    folder = _folder(docs)
    docs.delete(["r0"])
    docs.optimize()
    db.close()
    (folder / "vectors.1.f32").unlink()
    damaged = faissbase.connect(db.path).get_collection("docs")
    with pytest.raises(faissbase.CorruptionError, match="missing"):
        damaged.search(VECTORS[1], 1)
    assert len(damaged.repair().quarantined_ids) == N - 1
    assert damaged.verify().ok
    assert len(damaged) == 0


@pytest.mark.parametrize("page", [2, 3, 8, 16, 17])
def test_a_damaged_page_of_records_is_an_error_and_repair_keeps_what_is_sound(
    db: faissbase.Database, docs: LocalCollection, page: int
) -> None:
    folder = _folder(docs)
    before = {r.id: r for r in docs.get(where={})}
    db.close()
    records = folder / "records.sqlite"
    _flip(records, page * 4096 + 2000)
    damaged = faissbase.connect(db.path).get_collection("docs")
    assert not damaged.verify().ok
    damaged.repair()
    assert damaged.verify().ok
    after = {r.id: r for r in damaged.get(where={})}
    assert len(after) >= N - 60
    assert all(after[id] == before[id] for id in after)
    assert len(damaged.search(VECTORS[:3], 2)) == 3


def test_a_records_file_that_is_no_database_is_rebuilt_empty_never_invented(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    folder = _folder(docs)
    db.close()
    (folder / "records.sqlite").write_bytes(os.urandom(50_000))
    damaged = faissbase.connect(db.path).get_collection("docs")
    with pytest.raises(faissbase.CorruptionError):
        damaged.count()
    damaged.repair()
    assert len(damaged) == 0
    assert (folder / "records.sqlite.damaged").exists()
    assert damaged.upsert("a", VECTORS[0]) == 1
    assert damaged.verify().ok


def test_repair_of_a_sound_collection_changes_no_record(docs: LocalCollection) -> None:
    docs.delete(["r5"])
    before = docs.get(where={})
    report = docs.repair()
    assert report.quarantined_ids == []
    assert docs.get(where={}) == before
    assert docs.text_search("word7")[0].id == "r7"
    assert docs.verify().ok


def test_read_only_refuses_care_that_writes(db: faissbase.Database, docs: LocalCollection) -> None:
    assert len(docs) == N
    with faissbase.connect(db.path, read_only=True) as reader:
        twin = reader.get_collection("docs")
        assert twin.verify().ok
        for call in (twin.optimize, twin.repair, twin.reset):
            with pytest.raises(faissbase.AccessError):
                call()
