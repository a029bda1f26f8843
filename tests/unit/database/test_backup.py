"""Backup and restore: everything there, of one moment, and damage is always told."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.database import backup as backup_module
from faissbase.database.catalog import Catalog
from faissbase.database.database import Database
from faissbase.storage.records import Records

Contents = dict[str, list[tuple[str, object, str | None, list[float]]]]


def contents(db: faissbase.Database) -> Contents:
    return {
        name: [
            (record.id, record.metadata, record.document, np.asarray(record.vector).tolist())
            for record in db.get_collection(name).get(include_vectors=True)
        ]
        for name in db.list_collections()
    }


def fill(db: faissbase.Database) -> Contents:
    """A collection with replaced and deleted records, one that was reset, an empty one."""
    rng = np.random.default_rng(0)
    ids = [f"id {i}" for i in range(60)]
    docs = db.create_collection("docs", 3)
    docs.add(ids, rng.normal(size=(60, 3)), [{"n": i} for i in range(60)], [f"word{i}" for i in range(60)])
    docs.upsert(ids[:5], rng.normal(size=(5, 3)))
    docs.delete(ids[10:30])
    again = db.create_collection("again", 2, "l2", "IndexFlatL2")
    again.add(["x"], [[0, 0]])
    again.reset()
    again.add(["y"], [[1, 2]])
    db.create_collection("empty", 4, "ip")
    return contents(db)


@pytest.fixture
def backup(tmp_path: Path) -> tuple[Path, Contents]:
    path = tmp_path / "backup.tar"
    with faissbase.connect(":memory:") as db:
        expected = fill(db)
        db.backup(path)
    return path, expected


def assert_corrupt(path: Path) -> None:
    """The backup is refused, and nothing is left of the attempt."""
    before = set(path.parent.iterdir())
    with pytest.raises(faissbase.CorruptionError):
        faissbase.restore(path, path.parent / "restored")
    assert set(path.parent.iterdir()) == before


def test_a_restored_database_holds_everything_and_goes_on(backup: tuple[Path, Contents]) -> None:
    path, expected = backup
    target = path.parent / "deep" / "restored"
    assert faissbase.restore(path, target) == target
    with faissbase.connect(target) as db, faissbase.connect(target) as other:
        assert contents(db) == contents(other) == expected
        docs = db.get_collection("docs")
        assert docs.metric == "cosine"
        assert db.get_collection("again").index_type == "IndexFlatL2"
        assert [hit.id for hit in docs.text_search("word41")] == ["id 41"]
        assert docs.count({"n": {"$gte": 30}}) == 30
        docs.upsert("new", [1, 1, 1])
        assert other.get_collection("docs").get("new")[0].id == "new"
        assert docs.verify().ok
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


def test_a_backup_holds_the_slots_that_are_spoken_of_and_no_more(backup: tuple[Path, Contents]) -> None:
    path, _ = backup
    with tarfile.open(path) as tar:
        sizes = [member.size for member in tar if member.name.endswith(".f32")]
    assert sorted(sizes) == [0, 1 * 2 * 4, 65 * 3 * 4]


def test_a_restored_collection_is_whole_though_its_index_is_built_anew(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    with faissbase.connect(tmp_path / "data") as db:
        docs = db.create_collection("docs", 8, "l2", "HNSW")
        docs.add([f"id {i}" for i in range(2000)], vectors)
        assert docs.optimize().segments == 1
        db.backup(tmp_path / "copy.tar")
        assert docs.stats().slots_indexed == 2000
    faissbase.restore(tmp_path / "copy.tar", tmp_path / "restored")
    with faissbase.connect(tmp_path / "restored", read_only=True) as db:
        assert db.get_collection("docs").verify().problems == []
        assert db.get_collection("docs").stats().damaged_segments == {}
    with faissbase.connect(tmp_path / "restored") as db:
        docs = db.get_collection("docs")
        assert docs.optimize().slots_indexed == 2000
        assert docs.verify().ok
        assert docs.search(vectors[7], k=1)[0].id == "id 7"


def test_a_read_only_database_is_backed_up_and_an_empty_one_too(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path / "db") as db:
        db.backup(tmp_path / "empty.tar")
        expected = fill(db)
    with faissbase.connect(tmp_path / "db", read_only=True) as db:
        db.backup(tmp_path / "full.tar")
    for name, wanted in (("empty", {}), ("full", expected)):
        with faissbase.connect(faissbase.restore(tmp_path / f"{name}.tar", tmp_path / name)) as db:
            assert contents(db) == wanted


def test_a_backup_while_a_thread_writes_is_of_one_moment(tmp_path: Path) -> None:
    acknowledged, stop = 0, threading.Event()
    with faissbase.connect(tmp_path / "db", durability="relaxed") as db:
        docs = db.create_collection("docs", 3, "l2")

        def write() -> None:
            nonlocal acknowledged
            while not stop.is_set():
                step = acknowledged + 1
                docs.upsert([f"n{step}", "last"], [[step, 0, 0], [step, 1, 0]], [{"step": step}] * 2)
                acknowledged = step

        writer = threading.Thread(target=write)
        writer.start()
        moments = []
        try:
            for i in range(4):
                before = acknowledged
                db.backup(tmp_path / f"{i}.tar")
                moments.append((before, acknowledged))
        finally:
            stop.set()
            writer.join(60)
    for i, (before, after) in enumerate(moments):
        with faissbase.connect(faissbase.restore(tmp_path / f"{i}.tar", tmp_path / str(i))) as db:
            found = dict(zip(*_ids_and_steps(db), strict=True))
            steps = found.pop("last", 0)
            assert before <= steps <= after + 1
            assert found == {f"n{step}": step for step in range(1, steps + 1)}
            assert db.get_collection("docs").verify().ok


def _ids_and_steps(db: faissbase.Database) -> tuple[list[str], list[int]]:
    records = db.get_collection("docs").get(include_vectors=True)
    for record in records:
        assert record.vector is not None
        assert record.vector[0] == record.metadata["step"]
    return [record.id for record in records], [record.metadata["step"] for record in records]


def test_a_backup_never_overwrites(memory: faissbase.Database, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    path.write_text("mine")
    with pytest.raises(faissbase.AlreadyExistsError, match="a backup never overwrites"):
        memory.backup(path)
    assert path.read_text() == "mine"


def test_a_backup_into_a_folder_that_is_not_there_is_told(memory: faissbase.Database, tmp_path: Path) -> None:
    with pytest.raises(faissbase.NotFoundError, match=r"make the folder .*/missing first"):
        memory.backup(tmp_path / "missing" / "backup.tar")


def test_a_backup_that_fails_leaves_nothing(memory: faissbase.Database, tmp_path: Path) -> None:
    memory.create_collection("docs", 2).add("a", [1, 2])
    [rows] = memory.path.glob("*/*/records.sqlite")
    size = rows.stat().st_size
    memory.get_collection("docs").close()
    with open(rows, "r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    with pytest.raises(faissbase.CorruptionError):
        memory.backup(tmp_path / "backup.tar")
    assert list(tmp_path.iterdir()) == []


def test_a_collection_deleted_meanwhile_is_left_out(
    memory: faissbase.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fill(memory)
    memory.create_collection("aaa", 2)
    real = Catalog.all_live

    def all_live(catalog: Catalog) -> object:
        found = real(catalog)
        memory.delete_collection("aaa")
        return found

    monkeypatch.setattr(Catalog, "all_live", all_live)
    memory.backup(tmp_path / "backup.tar")
    with faissbase.connect(faissbase.restore(tmp_path / "backup.tar", tmp_path / "db")) as db:
        assert contents(db) == expected


def test_a_collection_reset_meanwhile_is_backed_up_as_it_was(
    memory: faissbase.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = memory.create_collection("docs", 2, "l2")
    docs.add("a", [1, 2])
    expected = contents(memory)
    real = Records.copy_to

    def copy_to(records: Records, path: Path) -> None:
        real(records, path)
        docs.reset()

    monkeypatch.setattr(Records, "copy_to", copy_to)
    memory.backup(tmp_path / "backup.tar")
    with faissbase.connect(faissbase.restore(tmp_path / "backup.tar", tmp_path / "db")) as db:
        assert contents(db) == expected


def test_restore_wants_a_new_folder_or_an_empty_one(backup: tuple[Path, Contents]) -> None:
    path, expected = backup
    taken = path.parent / "taken"
    taken.mkdir()
    with faissbase.connect(faissbase.restore(path, taken)) as db:
        assert contents(db) == expected
    for target in (taken, path):
        with pytest.raises(faissbase.AlreadyExistsError, match="restore into a new folder"):
            faissbase.restore(path, target)
    with pytest.raises(faissbase.NotFoundError, match="no backup at"):
        faissbase.restore(path.parent / "absent.tar", path.parent / "restored")
    with pytest.raises(faissbase.NotFoundError, match="no backup at"):
        faissbase.restore(path.parent, path.parent / "restored")


def test_an_empty_folder_that_one_stands_in_is_filled(
    backup: tuple[Path, Contents], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, expected = backup
    (tmp_path / "here" / ".faissbase-draft-killed").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    faissbase.restore(path, ".")
    assert sorted(entry.name for entry in Path.cwd().iterdir()) == ["catalog.sqlite", "default"]
    with faissbase.connect(".") as db:
        assert contents(db) == expected
    with pytest.raises(faissbase.AlreadyExistsError, match="not empty"):
        faissbase.restore(path, ".")


def test_a_link_leads_to_the_folder_that_is_restored(backup: tuple[Path, Contents], tmp_path: Path) -> None:
    path, expected = backup
    (tmp_path / "link").symlink_to(tmp_path / "real")
    faissbase.restore(path, tmp_path / "link")
    with faissbase.connect(tmp_path / "real") as db:
        assert contents(db) == expected


def test_a_backup_cut_short_anywhere_is_refused(backup: tuple[Path, Contents]) -> None:
    path, _ = backup
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
        starts = [member.offset for member in tar] + [member.offset_data for member in tar]
    stop = last.offset_data + last.size
    for size in sorted({0, 1, 511, stop - 1, *starts, *range(1000, stop, stop // 20)}):
        path.write_bytes(data[:size])
        assert_corrupt(path)


def test_a_bit_flipped_in_any_member_or_header_is_refused(backup: tuple[Path, Contents]) -> None:
    path, expected = backup
    data = path.read_bytes()
    rng = np.random.default_rng(7)
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.size]
    manifest, files = members[-1], members[:-1]
    places = [member.offset_data + int(rng.integers(member.size)) for member in files for _ in range(8)]
    places += [member.offset + int(rng.integers(148)) for member in members for _ in range(4)]
    places += [manifest.offset_data + data[manifest.offset_data :].index(b'.f32": "') + 10]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert_corrupt(path)
    path.write_bytes(data)
    with faissbase.connect(faissbase.restore(path, path.parent / "restored")) as db:
        assert contents(db) == expected


@pytest.mark.parametrize("word", [b'"collections"', b'"files"'])
def test_a_damaged_manifest_is_refused(backup: tuple[Path, Contents], word: bytes) -> None:
    path, _ = backup
    data = path.read_bytes()
    path.write_bytes(data.replace(word, word.upper()))
    assert_corrupt(path)


@pytest.mark.parametrize("data", [b"", b"no tar", b"\0" * 10240, bytes(range(256)) * 100])
def test_what_is_no_backup_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "backup.tar").write_bytes(data)
    assert_corrupt(tmp_path / "backup.tar")


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../evil", "a/b", "a/b/c/d", "a//b", "catalog.sqlite/x/y", "evil"]
)
def test_a_file_that_no_backup_holds_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "backup.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    assert_corrupt(path)


@pytest.mark.parametrize(
    "kind",
    [
        tarfile.DIRTYPE,
        tarfile.FIFOTYPE,
        pytest.param(tarfile.SYMTYPE),
        pytest.param(tarfile.LNKTYPE),
    ],
)
def test_links_and_folders_in_a_backup_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "backup.tar"
    member = tarfile.TarInfo("default/uuid/records.sqlite")
    member.type, member.linkname = kind, "/etc/passwd"
    with tarfile.open(path, "w") as tar:
        tar.addfile(member)
    assert_corrupt(path)


_DIE = """
import os, signal, sys, faissbase
from faissbase.database import backup

