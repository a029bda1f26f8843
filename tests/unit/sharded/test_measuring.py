"""Recall over the fan-out, from answers whose recall is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from faissbase.collection.frozen import FreshCollection
from faissbase.collection.inputs import rows_from_input
from faissbase.collection.store import Config
from faissbase.sharded import stages
from faissbase.sharded.measuring import Merging, answers_of

NOTHING = np.empty(0, np.int64)


def listed(distances: list[list[float]], first: int = 0) -> dict[str, Any]:
    slots = [[first + i for i in range(len(row))] for row in distances]
    return {"distances": distances, "slots": slots}


def test_what_one_shard_misses_counts_among_the_best_of_all() -> None:
    merging = Merging(1, "l2")
    near, far = [[float(i) for i in range(10)]], [[float(i) for i in range(100, 110)]]
    merging.add({"exact": listed(far), "found": listed(far)}, NOTHING)
    missed = [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 50.0, 51.0, 52.0]]
    merging.add({"exact": listed(near), "found": listed(missed)}, NOTHING)
    recall = merging.recall()
    assert (recall.k, recall.n_queries, recall.mean) == (10, 1, 0.7)


def test_larger_is_nearer_for_the_inner_product() -> None:
    merging = Merging(1, "ip")
    merging.add({"exact": listed([[9.0, 8.0, 7.0]]), "found": listed([[9.0, 7.0, 1.0]])}, NOTHING)
    assert merging.recall().mean == pytest.approx(2 / 3)


def test_replaced_rows_are_no_neighbours() -> None:
    merging = Merging(1, "l2")
    merging.add({"exact": listed([[1.0, 2.0, 3.0]]), "found": listed([[1.0, 2.0, 9.0]])}, np.array([2]))
    assert merging.recall().mean == 1.0
    merging = Merging(1, "l2")
    merging.add({"exact": listed([[1.0, 2.0, 3.0]]), "found": listed([[1.0, 9.0, 9.0]])}, np.array([0]))
    assert merging.recall().mean == 0.0


def test_ties_count_and_so_does_an_exact_shard() -> None:
    merging = Merging(1, "l2")
    merging.add({"exact": listed([[1.0, 2.0]]), "found": None}, NOTHING)
    merging.add({"exact": listed([[2.0, 5.0]], 7), "found": listed([[2.0, 6.0]], 3)}, NOTHING)
    assert merging.recall().mean == 0.75


def test_nothing_to_ask_has_no_recall() -> None:
    merging = Merging(2, "l2")
    merging.add({"exact": {"distances": [[None], [None]], "slots": [[-1], [-1]]}, "found": None}, NOTHING)
    assert merging.recall().mean is None


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[FreshCollection]:
    made = FreshCollection(tmp_path, Config("u", "c", 4, "l2", "auto"))
    yield made
    made.close()


def test_a_query_is_not_its_own_neighbour(collection: FreshCollection) -> None:
    x = np.random.default_rng(0).standard_normal((50, 4), np.float32)
    collection.put(rows_from_input([f"i{i}" for i in range(50)], x, None, None, 4, "l2"))
    answers = orjson.loads(orjson.dumps(answers_of(collection, x[:3], ["i0", "i1", "elsewhere"], 0.95)))
    nearest = [min(row[:5]) for row in answers["exact"]["distances"]]
    assert nearest[0] > 0
    assert nearest[1] > 0
    assert nearest[2] == 0
    assert [slots.count(i) for i, slots in enumerate(answers["exact"]["slots"])] == [0, 0, 1]


def test_rows_are_taken_out_of_a_sample_in_place() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 12))
        sample = np.arange(n, dtype=np.float32)[:, None]
        out = np.sort(rng.choice(n, int(rng.integers(1, n + 1)), replace=False))
        left = stages._without(sample, out)
        assert sorted(left[:, 0].tolist()) == sorted(set(range(n)) - set(out.tolist()))
        assert np.shares_memory(left, sample) or not len(left)
