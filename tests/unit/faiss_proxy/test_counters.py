"""Statistics of searches are those of where the search was done."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_XB = np.random.default_rng(0).random((200, 8), dtype=np.float32)


def _counted(f: Any, spec: str, name: str) -> Any:
    index = f.index_factory(8, spec)
    index.train(_XB)
    index.add(_XB)
    statistics = getattr(f.cvar, name)
    statistics.reset()
    before = statistics.ndis
    index.search(_XB[:7], 3)
    return before, statistics.ndis, isinstance(statistics, getattr(f, type(statistics).__name__, object))


@pytest.mark.parametrize(("spec", "name"), [("IVF4,Flat", "indexIVF_stats"), ("HNSW8", "hnsw_stats")])
def test_what_searches_have_cost_is_told_as_by_faiss(modules: tuple[Any, Any], spec: str, name: str) -> None:
    here, there = (outcome(lambda f=f: _counted(f, spec, name)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def test_statistics_of_a_server_say_what_they_cannot(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    statistics = f.cvar.indexIVF_stats
    assert "server" in str(type(statistics).__doc__)
    with pytest.raises(AttributeError):
        _ = statistics.nothing
    with pytest.raises(f.RemoteError, match="call reset"):
        statistics.ndis = 3
    with pytest.raises(f.RemoteError, match="cannot be used"):
        statistics.add(statistics)
    with f.local():
        assert type(f.cvar.indexIVF_stats) is f.IndexIVFStats
    assert f.cvar.distance_compute_blas_threshold > 0
