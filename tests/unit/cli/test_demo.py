"""The demo's steps on a small part of its data."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from faissbase.cli.demo import next_commands, next_python
from faissbase.database.database import connect
from faissbase.demo import dataset, run
from faissbase.types import Batch


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = list(islice(dataset.iter_batches(50), 4))

    def batches() -> Iterator[Batch]:
        return iter(kept)

    monkeypatch.setattr(run, "iter_batches", batches)


@pytest.mark.usefixtures("small")
def test_an_interrupted_load_goes_on_and_a_complete_one_is_kept() -> None:
    db = connect(":memory:")
    collection = run.open_collection(db, fresh=False)

    def stop(n: int) -> None:
        if len(collection) == 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.load(collection, stop)
    assert len(collection) == 100
    loaded = run.load(collection)
    assert (loaded.n_new, len(loaded.ids), len(collection)) == (100, 200, 200)
    assert run.load(collection).n_new == 0
    collection.delete(ids=loaded.ids[0])
    assert run.load(collection).n_new == 50
    assert len(run.open_collection(db, fresh=True)) == 0


def test_recall_counts_what_is_missing_and_what_is_too_much() -> None:
    ids = ["a", "b", "c", "d"]
    truth = np.array([[0, 1], [2, -1]])
    assert run._recall([["a", "b"], ["c"]], truth, ids) == 1.0
    assert run._recall([["a", "d"], ["c"]], truth, ids) == pytest.approx(2 / 3)
    assert run._recall([["a", "b"], ["c", "d"]], truth, ids) == pytest.approx(3 / 4)
    assert run._recall([[]], np.array([[-1, -1]]), ids) == 1.0


def test_the_durability_probe_goes_away() -> None:
    db = connect(":memory:")
    latency = run.time_durable_upserts(db, np.eye(4, dtype=np.float32), budget_s=0.01)
    assert latency.n >= 1
    assert latency.p50_s <= latency.p95_s
    assert db.list_collections() == []


def test_what_comes_next_quotes_the_folder() -> None:
    folder = Path("my data's")
    assert all("""--data 'my data'"'"'s'""" in command for command in next_commands(folder))
    compile(next_python(Path('a"b')), "next", "exec")
