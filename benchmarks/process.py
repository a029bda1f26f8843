"""Memory of this process, and measurements made in a fresh one. Linux only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_FIELDS = {"VmRSS": "rss", "RssAnon": "anonymous", "RssFile": "file"}


def memory_kb(process: int | str = "self") -> dict[str, int]:
    """Resident memory in kB: all of it, the part that is nobody's file, the part that is mapped files."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {name: int(values[field].split()[0]) for field, name in _FIELDS.items()}


def mapped_kb(suffix: str) -> int:
    """Resident memory of this process in kB that belongs to mapped files whose names end so."""
    total, is_meant = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name:
            is_meant = line.endswith(suffix)
        elif is_meant and name == "Rss":
            total += int(value.split()[0])
    return total


def in_fresh_process(task: str, *arguments: object, module: str = "benchmarks.child") -> dict[str, Any]:
    """What ``module`` prints about one task, run in a new process."""
    command = [sys.executable, "-m", module, task, *map(str, arguments)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    answer: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return answer
