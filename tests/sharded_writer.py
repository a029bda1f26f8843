"""A process that writes to a dataset, for tests that race such processes or kill them.

    python sharded_writer.py URL CACHE NAME SEED ROUNDS
    python sharded_writer.py

The second reads such words from stdin, a JSON list a line, and forks a writer for each: what loads FAISS is
done once. It tells ``{"pid": ...}`` before, and ``{"ended": ...}`` when the fork is gone. Acknowledged writes
are told on stdout, a line of JSON each, before the next one begins.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import orjson

import faissbase
from faissbase.errors import ConflictError

D = 4


def vector(seed: int, step: int) -> np.ndarray:
    """What a writer stores in a step."""
    return np.random.default_rng([seed, step]).standard_normal(D).astype(np.float32)


def main(url: str, cache: str, name: str, seed: int, rounds: int) -> None:
    chance = np.random.default_rng(seed)
    with faissbase.connect(url, cache=Path(cache), refresh_s=0) as db:
        docs = db.get_collection(name)
        tell({"ready": True})
        for step in range(rounds):
            ids = [f"i{i}" for i in chance.choice(12, 3, replace=False)]
            kind = str(chance.choice(["upsert", "upsert", "upsert", "delete", "compact"]))
            try:
                run(docs, kind, ids, seed, step)
            except ConflictError:  # others came first again and again: not written
                continue
            tell({"seed": seed, "step": step, "kind": kind, "ids": ids, "version": docs.version})


def run(
    docs: faissbase.sharded.collection.ShardedCollection, kind: str, ids: list[str], seed: int, step: int
) -> None:
    if kind == "upsert":
        own = [*ids, f"own-{seed}-{step}"]
        docs.upsert(own, np.stack([vector(seed, step)] * 4), [{"by": seed, "step": step}] * 4)
    elif kind == "delete":
        docs.delete(ids)
    else:
        docs.optimize()


def tell(what: dict[str, object]) -> None:
    os.write(1, orjson.dumps(what) + b"\n")  # in one write, so that lines of processes never mix


def serve() -> None:
    """Fork a writer for each line on stdin."""
    for line in sys.stdin.buffer:
        pid = os.fork()
        if not pid:
            main(*orjson.loads(line))
            os._exit(0)
        tell({"pid": pid})
        tell({"ended": os.waitpid(pid, 0)[1]})


if __name__ == "__main__":
    if len(sys.argv) == 1:
        import obstore  # noqa: F401  # loaded before the forks

        serve()
    else:
        main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
