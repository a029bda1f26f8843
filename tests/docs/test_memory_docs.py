"""docs/memory.md and examples/chatbot_with_memory.py run, offline, and print what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "memory.md").read_text()
EXAMPLE = REPOSITORY / "examples" / "chatbot_with_memory.py"


def test_the_programs_of_the_page_print_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    program = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
    said = re.findall(r"^ *print\(.*?\)\s+#\s*(.*)$", program, re.MULTILINE)
    exec(compile(program, "docs/memory.md", "exec"), {})
    assert len(said) == 6
    assert capsys.readouterr().out.splitlines() == said


def _talk(database: Path, *lines: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(database)],
        input="\n".join([*lines, ""]) + "\n",
        text=True,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return [line.removeprefix("> ") for line in done.stdout.splitlines()[1:] if line != "> "]


def test_the_chatbot_remembers_from_one_run_to_the_next(tmp_path: Path) -> None:
    database = tmp_path / "memory.db"
    assert _talk(database, "My dog is called Rex.", "I was born in Porto.", "What is my dog called?") == [
        "I will remember that.",
        "I will remember that.",
        "You told me: My dog is called Rex.",
    ]
    assert _talk(database, "Where was I born?") == ["You told me: I was born in Porto."]


def test_the_bounds_of_the_page_are_those_of_the_code() -> None:
    from faissbase.memory.changes import LINKED_FROM, LINKS_MAX
    from faissbase.memory.searching import APPENDED_MAX, LINKS_A_HIT
    from faissbase.memory.standing import DECAY_A_DAY, USUAL_IMPORTANCE
    from faissbase.memory.summary import EVERY

    assert (LINKED_FROM, LINKS_MAX, LINKS_A_HIT, APPENDED_MAX, EVERY) == (0.6, 5, 2, 3, 20)
    assert f"exp(-{DECAY_A_DAY} \u00d7 days)" in PAGE
    assert f"{USUAL_IMPORTANCE} where none was set" in PAGE
