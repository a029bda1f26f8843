"""Rows in memory and the index over them: which is searched, and what becomes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faissbase.ann import resident
from faissbase.ann.resident import Resident
from faissbase.errors import CorruptionError, InvalidInputError
from faissbase.types import Float32

D = 64


def clustered(n: int, seed: int = 0) -> Float32:
    centres = np.random.default_rng(99).standard_normal((40, D))
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 40, n)] + 0.4 * rng.standard_normal((n, D))).astype(np.float32)


@pytest.fixture(scope="module")
def large() -> Resident:
    """Enough numbers for the graph to be worth it."""
    made = Resident(D, "l2", "HNSW16,Flat")
    made.append(clustered(20_000))
    made.tune()
    made._scan_ns = 100.0  # a scan is slower than the graph, whatever else this machine does now
    return made


@pytest.mark.slow
def test_a_large_store_searches_its_graph_and_reaches_the_recall_asked(large: Resident) -> None:
    assert large._choice(1, 10, large.n, 0.95) is not None
    queries = np.ascontiguousarray(0.7 * clustered(100, 1) + 0.3 * clustered(100, 2))
    true = large.search(queries, 10, recall=1.0)[1]
    for recall in (0.9, 0.98):
        found = np.concatenate([large.search(query[None], 10, recall=recall)[1] for query in queries])
        hits = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)]
        )
        assert hits >= recall - 0.03


@pytest.mark.slow
def test_a_filter_that_leaves_little_is_searched_exactly_and_one_that_leaves_half_is_not(
    large: Resident,
) -> None:
    rng = np.random.default_rng(3)
    assert large._choice(1, 10, 1000, 0.95) is None
    for share in (0.9, 0.5, 0.01):
        mask = rng.random(large.n) < share
        distances, rows = large.search(clustered(20, 5), 10, mask=mask)
        assert mask[rows].all()
        assert (np.diff(distances, axis=1) >= 0).all()


@pytest.mark.slow
def test_a_graph_that_finds_too_few_is_helped_out(large: Resident) -> None:
    """All near the query is buried: what is left lies where the graph is not searched."""
    query = clustered(1, 7)
    near = large.search(query, 5_000, recall=1.0)[1][0]
    mask = np.ones(large.n, np.bool_)
    mask[near] = False
    found = large.search(query, 10, mask=mask)
    true = large.search(query, 10, mask=mask, recall=1.0)
    assert (found[1] >= 0).all()
    assert len(set(found[1][0].tolist()) & set(true[1][0].tolist())) >= 7


def test_a_small_one_is_scanned_whatever_its_index() -> None:
    made = Resident(D, "l2", "HNSW16,Flat")
    made.append(clustered(500))
    made.tune()
    assert made.spec.factory == "HNSW16,Flat"
    assert made._choice(1, 10, 500, 0.5) is None


def test_compacting_keeps_the_order_and_leaves_the_first_as_it_is() -> None:
    made = Resident(D, "ip", "HNSW16,Flat")
    rows = clustered(300)
    made.append(rows)
    made.bury(np.arange(0, 300, 3))
    smaller, kept = made.compacted()
    assert kept.tolist() == [i for i in range(300) if i % 3]
    assert (smaller.vectors == rows[kept]).all()
    assert (made.n, made.n_alive, smaller.n, smaller.n_alive) == (300, 200, 200, 200)
    query = clustered(1, 4)
    assert kept[smaller.search(query, 20)[1][0]].tolist() == made.search(query, 20)[1][0].tolist()


def test_an_index_over_buried_rows_is_not_written(tmp_path: Path) -> None:
    made = Resident(D, "l2", "HNSW16,Flat")
    made.append(clustered(100))
    made.bury(np.array([3]))
    with pytest.raises(InvalidInputError, match="an index over 99 of 100 rows cannot be written"):
        made.write_index(tmp_path / "index")


def test_a_file_over_other_rows_is_refused(tmp_path: Path) -> None:
    made = Resident(D, "l2", "HNSW16,Flat")
    made.append(clustered(100))
    made.write_index(tmp_path / "index")
    facts = made.facts()
    assert facts is not None
    for n in (99, 101):
        with pytest.raises(CorruptionError):
            Resident.restored(clustered(n), "l2", "HNSW16,Flat", tmp_path / "index", "HNSW16,Flat", facts)
    with pytest.raises(CorruptionError, match="is none that is built here"):
        Resident.restored(clustered(100), "l2", "HNSW16,Flat", tmp_path / "index", "Flat", facts)


def test_lists_in_groups_come_back_from_their_file(tmp_path: Path) -> None:
    rows, index_type = clustered(3000), "IVF64(IVF8,SQfp16),Flat"
    made = Resident(D, "l2", index_type)
    made.append(rows)
    made.write_index(tmp_path / "index")
    facts = made.facts()
    assert facts is not None
    kept = Resident.restored(rows.copy(), "l2", index_type, tmp_path / "index", index_type, facts)
    assert np.array_equal(kept.search(rows[:20], 5)[1], made.search(rows[:20], 5)[1])


def test_compacting_measures_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "EXACT_NUMBERS", 0)
    made = Resident(D, "l2", "IVF4,Flat")
    made.append(clustered(400))
    made.tune()
    made.bury(np.arange(100))
    monkeypatch.setattr(resident, "measure", None)
    smaller, _ = made.compacted()
    assert smaller._curve is made._curve is not None


def test_measuring_is_repeated_only_once_it_has_doubled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "EXACT_NUMBERS", 0)
    made = Resident(D, "l2", "IVF4,Flat")
    measured = []
    for n in (400, 300, 200):
        made.append(clustered(n))
        made.tune()
        measured.append(made._n_measured)
    assert measured == [400, 400, 900]
