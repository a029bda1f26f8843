"""Every executor runs every task, tells the errors of tasks, outlives its workers, and builds the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests import executor_tasks as tasks
from tests.built_shards import ROWS, built, facts_of, reported, rows
from tests.ray_here import ray_cluster

from faissbase.errors import InternalError, InvalidInputError, UnavailableError
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.executors import MOST_AGAIN, Executor, InlineExecutor, ProcessesExecutor
from faissbase.sharded.ray_executor import RayExecutor

WORKING = ("processes", pytest.param("ray", marks=pytest.mark.slow))
KINDS = ("inline", *WORKING)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with ray_cluster():
        yield


def made(kind: str, request: pytest.FixtureRequest) -> Executor:
    """Of two workers, where it has workers."""
    if kind == "ray":
        request.getfixturevalue("ray_here")
        return RayExecutor(2)
    return InlineExecutor() if kind == "inline" else ProcessesExecutor(2, threads=1)


@pytest.fixture(params=KINDS)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = made(request.param, request)
    yield executor
    executor.close()


@pytest.fixture(params=WORKING)
def workers(request: pytest.FixtureRequest) -> Iterator[Executor]:
    executor = made(request.param, request)
    yield executor
    executor.close()


@pytest.fixture
def processes() -> Iterator[ProcessesExecutor]:
    made = ProcessesExecutor(2, threads=1)
    yield made
    made.close()


class TestEveryExecutor:
    def test_every_item_is_done_once(self, executor: Executor) -> None:
        assert dict(executor.run(tasks.square, range(7))) == {i: i * i for i in range(7)}
        assert list(executor.run(tasks.square, [])) == []

    def test_it_runs_again(self, executor: Executor) -> None:
        for _ in range(3):
            assert sorted(executor.run(tasks.square, [3, 4])) == [(0, 9), (1, 16)]

    def test_an_error_of_ours_comes_back_as_it_is(self, executor: Executor) -> None:
        with pytest.raises(InvalidInputError, match="row 7 is wrong"):
            list(executor.run(tasks.refuse, ["row 7 is wrong"]))
        assert dict(executor.run(tasks.square, [5])) == {0: 25}

    def test_it_may_be_left_before_the_end(self, executor: Executor) -> None:
        results = executor.run(tasks.square, range(20))
        next(results)
        results.close()  # type: ignore[attr-defined]  # a generator
        assert dict(executor.run(tasks.square, [5])) == {0: 25}


class TestEveryExecutorWithWorkers:
    def test_two_other_processes_do_the_work_at_once(self, workers: Executor, tmp_path: Path) -> None:
        pids = {pid for _, pid in workers.run(tasks.meet, [(tmp_path, 2)] * 2)}
        assert len(pids) == 2
        assert os.getpid() not in pids

    def test_a_task_whose_worker_is_killed_is_run_again(self, workers: Executor, tmp_path: Path) -> None:
        items = [(tmp_path, i, 1 if i == 1 else 0) for i in range(4)]
        assert dict(workers.run(tasks.die_at_first, items)) == {0: 0, 1: 1, 2: 2, 3: 3}
        assert len(list(tmp_path.iterdir())) == 5  # one of them twice

    def test_a_task_that_always_kills_its_worker_ends(self, workers: Executor, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError, match=rf"died {MOST_AGAIN + 1} times"):
            list(workers.run(tasks.die_at_first, [(tmp_path, 0, 99)]))
        assert len(list(tmp_path.iterdir())) == MOST_AGAIN + 1

    def test_a_bug_in_a_task_is_told_as_one(self, workers: Executor) -> None:
        with pytest.raises(InternalError, match="ZeroDivisionError"):
            list(workers.run(tasks.divide, [0]))


def test_what_a_task_died_of_is_told(processes: ProcessesExecutor, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="last by SIGKILL"):
        list(processes.run(tasks.die_at_first, [(tmp_path, 0, 99)]))


def test_workers_share_the_cores(processes: ProcessesExecutor) -> None:
    assert dict(processes.run(tasks.omp_threads, [0])) == {0: 1}


def test_a_worker_that_died_while_idle_is_replaced(processes: ProcessesExecutor) -> None:
    [(_, pid)] = processes.run(tasks.process, [0])
    os.kill(pid, signal.SIGKILL)
    [(_, other)] = processes.run(tasks.process, [0])
    assert other != pid


def test_what_a_worker_cannot_read_is_an_error(processes: ProcessesExecutor) -> None:
    with pytest.raises(InternalError, match="cannot be read by its worker"):
        list(processes.run(tasks.square, [tasks.Unreadable()]))  # type: ignore[arg-type]


def test_workers_end_with_their_driver(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from tests import executor_tasks as tasks\n"
        "from faissbase.sharded.executors import ProcessesExecutor\n"
        "list(ProcessesExecutor(1, 1).run(tasks.hang, [sys.argv[1]]))\n"
    )
    told = tmp_path / "pid"
    here = str(Path(tasks.__file__).parent.parent)
    driver = subprocess.Popen([sys.executable, "-c", code, str(told), here, *sys.path])
    pid = int(_waited_for(told))
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while _is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _waited_for(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return path.read_text()


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- builds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", WORKING)
def test_what_workers_build_is_what_one_process_builds(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    x = rows(3 * ROWS)
    np.save(tmp_path / "x.npy", x)
    told = []
    for executor in (InlineExecutor(), made(kind, request)):
        bucket = open_bucket(str(tmp_path / type(executor).__name__))
        try:
            report = built(tmp_path, bucket, executor)
        finally:
            executor.close()
        told.append({**reported(report), **facts_of(bucket, x, tmp_path / "cache")})
    alone, beside = told
    for what, wanted in alone.items():
        assert beside[what] == wanted, what
