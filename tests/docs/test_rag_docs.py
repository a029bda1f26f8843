"""docs/rag.md and the example of a RAG run as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from faissbase.rag import DocumentIndex, FAISSVectorStore

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rag.md").read_text()


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    names: dict[str, object] = {"__name__": "page"}
    exec(compile("\n".join(blocks), "docs/rag.md", "exec"), names)
    index, store = names["index"], names["store"]
    assert isinstance(index, DocumentIndex)
    assert isinstance(store, FAISSVectorStore)
    assert [each.version for each in index.list_versions()] == ["2"]
    assert "docs/rag.md" in index.sources()
    assert sorted(path.name for path in (tmp_path / "my-store").iterdir()) == [
        "index.1.faiss",
        "metadata.1.json",
        "store.json",
        "vectors.1.faiss",
    ]


def test_every_public_method_is_on_the_page_and_has_a_docstring() -> None:
    for owner in (FAISSVectorStore, DocumentIndex):
        for name, member in vars(owner).items():
            if not name.startswith("_") and callable(getattr(owner, name)):
                assert name in PAGE, name
                assert member.__doc__, name


def _example(folder: Path, *words: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / "rag_markdown.py"), *words]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_example_answers_offline_and_embeds_only_what_changes(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", docs)
    first = _example(tmp_path, "docs", "Why does cosine store unit vectors and their length?")
    assert "added: docs/decisions/001-unit-vectors-and-norms.md" in first
    assert "[1] docs/decisions/001-unit-vectors-and-norms.md > 1. Cosine stores unit vectors" in first
    assert "Question: Why does cosine store" in first
    (docs / "server.md").unlink()
    (docs / "new.md").write_text("# Teapots\n\nA teapot answers 418.\n")
    second = _example(tmp_path, "docs", "What does a teapot answer?", "-k", "1")
    assert "removed: docs/server.md" in second
    assert "added: docs/new.md" in second
    assert "1 embedded now" in second
    assert "[1] docs/new.md > Teapots\n# Teapots\n\nA teapot answers 418." in second
