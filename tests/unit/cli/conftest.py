"""A small database and a way to run command lines in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from faissbase.cli.main import main
from faissbase.database.database import connect


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return orjson.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run ``faissbase`` with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FAISSBASE_DATA", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: object) -> Ran:
        code = main([str(word) for word in words])
        captured = capfdbinary.readouterr()
        return Ran(code, captured.out.decode(), captured.err.decode())

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A database with the collections ``docs`` (40 records, d=8) and ``empty``."""
    folder = tmp_path / "data"
    rng = np.random.default_rng(7)
    xb = rng.standard_normal((40, 8)).astype(np.float32)
    with connect(folder) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(
            [f"d{i}" for i in range(40)],
            xb,
            [{"n": i, "parity": "even" if i % 2 == 0 else "odd"} for i in range(40)],
            [f"document number {i}\nwith a second line" for i in range(40)],
        )
        db.create_collection("empty", 3)
    return folder
