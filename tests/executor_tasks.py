"""Tasks for executors: another process imports them by their names."""

from __future__ import annotations

import os
import signal
import time
import uuid
from pathlib import Path

from faissbase.errors import InvalidInputError


def square(item: int) -> int:
    return item * item


def refuse(message: str) -> None:
    raise InvalidInputError(message)


def divide(item: int) -> float:
    return 1 / item


def process(item: int) -> int:
    return os.getpid()


def meet(item: tuple[Path, int]) -> int:
    """Wait until so many processes are here; the number of this one."""
    folder, n = item
    (folder / str(os.getpid())).touch()
    deadline = time.monotonic() + 20
    while len(list(folder.iterdir())) < n:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return os.getpid()


def omp_threads(item: int) -> int:
    import faiss

    return int(faiss.omp_get_max_threads())


def die_at_first(item: tuple[Path, int, int]) -> int:
    """Kills its worker so many times before it answers."""
    folder, i, n_deaths = item
    (folder / f"{i}-{uuid.uuid4().hex}").touch()
    if len(list(folder.glob(f"{i}-*"))) <= n_deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return i


def hang(told: str) -> None:
    Path(told).write_text(str(os.getpid()))
    time.sleep(60)


class Unreadable:
    """Pickles, and cannot be unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return refuse, ("not to be read",)
