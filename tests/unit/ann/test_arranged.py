"""A graph laid out anew: the same walks, in another order of nodes and without empty places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from faissbase.ann.arranged import arranged
from faissbase.ann.build import Builder
from faissbase.ann.flat import lay_over
from faissbase.ann.segment import Knobs, Segment, Selector, open_segment
from faissbase.ann.spec import resolve
from faissbase.types import Float32, Metric

N, D, K = 3000, 24, 10


def _vectors(seed: int, n: int = N) -> Float32:
    x = np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)
    unit: Float32 = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit


@pytest.fixture(params=[4, 16])
def graph(request: pytest.FixtureRequest) -> Any:
    index = faiss.IndexHNSWFlat(D, request.param)
    index.add(_vectors(0))
    return index


def _never() -> bool:
    return False


def test_walks_find_the_same_neighbours_in_less_memory(graph: Any, tmp_path: Path) -> None:
    xb, xq, ef = _vectors(0), _vectors(1, 200), faiss.SearchParametersHNSW(efSearch=40)
    arrangement = arranged(graph, _never)
    assert arrangement is not None
    assert sorted(arrangement.order.tolist()) == list(range(-1, N))
    np.testing.assert_array_equal(arrangement.order[arrangement.rank], np.arange(N))

    path = str(tmp_path / "graph")
    faiss.write_index(graph, path, faiss.IO_FLAG_SKIP_STORAGE)
    other, ordered = faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC), xb[arrangement.order[:-1]]
    storage = lay_over(faiss.IndexFlatL2(D), ordered, N)
    arrangement.lay_over(other)
    other.storage, other.own_fields = storage, False
    expected, found = graph.search(xq, K, params=ef), other.search(xq, K, params=ef)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(arrangement.order[found[1]], expected[1])
    assert arrangement.neighbours.nbytes <= 4 * graph.hnsw.neighbors.size() + 8 * graph.hnsw.nb_neighbors(0)


def test_nodes_that_nothing_leads_to_are_kept() -> None:
    twice = faiss.IndexHNSWFlat(D, 4)
    twice.add(np.repeat(_vectors(0, 2), 300, axis=0))  # equal vectors: nodes that are cut off from the rest
    arrangement = arranged(twice, _never)
    assert arrangement is not None
    assert sorted(arrangement.order.tolist()) == list(range(-1, 600))


def test_one_node_is_arranged() -> None:
    alone = faiss.IndexHNSWFlat(D, 4)
    alone.add(_vectors(0, 1))
    arrangement = arranged(alone, _never)
    assert arrangement is not None
    assert arrangement.order.tolist() == [0, -1]


def test_it_ends_where_it_is_told_to(graph: Any) -> None:
    assert arranged(graph, lambda: True) is None


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
@pytest.mark.parametrize("factory", ["HNSW8,SQ8", "HNSW8,SQfp16"])
def test_a_warm_segment_answers_by_slots_under_any_selector(
    tmp_path: Path, factory: str, metric: Metric
) -> None:
    xb, xq, first = _vectors(2), _vectors(3, 30), 500
    segment = _opened(tmp_path / "s", factory, metric, xb, first)
    assert segment.warm()
    assert segment.codes is not None
    products = xq @ xb.T
    for selected in (None, np.random.default_rng(5).random(N) < 0.3):
        allowed = np.arange(N) >= first if selected is None else selected & (np.arange(N) >= first)
        truth = np.argsort(np.where(allowed, -products, np.inf), axis=1)[:, :K]
        selector = None if selected is None else Selector(selected)
        batch = segment.search(xq, K, Knobs(300, 4), selector)[1]
        single = np.vstack([segment.search(query[None], K, Knobs(300, 4), selector)[1] for query in xq])
        for slots in (batch, single):
            assert allowed[slots].all()
            assert np.mean([np.isin(a, b).mean() for a, b in zip(slots, truth, strict=True)]) > 0.95
    slots = np.flatnonzero(np.random.default_rng(6).random(N) < 0.1)
    slots = slots[slots >= first]
    near = segment.codes.gathered(slots).candidates(xq, K)[1]
    truth = slots[np.argsort(-products[:, slots], axis=1)[:, :K]]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(near, truth, strict=True)]) > 0.8


def _opened(path: Path, factory: str, metric: Metric, xb: Float32, first: int) -> Segment:
    spec = resolve(factory, len(xb) - first, D, metric)
    builder = Builder(spec, metric, xb, first)
    builder.train()
    builder.add(len(xb))
    builder.write(path)
    return open_segment(path, spec, metric, xb, first, len(xb))
