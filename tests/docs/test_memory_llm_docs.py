"""docs/memory-llm.md: its program runs and prints what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faissbase.memory.decisions import CANDIDATES
from faissbase.memory.extraction import LEAST_IMPORTANCE, MOST_CHARACTERS, MOST_ITEMS
from faissbase.memory.summary import EVERY
from faissbase.memory.turns import BATCH_CHARACTERS

PAGE = (Path(__file__).parents[2] / "docs" / "memory-llm.md").read_text()


def test_the_program_of_the_page_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    said = re.findall(r"^print\(.*#\s*(.*)$", program, re.MULTILINE)
    exec(compile(program, "docs/memory-llm.md", "exec"), {})
    assert len(said) == 3
    assert capsys.readouterr().out.splitlines() == said


def test_the_calls_that_need_a_server_are_calls_that_exist() -> None:
    (shown,) = re.findall(r"^```python no-run\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(shown, "docs/memory-llm.md", "exec"), names)
    assert getattr(names["model"], "name", None) == "qwen3"


@pytest.mark.parametrize(
    "words",
    [
        f"every {EVERY} turns",
        f"1 to {MOST_CHARACTERS:,} characters",
        f"up to {MOST_ITEMS} facts",
        f"from {LEAST_IMPORTANCE} to 1.0",
        f"longer than {BATCH_CHARACTERS:,} characters",
        "the ten nearest memories",
    ],
)
def test_the_bounds_of_the_page_are_those_of_the_code(words: str) -> None:
    assert CANDIDATES == 10
    assert words in PAGE.replace("\n", " ")
