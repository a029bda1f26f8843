"""Tasks that need a fresh process; each prints one line of JSON. Started by `process.in_fresh_process`."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.process import memory_kb

_USED = 200
_FILES_EACH = 16


def first_answer(kind: str, folder: str, argument: str) -> dict[str, Any]:
    """Connect to ``folder`` and answer once; what that took, import apart."""
    started = time.perf_counter()
    from faissbase import connect  # the name, for the modules behind it are imported with its first use

    imported = time.perf_counter()
    before = memory_kb()
    query = np.load(Path(folder) / "query.npy")
    begun = time.perf_counter()
    collection = connect(Path(folder) / "db").get_collection("bench")
    connected = time.perf_counter()
    if kind == "get":
        n_found = len(collection.get(ids=[argument]))
    else:
        where = json.loads(argument) if kind == "filter" else None
        n_found = len([hit.metadata for hit in collection.search(query, k=10, where=where)])
    done = time.perf_counter()
    after = memory_kb()
    return {
        "import_ms": 1e3 * (imported - started),
        "connect_ms": 1e3 * (connected - begun),
        "answer_ms": 1e3 * (done - begun),
        "n_found": n_found,
        "before": before,
        "after": after,
    }


def open_many(folder: str) -> dict[str, Any]:
    """Open every collection by name, then use some of them."""
    import faissbase

    db = faissbase.connect(folder)
    names = db.list_collections()
    before = memory_kb()
    collections = [db.get_collection(name) for name in names]
    opened = memory_kb()
    used = collections[:_USED]
    _allow_files(_USED * _FILES_EACH)
    query = np.ones(used[0].dimension, np.float32)
    for collection in used:
        collection.search(query, k=1)
    after = memory_kb()
    return {
        "n": len(names),
        "open_kb": (opened["rss"] - before["rss"]) / len(names),
        "n_used": len(used),
        "used_kb": (after["rss"] - opened["rss"]) / len(used),
        "used_anonymous_kb": (after["anonymous"] - opened["anonymous"]) / len(used),
    }


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"first_answer": first_answer, "open_many": open_many}

if __name__ == "__main__":
    print(json.dumps(TASKS[sys.argv[1]](*sys.argv[2:])))
