"""How far it is, where no terminal is: lines with rate and time left, now and then."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.cli import progress
from faissbase.cli.console import Console


def test_a_line_tells_the_stage_the_rate_and_the_time_left() -> None:
    moments = iter([0.0, 0.0, 40.0, 50.0, 60.0])
    course = progress.Course("promote docs", lambda: next(moments))
    assert course.line() is None
    course("training", 0, 0)
    assert course.line() == "promote docs: training, for 40 s"
    course("building", 200_000, 1_000_000)  # of an earlier run
    course("building", 400_000, 1_000_000)
    assert course.line() == "promote docs: building: 400,000 of 1,000,000 rows (40 %), 20,000/s, 30 s left"


def test_what_has_not_moved_has_no_rate() -> None:
    course = progress.Course("", lambda: 1.0)
    course("building", 7, 9)
    assert course.line() == "building: 7 of 9 rows (77 %)"


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.002)


class Listening(Console):
    """Lets a test wait for its remarks."""

    noted: queue.SimpleQueue[str] = queue.SimpleQueue()

    def note(self, text: str) -> None:
        self.noted.put(text)


@pytest.mark.usefixtures("often")
def test_lines_come_though_nothing_is_told_meanwhile() -> None:
    console = Listening(as_json=False, is_quiet=False)
    with progress.shown(console) as told:
        told("training", 0, 0)
        for _ in range(2):
            assert console.noted.get(timeout=20).startswith("training, for ")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("silent", ["as_json", "is_quiet"])
def test_nothing_is_written_where_nobody_wants_it(silent: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=silent == "as_json", is_quiet=silent == "is_quiet")
    with progress.shown(console) as told:
        told("training", 0, 0)
    assert "faissbase-progress-lines" not in {thread.name for thread in threading.enumerate()}
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("often")
def test_a_build_and_a_move_of_a_job_leave_lines_in_its_log(cli: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((3000, 8), np.float32))
    out = tmp_path / "bucket"
    ran = cli("shards", "build", tmp_path / "x.npy", "--out", out, "--name", "docs", "--executor", "inline")
    assert ran.code == 0
    assert "building: " in ran.err
    assert "of 3,000 rows" in ran.err
    assert "rows (" not in ran.out
    cli("load", tmp_path / "x.npy", "docs", "--data", tmp_path / "data")
    moved = cli("promote", "docs", tmp_path / "moved", "--data", tmp_path / "data")
    assert moved.code == 0
    assert "promote docs: records: " in moved.err
