"""Indexes made of nothing, which FAISS's process does not survive: it goes on, and says what is wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

_D = 8
_X = np.random.default_rng(1).random((30, _D), dtype=np.float32)
_MADE: list[Callable[[Any], Any]] = [
    lambda f: f.IndexIDMap(None),
    lambda f: f.IndexIVFFlat(None, _D, 4),
    lambda f: f.IndexPreTransform(None),
    lambda f: f.IndexPreTransform(f.PCAMatrix(_D, 4), None),
    lambda f: f.IndexRefineFlat(None),
    lambda f: f.IndexHNSW(None, 16),
    lambda f: f.IndexBinaryIVF(None, _D, 4),
    lambda f: f.SliceInvertedLists(None, 0, 1),
    lambda f: f.HStackInvertedLists(2, None),
    lambda f: f.IndexIVFIndependentQuantizer(None, None, None),
    lambda f: f.IndexShards(_D).add_shard(None),
    lambda f: f.IndexReplicas(_D).addIndex(None),
    lambda f: f.index_factory(_D, "PCA4,Flat").prepend_transform(None),
    lambda f: f.index_factory(_D, "IVF4,Flat").invlists.merge_from(None, 0),
    lambda f: f.merge_into(f.index_factory(_D, "IVF4,Flat"), None, True),
]


@pytest.mark.parametrize("program", _MADE)
def test_nothing_is_no_index_to_make_another_of(modules: tuple[Any, Any], program: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"argument|invalid null reference"):
        program(modules[1])


def test_a_transform_of_an_independent_quantizer_may_be_none(modules: tuple[Any, Any]) -> None:
    found = []
    for f in modules:
        inner = f.IndexIVFFlat(f.IndexFlatL2(_D), _D, 2)
        index = f.IndexIVFIndependentQuantizer(f.IndexFlatL2(_D), inner, None)
        index.train(_X)
        index.add(_X)
        found.append(index.search(_X[:3], 2))
    assert all(map(np.array_equal, *found))


@pytest.mark.parametrize(
    "program",
    [
        lambda f: f.IndexShards(_D).search(_X, 3),
        lambda f: f.IndexIDMap(f.IndexShards(_D)).search(_X, 3),
        lambda f: f.IndexBinaryShards(_D).search(np.zeros((2, 1), np.uint8), 3),
        lambda f: f.IndexPQ().train(_X[:, :0]),
        lambda f: f.IndexBinaryHNSW().add(np.zeros((2, 0), np.uint8)),
        lambda f: f.IndexIVFIndependentQuantizer().train(_X[:, :0]),
        lambda f: f.IndexIVFIndependentQuantizer().reset(),
    ],
)
def test_what_has_no_parts_is_not_set_to_work(modules: tuple[Any, Any], program: Any) -> None:
    with pytest.raises(modules[1].RemoteError, match=r"ends FAISS's process"):
        program(modules[1])
