"""optimize, verify and repair."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.collection import telling
from faissbase.collection.collection import LocalCollection
from faissbase.collection.store import vectors_path
from faissbase.storage import sqlite
from faissbase.storage.files import FolderLock

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


def test_optimize_tells_how_far_it_is(db: faissbase.Database, docs: LocalCollection) -> None:
    told: list[tuple[str, int, int]] = []
    docs.delete([f"r{i}" for i in range(0, N, 2)])
    docs.optimize(progress=lambda *each: told.append(each))
    assert told == [("compacting", 0, N // 2), ("compacting", N // 2, N // 2)]
    graph = db.create_collection("graph", D, index_type="HNSW")
    graph.upsert([f"r{i}" for i in range(N)], VECTORS)
    told.clear()
    graph.optimize(progress=lambda *each: told.append(each))
    assert told[-1] == ("building the index", N, N)


def test_optimize_shows_its_phases_in_a_bar(
    docs: LocalCollection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "_SHOWN_AFTER_S", 0.0)
    docs.delete([f"r{i}" for i in range(0, N, 2)])
    docs.optimize(progress=True)
    assert f"compacting: 100%|██████████| {N // 2}/{N // 2}" in capsys.readouterr().err
    docs.optimize(progress=False)
    assert capsys.readouterr().err == ""


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


def _full(*_: object) -> None:
    raise faissbase.UnavailableError("the disk is full")


def test_a_leftover_generation_keeps_nobody_from_reading_on_a_full_disk(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    leftover = _folder(docs) / "vectors.7.f32"
    leftover.write_bytes(b"half a compaction")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faissbase.storage.records.WriteTransaction.touch", _full)
        assert len(_reopened(db)) == N
        assert leftover.exists()
    with faissbase.connect(db.path) as again:
        assert len(again.get_collection("docs")) == N
    assert not leftover.exists()


def test_a_compaction_that_fails_for_want_of_room_gives_back_what_it_took(docs: LocalCollection) -> None:
    docs.delete([f"r{i}" for i in range(50)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faissbase.storage.vectors.VectorFile.sync", _full)
        with pytest.raises(faissbase.UnavailableError, match="full"):
            docs.optimize()
    assert len(list(_folder(docs).glob("vectors.*"))) == 1
    assert docs.optimize().slots_after == N - 50


def test_verify_follows_a_compaction_that_comes_between(
    docs: LocalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.delete([f"r{i}" for i in range(50)])
    waiting = [docs]

    def compact_first(folder: Path, generation: int) -> Path:
        if waiting:
            waiting.pop().optimize()
            assert not vectors_path(folder, generation).exists()
        return vectors_path(folder, generation)

    monkeypatch.setattr("faissbase.collection.verify.vectors_path", compact_first)
    report = docs.verify()
    assert (report.rows_checked, report.problems) == (N - 50, [])


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


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_header_that_turns_page_checksums_off_is_repaired_without_a_loss(
    db: faissbase.Database, docs: LocalCollection, tmp_path: Path, is_killed: bool
) -> None:
    folder = _folder(docs)
    if is_killed:  # the newest first page is in the log then
        folder = shutil.copytree(db.path, tmp_path / "killed") / folder.relative_to(db.path)
    db.close()
    with open(folder / "records.sqlite", "r+b") as file:
        file.seek(20)
        file.write(b"\x0c")
    damaged = faissbase.connect(folder.parents[1]).get_collection("docs")
    with pytest.raises(faissbase.CorruptionError, match="checksums"):
        damaged.count()
    assert not damaged.verify().ok
    report = damaged.repair()
    assert report.quarantined_ids == []
    assert any("header" in action for action in report.actions)
    assert damaged.verify().ok
    assert len(damaged) == N


def _overwrite_page(path: Path, page: int) -> None:
    with open(path, "r+b") as file:
        file.seek(page * 4096)
        file.write(b"\x0d" + bytes(range(255)) * 16)


META_PAGE, RECORDS_PAGE = 1, 12


@pytest.mark.parametrize("pages", [[RECORDS_PAGE], [META_PAGE], [META_PAGE, RECORDS_PAGE]])
def test_repair_takes_the_slots_that_fit_and_not_those_of_an_interrupted_compaction(
    db: faissbase.Database, docs: LocalCollection, pages: list[int]
) -> None:
    folder = _folder(docs)
    docs.delete([f"r{i}" for i in range(0, 20, 2)])
    db.close()
    unfinished = np.delete(VECTORS, range(0, 20, 2), axis=0)[:100]
    (folder / "vectors.1.f32").write_bytes(unfinished.tobytes() + bytes(100 * D * 4))
    for page in pages:
        _overwrite_page(folder / "records.sqlite", page)
    damaged = faissbase.connect(db.path).get_collection("docs")
    report = damaged.repair()
    assert report.quarantined_ids == []
    assert len(damaged) >= N - 10 - 60
    assert damaged.search(VECTORS[199], 1)[0].id == "r199"
    assert damaged.verify().ok


@pytest.mark.parametrize("pages", [[RECORDS_PAGE], [META_PAGE, RECORDS_PAGE]])
def test_repair_takes_the_slots_that_fit_and_not_those_from_before_a_compaction(
    db: faissbase.Database, docs: LocalCollection, pages: list[int]
) -> None:
    folder = _folder(docs)
    before = (folder / "vectors.0.f32").read_bytes()
    docs.delete([f"r{i}" for i in range(0, 20, 2)])
    docs.optimize()
    db.close()
    (folder / "vectors.0.f32").write_bytes(before)
    for page in pages:
        _overwrite_page(folder / "records.sqlite", page)
    damaged = faissbase.connect(db.path).get_collection("docs")
    assert damaged.repair().quarantined_ids == []
    assert len(damaged) >= N - 10 - 60
    assert damaged.verify().ok


def test_repair_takes_another_slot_file_that_fits_where_the_one_named_is_missing(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    folder = _folder(docs)
    db.close()
    (folder / "vectors.0.f32").rename(folder / "vectors.5.f32")
    damaged = faissbase.connect(db.path, read_only=False).get_collection("docs")
    assert damaged.repair().quarantined_ids == []
    assert len(damaged) == N
    assert damaged.verify().ok


def test_repair_keeps_other_slots_while_some_rows_fit_none(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    folder = _folder(docs)
    docs.delete(["r3"])
    docs.optimize()  # leaves no redo copies
    db.close()
    _flip(folder / "vectors.1.f32", 41 * D * 4 + 5)
    (folder / "vectors.2.f32").write_bytes(VECTORS.tobytes())
    damaged = faissbase.connect(db.path).get_collection("docs")
    assert damaged.repair().quarantined_ids == ["r42"]
    assert (folder / "vectors.2.f32.damaged").read_bytes() == VECTORS.tobytes()
    assert len(damaged) == N - 2


@pytest.mark.parametrize("file", ["records.sqlite", "vectors.0.f32"])
def test_repair_may_be_called_where_the_damage_is_caught(
    db: faissbase.Database, docs: LocalCollection, file: str
) -> None:
    folder = _folder(docs)
    db.close()
    _flip(folder / file, 5000)
    damaged = faissbase.connect(db.path).get_collection("docs")
    try:
        damaged.count()
    except faissbase.CorruptionError:
        damaged.repair()
    assert damaged.verify().ok


def test_repair_is_refused_while_somebody_else_has_the_collection_open(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    with faissbase.connect(db.path, read_only=True) as other:
        twin = other.get_collection("docs")
        assert docs.repair().actions == []  # opened by nobody: it does not count
        assert twin.count() == N
        with pytest.raises(faissbase.ConflictError, match="open in another process"):
            docs.repair()
        assert twin.count() == N
    assert docs.repair().quarantined_ids == []


_HOLD = """
import os, sys, faissbase
docs = faissbase.connect(sys.argv[1]).get_collection("docs")
print(docs.count(), flush=True)
sys.stdin.read()
os._exit(1)
"""


def test_a_process_that_died_does_not_keep_a_collection_from_its_repair(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    command = [sys.executable, "-c", _HOLD, str(db.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == f"{N}\n"
        with pytest.raises(faissbase.ConflictError, match="open in another process"):
            docs.repair()
        holder.kill()
    assert docs.repair().quarantined_ids == []
    assert docs.count() == N


def test_a_fork_that_only_inherited_a_collection_does_not_keep_it_from_its_repair(
    docs: LocalCollection,
) -> None:
    assert docs.count() == N
    go_on, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        os.read(go_on, 1)
        os._exit(0)
    try:
        assert docs.repair().quarantined_ids == []
    finally:
        os.close(told)
        os.waitpid(child, 0)
        os.close(go_on)


def test_a_collection_cannot_be_opened_while_it_is_repaired(
    db: faissbase.Database, docs: LocalCollection
) -> None:
    folder = _folder(docs)
    lock = FolderLock(folder)
    with faissbase.connect(db.path) as other:
        docs.close()
        assert lock.take(shared=False)
        with pytest.raises(faissbase.UnavailableError, match="being repaired"):
            other.get_collection("docs").count()
        lock.release()
        assert other.get_collection("docs").count() == N


def _execute(docs_folder: Path, statement: str, *bindings: object) -> None:
    connection = sqlite.connect(docs_folder / "records.sqlite")
    connection.execute(statement, bindings)
    connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM tombstones WHERE seq = 3",
        "DELETE FROM records WHERE slot = 77",
        "UPDATE tombstones SET slot = 900000 WHERE seq = 3",
        "UPDATE tombstones SET slot = 'x' WHERE seq = 3",
        "UPDATE meta SET value = 'x' WHERE key = 'generation'",
        "DELETE FROM meta",
        "DELETE FROM documents_config",
        "DELETE FROM documents_data WHERE id = 1",
        "UPDATE records SET metadata = 'text' WHERE slot = 77",
        "UPDATE records SET id = x'61' WHERE slot = 77",
        "UPDATE records SET norm = 'x' WHERE slot = 77",
        "INSERT INTO redo VALUES(77, x'00')",
        "INSERT INTO redo VALUES(-1, zeroblob(64))",
        "INSERT INTO redo VALUES(77, zeroblob(64))",
    ],
)
def test_values_that_do_not_fit_are_damage_and_can_be_repaired(
    db: faissbase.Database, docs: LocalCollection, statement: str
) -> None:
    """As a page of another table, or of an earlier state, would leave them in place of the right one."""
    folder = _folder(docs)
    docs.delete([f"r{i}" for i in range(5)])
    before = {record.id: record.metadata for record in docs.get(where={})}
    db.close()
    _execute(folder, statement)
    damaged = faissbase.connect(db.path).get_collection("docs")
    if "documents" in statement:
        with suppress(faissbase.CorruptionError):
            damaged.text_search("common")
    else:
        with pytest.raises(faissbase.CorruptionError):
            damaged.get(where={"n": {"$gte": 0}})
    assert not damaged.verify().ok
    damaged.repair()
    assert damaged.verify().ok
    after = {record.id: record.metadata for record in damaged.get(where={})}
    assert len(after) >= N - 6
    assert len(damaged.text_search("common", N)) == len(after)
    assert all(before.get(id, metadata) == metadata for id, metadata in after.items())


def _lose_first_page(pages: list[bytes]) -> list[bytes]:
    return [bytes(4096), *pages[1:]]


def _of_rows(pages: list[bytes]) -> list[int]:
    return [at for at, page in enumerate(pages) if page[0] == 0x0D and b'{"n":' in page]


def _cut_before_the_last_rows(pages: list[bytes]) -> list[bytes]:
    return pages[: _of_rows(pages)[-1]]


def _swap_rows(pages: list[bytes]) -> list[bytes]:
    first, *_, last = _of_rows(pages)
    swapped = list(pages)
    swapped[first], swapped[last] = pages[last], pages[first]
    return swapped


@pytest.mark.parametrize(
    ("damage", "n_kept"), [(_lose_first_page, N), (_cut_before_the_last_rows, N // 2), (_swap_rows, N // 2)]
)
def test_repair_keeps_the_rows_of_every_page_that_is_left(
    db: faissbase.Database,
    docs: LocalCollection,
    damage: Callable[[list[bytes]], list[bytes]],
    n_kept: int,
) -> None:
    path = _folder(docs) / "records.sqlite"
    before = {record.id: (record.metadata, record.document) for record in docs.get(where={})}
    db.close()
    data = path.read_bytes()
    path.write_bytes(b"".join(damage([data[at : at + 4096] for at in range(0, len(data), 4096)])))
    damaged = faissbase.connect(db.path).get_collection("docs")
    with pytest.raises(faissbase.CorruptionError):
        damaged.get(where={"n": {"$gte": 0}})
    damaged.repair()
    after = {record.id: (record.metadata, record.document) for record in damaged.get(where={})}
    assert len(after) >= n_kept
    assert all(before[id] == kept for id, kept in after.items())
    assert damaged.verify().ok
    assert not list(path.parent.glob("salvage*"))


def test_an_interrupted_repair_is_finished_by_the_next(
    db: faissbase.Database, docs: LocalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder(docs)
    db.close()
    _overwrite_page(folder / "records.sqlite", RECORDS_PAGE)
    damaged = faissbase.connect(db.path).get_collection("docs")
    replaced = os.replace

    def die(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if Path(source) == folder / "salvage" / "records.sqlite":
            raise KeyboardInterrupt
        replaced(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            damaged.repair()
    damaged.repair()
    assert len(damaged) >= N - 60
    assert damaged.verify().ok


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
