"""docs/memory-ranking.md: its program runs and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faissbase.memory.ranking import NEAREST

PAGE = (Path(__file__).parents[2] / "docs" / "memory-ranking.md").read_text()


def test_the_program_of_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    said = re.findall(r"^print\(.*?\)  # (.*)$", program, re.MULTILINE)
    exec(compile(program, "docs/memory-ranking.md", "exec"), {})
    assert len(said) == 2
    assert capsys.readouterr().out.splitlines() == said


def test_the_bounds_of_the_page_are_those_of_the_code() -> None:
    assert f"the `NEAREST` ({NEAREST}) largest" in PAGE
