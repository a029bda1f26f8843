"""A dataset of shards equals a dict and NumPy after any sequence of operations, through any of two writers.

What a collection in a folder has to pass, and what shards add: merges, garbage collection, readers that stay
on an older version.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant, rule, run_state_machine_as_test
from tests.property.model import Model
from tests.property.test_collection import CollectionMachine, connections

from faissbase.sharded import upkeep
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.collecting import collect
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.compaction import ON_WRITE
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.dataset import Dataset
from faissbase.types import METRICS, Metric

GRACE_S = 60.0


class ShardedMachine(CollectionMachine):
    """Two writers with caches of their own, and a reader that is refreshed now and then."""

    durability = "full"

    def __init__(self) -> None:
        self.url = f"memory://{uuid.uuid4().hex}"
        self.n_caches = 0
        super().__init__()
        self.reader_database = self.connect()
        self.reader: ShardedCollection | None = None
        self.read_model = Model(self.metric)

    def connect(self) -> Any:
        self.n_caches = (self.n_caches + 1) % 5
        cache = Path(self.folder.name) / f"cache-{self.n_caches}"
        return ShardedDatabase(open_bucket(self.url), cache, refresh_s=0)

    def teardown(self) -> None:
        self.reader_database.close()
        super().teardown()

    @rule(at=connections)
    def compact(self, at: int) -> None:
        docs: Any = self.collection(at)
        report = docs.optimize()
        assert report.shards_after <= 1
        assert docs.optimize().merges == 0

    @rule()
    def collect_garbage(self) -> None:
        dataset = Dataset(open_bucket(self.url), "docs")
        report = collect(dataset, GRACE_S, datetime.now(timezone.utc) + timedelta(days=1))
        assert report.versions_kept == 1
        newest = dataset.newest()
        named = {key for shard in newest.shards for key in shard.keys}
        assert {stored.key for stored in dataset.bucket.list("docs/shards")} <= named

    @rule()
    def refresh_the_reader(self) -> None:
        if self.reader is None:
            found: Any = self.reader_database.get_collection("docs")
            self.reader = found
        self.reader.refresh()
        self.read_model.records = {id: replace(record) for id, record in self.model.records.items()}

    @rule(at=connections, ids=st.lists(st.sampled_from(["a", "b", "zz"]), unique=True))
    def statistics_add_up(self, at: int, ids: list[str]) -> None:
        docs: Any = self.collection(at)
        stats = docs.stats()
        assert stats.ntotal == sum(shard.rows - shard.hidden for shard in stats.shards) == len(docs)
        assert len(docs.get(ids)) == len([id for id in ids if id in self.model.records])

    @invariant()
    def the_reader_sees_the_version_it_has_open(self) -> None:
        if self.reader is not None:
            found = self.reader.get(include_vectors=True)
            self.assert_records(found, list(self.read_model.records.values()))


@pytest.mark.parametrize("metric", METRICS)
def test_a_dataset_equals_the_model_after_any_sequence(
    metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "ON_WRITE", replace(ON_WRITE, fan_in=4))
    run_state_machine_as_test(
        type("Machine", (ShardedMachine,), {"metric": metric}),
        settings=settings(
            max_examples=10,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
