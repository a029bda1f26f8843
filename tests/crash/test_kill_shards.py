"""Builds whose driver or workers are killed: what was done is not done again, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import orjson
import pytest

import faissbase
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.build import BuildReport, Request, build
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.executors import ProcessesExecutor
from faissbase.sharded.sources import find_files
from faissbase.sharded.stages import Settings

D, ROWS, SHARDS = 16, 4000, 5


@pytest.fixture
def vectors(tmp_path: Path) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, D), np.float32)[rng.integers(0, 20, ROWS * SHARDS)]
    x += np.float32(0.6) * rng.standard_normal(x.shape, np.float32)
    np.save(tmp_path / "x.npy", x)
    return x


def waited_for(found: Callable[[], list[Path]], process: subprocess.Popen[bytes] | None = None) -> Path:
    deadline = time.monotonic() + 60
    while not (paths := found()):
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, "it ended too early"
        time.sleep(0.005)
    return paths[0]


def search(folder: Path, x: np.ndarray) -> list[list[str]]:
    with faissbase.connect((folder / "bucket").as_uri(), cache=folder / "cache", refresh_s=0) as db:
        docs = db.get_collection("docs")
        assert len(docs) == ROWS * SHARDS
        assert docs.verify().ok
        ids: list[list[str]] = docs.search(x, k=1).ids
        return ids


def test_after_the_driver_was_killed_the_next_run_goes_on(tmp_path: Path, vectors: np.ndarray) -> None:
    words = [
        "shards",
        "build",
        "x.npy",
        "--out",
        "bucket",
        "--name",
        "docs",
        "--metric",
        "l2",
        "--codec",
        "sq8",
    ]
    words += ["--rows-per-shard", str(ROWS), "--workers", "1", "--work", "work", "--json"]
    command = [sys.executable, "-m", "faissbase", *words]
    driver = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    recorded = waited_for(lambda: list(tmp_path.glob("bucket/docs/builds/*/shard-00000.json")), driver)
    driver.kill()
    driver.wait()
    name = orjson.loads(recorded.read_bytes())["shard"]["name"]
    assert Dataset(open_bucket(str(tmp_path / "bucket")), "docs").latest() is None
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    report = orjson.loads(ran.stdout)
    assert 1 <= report["n_resumed"] < SHARDS
    manifest = Dataset(open_bucket(str(tmp_path / "bucket")), "docs").newest()
    assert manifest.shards[0].name == name
    assert search(tmp_path, vectors[:50]) == [[str(i)] for i in range(50)]
    assert not list((tmp_path / "work").glob(".faissbase*"))  # nor what the killed worker left


def test_a_build_outlives_workers_that_are_killed(tmp_path: Path, vectors: np.ndarray) -> None:
    bucket, executor = open_bucket(str(tmp_path / "bucket")), ProcessesExecutor(2, threads=1)
    request = Request("docs", Settings("l2", "sq8"), rows_per_shard=ROWS)
    reports: list[BuildReport] = []
    source = find_files([str(tmp_path / "x.npy")])
    driver = threading.Thread(
        target=lambda: reports.append(build(request, source, bucket, tmp_path / "work", executor))
    )
    driver.start()
    killed: set[int] = set()
    for number in (0, 2):
        waited_for(lambda number=number: list(tmp_path.glob(f"work/progress/*/{number}")))  # type: ignore[misc]
        pid = next(pid for pid in workers() if pid not in killed)
        os.kill(pid, signal.SIGKILL)
        killed.add(pid)
    driver.join(120)
    executor.close()
    assert len(killed) == 2
    [report] = reports
    assert (report.n_rows, report.shards) == (ROWS * SHARDS, SHARDS)
    assert report.recall.mean is not None
    assert report.recall.mean >= 0.95
    assert search(tmp_path, vectors[:50]) == [[str(i)] for i in range(50)]


def workers() -> list[int]:
    """The workers that this process has started, and that live."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            is_worker = b"faissbase.sharded.executors" in path.with_name("cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if is_worker and int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found
