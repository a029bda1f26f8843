"""A write, sync or rename fails: the caller is told, nothing is half done, and the same call succeeds later.

Every operation is run again and again, its 1st, 2nd, 3rd ... call of each kind failing, once or from then
on, until it needs no more calls.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from tests.crash.faults import FAULTY_CALLS, Faults, faulty
from tests.crash.limits import quartered
from tests.crash.model import Model, Operation, apply, assert_holds, contents, differences, perform, upsert_of

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.database.database import Database
from faissbase.errors import AccessError, AlreadyExistsError, NotFoundError, UnavailableError

# Where SQLite passes over a failed sync, as when it closes a file, apsw tells of it in this way.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

FAULT_D = 2048  # 8 KiB a vector: where limits are `quartered`, 9 rows are a large batch, 32 slots a block
World: TypeAlias = dict[str, Model]


def _rows(ids: list[str], seed: int) -> Operation:
    return upsert_of("few", ids, np.random.default_rng(seed), f"f{seed}", FAULT_D)


@dataclass(frozen=True, slots=True)
class Case:
    """One operation on a database, and what it makes of the world."""

    run: Callable[[Database], None]
    after: Callable[[World], World]


def _on_docs(op: Operation) -> Case:
    return Case(
        lambda db: perform(db.get_collection("docs"), op),
        lambda world: world | {"docs": apply(world["docs"], op)},
    )


def _create(db: Database) -> None:
    db.create_collection("new", dimension=FAULT_D, metric="l2")


def _back_up(db: Database) -> None:
    db.backup(db.path.parent / "backup.tar")


CASES = {
    "small upsert": _on_docs(_rows(["n1", "n2"], 1)),
    "large upsert": _on_docs(_rows([f"n{i}" for i in range(10)], 2)),
    "small overwrite": _on_docs(_rows(["a3", "a4", "b5"], 3)),
    "large overwrite": _on_docs(_rows([f"b{i}" for i in range(10)], 4)),
    "delete": _on_docs(Operation("delete", ["a1", "a2", "b7", "b8"])),
    "delete by filter": _on_docs(Operation("delete_where", where={"group": "f1"})),
    "update": _on_docs(Operation("update", ["a5", "b6"], metadatas=[{"updated": 1}, {"updated": 2}])),
    "reset": _on_docs(Operation("reset")),
    "optimize": _on_docs(Operation("optimize")),
    "create": Case(
        _create,
        lambda world: world | {"new": {}},
    ),
    "delete collection": Case(
        lambda db: db.delete_collection("other"),
        lambda world: {name: model for name, model in world.items() if name != "other"},
    ),
    "backup": Case(_back_up, lambda world: world),
}


def _world_of(folder: Path) -> World:
    with faissbase.connect(folder) as db:
        return _world_in(db)


def _world_in(db: Database) -> World:
    return {name: contents(db.get_collection(name)) for name in db.list_collections()}


@pytest.fixture(scope="module", autouse=True)
def _limits() -> Iterator[None]:
    with quartered():
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    """A folder with two collections, dead slots, a nearly full block and redo copies, and what is in it."""
    folder = tmp_path_factory.mktemp("prepared") / "db"
    ops = [
        _rows([f"b{i}" for i in range(14)], 10),
        _rows([f"a{i}" for i in range(10)], 11),
        Operation("delete", ["a0", "b0", "b1"]),
        _rows(["b2", "b3", "a9"], 12),
    ]
    with faissbase.connect(folder) as db:
        docs = db.create_collection("docs", dimension=FAULT_D, metric="l2")
        other = db.create_collection("other", dimension=FAULT_D, metric="l2")
        for op in ops:
            perform(docs, op)
        perform(other, ops[3])
        copy = folder.with_name("copied")  # as a killed process leaves it, with WAL and redo copies
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*-shm"))
    model: Model = {}
    for op in ops:
        model = apply(model, op)
    return copy, {"docs": model, "other": apply({}, ops[3])}


@pytest.fixture
def faults() -> Iterator[Faults]:
    with faulty() as started:
        yield started


class _Killed:
    """Copies of a folder as a process killed before a write would leave it."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self._folder, self._copies = folder, copies
        self._is_copying = False
        self.paths: list[Path] = []

    def on_call(self, name: str) -> None:
        if name in ("pwrite", "fdatasync", "fsync", "unlink", "mkdir") and not self._is_copying:
            self.copy()

    def copy(self) -> None:
        self._is_copying = True
        path = self._copies / str(len(self.paths))
        shutil.copytree(self._folder, path, ignore=shutil.ignore_patterns("*-shm"))
        self.paths.append(path)
        self._is_copying = False


