"""The machine crashes: what was not synced is lost, in part or whole, and every acknowledged write is there.

A `Disk` between product and files knows what was synced. Copies of the folder are made as a crash might
leave it, at acknowledgements and before writes and syncs, and each is opened and compared.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from tests.crash.disk import Disk, forgetful
from tests.crash.limits import quartered
from tests.crash.model import (
    D,
    Model,
    apply,
    assert_holds,
    contents,
    differences,
    operation,
    perform,
    upsert_of,
)
from tests.crash.watch import watched

import faissbase
from faissbase.collection import writer
from faissbase.errors import UnavailableError
from faissbase.storage import sqlite
from faissbase.types import Durability

SEED = 20_260


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let redo copies be dropped, and the WAL be emptied, often enough to be met."""
    monkeypatch.setattr(writer, "_REDO_BYTES_KEPT", 16 << 10)
    monkeypatch.setattr(sqlite, "_WAL_PAGES", 70)
    with quartered():
        yield


@dataclass(slots=True)
class Crashes:
    """Copies of a folder after a crash, each with the states that may be found in it."""

    disk: Disk
    folder: Path
    rng: np.random.Generator
    copies: list[tuple[Path, list[Model]]] = field(default_factory=list)

    def happen(self, allowed: list[Model]) -> None:
        """Copy the folder as a crash now might leave it: nothing of what was not synced, or a part."""
        rng = None if self.rng.random() < 0.4 else self.rng
        copy = self.disk.lose_power(self.folder / str(len(self.copies)), rng)
        self.copies.append((copy, allowed))

    def at_a_call_of(self, allowed: list[Model]) -> Callable[[], None]:
        """Something to be called before each write and sync, which crashes before one of the next."""
        calls_left = int(self.rng.integers(1, 12))

        def before_call() -> None:
            nonlocal calls_left
            calls_left -= 1
            if calls_left == 0:
                self.happen(allowed)

        return before_call


def _record(crashes: Crashes, durability: Durability, seed: int, n_operations: int) -> None:
    """Run operations, with crashes at some acknowledgements and before some calls.

    With full durability what may be found after a crash is the acknowledged state, or the one under way;
    with relaxed durability also any state before.
    """
    rng = crashes.rng
    db = faissbase.connect(crashes.disk.root, durability=durability)
    collection = db.create_collection("docs", dimension=D, metric="l2")
    states: list[Model] = [{}]
    for seq in range(n_operations):
        op = operation(seed, 0, seq, may_reset=True)
        states.append(apply(states[-1], op))
        first = 0 if durability == "relaxed" else -2
        crashes.disk.before_call = crashes.at_a_call_of(states[first:])
        perform(collection, op)
        crashes.disk.before_call = None
        if rng.random() < 0.4:
            crashes.happen(states[0 if durability == "relaxed" else -1 :])
        if rng.random() < 0.05:
            db.close()
            db = faissbase.connect(crashes.disk.root, durability=durability)
            collection = db.get_collection("docs")
    db.close()


def _check(crashes: Crashes, context: str) -> None:
    for number, (copy, allowed) in enumerate(crashes.copies):
        _check_copy(copy, allowed, f"{context}, crash {number}")
        shutil.rmtree(copy)


def _check_copy(copy: Path, allowed: list[Model], context: str) -> None:
    """The copy opens, holds one of the allowed states, answers rightly, and can be written on."""
    rng = np.random.default_rng(SEED)
    with faissbase.connect(copy) as db:
        collection = db.get_collection("docs")
        found = contents(collection)
        assert found in allowed, f"{context}: {[differences(found, model) for model in allowed[-2:]]}"
        assert_holds(collection, found, context, found)
        for op in (
            upsert_of("many", [f"0:many{i}" for i in range(80)], rng, "zafter"),
            upsert_of("few", [f"0:few{i}" for i in range(5)], rng, "zlater"),
        ):
            perform(collection, op)
            found = apply(found, op)
    with faissbase.connect(copy) as db:
        collection = db.get_collection("docs")
        assert not differences(contents(collection), found), f"{context}, written on"
        report = collection.verify()
        assert report.ok, f"{context}: {report.problems}"


def _survives(tmp_path: Path, durability: Durability, seed: int, n_operations: int) -> int:
    with forgetful(tmp_path / "db") as disk:
        crashes = Crashes(disk, tmp_path / "crashed", np.random.default_rng(seed))
        _record(crashes, durability, seed, n_operations)
    _check(crashes, f"seed {seed}")
    return len(crashes.copies)


def test_acknowledged_writes_survive_a_crash_of_the_machine(tmp_path: Path) -> None:
    assert _survives(tmp_path, "full", SEED, 36) > 25


