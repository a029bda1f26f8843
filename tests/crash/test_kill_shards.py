"""Builds whose driver or workers are killed: what was done is not done again, and the outcome is the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from tests.built_shards import ROWS as BUILT_ROWS
from tests.built_shards import facts_of, reported, rows
from tests.ray_here import ray_cluster

import faissbase
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.dataset import Dataset

D, ROWS, SHARDS = 16, 4000, 5
SEED = 20_290


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


# ---- at random moments ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Builds:
    """Drivers that build the same anew in a folder each, and their workers."""

    command: list[str]
    env: dict[str, str]
    worker: bytes
    """What the command line of a process that works for them contains."""
    rounds: int

    def started(self, folder: Path) -> subprocess.Popen[str]:
        out = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        words = [*self.command, "--out", str(folder / "bucket"), "--work", str(folder / "work")]
        return subprocess.Popen(words, env=self.env, text=True, start_new_session=True, **out)  # type: ignore[call-overload, no-any-return]

    def workers(self) -> list[int]:
        """Those below this process: another test may have workers of its own."""
        parents, found = {}, []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # it has ended
                fields = path.read_text().rpartition(")")[2].split()
                pid = int(path.parent.name)
                parents[pid] = int(fields[1])
                if fields[0] != "Z" and self.worker in path.with_name("cmdline").read_bytes():
                    found.append(pid)

        def is_ours(pid: int) -> bool:
            return pid == os.getpid() or (pid in parents and is_ours(parents[pid]))

        return [pid for pid in found if is_ours(pid)]


@pytest.fixture(params=["processes", pytest.param("ray", marks=pytest.mark.slow)])
def builds(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Builds]:
    source = [str(tmp_path / "x.npy"), "--name", "docs", "--metric", "l2", "--codec", "sq8"]
    options = ["--rows-per-shard", str(BUILT_ROWS), "--workers", "2", "--json", "--executor", request.param]
    command = [sys.executable, "-m", "faissbase", "shards", "build", *source, *options]
    if request.param == "processes":
        yield Builds(command, dict(os.environ), b"faissbase.sharded.executors", 3)
        return
    with ray_cluster() as address:
        yield Builds(command, {**os.environ, "RAY_ADDRESS": address}, b"ray::_outcome", 2)


def test_a_build_with_kills_at_random_moments_ends_as_an_undisturbed_one(
    tmp_path: Path, builds: Builds
) -> None:
    """Drivers and workers. Moments follow from a seed, which is printed, and from how fast the machine is."""
    x = rows(SHARDS * BUILT_ROWS)
    np.save(tmp_path / "x.npy", x)
    killed: Counter[str] = Counter()
    facts, took_s = [], 0.0
    for seed in (None, *range(SEED, SEED + builds.rounds)):
        folder = tmp_path / str(seed)
        began = time.monotonic()
        report, victims = outlived(builds, folder, seed, took_s)
        killed.update(victims)
        facts.append((reported(report), facts_of(open_bucket(str(folder / "bucket")), x, folder / "cache")))
        assert facts[-1] == facts[0], f"seed {seed}: {victims}"
        took_s = took_s or time.monotonic() - began
        print(f"seed {seed}: killed {victims}, {time.monotonic() - began:.1f} s")
    assert killed["driver"] >= 1
    assert killed["worker"] >= 1


def outlived(
    builds: Builds, folder: Path, seed: int | None, took_s: float
) -> tuple[dict[str, Any], list[str]]:
    """What the last driver reports, which nobody has killed, and who was killed before."""
    chance = random.Random(seed)
    victims = [] if seed is None else ["driver", "worker", "worker"][: builds.rounds]
    chance.shuffle(victims)
    killed: list[str] = []
    driver = builds.started(folder)
    for victim in victims:
        until = time.monotonic() + chance.uniform(0, took_s / 3)
        while driver.poll() is None and (time.monotonic() < until or not builds.workers()):
            time.sleep(0.002)
        pids = builds.workers() if victim == "worker" else [driver.pid]
        if driver.poll() is not None or not pids:
            break
        with suppress(ProcessLookupError):  # it was just ending
            os.kill(chance.choice(pids), signal.SIGKILL)
            killed.append(victim)
        if victim == "driver":
            driver.communicate()
            driver = builds.started(folder)
    out, told = driver.communicate(timeout=120)
    assert driver.returncode == 0, told
    report: dict[str, Any] = orjson.loads(out)
    return report, killed
