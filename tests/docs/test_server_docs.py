"""docs/server.md: its session runs, and it leaves out no route, setting, metric or error."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import faissbase
from faissbase.server.app import OPERATIONS
from faissbase.server.faults import STATUSES
from faissbase.server.keys import Keys
from faissbase.server.metrics import Metrics
from faissbase.server.routing import PREFIX
from faissbase.server.settings import ABOUT, DEFAULTS, NAMES
from faissbase.server.watching import OPEN_OPERATIONS

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text()


def test_every_route_is_documented_with_its_scope() -> None:
    for op in (*OPERATIONS, *OPEN_OPERATIONS):
        path = PREFIX + op.path.replace(":rest", "")
        scope = "none" if op in OPEN_OPERATIONS else op.scope
        assert f"| `{op.methods[0]} {path}` | {scope} |" in PAGE, path


def test_no_route_is_documented_that_is_not_there() -> None:
    there = {
        f"{op.methods[0]} {PREFIX}{op.path.replace(':rest', '')}" for op in (*OPERATIONS, *OPEN_OPERATIONS)
    }
    assert set(re.findall(r"^\| `((?:GET|POST|DELETE) [^`]*)` \|", PAGE, re.MULTILINE)) == there


def test_every_setting_is_documented_with_its_default() -> None:
    for name in NAMES:
        default = DEFAULTS[name]
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        cell = f"`{shown}`" if shown else ""
        assert re.search(rf"^\| `{name}` \| {re.escape(cell)} ?\| ", PAGE, re.MULTILINE), name
        assert ABOUT[name].split(",")[0].split(";")[0] in PAGE.replace("`", ""), name


def test_every_metric_and_error_is_documented() -> None:
    names = re.findall(r"^# TYPE (faissbase_\w+)", Metrics().text([]).decode(), re.MULTILINE)
    assert len(names) >= 8
    for name in names:
        assert f"`{name}`" in PAGE, name
    for kind, status in STATUSES:
        assert re.search(rf"^\| {status} \|.*`{kind.kind}`", PAGE, re.MULTILINE), kind.kind


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A running server's address, and a key of it."""
    keys = Keys(_made(tmp_path / "data"))
    _, key = keys.create("acme", ["read", "write"])
    keys.close()
    command = [sys.executable, "-m", "faissbase", "serve", "--data", str(tmp_path / "data"), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"http://\S+", process.stderr.readline())
    assert found is not None
    yield found[0], key
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


def _made(folder: Path) -> Path:
    faissbase.connect(folder).close()
    return folder


def test_the_example_of_arrow_runs(server: tuple[str, str]) -> None:
    url, key = server
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    text = block[1].replace('"fb_..."', repr(key)).replace("http://127.0.0.1:8000", url)
    with faissbase.connect(url, api_key=key) as db:
        docs = db.create_collection("docs", 3)
        exec(compile(text, "docs/server.md", "exec"), {})
        assert docs.count({"section": "guide"}) == 1000


def test_the_session_of_the_page_runs(server: tuple[str, str]) -> None:
    url, key = server
    session = re.search(r"<!-- session.*?-->\n```sh\n(.*?)```", PAGE, re.DOTALL)
    assert session is not None
    commands = [text for text in session[1].split("\n\n") if text.strip()]
    assert len(commands) == 8
    answers = []
    for command in commands:
        text = command.replace("http://127.0.0.1:8000", url).replace("$KEY", key)
        words = [word for word in shlex.split(text) if word != "\n"]
        run = subprocess.run(words, capture_output=True, text=True, check=True, env=os.environ)
        answers.append(json.loads(run.stdout))
    assert answers[0]["name"] == "docs"
    assert answers[1] == {"upserted": 3}
    assert [hit["id"] for hit in answers[2]["results"]] == ["setup", "intro"]
    assert answers[3]["results"][0]["document"] == "How to install it"
    assert answers[4]["results"][0]["id"] == "setup"
    assert len(answers[5]["vectors"]) == 2
    assert answers[6] == {"deleted": 1}
    assert answers[7] == {"ntotal": 2}


def test_the_other_commands_of_the_page_run(server: tuple[str, str], tmp_path: Path) -> None:
    keys = Keys(tmp_path / "data")
    _, admin_key = keys.create("acme", ["admin"])
    keys.close()
    with faissbase.connect(server[0], api_key=server[1]) as db:
        db.create_collection("docs", 2).add(["a"], [[1, 0]])
    blocks = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "$ADMIN_KEY" in block]
    assert [len(block.strip().splitlines()) for block in blocks] == [2, 2]
    text = "\n".join(blocks).replace("http://127.0.0.1:8000", server[0])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ADMIN_KEY": admin_key}
    run = subprocess.run(
        ["bash", "-ec", text], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert '{"ok":true,"rows_checked":1,"problems":[]}{"actions":[]' in run.stdout
    with faissbase.connect(tmp_path / "data-again") as db:
        assert db.list_collections() == ["docs"]
