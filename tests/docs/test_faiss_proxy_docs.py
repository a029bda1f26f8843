"""docs/faiss-proxy.md: its programs run, from top to bottom, against a server with keys."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import faiss
from tests.e2e.faiss.running import environment
from tests.e2e.server.running import Running, made, new_key

import faiss_proxy
from faiss_proxy import settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "faiss-proxy.md").read_text()


def _run(program: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_programs_of_the_page_run(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    folder = made(tmp_path / "data")
    _, key = new_key(folder, "acme", "read", "write")
    with Running(folder) as server:
        text = "\n".join(blocks).replace("http://127.0.0.1:8000", server.url).replace('"fb_..."', repr(key))
        _run(text, tmp_path)
        calls = [line for line in server.logged() if line.get("route") == "/v1/faiss"]
        assert {line["tenant"] for line in calls} == {"acme"}
        assert server.stop() == 0


def test_every_name_of_the_proxys_own_and_every_variable_is_documented() -> None:
    own = [name for name in faiss_proxy.__dict__ if not name.startswith("_") and not hasattr(faiss, name)]
    modules = {
        "annotations",
        "cache",
        "kmeans",
        "types",
        "Any",
        "classes",
        "connection",
        "counters",
        "exploring",
        "functions",
        "guarded",
        "names",
        "pointing",
        "settings",
        "several",
        "standins",
        "values",
    }
    missing = [name for name in own if name not in modules and name not in PAGE]
    assert set(missing) <= {"RemoteError", "contrib"}
    assert all(f"_{name}`" in PAGE for name in settings._VARIABLES)
