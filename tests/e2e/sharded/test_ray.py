"""Four workers on three Ray nodes of this machine: answers, kills, a node lost, versions switched under load.

The tests of this file use one cluster, in their order: the last one takes a node away.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import executor_tasks as tasks
from tests.e2e.server.running import Running, done, made, new_key, refused

import faissbase
from faissbase.errors import (
    AlreadyExistsError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.sharded import runner
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.placement import Placement
from faissbase.sharded.ray_executor import RayExecutor
from faissbase.sharded.routes import RoutedDatabase

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")

D, N = 32, 2000
STORE_BYTES = 80 << 20
STRENGTH_S = 30.0
_PAUSE_S = 0.01  # between two questions of a thread: workers that start anew need the processors too


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


@dataclass
class Tier:
    """A cluster of a head and two nodes, the deployment on it, and the same data in this process."""

    nodes: Any
    lost_node: Any
    cluster: runner.RayCluster
    local: ShardedDatabase
    far: RoutedDatabase
    folder: Path

    @property
    def docs(self) -> tuple[ShardedCollection, ShardedCollection]:
        return self.local.get_collection("docs"), self.far.get_collection("docs")


@pytest.fixture(scope="module")
def tier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tier]:
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("ray")
    url = (folder / "bucket").as_uri()
    local = faissbase.connect(url, cache=folder / "local", refresh_s=0)
    docs = local.create_collection("docs", D, metric="l2")
    for i in range(4):
        ids = [f"i{j}" for j in range(i * N, (i + 1) * N)]
        docs.upsert(ids, vectors(N, i), [{"n": j} for j in range(N)], [f"word{j % 50}" for j in range(N)])
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    nodes: Any = Cluster(initialize_head=True, head_node_args=head)
    added = [nodes.add_node(num_cpus=4, object_store_memory=STORE_BYTES) for _ in range(2)]
    ray.init(address=nodes.address, log_to_driver=False)
    cluster = runner.deploy(url, workers=4, replicas=2, cache=folder / "cache", wait_s=120)
    far = faissbase.connect("ray://auto", cache=folder / "far", refresh_s=0)
    yield Tier(nodes, added[1], cluster, local, far, folder)  # type: ignore[arg-type]
    far.close()
    local.close()
    cluster.stop()
    ray.shutdown()
    nodes.shutdown()


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


def test_answers_are_those_of_one_process(tier: Tier) -> None:
    local, far = tier.docs
    xq, where = vectors(20, 9), {"n": {"$lt": 700}}
    for filter in (None, where):
        here, there = local.search(xq, 10, filter), far.search(xq, 10, filter)
        assert (here.ids, there.complete) == (there.ids, True)
        np.testing.assert_array_equal(here.distances, there.distances)
        assert list(far.search(xq[0], 10, filter)) == list(local.search(xq[0], 10, filter))
    assert far.range_search(xq[:3], 20.0).ids == local.range_search(xq[:3], 20.0).ids
    assert list(far.text_search("word7", 30)) == list(local.text_search("word7", 30))
    assert list(far.hybrid_search("word7", xq[0])) == list(local.hybrid_search("word7", xq[0]))
    assert far.count(where) == local.count(where) == 2800
    got = far.get(["i7", "nobody", "i6000"], include_vectors=True)
    assert [(each.id, each.document) for each in got] == [("i7", "word7"), ("i6000", "word0")]
    np.testing.assert_array_equal(got[0].vector, vectors(N, 0)[7])
    assert far.scroll(where, limit=900).cursor == local.scroll(where, limit=900).cursor
    assert far.explain(xq, 10).shards.keys() == local.explain(xq, 10).shards.keys()
    assert far.stats().ntotal == 4 * N


def test_replicas_are_on_different_nodes(tier: Tier) -> None:
    status = tier.cluster.status()
    assert status.is_at_full_strength
    assert len(set(status.workers.values())) == 2
    for workers in followed(tier, tier.docs[1].version).values():
        assert len({status.workers[worker] for worker in workers}) == 2


def test_the_documented_example_runs(tier: Tier) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "scale.md").read_text()
    [example] = re.findall(r"^```python\n([^`]*ray://auto.*?)^```", guide, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"vector": vectors(1, 0)[0]}
    exec(compile(example.replace("en", "none"), "scale.md", "exec"), names)
    assert list(names["hits"]) == []
    exec(compile(example.replace(', where={"lang": "en"}', ""), "scale.md", "exec"), names)
    assert names["hits"][0].id == "i0"


def test_a_server_in_front_of_the_workers_answers_as_one_process(
    tier: Tier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", tier.nodes.address)
    folder, xq, where = made(tmp_path / "keys"), vectors(20, 9), {"n": {"$lt": 700}}
    _, own = new_key(folder, "default", "read", "write")
    _, others = new_key(folder, "acme", "read")
    with Running(folder, "--shards", "ray://auto", "--refresh-s", 0.1) as running:
        with faissbase.connect(running.url, api_key=own) as db:
            docs, local = db.get_collection("docs"), tier.docs[0]
            for filter in (None, where):
                assert docs.search(xq, 10, filter).ids == local.search(xq, 10, filter).ids
            assert docs.count(where) == local.count(where)
            assert docs.upsert(["new"], xq[:1]) == 1
            assert docs.search(xq[0], 1)[0].id == "new"
            assert docs.delete(["new"]) == 1
        with running.client(own) as client:
            assert [each["placement"] for each in done(client.get("/index"))["indexes"]] == ["sharded"]
        with running.client(others) as client:
            assert "'faissbase-acme'" in refused(client.get("/index"), 404, "not_found")
        assert running.stop() == 0


def test_no_query_is_lost_when_an_actor_is_killed(tier: Tier) -> None:
    with Load(searching(tier)) as load:
        pid = min(tier.cluster.status().pids.values())
        os.kill(pid, signal.SIGKILL)
        told = until_strong(tier, lambda: pid not in tier.cluster.status().pids.values())
        load.wait_for(20)
        print(f"\nactor killed: {told}, {load.n_asked} queries")
    assert load.wrong == []


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


def followed(tier: Tier, version: int) -> Placement:
    """Where the shards are, once the client knows of both replicas of each."""
    until = time.monotonic() + 10
    while True:
        placed = tier.far._routes.placement("docs", version)
        if {len(workers) for workers in placed.values()} == {2}:
            return placed
        assert time.monotonic() < until, placed
        time.sleep(0.05)


def test_both_replicas_killed_is_an_error_or_told_and_then_over(tier: Tier) -> None:
    version = tier.docs[1].version
    placed = followed(tier, version)
    shard, pair = next(iter(placed.items()))
    lost = {name for name, workers in placed.items() if set(workers) == set(pair)}
    with tier.cluster.connect(tier.folder / "partial", allow_partial=True, refresh_s=0) as db:
        partial = db.get_collection("docs")
        assert partial.search(vectors(1, 9)[0]).complete
        pids = tier.cluster.status().pids
        for name in pair:
            os.kill(pids[name], signal.SIGKILL)
        until = time.monotonic() + 10
        while (answer := partial.search(vectors(1, 9)[0], 10)).complete:  # a signal takes its time
            assert time.monotonic() < until
        assert shard in answer.shards_missing
        assert set(answer.shards_missing) <= lost
        with suppress(UnavailableError):  # unless workers have been started anew by now
            assert tier.docs[1].search(vectors(1, 9)[0], 10).complete
        until_strong(tier, lambda: not set(pids.values()) <= set(tier.cluster.status().pids.values()))
        assert partial.search(vectors(1, 9)[0]).complete


def test_versions_are_switched_under_load_and_never_mixed(tier: Tier) -> None:
    """Each version moves all records of a collection: an answer of two of them would show two distances."""
    moving = tier.local.create_collection("moving", D, metric="l2")
    ids, x = [f"i{j}" for j in range(100)], np.zeros((100, D), np.float32)
    for part in range(2):
        moving.upsert(ids[part::2], x[part::2])
    far = tier.far.get_collection("moving")
    seen: set[float] = set()

    def ask(i: int) -> object:
        distances = [hit.distance for hit in far.search(np.zeros(D, np.float32), 100)]
        seen.update(distances)
        return None if (len(distances), len(set(distances))) == (100, 1) else distances

    with Load(ask) as load:
        for version in range(1, 4):
            x[:, 0] = version
            moving.upsert(ids, x)
            far.refresh()
            load.wait_for(20)
    assert load.wrong == []
    assert seen == {0.0, 1.0, 4.0, 9.0}


def test_writes_go_through_workers(tier: Tier) -> None:
    _, far = tier.docs
    far.upsert(["new"], vectors(1, 500))
    assert far.search(vectors(1, 500)[0], 1)[0].id == "new"
    assert far.delete("new") == 1
    tier.local.refresh()


def test_wrong_deployments_are_refused_in_words(tier: Tier) -> None:
    url = (tier.folder / "bucket").as_uri()
    with pytest.raises(AlreadyExistsError, match="'faissbase' runs on this cluster, of 4 workers"):
        runner.deploy(url, workers=1, replicas=1, cache=tier.folder / "x", wait_s=1)
    with pytest.raises(
        NotReadyError, match=r"no room for 3 workers.*1\.0 GiB|each worker wants 1 CPU and 900"
    ):
        runner.deploy(
            url, workers=3, replicas=1, name="big", memory_per_worker=900 << 30, cache=tier.folder, wait_s=0
        )
    with pytest.raises(NotFoundError, match="no deployment 'other'"):
        faissbase.connect("ray://auto/other", cache=tier.folder)
    with pytest.raises(InvalidInputError, match="api_key"):
        faissbase.connect("ray://auto", api_key="x")


def test_tasks_run_on_ray_and_are_run_again_when_their_workers_die(tmp_path: Path, tier: Tier) -> None:
    executor = RayExecutor(workers=2)
    assert sorted(executor.run(tasks.square, range(5))) == [(i, i * i) for i in range(5)]
    with pytest.raises(InvalidInputError, match="told"):
        list(executor.run(tasks.refuse, ["told"]))
    items = [(tmp_path, i, 1 if i == 1 else 0) for i in range(3)]
    assert dict(executor.run(tasks.die_at_first, items)) == {0: 0, 1: 1, 2: 2}
    assert len(list(tmp_path.iterdir())) == 4  # one of them twice
    with pytest.raises(UnavailableError, match="died 4 times"):
        list(executor.run(tasks.die_at_first, [(tmp_path, 9, 99)]))
    executor.close()


def is_one(tier: Tier) -> bool:
    """Whether all workers are on one node."""
    return len(set(tier.cluster.status().workers.values())) == 1


def test_no_query_is_lost_when_a_node_is_killed(tier: Tier) -> None:
    with Load(searching(tier)) as load:
        before = tier.cluster.status().pids
        tier.nodes.remove_node(tier.lost_node, allow_graceful=False)
        told = until_strong(tier, lambda: len(tier.cluster.status().pids) < len(before) or is_one(tier))
        load.wait_for(20)
        print(f"\nnode killed: {told}, {load.n_asked} queries")
    assert load.wrong == []
