"""The parent's side of `tests.crash.child`: start a writer, read what it acknowledges, kill it."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_PATIENCE_S = 120.0


class Nursery:
    """One `tests.crash.child` process and the writer that it has forked. Use it with ``with``."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.crash.child"]
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._lines = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._lines, selectors.EVENT_READ)
        self._unread = b""

    def __enter__(self) -> Nursery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._jobs.close()
        self._process.wait(_PATIENCE_S)
        self._selector.close()
        self._lines.close()

    def run_and_kill(self, job: dict[str, Any], n_done: int, then_s: float) -> Counter[int]:
        """Start a job, let it acknowledge ``n_done`` operations and run on for a moment, kill it.

        Returns how many operations each thread has acknowledged.
        """
        self._jobs.write(json.dumps(job).encode() + b"\n")
        self._jobs.flush()
        started = self._line(time.monotonic() + _PATIENCE_S)
        assert started is not None
        process = int(started.removeprefix("started "))
        done: Counter[int] = Counter()
        self._count(done, time.monotonic() + _PATIENCE_S, n_done)
        self._count(done, time.monotonic() + then_s, None)
        os.kill(process, signal.SIGKILL)
        status = self._count(done, time.monotonic() + _PATIENCE_S, None)
        assert status == signal.SIGKILL, f"the writer ended by itself, status {status}: see stderr"
        return done

    def _count(self, done: Counter[int], deadline: float, enough: int | None) -> int | None:
        """Count acknowledgements until there are ``enough``, or time is up; or the writer's exit status."""
        while enough is None or done.total() < enough:
            line = self._line(deadline)
            if line is None:
                return None
            word, *numbers = line.split()
            if word == "ended":
                return int(numbers[0])
            thread, seq = map(int, numbers)
            assert seq == done[thread], f"thread {thread} acknowledged {seq} after {done[thread]}"
            done[thread] += 1
        return None

    def _line(self, deadline: float) -> str | None:
        while b"\n" not in self._unread:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._selector.select(left_s):
                return None
            data = os.read(self._lines.fileno(), 1 << 16)
            assert data, "the process that forks writers is gone: see stderr"
            self._unread += data
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()
