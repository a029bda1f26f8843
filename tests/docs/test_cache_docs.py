"""docs/cache.md and the cached client run as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from faissbase.cache import Counters, SemanticCache

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cache.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_there_are_examples() -> None:
    assert len(BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_pages_python_runs(block: str) -> None:
    exec(compile(block, "cache.md", "exec"), {"__name__": "page"})


def test_the_page_names_every_method_and_counter() -> None:
    public = [name for name in vars(SemanticCache) if not name.startswith("_")]
    left_out = {"close", "threshold", "scope", "purge"}
    missing = [name for name in public if name not in left_out and name not in PAGE]
    assert missing == []
    assert [name for name in Counters.__dataclass_fields__ if name not in PAGE] == []


def test_the_cached_client_runs_offline() -> None:
    pytest.importorskip("openai")
    program = [sys.executable, str(ROOT / "examples" / "cached_client.py")]
    told = subprocess.run(program, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert [line.split(":")[0] for line in told[:5]] == ["model", "cache", "cache", "model", "model"]
    assert told[5] == "3 of 5 questions reached the model"
