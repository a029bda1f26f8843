"""Placements: every shard on as many nodes as it should be, evenly, and moved no more than needed."""

from __future__ import annotations

import random

from faissbase.sharded.placement import held_by, moved_bytes, n_copies, place


def shards(n: int, seed: int = 0) -> dict[str, int]:
    random_ = random.Random(seed)
    return {f"s{i}": random_.randint(50, 150) for i in range(n)}


def loads(placement: dict[str, tuple[str, ...]], sizes: dict[str, int], workers: dict[str, str]) -> list[int]:
    return [sum(sizes[shard] for shard in held_by(placement, worker)) for worker in workers]


WORKERS = {f"w{i}": f"n{i % 3}" for i in range(6)}


def test_replicas_are_on_different_nodes_and_bytes_are_even() -> None:
    sizes = shards(40)
    placement = place(sizes, WORKERS, 2)
    for workers in placement.values():
        assert len({WORKERS[worker] for worker in workers}) == 2
    spread = loads(placement, sizes, WORKERS)
    assert max(spread) <= 1.2 * sum(spread) / len(spread)


def test_on_one_node_replicas_are_different_workers() -> None:
    placement = place(shards(4), {"a": "n", "b": "n"}, 2)
    assert all(sorted(workers) == ["a", "b"] for workers in placement.values())


def test_fewer_workers_than_replicas_hold_one_copy_each() -> None:
    assert place({"s": 1}, {"a": "n"}, 3) == {"s": ("a",)}
    assert place({"s": 1}, {}, 3) == {"s": ()}


def test_workers_that_would_idle_hold_more_copies() -> None:
    assert len(place({"s": 1}, WORKERS, 1)["s"]) == 6
    assert n_copies(3, 8, 1) == 2


def test_the_same_again_moves_nothing() -> None:
    sizes = shards(40)
    placement = place(sizes, WORKERS, 2)
    assert place(sizes, WORKERS, 2, placement) == placement


def test_a_lost_worker_moves_only_what_it_held() -> None:
    sizes = shards(40)
    before = place(sizes, WORKERS, 2)
    left = {worker: node for worker, node in WORKERS.items() if worker != "w1"}
    after = place(sizes, left, 2, before)
    lost = sum(sizes[shard] for shard in held_by(before, "w1"))
    assert moved_bytes(before, after, sizes) <= 1.35 * lost
    assert all(len(set(workers)) == 2 and "w1" not in workers for workers in after.values())


def test_a_new_worker_takes_about_its_share() -> None:
    sizes = shards(60)
    before = place(sizes, WORKERS, 2)
    more = {**WORKERS, "w6": "n0"}
    after = place(sizes, more, 2, before)
    share = 2 * sum(sizes.values()) / len(more)
    assert 0.5 * share < moved_bytes(before, after, sizes) <= 1.2 * share


def test_a_version_with_more_shards_leaves_the_old_ones_where_they_are() -> None:
    sizes = shards(20)
    before = place(sizes, WORKERS, 2)
    after = place({**sizes, "delta": 5}, WORKERS, 2, before)
    assert moved_bytes(before, after, {**sizes, "delta": 5}) == 10


def test_a_node_that_comes_later_gets_the_second_copies() -> None:
    """Two copies on one node are taken apart as soon as there is another node."""
    sizes = shards(10)
    before = place(sizes, {"a": "n0", "b": "n0"}, 2)
    nodes = {"a": "n0", "b": "n0", "c": "n1"}
    after = place(sizes, nodes, 2, before)
    assert all({nodes[worker] for worker in workers} == {"n0", "n1"} for workers in after.values())
