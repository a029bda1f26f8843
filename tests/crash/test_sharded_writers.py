"""Writers of one dataset that race, in threads and processes, and writers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tests.sharded_writer import D, run, vector

import faissbase
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.paging import pages_of

PROGRAM = Path(__file__).parents[1] / "sharded_writer.py"
ROUNDS_KILLED = 30


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ShardedDatabase]:
    with opened(tmp_path, "cache") as database:
        database.create_collection("docs", D, "l2")
        yield database


def opened(folder: Path, cache: str) -> ShardedDatabase:
    return faissbase.connect((folder / "bucket").as_uri(), cache=folder / cache, refresh_s=0)


def started(folder: Path, seed: int, rounds: int, cache: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(PROGRAM), (folder / "bucket").as_uri(), str(folder / cache), "docs"]
    return subprocess.Popen([*words, str(seed), str(rounds)], stdout=subprocess.PIPE)


def told(output: bytes) -> list[dict[str, Any]]:
    """The acknowledgements in what a writer has printed; a line that was cut off is none."""
    lines = output[: output.rfind(b"\n") + 1].splitlines()
    return [fact for fact in map(orjson.loads, lines) if "step" in fact]


def contents(docs: ShardedCollection) -> dict[str, tuple[int, int]]:
    """By id, who wrote it in which step. Every id is there once, and every vector is its own."""
    records = docs.get(include_vectors=True)
    found = {record.id: (record.metadata["by"], record.metadata["step"]) for record in records}
    assert len(records) == len(found) == len(docs)
    for record in records:
        assert record.vector is not None
        assert np.array_equal(record.vector, vector(*found[record.id]))
    return found


def assert_serial(folder: Path, docs: ShardedCollection, acknowledged: Iterable[dict[str, Any]]) -> None:
    """The versions, replayed one by one, hold what each acknowledged write had done at its version."""
    dataset = Dataset(docs._dataset.bucket, "docs")
    facts = list(acknowledged)
    final = contents(docs)
    for fact in facts:
        if fact["kind"] == "upsert":
            own = f"own-{fact['seed']}-{fact['step']}"
            assert final[own] == (fact["seed"], fact["step"]), "nobody else writes this id"
    shared = {f"i{i}" for i in range(12)}
    assert {id for id in final if not id.startswith("own-")} <= shared
    written = {(fact["seed"], fact["step"]) for fact in facts if fact["kind"] == "upsert"}
    assert {final[id] for id in final if id in shared} <= written
    versions = dataset.versions()
    assert versions == list(range(1, versions[-1] + 1)), "no version is missing"
    for manifest in map(dataset.read, versions):
        group = docs._opened(manifest, docs._current[1])
        ids = [record.id for page in pages_of(group, None, 1000, False) for record in page.records]
        assert len(ids) == len(set(ids)) == manifest.n_alive, f"version {manifest.version}"
    assert manifest.n_alive == len(final)
    assert docs.verify().ok


def test_racing_threads_leave_a_serial_outcome(db: ShardedDatabase, tmp_path: Path) -> None:
    docs = db.get_collection("docs")
    facts: list[dict[str, Any]] = []
    failures: list[Exception] = []

    def write(seed: int) -> None:
        chance = np.random.default_rng(seed)
        try:
            for step in range(8):
                ids = [f"i{i}" for i in chance.choice(12, 3, replace=False)]
                kind = str(chance.choice(["upsert", "upsert", "delete", "compact"]))
                run(docs, kind, ids, seed, step)
                facts.append({"seed": seed, "step": step, "kind": kind, "ids": ids})
        except Exception as error:  # noqa: BLE001  # told by the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(facts) == 32
    assert_serial(tmp_path, docs, facts)


@pytest.mark.slow
def test_racing_processes_leave_a_serial_outcome(db: ShardedDatabase, tmp_path: Path) -> None:
    processes = [started(tmp_path, seed, 15, f"own-cache-{seed % 2}") for seed in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    facts = [fact for output in outputs for fact in told(output)]
    assert len(facts) >= 40
    docs = db.get_collection("docs")
    assert_serial(tmp_path, docs, facts)
    docs.optimize()
    assert_serial(tmp_path, docs, facts)


class Nursery:
    """A process that forks writers, to be killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._told = self._process.stdin, self._process.stdout

    def killed(self, words: list[Any], n_told: int, then_s: float) -> list[dict[str, Any]]:
        """What a writer acknowledged that was killed a moment after it had told so much."""
        self._jobs.write(orjson.dumps(words) + b"\n")
        self._jobs.flush()
        facts: list[dict[str, Any]] = []
        pid = 0
        while pid == 0 or len(facts) < 1 + n_told:
            fact = orjson.loads(self._told.readline())
            assert "ended" not in fact, "the writer ended by itself: see stderr"
            if "pid" in fact:
                pid = fact["pid"]
            else:
                facts.append(fact)
        threading.Event().wait(then_s)  # any moment of what it is doing now
        os.kill(pid, signal.SIGKILL)
        while "ended" not in (fact := orjson.loads(self._told.readline())):
            facts.append(fact)
        return [fact for fact in facts if "step" in fact]

    def close(self) -> None:
        self._jobs.close()
        self._process.wait()
        self._told.close()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.mark.slow
def test_a_killed_writer_has_lost_nothing_that_it_acknowledged(
    db: ShardedDatabase, nursery: Nursery, tmp_path: Path
) -> None:
    docs = db.get_collection("docs")
    chance = np.random.default_rng(5)
    url, cache = (tmp_path / "bucket").as_uri(), str(tmp_path / "writer-cache")
    facts: list[dict[str, Any]] = []
    for seed in range(ROUNDS_KILLED):
        words = [url, cache, "docs", seed, 1000]
        facts += nursery.killed(words, int(chance.integers(0, 3)), float(chance.uniform(0, 0.06)))
        docs.refresh()
        final = contents(docs)
        for fact in facts:
            if fact["kind"] == "upsert":
                assert f"own-{fact['seed']}-{fact['step']}" in final
    assert len(facts) > ROUNDS_KILLED // 2
    docs.optimize()
    assert docs.verify().ok
    assert not list((tmp_path / "cache").glob("*/.faissbase-draft-*"))
