"""A process that forks writers, which are then killed: ``python -m tests.crash.child``.

Reads one JSON job a line from standard input and runs it in a fork of itself, which saves starting Python
and loading FAISS for every round. Writes to standard output: from the fork ``started PID`` and one
``done THREAD SEQ`` for each acknowledged operation, and ``ended STATUS`` once the fork is gone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from tests.crash.limits import quartered
from tests.crash.model import D, Operation, operation, perform, upsert_of

import faissbase
from faissbase.collection import writer
from faissbase.errors import AlreadyExistsError, NotFoundError
from faissbase.storage import sqlite

COLLECTION = "docs"
N_NAMES = 4


def tell(line: str) -> None:
    """One line to the parent, in one write, so that lines of threads never mix."""
    os.write(1, f"{line}\n".encode())


def write_forever(job: dict[str, Any]) -> None:
    """Run operations without end, telling of each that was acknowledged."""
    db = faissbase.connect(job["folder"])
    collection = db.get_or_create_collection(COLLECTION, dimension=D, metric="l2")
    n_threads = job["threads"]

    def run(thread: int) -> None:
        try:
            seq = 0
            while True:
                perform(collection, operation(job["seed"], thread, seq, may_reset=n_threads == 1))
                tell(f"done {thread} {seq}")
                seq += 1
        except BaseException:  # noqa: BLE001  # any end of a thread is the end of the process
            traceback.print_exc()
            os._exit(1)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def catalog_step(seed: int, seq: int) -> tuple[str, str, Operation]:
    """What step ``seq`` does: its verb, the name of the collection, and the upsert where it is one."""
    rng = np.random.default_rng((seed, seq))
    verb = str(rng.choice(["create", "create", "fill", "fill", "delete", "backup"]))
    name = f"c{rng.integers(N_NAMES)}"
    return verb, name, upsert_of("few", [f"{name}-{i}" for i in range(3)], rng, f"a{seed}x{seq}")


def change_catalog_forever(job: dict[str, Any]) -> None:
    """Create, fill, delete and back up collections without end."""
    db = faissbase.connect(job["folder"])
    seq = 0
    while True:
        verb, name, upsert = catalog_step(job["seed"], seq)
        try:
            if verb == "create":
                db.create_collection(name, dimension=D, metric="l2")
            elif verb == "fill":
                perform(db.get_collection(name), upsert)
            elif verb == "delete":
                db.delete_collection(name)
            else:
                db.backup(backup_path(Path(job["backups"]), job["seed"], seq))
        except (AlreadyExistsError, NotFoundError):
            pass
        tell(f"done 0 {seq}")
        seq += 1


def backup_path(folder: Path, seed: int, seq: int) -> Path:
    return folder / f"{seed}-{seq}.tar"


JOBS = {"write": write_forever, "catalog": change_catalog_forever}


def _run_in_fork(job: dict[str, Any]) -> None:
    process = os.fork()
    if process == 0:
        tell(f"started {os.getpid()}")  # by the fork itself, before anything that it acknowledges
        try:
            JOBS[job["job"]](job)
        except BaseException:  # noqa: BLE001  # told on stderr; the parent sees the exit status
            traceback.print_exc()
        os._exit(1)
    _, status = os.waitpid(process, 0)
    tell(f"ended {status}")


def _warm_up() -> None:
    """Import what every fork would otherwise import for itself, and leave no thread: forks have none."""
    faissbase.connect(":memory:").close()
    for seq in range(10):
        operation(0, 0, seq, may_reset=True)


def main() -> None:
    _warm_up()
    writer._REDO_BYTES_KEPT = 64 << 10  # so that redo copies are dropped, and WALs emptied, often enough
    sqlite._WAL_PAGES = 100
    with quartered():
        for line in sys.stdin:
            _run_in_fork(json.loads(line))


if __name__ == "__main__":
    main()
