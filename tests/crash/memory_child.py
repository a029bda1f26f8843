"""Writes a conversation memory, and is killed at the n-th point between database and index.

    python -m tests.crash.memory_child FOLDER FIRST STEP   n = FIRST, FIRST + STEP, ... in a fork, on FOLDER/n
    python -m tests.crash.memory_child --write DATABASE WORD N
                                                     N messages, for two at once

What was acknowledged is in FOLDER/n/acknowledged, one letter an operation.
"""

from __future__ import annotations

import functools
import json
import os
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


def die_at(n: int) -> None:
    """Have this process kill itself at the n-th point that it passes."""
    left = n

    def pass_point() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

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


def main() -> None:
    if sys.argv[1] == "--write":
        database, word, n_words = sys.argv[2:]
        with ContextMemory(database, Letters()) as memory:
            for number in range(int(n_words)):
                memory.add(f"{word} {number}", "c")
        return
    first, step = map(int, sys.argv[2:])
    for n in range(first, 10_000, step):
        folder = Path(sys.argv[1]) / str(n)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            die_at(n)
            run(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, f"point {n}: see stderr"
            return
        assert os.WTERMSIG(status) == signal.SIGKILL


if __name__ == "__main__":
    main()