def test_relaxed_writes_are_whole_after_a_crash_of_the_machine(tmp_path: Path) -> None:
    assert _survives(tmp_path, "relaxed", SEED, 26) > 15


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_long_run_survives_crashes_of_the_machine(tmp_path: Path, durability: Durability) -> None:
    _survives(tmp_path, durability, SEED + 1, 80)


class _FailingSync:
    """A watcher that lets one sync of a slot file or WAL fail: what was not synced then never will be."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.n_left = 0

    def before(self, call: str, path: Path) -> None:
        if call in ("fdatasync", "xSync") and path.name.endswith((".f32", "-wal")):
            self.n_left -= 1
            if self.n_left == 0:
                self._disk.forget_unsynced(path)
                raise OSError(errno.EIO, "made to fail") if call == "fdatasync" else apsw.IOError("failed")

    def after(self, call: str, path: Path, *facts: Any) -> None:
        self._disk.after(call, path, *facts)


def _lives_through_a_failing_sync(folder: Path, n: int, *, is_abandoned: bool) -> bool:
    """Whether sync ``n`` of a run was reached. After each call a crash of the machine leaves what it should.

    With ``is_abandoned`` the folder is opened again after the failure, as a new process would.
    """
    disk = Disk(folder / "db")
    failing = _FailingSync(disk)
    copies: list[tuple[Path, list[Model]]] = []
    with watched(failing), ExitStack() as opened:
        collection = opened.enter_context(faissbase.connect(disk.root)).create_collection("docs", D, "l2")
        failing.n_left = n
        model: Model = {}
        for seq in range(7):
            op = operation(SEED + 5, 0, seq, may_reset=False)
            allowed = [apply(model, op)]
            try:
                perform(collection, op)
            except UnavailableError:
                allowed.append(model)
                if is_abandoned:
                    collection = opened.enter_context(faissbase.connect(disk.root)).get_collection("docs")
            model = contents(collection)
            assert model in allowed
            copies.append((disk.lose_power(folder / str(seq), None), allowed))
        was_reached = failing.n_left <= 0
    for copy, allowed in copies:
        with faissbase.connect(copy) as db:
            found = contents(db.get_collection("docs"))
        wrong = [differences(found, model) for model in allowed]
        assert "" in wrong, f"sync {n} failing, {copy}: {wrong}"
    shutil.rmtree(folder)
    return was_reached


@pytest.mark.parametrize("is_abandoned", [False, True])
def test_what_a_failed_sync_left_is_never_trusted(tmp_path: Path, is_abandoned: bool) -> None:
    n = 1
    while _lives_through_a_failing_sync(tmp_path / str(n), n, is_abandoned=is_abandoned):
        n += 1
    assert n > 5


def test_created_and_deleted_collections_survive_a_crash_of_the_machine(tmp_path: Path) -> None:
    rng = np.random.default_rng(SEED)
    op = upsert_of("few", ["a", "b"], rng, "ccrash")
    wanted: list[dict[str, Model]] = []
    with forgetful(tmp_path / "db") as disk, faissbase.connect(tmp_path / "db") as db:

        def crash(state: dict[str, Model]) -> None:
            disk.lose_power(tmp_path / "crashed" / str(len(wanted)), None)
            wanted.append(state)

        crash({})
        perform(db.create_collection("one", dimension=D, metric="l2"), op)
        crash({"one": apply({}, op)})
        db.create_collection("two", dimension=D, metric="l2")
        crash({"one": apply({}, op), "two": {}})
        db.delete_collection("one")
        crash({"two": {}})
    for number, state in enumerate(wanted):
        with faissbase.connect(tmp_path / "crashed" / str(number)) as db:
            found = {name: contents(db.get_collection(name)) for name in db.list_collections()}
        assert found == state, number


def test_a_backup_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def telling_fsync(fd: int) -> None:
        fsync(fd)
        calls.append(("sync", Path(os.readlink(f"/proc/self/fd/{fd}")).name))

    def telling_replace(source: Any, target: Any) -> None:
        replace(source, target)
        calls.append(("rename", Path(source).name))

    with faissbase.connect(tmp_path / "db") as db:
        db.create_collection("docs", dimension=D)
        (tmp_path / "backups").mkdir()
        monkeypatch.setattr(os, "fsync", telling_fsync)
        monkeypatch.setattr(os, "replace", telling_replace)
        db.backup(tmp_path / "backups" / "b.tar")
    [at] = [i for i, (what, _) in enumerate(calls) if what == "rename"]
    draft = calls[at][1]
    assert ("sync", draft) in calls[:at]
    assert ("sync", "backups") in calls[at:]