@dataclass(slots=True)
class _Trial:
    """One operation with one call failing, on its own copy of the prepared folder."""

    folder: Path
    case: Case
    before: World
    context: str

    def run(self, faults: Faults, call: str, n: int, *, is_lasting: bool) -> bool:
        """Whether a call failed at all; if so, everything was checked."""
        after = self.case.after(self.before)
        killed = _Killed(self.folder, self.folder.with_name("killed"))
        is_sync = "ync" in call  # after which a commit may lie in the WAL that nobody was told of
        with faissbase.connect(self.folder) as db:
            _open_all(db)
            faults.start(call, n, is_lasting=is_lasting)
            try:
                error = self._attempt(db)
            finally:
                faults.stop()
            if not faults.n_failed:
                assert error is None, self.context
                return False
            world = _world_in(db)
            assert world in ([self.before, after] if error else [after]), f"{self.context}: {error!r}"
            killed.copy()
            faults.on_call = killed.on_call if is_sync else None
            self._again(db, expects_done=world == after)
            faults.on_call = None
            assert _world_in(db) == after, f"{self.context}, again"
        self._check_reopened(after)
        for path in killed.paths:
            assert _world_of(path) in (self.before, after), f"{self.context}, then killed: {path}"
        return True

    def _attempt(self, db: Database) -> UnavailableError | None:
        try:
            self.case.run(db)
        except UnavailableError as error:
            return error
        return None

    def _again(self, db: Database, *, expects_done: bool) -> None:
        """The same operation without faults; where it had come through, it may say so."""
        try:
            self.case.run(db)
        except (AlreadyExistsError, NotFoundError):
            assert expects_done, self.context

    def _check_reopened(self, after: World) -> None:
        with faissbase.connect(self.folder) as db:
            found = _world_in(db)
            assert found == after, self.context
            assert_holds(db.get_collection("docs"), after["docs"], f"{self.context}, reopened", found["docs"])
            for name in after:
                collection = db.get_collection(name)
                report = collection.verify()
                assert report.ok, f"{self.context}: {report.problems}"
        folders = sorted(self.folder.glob("default/*"))
        assert len(folders) == len(after), f"{self.context}: {folders}"
        backup = self.folder.with_name("backup.tar")
        if backup.exists():
            restored = faissbase.restore(backup, self.folder.with_name("restored"))
            assert _world_of(restored) == after


def _some(n_calls: int) -> list[tuple[int, bool]]:
    """Which of ``n_calls`` calls fail, each alone or with those after it; fewer and fewer."""
    some = {n for n in (1, 2, 4, 16, 64, 256) if n < n_calls} | {n_calls}
    return [(n, i % 2 == 1) for i, n in enumerate(sorted(some))] + [(1, True)]


def _all(n_calls: int) -> list[tuple[int, bool]]:
    """Every one of ``n_calls`` calls fails, by turns alone and with those after it."""
    return [(n, n % 2 == 0) for n in range(1, n_calls + 1)]


def _others(n_calls: int) -> list[tuple[int, bool]]:
    """Those of `_all` that are not among `_some`."""
    return sorted(set(_all(n_calls)) - set(_some(n_calls)))


def _open_all(db: Database) -> None:
    """As whoever reads them does: what opening writes is then no part of the operation."""
    for name in db.list_collections():
        db.get_collection(name).get(["a1"])


def _count_calls(original: Path, case: Case, before: World, faults: Faults, scratch: Path) -> dict[str, int]:
    shutil.copytree(original, scratch / "checked")
    assert _world_of(scratch / "checked") == before
    shutil.copytree(original, scratch / "db")
    with faissbase.connect(scratch / "db") as db:
        _open_all(db)
        faults.start("none", 0, is_lasting=False)
        case.run(db)
        return {call: faults.calls[call] for call in FAULTY_CALLS if faults.calls[call]}


