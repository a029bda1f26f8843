"""Cores and threads are no more than the machine, the container and the environment allow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faissbase.ann.cores import cores, threads

HERE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("group", "quota", "found"),
    [
        ("0::/\n", "max 100000\n", HERE),
        ("0::/\n", "100000 100000\n", 1),
        ("0::/\n", "10000 100000\n", 1),
        ("0::/\n", "99900000 100000\n", HERE),
        ("1:cpu:/a\n0::/system.slice/faissbase.service\n", "50000 100000\n", 1),
        ("0::/\n", "half of it\n", HERE),
        ("0::/\n", "1 0\n", HERE),
        ("4:cpu:/only/version/1\n", None, HERE),
        (None, None, HERE),
    ],
)
def test_a_quota_of_the_container_is_kept(
    group: str | None, quota: str | None, found: int, tmp_path: Path
) -> None:
    own = tmp_path / "cgroup"
    if group is not None:
        own.write_text(group)
    if group is not None and quota is not None:
        path = tmp_path / "groups" / group.splitlines()[-1][3:].lstrip("/") / "cpu.max"
        path.parent.mkdir(parents=True)
        path.write_text(quota)
    assert cores(own, tmp_path / "groups") == found


@pytest.mark.parametrize(
    ("wanted", "found"),
    [("1", 1), ("1,2", 1), (" 1 ", 1), ("9999", cores()), ("0", cores()), ("all", cores())],
)
def test_threads_are_as_many_as_openmp_was_told(
    wanted: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    assert threads() == found
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads() == cores()


def test_a_process_that_was_told_searches_with_so_many() -> None:
    code = "from faissbase.ann.flat import MAX_THREADS; print(MAX_THREADS)"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert told.stdout.strip() == b"1"
