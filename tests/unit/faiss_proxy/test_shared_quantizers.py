"""Indexes over one coarse quantizer: merged with each other, and shards of another, as with FAISS."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_D, _NLIST = 16, 6
_RANDOM = np.random.default_rng(2)
_XB, _XQ = (_RANDOM.random((n, _D), dtype=np.float32) for n in (400, 9))


def _over(f: Any, quantizer: Any, first: int = 0, last: int = 0) -> Any:
    index = f.IndexIVFFlat(quantizer, _D, _NLIST)
    index.train(_XB)
    index.add(_XB[first:last])
    index.nprobe = 3
    return index


def _merged(f: Any) -> Any:
    quantizer = f.IndexFlatL2(_D)
    one, other = _over(f, quantizer, 0, 200), _over(f, quantizer, 200, 400)
    one.merge_from(other, 200)
    found = [one.ntotal, other.ntotal, one.search(_XQ, 3), one.remove_ids(f.IDSelectorRange(200, 400))]
    third = _over(f, quantizer, 0, 100)
    f.merge_into(one, third, True)
    part = _over(f, quantizer)
    one.copy_subset_to(part, f.InvertedLists.SUBSET_TYPE_ID_RANGE, 10, 60)
    return [*found, one.ntotal, part.search(_XQ, 3)]


def _sharded(f: Any) -> Any:
    quantizer = f.IndexFlatL2(_D)
    shards = f.IndexShards(_D, True, True)
    for first in (0, 200):
        shards.add_shard(_over(f, quantizer, first, first + 200))
    return shards.ntotal, shards.search(_XQ, 3), [shards.at(n).ntotal for n in range(shards.count())]


def _moved(f: Any) -> Any:
    """What is done to the quantizer is seen by all over it."""
    quantizer = f.IndexFlatL2(_D)
    one, other = _over(f, quantizer, 0, 200), _over(f, quantizer, 200, 400)
    centroids = quantizer.reconstruct_n()
    quantizer.reset()
    quantizer.add(centroids[::-1].copy())
    return one.search(_XQ, 3), other.search(_XQ, 3)


@pytest.mark.parametrize("program", [_merged, _sharded, _moved])
def test_a_quantizer_may_be_shared_as_with_faiss(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def _with(f: Any, quantizer: Any) -> Any:
    index = f.IndexIVFFlat(quantizer, _D, _NLIST)
    index.train(_XB)
    return index


def _round(f: Any) -> Any:
    """Shards that are the quantizer of what would be one of them."""
    shards = f.IndexShards(_D, False, True)
    shards.add_shard(f.IndexFlatL2(_D))
    shards.add_shard(_with(f, shards))


def _same_lists(f: Any) -> Any:
    one, other = (_over(f, f.IndexFlatL2(_D), 0, 200) for _ in "ab")
    other.replace_invlists(one.invlists)
    one.merge_from(other, 0)


def _untrained(f: Any) -> Any:
    quantizer, shards = f.IndexFlatL2(_D), f.IndexShards(_D, True, True)
    for _ in range(2):
        shards.add_shard(f.IndexIVFFlat(quantizer, _D, _NLIST))


def _within(f: Any) -> Any:
    inner = _over(f, f.IndexFlatL2(_D))
    f.IndexIDMap(inner).index.merge_from(inner, 0)


@pytest.mark.parametrize("wrong", [_round, _same_lists, _untrained, _within])
def test_what_would_go_round_or_be_merged_with_itself_is_refused(
    modules: tuple[Any, Any], wrong: Any
) -> None:
    with pytest.raises(modules[1].RemoteError, match="given to itself"):
        wrong(modules[1])
