"""The steps of the Dockerfile, done by hand in a clean folder: it installs, starts and is healthy."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()


def _of(instruction: str) -> list[str]:
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{instruction} ")]


def test_all_that_the_image_needs_is_copied_and_let_through() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [word for line in _of("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert copied == ["pyproject.toml", "README.md", "LICENSE", "src"]
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_it_runs_as_nobody_special_on_one_volume_and_needs_keys() -> None:
    assert _of("USER") == ["10001"]
    assert _of("VOLUME") == ["/data"]
    environment = dict(line.split("=", 1) for line in _of("ENV"))
    assert environment["FAISSBASE_DATA"] == "/data"
    assert "FAISSBASE_INSECURE" not in environment


@pytest.mark.slow
def test_what_is_copied_installs_starts_and_is_healthy(tmp_path: Path) -> None:
    source, installed, data = tmp_path / "src", tmp_path / "installed", tmp_path / "data"
    source.mkdir()
    data.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(installed),
        ".",
    ]
    subprocess.run(install, cwd=source, check=True)
    console = Path("faissbase", "server", "console")
    assert _names(installed / console) == _names(ROOT / "src" / console)
    environment = dict(line.split("=", 1) for line in _of("ENV") if not line.startswith("PATH"))
    environment |= {"FAISSBASE_DATA": str(data), "FAISSBASE_PORT": "0", "PYTHONPATH": str(installed)}
    environment["PATH"] = os.environ["PATH"]
    command = [sys.executable, "-m", "faissbase"]
    refused = subprocess.run([*command, "serve"], env=environment, capture_output=True, text=True, cwd="/")
    assert refused.returncode == 4
    assert "no API key yet" in refused.stderr
    make = [*command, "keys", "create", "--tenant", "acme", "--scopes", "write", "--json"]
    made = subprocess.run(make, env=environment, capture_output=True, text=True, check=True, cwd="/")
    assert json.loads(made.stdout)["key"].startswith("fb_")
    with subprocess.Popen(
        [*command, "serve"], env=environment, stderr=subprocess.PIPE, text=True, cwd="/"
    ) as server:
        assert server.stderr is not None
        found = re.search(r":(\d+) ", server.stderr.readline())
        assert found is not None
        try:
            check = json.loads(_of("HEALTHCHECK")[0].partition("CMD ")[2])
            check = [sys.executable, *[word.replace("8000", found[1]) for word in check[1:]]]
            assert _passes(check)
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 0


def _names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def _passes(check: list[str]) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if subprocess.run(check, capture_output=True).returncode == 0:
            return True
    return False
