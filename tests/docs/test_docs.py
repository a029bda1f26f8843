"""The README's own commands run; every command and public method is documented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.collection.collection import LocalCollection

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_readme_python_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = _blocks(README, "python")
    assert len(blocks) >= 5
    program = compile("\n".join(blocks), "README.md", "exec")
    exec(program, {"__name__": "readme"})
    assert (tmp_path / "restored" / "catalog.sqlite").exists()


def test_readme_commands_run(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    table = pa.table(
        {
            "id": [f"a{i}" for i in range(20)],
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8),
            "document": [f"cheap flights to city {i}" for i in range(20)],
        }
    )
    parquet.write_table(table, tmp_path / "articles.parquet")
    commands = [
        line.split("#")[0].strip()
        for block in _blocks(README, "sh")
        for line in block.splitlines()
        if line.startswith("faissbase ")
    ]
    assert len(commands) >= 6
    for command in commands:
        line = f"{sys.executable} -m {command}"
        run = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=tmp_path)
        assert run.returncode == 0, f"{command}: {run.stderr}"
    assert (tmp_path / "monday.tar").exists()
    assert json.loads((tmp_path / "articles.jsonl").read_text().splitlines()[0])["id"] == "a0"


def test_core_imports_without_any_extra() -> None:
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        extras = {'pyarrow', 'pandas', 'chromadb', 'lancedb', 'torch', 'psutil'}
        extras |= {'starlette', 'uvicorn', 'msgspec', 'prometheus_client', 'zstandard', 'httpx', 'tomli'}
        extras |= {'async_timeout'}
        extras |= {'cryptography', 'opentelemetry'}
        if name.split('.')[0] in extras:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import faissbase
import faissbase.cli.main
db = faissbase.connect(':memory:')
docs = db.create_collection('docs', 2)
docs.add(['a'], [[1, 0]])
result = docs.search([[1, 0]])
try:
    result.to_arrow()
except faissbase.NotReadyError as error:
    print(error)
db.close()
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "faissbase[arrow]"' in run.stdout


def test_every_public_name_has_a_docstring() -> None:
    for name in faissbase.__all__:
        if name != "__version__":
            assert getattr(faissbase, name).__doc__, name
    for name, member in vars(LocalCollection).items():
        if not name.startswith("_") and name not in {"name", "dimension", "metric", "index_type"}:
            assert member.__doc__, name


def test_every_command_is_in_the_readme_or_changelog() -> None:
    listed = (ROOT / "CHANGELOG.md").read_text() + README
    run = subprocess.run(
        [sys.executable, "-m", "faissbase", "--help"], capture_output=True, text=True, check=True
    )
    for command in (
        "demo",
        "load",
        "search",
        "stats",
        "plan",
        "verify",
        "repair",
        "export",
        "backup",
        "restore",
        "bench",
        "serve",
        "keys",
        "shards",
    ):
        assert command in run.stdout
        assert command in listed


def test_architecture_names_every_module_of_the_core() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = [
        path.stem
        for folder in ("collection", "database", "storage", "ann", "filters", "server", "client")
        for path in (ROOT / "src" / "faissbase" / folder).glob("*.py")
        if path.stem != "__init__"
    ]
    missing = [name for name in modules if f"`{name}`" not in text]
    assert not missing
