"""Programs that import faiss, run in processes of their own: with FAISS itself, and with the proxy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.e2e.server.running import PATIENCE_S, Running

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
ROUTE = "/v1/faiss"
_PROGRAM_S = 300


def environment(**more: str) -> dict[str, str]:
    """Without settings of the proxy's, with ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAISS_PROXY_")}
    paths = os.pathsep.join(filter(None, (str(ROOT), str(ROOT / "src"), kept.get("PYTHONPATH", ""))))
    return {**kept, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", **more}


def run(*command: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A Python program, to its end; ``more`` is its environment."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=_PROGRAM_S,
        check=False,
    )


def with_faiss(program: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(HERE / "programs" / program, *words, cwd=cwd)


def with_proxy(
    program: str, *words: str, cwd: Path, url: str, is_mixed: bool = False, flags: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """The same program with ``sys.modules["faiss"]`` replaced; ``flags`` are those of ``replaced.py``."""
    mixed = ["--mixed"] if is_mixed else []
    command = [HERE / "replaced.py", *mixed, *flags, HERE / "programs" / program, *words]
    return run(*command, cwd=cwd, FAISS_PROXY_API_URL=url)


def n_calls(server: Running) -> int:
    """How many calls of FAISS the server's log tells of, once it tells of what comes after them."""
    with server.client() as http:
        server.line_of(http.get("/index").headers["x-request-id"])
    return sum(line.get("route") == ROUTE for line in server.logged())


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    stop = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < stop, what
        time.sleep(0.02)
