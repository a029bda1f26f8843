"""The measurements themselves: recall finds what is wrong, ties count, nobody is favoured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.ann.baseline import RawFlat
from faissbase.cli import measure
from faissbase.collection.collection import LocalCollection
from faissbase.database.database import connect
from faissbase.types import METRICS, Metric


def collection_of(xb: Any, metric: Metric) -> LocalCollection:
    collection = connect(":memory:").create_collection("c", xb.shape[1], metric)
    collection.upsert([str(row) for row in range(len(xb))], xb)
    return collection


@pytest.mark.parametrize("metric", METRICS)
def test_recall_of_exact_search_is_one(metric: Metric) -> None:
    xb = np.random.default_rng(1).standard_normal((300, 16)).astype(np.float32) * 50
    collection = collection_of(xb, metric)
    sample = measure.read_sample(collection)
    assert measure.recall(collection, sample, measure.queries_near(sample.records, 64), 10) == 1.0


def test_recall_sees_a_record_that_search_misses() -> None:
    xb = np.eye(4, dtype=np.float32)
    collection = collection_of(xb, "l2")
    sample = measure.read_sample(collection)
    collection.upsert("0", [-xb[0]])
    assert measure.recall(collection, sample, xb[:1], 1) == 0.0


def test_recall_counts_a_record_as_near_as_the_last_one() -> None:
    xb = np.ones((60, 4), np.float32)
    collection = collection_of(xb, "l2")
    sample = measure.read_sample(collection)
    assert measure.recall(collection, sample, xb[:1], 5) == 1.0


@pytest.mark.parametrize("metric", METRICS)
def test_raw_faiss_measures_as_the_collection_does(metric: Metric) -> None:
    rng = np.random.default_rng(2)
    xb, xq = rng.standard_normal((50, 8)).astype(np.float32), rng.standard_normal((5, 8)).astype(np.float32)
    collection, raw = collection_of(xb, metric), RawFlat(8, metric)
    raw.add(xb[:20])
    raw.add(xb[20:])
    distances, rows = raw.search(raw.prepared(xq), 7)
    found = collection.search(xq, 7)
    assert found.ids == [[str(row) for row in of_query] for of_query in rows.tolist()]
    np.testing.assert_allclose(found.distances, distances, rtol=1e-5)


def test_calls_take_turns_at_going_first() -> None:
    order: list[str] = []
    inputs = [(i, i) for i in range(4)]
    times = measure.time_in_turn(
        lambda i: order.append(f"ours{i}"), lambda i: order.append(f"raw{i}"), inputs, 60
    )
    assert order == ["raw0", "ours0", "ours1", "raw1", "raw2", "ours2", "ours3", "raw3"]
    assert (len(times.ours), len(times.raw)) == (4, 4)


def test_a_spent_budget_ends_the_calls() -> None:
    times = measure.time_in_turn(lambda _: None, None, [(0, 0)] * 5, 0)
    assert (len(times.ours), times.raw, times.ratio) == (1, [], None)


def test_the_scratch_folder_lies_beside_the_data_and_goes_away(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for data in (tmp_path / "data", tmp_path / "not" / "there"):
        with measure.scratch_folder(data) as scratch:
            assert scratch.parent == tmp_path
        assert not scratch.exists()