def _try_all(
    prepared: tuple[Path, World],
    faults: Faults,
    tmp_path: Path,
    name: str,
    which_fail: Callable[[int], list[tuple[int, bool]]],
) -> int:
    original, before = prepared
    n_failed = 0
    for call, n_calls in _count_calls(original, CASES[name], before, faults, tmp_path / "counted").items():
        if (name, call) == ("backup", "xSync"):
            continue  # apsw's Backup turns the exception of a virtual file system into a SystemError
        for n, is_lasting in which_fail(n_calls):
            folder = tmp_path / "trial" / "db"
            shutil.copytree(original, folder)
            which = f"{call} {n} of {n_calls}{' and all after it' if is_lasting else ''}"
            trial = _Trial(folder, CASES[name], before, f"{name}, failing {which}")
            n_failed += trial.run(faults, call, n, is_lasting=is_lasting)
            shutil.rmtree(folder.parent)
    return n_failed


SOON_TRIED = [name for name in CASES if name not in ("large overwrite", "delete by filter")]


@pytest.mark.parametrize("name", SOON_TRIED)
def test_an_operation_that_fails_changes_nothing_and_succeeds_later(
    prepared: tuple[Path, World], faults: Faults, tmp_path: Path, name: str
) -> None:
    assert _try_all(prepared, faults, tmp_path, name, _some) > 3


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_an_operation_that_fails_at_any_call_changes_nothing_and_succeeds_later(
    prepared: tuple[Path, World], faults: Faults, tmp_path: Path, name: str
) -> None:
    """The test before has tried some of them, of most operations."""
    _try_all(prepared, faults, tmp_path, name, _others if name in SOON_TRIED else _all)


def test_a_commit_whose_sync_failed_never_mixes_with_the_next(
    prepared: tuple[Path, World], faults: Faults, tmp_path: Path
) -> None:
    """It lies in the WAL, and a kill would bring it back when its slots hold other vectors already."""
    original, before = prepared
    failing, other = CASES["large upsert"], _on_docs(_rows([f"m{i}" for i in range(10)], 5))
    killed = _Killed(tmp_path / "db", tmp_path / "killed")
    shutil.copytree(original, tmp_path / "db")
    with faissbase.connect(tmp_path / "db") as db:
        assert _world_in(db) == before
        faults.start("xSync", 1, is_lasting=False)
        with pytest.raises(UnavailableError):
            failing.run(db)
        faults.stop()
        faults.on_call = killed.on_call
        other.run(db)
        faults.on_call = None
        assert _world_in(db) == other.after(before)
    assert len(killed.paths) > 3
    for path in killed.paths:
        assert _world_of(path) in (before, failing.after(before), other.after(before)), path


