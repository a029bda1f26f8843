"""Killed while an index is built: what was published serves, the rest is built by whoever opens next."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.demo.dataset import load_queries
from faissbase.types import Float32

N, CHECKPOINT, TARGET = 16_000, 4_000, 0.95
_PATIENCE_S = 120.0

_BUILD = f"""
import sys
import faissbase
from faissbase.collection import building
from faissbase.demo.dataset import load_demo

building._CHECKPOINT_SLOTS_MIN = {CHECKPOINT}
demo = load_demo()
db = faissbase.connect(sys.argv[1])
docs = db.create_collection("docs", demo.vectors.shape[1])
docs.add(demo.ids[:{N}], demo.vectors[:{N}])
print("added", flush=True)
docs.optimize()
"""


def _recall(docs: LocalCollection, xq: Float32) -> float:
    exact = docs.search(xq, 10, recall=1.0).ids
    found = docs.search(xq, 10).ids
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)]))


def test_a_build_killed_after_a_checkpoint_goes_on_from_there(tmp_path: Path) -> None:
    xq = load_queries().query_vectors
    command = [sys.executable, "-c", _BUILD, str(tmp_path / "db")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"added\n"
        with faissbase.connect(tmp_path / "db", read_only=True) as db:
            docs = db.get_collection("docs")
            n_published = _first_checkpoint(docs)
            assert _recall(docs, xq[:100]) >= TARGET  # while it is being built
            builder.kill()
            builder.wait()
            assert _recall(docs, xq[:100]) >= TARGET
    assert 0 < n_published < N
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.get_collection("docs")
        assert docs.stats().slots_indexed >= n_published
        assert docs.verify().ok
        while not docs.maintain(threading.Event()):  # the background may be at it already
            time.sleep(0.05)
        docs.optimize()
        stats = docs.stats()
        assert (stats.slots_indexed, stats.damaged_segments) == (N, {})
        assert _recall(docs, xq) >= TARGET


def _first_checkpoint(docs: LocalCollection) -> int:
    """How many slots are indexed when that is more than none."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        n_indexed = docs.stats().slots_indexed
        if n_indexed:
            return n_indexed
        time.sleep(0.02)
    raise AssertionError("no checkpoint was published")
