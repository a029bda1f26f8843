"""The page about embedders runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "embedders.md").read_text()


def test_the_page_about_embedders_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [program] = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(program, "embedders.md", "exec"), names)
    assert names["vectors"].shape == (2, 1024)  # type: ignore[attr-defined]
    assert (tmp_path / "embeddings.sqlite").exists()
