"""Writes a conversation memory, and is killed at the n-th point between database and index.

    python -m tests.crash.memory_child FOLDER STEP     n = 0, STEP, 2 * STEP, ... in a fork, on FOLDER/n
    python -m tests.crash.memory_child --copy FOLDER STEP
                                                     one run; FOLDER/n is a copy at each point n between those
    python -m tests.crash.memory_child --write DATABASE WORD N
                                                     N messages, for two at once

What was acknowledged is in FOLDER/n/acknowledged, one letter an operation.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from faissbase.memory import ContextMemory, files, replicas, save_vector_store
from faissbase.memory.store import FAISSVectorStore
from faissbase.storage import files as storage_files
from faissbase.types import Float32

ACKNOWLEDGED = "acknowledged"
OPERATIONS = "audsml"  # in their order: see `run`


class Letters:
    """Counts letters: deterministic, and different for different words."""

    name, dimension = "letters", 64

    def embed(self, texts: Sequence[str]) -> Float32:
        found = np.full((len(texts), self.dimension), 0.01, np.float32)
        for row, text in zip(found, texts, strict=True):
            for place, letter in enumerate(text.encode()):
                row[(letter * 7 + place) % self.dimension] += 1
        return found


def model(messages: list[dict[str, str]]) -> str:
    """Finds the same fact in whatever it is shown."""
    if "decisions" in messages[0]["content"]:
        return json.dumps({"decisions": []})
    return json.dumps({"facts": [{"text": "a learnt fact", "turn": 1}], "events": []})


def run(folder: Path) -> None:
    """Six operations, each acknowledged once it has returned."""
    acknowledged = os.open(folder / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(letter: str) -> None:
        os.write(acknowledged, letter.encode())

    database = folder / "memory.db"
    memory = ContextMemory(database, Letters())
    memory.add(["one apple", "two apples"], "c")
    acknowledge("a")
    memory.update(1, "one changed apple")
    acknowledge("u")
    memory.delete(2)
    acknowledge("d")
    with Session(memory.engine) as session:
        save_vector_store("c", session)
    acknowledge("s")
    memory.add("three more apples", "c")
    acknowledge("m")
    memory.close()
    with ContextMemory(database, Letters(), model) as learning:
        learning.add("four", "c")
    acknowledge("l")


def at_each_point(then: Callable[[int], None]) -> None:
    """Have this process call ``then`` with the number of each point that it passes."""
    numbers = itertools.count()

    def pass_point() -> None:
        then(next(numbers))

    def watched(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        @functools.wraps(real)
        def wrapper(*args: Any, **given: Any) -> Any:
            pass_point()
            found = real(*args, **given)
            pass_point()
            return found

        setattr(owner, name, wrapper)

    for owner, name in (
        (Session, "flush"),
        (Session, "commit"),
        (replicas.Replica, "synced"),
        (replicas, "_apply"),
        (FAISSVectorStore, "add_many"),
        (FAISSVectorStore, "remove"),
        (FAISSVectorStore, "load"),
        (files, "sync_data"),
        (files, "publish"),
        (storage_files, "sync_folder"),
    ):
        watched(owner, name)


def kill_runs(root: Path, step: int) -> None:
    """Run until killed, at one point in ``step``, and at last to the end."""
    for n in range(0, 10_000, step):
        folder = root / str(n)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            _die_at(n)
            run(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"point {n}: see stderr"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


def _die_at(n: int) -> None:
    def die(point: int) -> None:
        if point == n:
            os.kill(os.getpid(), signal.SIGKILL)

    at_each_point(die)


def copy_run(root: Path, step: int) -> None:
    """Run to the end; a copy at each of the other points is what a process killed there leaves."""
    folder = root / "run"
    folder.mkdir()

    def copy(point: int) -> None:
        if point % step:
            shutil.copytree(folder, root / str(point), ignore=shutil.ignore_patterns("*-shm"))

    at_each_point(copy)
    run(folder)
    folder.rename(root / "10000")


def _write(database: Path, word: str, n_words: int) -> None:
    with ContextMemory(database, Letters()) as memory:
        for number in range(n_words):
            memory.add(f"{word} {number}", "c")


def main() -> None:
    if sys.argv[1] == "--write":
        _write(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    elif sys.argv[1] == "--copy":
        copy_run(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        kill_runs(Path(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
