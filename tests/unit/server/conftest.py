"""A clock that is set by hand, and a way to run command lines in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from faissbase.cli.main import main
from faissbase.database.database import connect


@dataclass
class Clock:
    """Seconds that pass when told to."""

    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command line ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ran]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty database."""
    connect(tmp_path / "data").close()
    return tmp_path / "data"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run ``faissbase`` with these words, in an empty folder and without settings in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("FAISSBASE_")]:
        monkeypatch.delenv(name)

    def run(*words: object) -> Ran:
        code = main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return run