def die(*args, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(backup, sys.argv[1], die)
if sys.argv[2] == "restore":
    faissbase.restore(sys.argv[3], sys.argv[4])
else:
    faissbase.connect(sys.argv[3]).backup(sys.argv[4])
"""


def _killed_in(function: str, *args: str | Path) -> None:
    command = [sys.executable, "-c", _DIE, function, *map(str, args)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("function", ["_copy_records", "_add_manifest", "publish"])
def test_the_next_backup_removes_what_a_killed_one_left(tmp_path: Path, function: str) -> None:
    (tmp_path / "backups").mkdir()
    with faissbase.connect(tmp_path / "db") as db:
        expected = fill(db)
    _killed_in(function, "backup", tmp_path / "db", tmp_path / "backups" / "one.tar")
    assert any((tmp_path / "backups").iterdir())
    with faissbase.connect(tmp_path / "db") as db:
        db.backup(tmp_path / "backups" / "two.tar")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["two.tar"]
    with faissbase.connect(faissbase.restore(tmp_path / "backups" / "two.tar", tmp_path / "again")) as db:
        assert contents(db) == expected


def test_a_backup_leaves_the_drafts_of_a_running_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, is_first = backup_module._add_manifest, True

    def backing_up_within(*args: object) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            db.backup(tmp_path / "backups" / "inner.tar")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backup_module, "_add_manifest", backing_up_within)
    (tmp_path / "backups").mkdir()
    with faissbase.connect(tmp_path / "db") as db:
        expected = fill(db)
        db.backup(tmp_path / "backups" / "outer.tar")
    for name in ("inner", "outer"):
        with faissbase.connect(
            faissbase.restore(tmp_path / "backups" / f"{name}.tar", tmp_path / name)
        ) as db:
            assert contents(db) == expected


@pytest.mark.parametrize("function", ["_check_manifest", "Catalog", "sync_folder"])
def test_a_killed_restore_leaves_nothing_that_looks_complete(
    backup: tuple[Path, Contents], function: str
) -> None:
    path, expected = backup
    into = path.parent / "into"
    _killed_in(function, "restore", path, into / "db")
    assert not (into / "db").exists()
    left = list(into.iterdir())
    assert left
    for folder in left:
        with pytest.raises(faissbase.FaissbaseError):
            faissbase.connect(folder)
        with pytest.raises(faissbase.FaissbaseError):
            faissbase.connect(folder, read_only=True)
    with faissbase.connect(faissbase.restore(path, into / "db")) as db:
        assert contents(db) == expected
    assert [folder.name for folder in into.iterdir()] == ["db"]


def test_a_backup_of_several_tenants_keeps_their_names(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    for tenant in ("one", "two"):
        with Database(tmp_path / "db", read_only=False, durability="full", tenant=tenant) as db:
            db.create_collection("docs", 2)
            db.backup(tmp_path / f"{tenant}.tar")  # of the second, both
    with pytest.raises(faissbase.InvalidInputError, match="one, two"):
        faissbase.restore(tmp_path / "two.tar", tmp_path / "again", tenant="default")
    assert not (tmp_path / "again").exists()
    faissbase.restore(tmp_path / "one.tar", tmp_path / "again", tenant="default")
    with faissbase.connect(tmp_path / "again") as moved:
        assert moved.list_collections() == ["docs"]
        assert moved.verify_catalog() == []
