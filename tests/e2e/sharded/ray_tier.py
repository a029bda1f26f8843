"""A dataset on Ray workers beside the same data in this process, and threads that ask both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import faissbase
from faissbase.errors import FaissbaseError
from faissbase.sharded import runner
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.routes import RoutedDatabase

D, N = 32, 2000
STORE_BYTES = 80 << 20
STRENGTH_S = 30.0
_PAUSE_S = 0.01  # between two questions of a thread: workers that start anew need the processors too


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


@dataclass
class Tier:
    """Ray nodes, the deployment on them, and the same data in this process."""

    nodes: Any
    lost_node: Any
    cluster: runner.RayCluster
    local: ShardedDatabase
    far: RoutedDatabase
    folder: Path

    @property
    def docs(self) -> tuple[ShardedCollection, ShardedCollection]:
        return self.local.get_collection("docs"), self.far.get_collection("docs")


def filled(url: str, cache: Path) -> ShardedDatabase:
    """A dataset ``docs`` of four shards."""
    local = faissbase.connect(url, cache=cache, refresh_s=0)
    docs = local.create_collection("docs", D, metric="l2")
    for i in range(4):
        ids = [f"i{j}" for j in range(i * N, (i + 1) * N)]
        docs.upsert(ids, vectors(N, i), [{"n": j} for j in range(N)], [f"word{j % 50}" for j in range(N)])
    return local


class Load:
    """Threads that ask again and again; what went wrong is in ``wrong``."""

    def __init__(self, ask: Callable[[int], object], n_threads: int = 4) -> None:
        self.n_asked = 0
        self.wrong: list[object] = []
        self._is_over = threading.Event()
        self._ask = ask
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(n_threads)]

    def _run(self, part: int) -> None:
        i = part
        while not self._is_over.is_set():
            try:
                wrong = self._ask(i)
            except FaissbaseError as error:
                wrong = error
            if wrong is not None:
                self.wrong.append(wrong)
            self.n_asked += 1
            i += len(self._threads)
            self._is_over.wait(_PAUSE_S)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Go on until so many more were asked."""
        wanted, until = self.n_asked + more, time.monotonic() + 60
        while self.n_asked < wanted and time.monotonic() < until:
            time.sleep(0.01)


def searching(tier: Tier) -> Callable[[int], object]:
    """Asks for the nearest; tells where an answer is another than it should be."""
    local, far = tier.docs
    xq = vectors(64, 99)
    truth = local.search(xq, 10).ids

    def ask(i: int) -> object:
        found = [hit.id for hit in far.search(xq[i % 64], 10)]
        return None if found == truth[i % 64] else (i, found, truth[i % 64])

    return ask


def until_strong(tier: Tier, and_also: Callable[[], bool] = lambda: True) -> str:
    """Wait for full strength; tells when it was missed, and when replicas and workers were there again."""
    began = time.monotonic()
    while not and_also():
        assert time.monotonic() - began < STRENGTH_S, tier.cluster.status()
        time.sleep(0.1)
    noticed_s = time.monotonic() - began
    replicas_s = None
    while not tier.cluster.status().is_at_full_strength:
        if replicas_s is None and not tier.cluster.status().short:
            replicas_s = time.monotonic() - began
        assert time.monotonic() - began < STRENGTH_S or replicas_s is not None, tier.cluster.status()
        assert time.monotonic() - began < 2 * STRENGTH_S, tier.cluster.status()
        time.sleep(0.1)
    all_s = time.monotonic() - began
    noticed = f"noticed after {noticed_s:.1f} s"
    return f"{noticed}, all replicas after {replicas_s or all_s:.1f} s, all workers after {all_s:.1f} s"
