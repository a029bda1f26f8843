"""What docs/scale.md says of writing, compaction and cleaning up runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from faissbase.cli.main import main

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scale.md").read_text()
SECTION = PAGE[PAGE.index("## Writing, compaction and cleaning up") :]


def test_the_section_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = re.findall(r"^```python\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)[0]
    code = block.replace("/tmp/faissbase-writes", str(tmp_path / "writes"))
    exec(compile(code, "docs/scale.md", "exec"), {"__name__": "page"})
    promised = [line.partition("# ")[2] for line in block.splitlines() if "print(" in line]
    assert capsys.readouterr().out.splitlines() == promised
    url = (tmp_path / "writes").as_uri()
    for words in re.findall(r"^    faissbase (shards .*)$", SECTION, re.MULTILINE):
        assert main(words.replace("s3://vectors", url).split()) == 0
