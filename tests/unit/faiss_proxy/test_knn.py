"""``knn`` among the vectors of an index on a server."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from faiss_proxy.connection import RemoteError

_XB = np.random.default_rng(0).random((500, 16), dtype=np.float32)


@pytest.mark.parametrize("metric", [faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L1])
def test_knn_in_a_flat_index_gives_what_it_gives_in_its_vectors(
    modules: tuple[Any, Any], metric: int
) -> None:
    here, there = modules
    index = there.IndexFlat(16, metric)
    index.add(_XB)
    wanted = here.knn(_XB[:7], _XB, 4, metric=metric)
    found = there.knn(_XB[:7], index, 4, metric=metric)
    assert all(map(np.array_equal, found, wanted))


def test_knn_in_what_it_would_not_search_as_asked_says_what_does(modules: tuple[Any, Any]) -> None:
    _, there = modules
    lists, flat = there.index_factory(16, "IVF4,Flat"), there.IndexFlatIP(16)
    for index in (lists, flat):
        with pytest.raises(RemoteError, match="call the index's search"):
            there.knn(_XB[:7], index, 4)
