"""Workers in threads of this process, whose faults are planted: for tests of what asks them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from faissbase.sharded.bucket import Bucket
from faissbase.sharded.placement import Placement
from faissbase.sharded.worker import Call, Health, Reply, ShardServer, Version, Worker, WorkerGoneError


class ThreadWorker:
    """A `ShardServer` that is asked through threads.

    Attributes
    ----------
    fault : callable or None
        Given a call, may raise, wait, or answer something else; what it returns is the answer if not None.
    """

    def __init__(self, name: str, bucket: Bucket, cache: Path, node: str = "node") -> None:
        self.name = name
        self._bucket, self._cache, self._node = bucket, cache, node
        self._n_lives = 0
        self.server = self._started()
        self.fault: Callable[[Call], object] | None = None
        self.is_gone = False
        self.calls: list[Call] = []
        self._threads = ThreadPoolExecutor(8, thread_name_prefix=name)

    def _started(self) -> ShardServer:
        life = str(self._n_lives)
        return ShardServer(self._bucket, self._cache, life=life, node=self._node, now=time.monotonic)

    def call(self, call: Call) -> Future[Reply]:
        if self.is_gone:
            raise WorkerGoneError(f"worker {self.name} is gone")
        self.calls.append(call)
        return self._threads.submit(self._answered, call)

    def _answered(self, call: Call) -> Reply:
        if self.fault is not None:
            answer = self.fault(call)
            if answer is not None:
                return answer  # type: ignore[return-value]
        return self.server.answer(call)

    def kill(self) -> None:
        self.is_gone = True

    def restart(self) -> None:
        """Come back without anything that was open."""
        self._n_lives += 1
        self.server = self._started()
        self.is_gone = False

    def close(self) -> None:
        self._threads.shutdown()


class FixedRoutes:
    """Routes that a test sets."""

    def __init__(self, workers: Sequence[ThreadWorker], placement: Placement) -> None:
        self.workers = {worker.name: worker for worker in workers}
        self.placed = placement
        self.doubted: list[str] = []

    def placement(self, dataset: str, version: int) -> Placement:
        return self.placed

    def worker(self, name: str) -> Worker:
        return self.workers[name]

    def doubt(self, name: str) -> None:
        self.doubted.append(name)


class ThreadFleet:
    """A `Fleet` of such workers; ``nodes`` are given to them in turn."""

    def __init__(self, bucket: Bucket, cache: Path, nodes: Sequence[str] = ("n0", "n1")) -> None:
        self._bucket, self._cache, self._nodes = bucket, cache, nodes
        self.workers: dict[str, ThreadWorker] = {}
        self.n_started = 0
        self.lost_nodes: set[str] = set()
        self.kept: list[tuple[str, tuple[int, ...]]] = []
        self.lock = threading.Lock()

    def names(self) -> list[str]:
        return sorted(self.workers)

    def nodes(self) -> set[str]:
        return set(self._nodes) - self.lost_nodes

    def start(self) -> str:
        with self.lock:
            name = f"w{self.n_started}"
            node = self._nodes[self.n_started % len(self._nodes)]
            self.n_started += 1
        self.workers[name] = ThreadWorker(name, self._bucket, self._cache, node)
        return name

    def stop(self, name: str) -> None:
        self.workers.pop(name).close()

    def health(self, names: Iterable[str]) -> dict[str, Health | None]:
        found = {name: self.workers[name] for name in names if name in self.workers}
        return {name: None if worker.is_gone else worker.server.health() for name, worker in found.items()}

    def open(
        self, key: Version, shards: Mapping[str, tuple[str, ...]], is_living: Callable[[str], bool]
    ) -> set[str]:
        living = {name: part for name, part in shards.items() if not self.workers[name].is_gone}
        return {name for name, part in living.items() if not self.workers[name].server.open(*key, part)}

    def keep(self, dataset: str, versions: Iterable[int]) -> None:
        kept = tuple(sorted(versions))
        self.kept.append((dataset, kept))
        for worker in self.workers.values():
            worker.server.keep(dataset, kept)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()