@contextmanager
def _largest_file(size_bytes: int) -> Iterator[None]:
    """Writing beyond that size fails, in this process, with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _fill(collection: LocalCollection, model: Model, first: int) -> tuple[Model, int]:
    """Upsert until it is refused; the acknowledged state and how many calls that were."""
    for n in range(first, first + 1000):
        op = _rows([f"x{n}-{i}" for i in range(3 if n % 3 else 40)], n)
        try:
            perform(collection, op)
        except UnavailableError:
            return model, n
        model = apply(model, op)
    raise AssertionError("the disk was never full")


def _fills_up(folder: Path, filled: AbstractContextManager[None]) -> None:
    with faissbase.connect(folder) as db:
        collection = db.create_collection("docs", dimension=FAULT_D, metric="l2")
        with filled:
            model, n = _fill(collection, {}, 0)
            assert n > 1
            assert not differences(contents(collection), model)
            again, _ = _fill(collection, model, n)
            assert not differences(contents(collection), again)
        op = _rows([f"y{i}" for i in range(40)], 1)
        perform(collection, op)
        wanted = apply(again, op)
        assert_holds(collection, wanted, "after the disk was full")
    with faissbase.connect(folder) as db:
        assert_holds(db.get_collection("docs"), wanted, "reopened")
        assert db.get_collection("docs").verify().ok


def test_a_file_that_may_not_grow_loses_nothing(tmp_path: Path) -> None:
    for size_bytes in (1_000_000, 3_000_000):
        _fills_up(tmp_path / str(size_bytes), _largest_file(size_bytes))


@contextmanager
def _small_disk(mounted: Path) -> Iterator[Callable[..., AbstractContextManager[None]]]:
    """A real file system of 6 MB, where one can be mounted; what is called fills it for a block."""
    mounted.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mounted)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system here")

    @contextmanager
    def filled(leave_bytes: int = 0) -> Iterator[None]:
        ballast = mounted / "ballast"
        room = os.statvfs(mounted)
        ballast.write_bytes(bytes(room.f_bavail * room.f_frsize - leave_bytes))
        try:
            yield
        finally:
            ballast.unlink()

    try:
        yield filled
    finally:
        subprocess.run(
            ["umount", "--lazy", str(mounted)], check=True
        )  # an error that is told keeps files open


def test_a_disk_that_is_full_loses_nothing(tmp_path: Path) -> None:
    with _small_disk(tmp_path / "small") as filled:
        _fills_up(tmp_path / "small" / "db", filled(3_500_000))


def test_opening_on_a_full_disk_says_how_much_it_takes(tmp_path: Path) -> None:
    folder = tmp_path / "small" / "db"
    with _small_disk(tmp_path / "small") as filled:
        with faissbase.connect(folder) as db:
            db.create_collection("docs", dimension=2, metric="l2").add("a", [1, 0])
        with filled(), pytest.raises(UnavailableError, match="the disk is full: opening takes 32 KiB"):
            faissbase.connect(folder, read_only=True)
        with filled(80 << 10), faissbase.connect(folder) as db:
            docs = db.get_collection("docs")
            assert [hit.id for hit in docs.search([1, 0], k=1)] == ["a"]
            with pytest.raises(UnavailableError, match="free some space"):
                docs.upsert([f"b{i}" for i in range(20_000)], np.ones((20_000, 2)))
        with faissbase.connect(folder) as db:
            assert [record.id for record in db.get_collection("docs").get()] == ["a"]


def test_a_backup_to_a_full_disk_names_the_backup(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path / "db") as db, _small_disk(tmp_path / "small") as filled:
        docs = db.create_collection("docs", dimension=2, metric="l2")
        docs.add([str(i) for i in range(5000)], np.ones((5000, 2)))
        path = tmp_path / "small" / "backup.tar"
        for leave_bytes in (0, 4096, 8192, 65536, 131072):
            with filled(leave_bytes), pytest.raises(UnavailableError, match=f"^cannot write backup {path}: "):
                db.backup(path)
        assert list(path.parent.iterdir()) == []
        db.backup(path)


def test_a_medium_that_is_read_only_is_told_and_can_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "small" / "db"
    with _small_disk(folder.parent):
        with faissbase.connect(folder) as db:
            db.create_collection("docs", dimension=2, metric="l2").add("a", [1, 0])
        subprocess.run(["mount", "-o", "remount,ro", str(folder.parent)], check=True)
        with pytest.raises(AccessError, match=r"cannot be written to: connect\(\.\.\., read_only=True\)"):
            faissbase.connect(folder)
        with faissbase.connect(folder, read_only=True) as db:
            assert [hit.id for hit in db.get_collection("docs").search([1, 0], k=1)] == ["a"]
            db.backup(tmp_path / "backup.tar")


def test_an_empty_disk_is_restored_into_where_it_is_mounted(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path / "db") as db:
        db.create_collection("docs", dimension=2, metric="l2").add("a", [1, 0])
        db.backup(tmp_path / "backup.tar")
    disk = tmp_path / "small"
    with _small_disk(disk) as filled:
        with filled(64 << 10), pytest.raises(AlreadyExistsError, match="not empty"):
            faissbase.restore(tmp_path / "backup.tar", disk)
        faissbase.restore(tmp_path / "backup.tar", disk)
        assert sorted(entry.name for entry in disk.iterdir()) == ["catalog.sqlite", "default"]
        with faissbase.connect(disk) as db:
            assert [record.id for record in db.get_collection("docs").get()] == ["a"]
