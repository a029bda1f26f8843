"""docs/scale.md runs as it is written, and its figures are what the command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import orjson
import pytest

from faissbase.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
PLANNING = PAGE.partition("\n## Building")[0]  # the other sections have tests of their own
PYTHON = re.findall(r"^```python\n(.*?)^```", PLANNING, re.MULTILINE | re.DOTALL)
SHELL = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
    if line.startswith("faissbase plan ")
]


@pytest.fixture(autouse=True)
def without_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("FAISSBASE_COSTS", raising=False)


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_the_pages_python_runs(block: str) -> None:
    exec(compile(block, "scale.md", "exec"), {"__name__": "page"})


@pytest.mark.parametrize("line", SHELL)
def test_the_pages_plans_run(line: str) -> None:
    assert main(shlex.split(line, comments=True)[1:]) == 0


def test_the_pages_figures_are_the_commands(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main([*shlex.split(SHELL[0])[1:], "--json"]) == 0
    plan = orjson.loads(capfdbinary.readouterr().out)
    for shown in (
        f"| shards | {plan['shards']} | of {plan['rows_per_shard'] / 1e6:.1f} M rows",
        f"`{plan['factory']}`",
        f"| bytes a vector | {plan['bytes_per_vector']:.1f} |",
        f"| RAM a machine | {plan['ram_bytes_per_machine'] / 1e9:.1f} GB |",
        f"| build | {plan['build_core_hours']:.0f} core-hours |",
        f"| one query | {plan['cpu_ms_per_query_easy']:.0f} to {plan['cpu_ms_per_query']:.0f} ms of CPU |",
        f"| p50 | {plan['p50_ms_easy']:.0f} to {plan['p50_ms']:.0f} ms |",
    ):
        assert shown in PAGE
