"""What docs/scale.md says of serving and moving runs as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from faissbase.cli.main import build_parser

pytest.importorskip("obstore")

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
SECTIONS = PAGE[PAGE.index("## Serving shards") :]


def test_the_move_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    block = re.findall(r"^```python\n(.*?)^```", SECTIONS[SECTIONS.index("## Moving") :], re.M | re.S)[0]
    exec(compile(block, "docs/scale.md", "exec"), {"__name__": "page"})
    out = capfd.readouterr().out
    assert re.search(r"^sharded 3$", out, re.M)
    assert re.search(r"^demoted 'docs' to moving-data: 3 records, each compared", out, re.M)


def test_the_commands_of_the_page_are_there() -> None:
    words = [shlex.split(line, comments=True) for line in re.findall(r"^faissbase .*$", SECTIONS, re.M)]
    assert len(words) >= 7
    for each in words:
        assert build_parser().parse_args(each[1:]).command == each[1]
