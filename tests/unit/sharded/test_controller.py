"""The controller over workers in threads: strength, losses, versions, scaling; its clock is a number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.shard_workers import ThreadFleet

import faissbase
from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.controller import Controller
from faissbase.sharded.placement import Placement
from faissbase.sharded.scaling import Bounds, wanted_workers

D = 8


class Tier:
    """A dataset of four shards and a controller of workers for it."""

    def __init__(self, folder: Path, bounds: Bounds, replicas: int = 2) -> None:
        url = (folder / "bucket").as_uri()
        self.db = faissbase.connect(url, cache=folder / "local", refresh_s=0)
        self.docs: ShardedCollection = self.db.create_collection("docs", D, metric="l2")
        for i in range(4):
            self.docs.upsert([f"i{j}" for j in range(i * 9, i * 9 + 9)], np.ones((9, D), np.float32))
        self.fleet = ThreadFleet(open_bucket(url), folder / "cache")
        self.time = 0.0
        self.bounds, self.replicas, self.bucket = bounds, replicas, open_bucket(url)
        self.controller = self.started()
        self.controller.look()
        self.controller.look()

    def started(self) -> Controller:
        return Controller(self.bucket, self.fleet, self.bounds, self.replicas, lambda: self.time)

    def placement(self) -> Placement:
        return self.controller.placement("docs", self.docs.version)

    def after(self, seconds: float) -> None:
        """A round later."""
        self.time += seconds
        self.controller.look()
        self.controller.mend()
        self.controller.follow()

    def close(self) -> None:
        self.fleet.close()
        self.db.close()


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[Tier]:
    made = Tier(tmp_path, Bounds(4, 4))
    yield made
    made.close()


def test_all_shards_are_opened_by_as_many_workers_as_replicas(tier: Tier) -> None:
    assert {len(workers) for workers in tier.placement().values()} == {2}
    status = tier.controller.status()
    assert (status.is_at_full_strength, len(status.workers)) == (True, 4)
    for shard, workers in tier.placement().items():
        for worker in workers:
            held = tier.fleet.workers[worker].server.health().held
            assert shard in held["docs", tier.docs.version]


def test_who_is_gone_is_not_told_to_clients_and_comes_back(tier: Tier) -> None:
    before = tier.placement()
    tier.fleet.workers["w1"].kill()
    tier.after(0.5)
    assert "w1" not in {worker for workers in tier.placement().values() for worker in workers}
    assert not tier.controller.status().is_at_full_strength
    tier.fleet.workers["w1"].restart()
    tier.controller.look()
    assert "w1" not in {worker for workers in tier.placement().values() for worker in workers}
    tier.after(0.5)
    assert tier.placement() == before, "nothing is moved for a short absence"
    assert tier.controller.status().is_at_full_strength


def test_shards_of_who_stays_away_move_to_others(tier: Tier) -> None:
    tier.placement()
    tier.fleet.workers["w1"].kill()
    for _ in range(8):
        tier.after(1.0)
    assert {len(workers) for workers in tier.placement().values()} == {2}
    status = tier.controller.status()
    assert (status.short, status.workers["w1"]) == ({}, None)


def test_shards_of_a_lost_node_move_at_once(tier: Tier) -> None:
    tier.placement()
    tier.fleet.lost_nodes = {"n1"}
    for name in ("w1", "w3"):
        tier.fleet.workers[name].kill()
    tier.after(0.5)
    assert set(map(frozenset, tier.placement().values())) == {frozenset({"w0", "w2"})}
    assert tier.controller.status().short == {}


def test_who_ends_for_good_is_replaced(tier: Tier) -> None:
    tier.placement()
    tier.fleet.stop("w0")
    for _ in range(3):
        tier.after(1.0)
    assert tier.fleet.names() == ["w1", "w2", "w3", "w4"]
    assert tier.controller.status().is_at_full_strength


def test_a_new_version_is_opened_and_an_old_one_let_go_when_nobody_asks(tier: Tier) -> None:
    tier.placement()
    old = tier.docs.version
    tier.docs.upsert("new", np.ones(D, np.float32))
    tier.after(1.0)
    assert tier.controller.status().versions == (("docs", old), ("docs", old + 1))
    tier.after(29.0)
    tier.controller.placement("docs", old)  # somebody still does
    tier.after(20.0)
    assert ("docs", old) in tier.controller.status().versions
    tier.after(20.0)
    assert tier.controller.status().versions == (("docs", old + 1),)
    assert tier.fleet.kept == [("docs", (old + 1,))]
    assert all({key[1] for key in w.server.health().held} == {old + 1} for w in tier.fleet.workers.values())


def test_another_controller_finds_shards_where_they_are(tier: Tier) -> None:
    before = tier.placement()
    tier.controller = tier.started()
    after = tier.placement()
    assert {name: set(workers) for name, workers in after.items()} == {
        name: set(workers) for name, workers in before.items()
    }
    assert len(tier.fleet.workers) == 4


def test_an_unknown_dataset_is_an_error(tier: Tier) -> None:
    with pytest.raises(NotFoundError):
        tier.controller.placement("nobody", 1)
    assert tier.controller.status().versions == ()


def test_workers_are_added_while_they_are_busy_and_leave_after_a_rest(tmp_path: Path) -> None:
    tier = Tier(tmp_path, Bounds(2, 4, looks_busy=3, looks_idle=5), replicas=1)
    try:
        tier.placement()
        for worker in tier.fleet.workers.values():
            worker.server._depth = 20
        for _ in range(5):
            tier.after(0.5)
        assert len(tier.fleet.workers) > 2
        for worker in tier.fleet.workers.values():
            worker.server._depth = 0
        for _ in range(60):
            tier.after(1.0)
        assert len(tier.fleet.workers) == 2
        assert tier.controller.status().is_at_full_strength
        assert all(len(workers) == 1 for workers in tier.placement().values())
    finally:
        tier.close()


@pytest.mark.parametrize(
    ("n", "depths", "wanted"),
    [
        (4, [9.0] * 6, 6),
        (4, [9.0] * 5, 4),
        (7, [9.0] * 6, 8),
        (8, [99.0] * 6, 8),
        (4, [9.0] * 5 + [1.0], 4),
        (4, [0.0] * 120, 3),
        (4, [0.0] * 119, 4),
        (4, [0.0] * 60 + [3.0] + [0.0] * 60, 4),
        (2, [0.0] * 500, 2),
    ],
)
def test_how_many_workers_follow(n: int, depths: list[float], wanted: int) -> None:
    assert wanted_workers(n, depths, Bounds(2, 8)) == wanted


def test_bounds_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="got 3 and 2"):
        Bounds(3, 2)
