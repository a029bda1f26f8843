"""Processes of the command ``faissbase``, forked from one that has imported it: that saves half a second.

Imports nothing of the tests: whatever this module needs, each of the processes has.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.e2e.server.preloaded", __name__])


class Forked:
    """What tests use of a `subprocess.Popen`, for ``faissbase`` with these words; its ``stderr`` is read."""

    def __init__(self, words: Sequence[str], cwd: Path | None, environment: Mapping[str, str]) -> None:
        read, write = os.pipe()
        try:
            self._process = _CONTEXT.Process(
                target=_run, args=(_Passed(write), list(words), cwd or Path.cwd(), dict(environment))
            )
            self._process.start()
        finally:
            os.close(write)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stderr = os.fdopen(read, encoding="utf-8")

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(f"faissbase, process {self.pid}", timeout)
        return self._process.exitcode

    def send_signal(self, sign: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sign)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


class _Passed:
    """A file descriptor that the other process is given."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> Any:
        return _detached, (DupFd(self._descriptor),)


def _detached(passed: Any) -> int:
    descriptor: int = passed.detach()
    return descriptor


def _run(stderr: Any, words: list[str], cwd: Path, environment: dict[str, str]) -> None:
    nothing = os.open(os.devnull, os.O_WRONLY)
    for descriptor, standard in ((nothing, 1), (stderr, 2)):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    sys.stdout, sys.stderr = (os.fdopen(each, "w", buffering=1, closefd=False) for each in (1, 2))
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    from faissbase.cli.main import main

    sys.exit(main(words))
