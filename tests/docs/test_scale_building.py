"""The commands of docs/scale.md that build a dataset run as they are written, one after another."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from faissbase.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_builds_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(2):
        rows = np.random.default_rng(i).standard_normal((1500, 8), np.float32)
        np.save(tmp_path / f"vectors-{i}.npy", rows)
    [block] = [block for block in BLOCKS if block.startswith("faissbase shards build")]
    for line in block.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0
