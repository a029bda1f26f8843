"""A writer is killed with SIGKILL at a random moment, again and again, on one folder.

After each kill every acknowledged write is there, and the one that was under way is there wholly or not at
all. The seed of a round is in the message of what fails; the moment of the kill is a matter of microseconds
and cannot be repeated exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.crash.child import COLLECTION, backup_path, catalog_step
from tests.crash.limits import quartered
from tests.crash.model import Model, Operation, apply, assert_holds, contents, differences, operation
from tests.crash.nursery import Nursery

import faissbase
from faissbase.collection.store import Config
from faissbase.database.catalog import Catalog
from faissbase.storage import sqlite
from faissbase.storage.records import FILE_NAME

SEED = 20_250


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with quartered(), Nursery() as started:
        yield started


def _sqlite_problems(path: Path) -> list[str]:
    connection = sqlite.connect(path, read_only=True)
    try:
        found = [str(text) for (text,) in connection.execute("PRAGMA integrity_check")]
    finally:
        connection.close()
    return [] if found == ["ok"] else found


def _settled(found: Model, model: Model, seed: int, done: Counter[int], n_threads: int) -> Model:
    """The model after what was acknowledged, and after those operations under way that did come through."""

    def op(thread: int, seq: int) -> Operation:
        return operation(seed, thread, seq, may_reset=n_threads == 1)

    for thread in range(n_threads):
        for seq in range(done[thread]):
            model = apply(model, op(thread, seq))
    for thread in range(n_threads):
        prefix = f"{thread}:" if n_threads > 1 else ""
        whole = apply(model, op(thread, done[thread]))
        if _within(found, prefix) == _within(whole, prefix):
            model = whole
    return model


def _within(model: Model, prefix: str) -> Model:
    return {id: kept for id, kept in model.items() if id.startswith(prefix)}


def _check(folder: Path, model: Model, seed: int, done: Counter[int], n_threads: int) -> Model:
    """Open what the killed writer left; every second time read-only, which leaves the WAL as it lies."""
    if not (folder / "catalog.sqlite").exists():
        assert not done
        return model
    with faissbase.connect(folder, read_only=seed % 2 == 0) as db:
        if COLLECTION not in db.list_collections():
            assert not done, f"seed {seed}: the collection is gone after {done}"
            return model
        collection = db.get_collection(COLLECTION)
        found = contents(collection)
        model = _settled(found, model, seed, done, n_threads)
        context = f"seed {seed}, {n_threads} threads, acknowledged {dict(done)}"
        assert_holds(collection, model, context, found)
        report = collection.verify()
        assert report.ok, f"{context}: {report.problems}"
    return model


def _run_rounds(nursery: Nursery, folder: Path, first_seed: int, n_rounds: int) -> int:
    model: Model = {}
    n_done = 0
    for seed in range(first_seed, first_seed + n_rounds):
        rng = np.random.default_rng(seed)
        n_threads = int(rng.choice([1, 1, 1, 2, 4]))
        job = {"job": "write", "folder": str(folder), "seed": seed, "threads": n_threads}
        done = nursery.run_and_kill(job, int(rng.integers(0, 12)), float(rng.exponential(0.01)))
        model = _check(folder, model, seed, done, n_threads)
        n_done += done.total()
    return n_done


def test_acknowledged_writes_survive_kills(nursery: Nursery, tmp_path: Path) -> None:
    assert _run_rounds(nursery, tmp_path / "db", SEED, 40) > 200


@pytest.mark.slow
def test_acknowledged_writes_survive_hundreds_of_kills(nursery: Nursery, tmp_path: Path) -> None:
    for part in range(4):
        _run_rounds(nursery, tmp_path / str(part), SEED + 1000 * (part + 1), 45)


Catalogued = dict[str, Model]


def _catalog_apply(catalogued: Catalogued, seed: int, seq: int) -> Catalogued:
    verb, name, upsert = catalog_step(seed, seq)
    if verb == "create":
        return {name: {}} | catalogued
    if verb == "fill" and name in catalogued:
        return catalogued | {name: apply(catalogued[name], upsert)}
    if verb == "delete":
        return {other: model for other, model in catalogued.items() if other != name}
    return catalogued


def _contents_of(folder: Path) -> Catalogued:
    with faissbase.connect(folder) as db:
        return {name: contents(db.get_collection(name)) for name in db.list_collections()}


def _assert_tidy(folder: Path) -> None:
    """After opening there is one folder for each collection, none half made or half deleted."""
    catalog = Catalog(folder, read_only=True)
    try:
        live: list[tuple[str, Config]] = catalog.all_live()
    finally:
        catalog.close()
    assert sorted(path.name for path in folder.glob("*/*")) == sorted(config.uuid for _, config in live)
    assert not list(folder.glob("*/*/unfinished"))
    for path in folder.glob(f"*/*/{FILE_NAME}"):
        assert _sqlite_problems(path) == []
    assert _sqlite_problems(folder / "catalog.sqlite") == []


def _check_backups(backups: Path, scratch: Path, states: list[Catalogued], seed: int) -> int:
    """Every backup that has its name restores to a state of its time; ``states[i]`` was after i steps."""
    n_restored = 0
    for seq, catalogued in enumerate(states):
        path = backup_path(backups, seed, seq)
        verb, _, _ = catalog_step(seed, seq)
        if verb != "backup" or (seq == len(states) - 1 and not path.exists()):
            continue
        restored = faissbase.restore(path, scratch / path.stem)
        assert _contents_of(restored) == catalogued, f"backup {path.name}"
        n_restored += 1
    return n_restored


def test_collections_and_backups_survive_kills(nursery: Nursery, tmp_path: Path) -> None:
    folder, backups = tmp_path / "db", tmp_path / "backups"
    backups.mkdir()
    catalogued: Catalogued = {}
    n_restored = 0
    for seed in range(SEED, SEED + 20):
        rng = np.random.default_rng(seed)
        job = {"job": "catalog", "folder": str(folder), "backups": str(backups), "seed": seed}
        done = nursery.run_and_kill(job, int(rng.integers(0, 15)), float(rng.exponential(0.005)))
        states = [catalogued]
        for seq in range(done[0]):
            states.append(_catalog_apply(states[-1], seed, seq))
        found = _contents_of(folder)
        whole = _catalog_apply(states[-1], seed, done[0])
        catalogued = whole if found.keys() == whole.keys() and found == whole else states[-1]
        for name in found.keys() | catalogued.keys():
            assert name in found, f"seed {seed}: {name} is gone"
            assert name in catalogued, f"seed {seed}: {name} has come back"
            assert not differences(found[name], catalogued[name]), f"seed {seed}: {name}"
        _assert_tidy(folder)
        n_restored += _check_backups(backups, tmp_path / f"restored{seed}", states, seed)
    assert n_restored > 5


def test_what_a_creation_cut_short_has_left_is_removed(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path) as db:
        db.create_collection("docs", dimension=2)
    [kept] = tmp_path.glob("default/*")
    before_the_mark, after_the_mark = kept.with_name("0" * 32), kept.with_name("1" * 32)
    somebody_elses = kept.with_name("notes")
    for folder in (before_the_mark, after_the_mark, somebody_elses):
        folder.mkdir()
    (after_the_mark / "unfinished").touch()
    (after_the_mark / FILE_NAME).touch()
    with faissbase.connect(tmp_path) as db:
        assert db.list_collections() == ["docs"]
    assert sorted(tmp_path.glob("default/*")) == sorted([kept, somebody_elses])
