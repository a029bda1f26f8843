"""Who owns an object on a server is told as FAISS tells it, and frees nothing that is in use."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_XB = np.random.default_rng(0).random((100, 16), dtype=np.float32)


def _told(f: Any) -> Any:
    quantizer = f.IndexFlatL2(16)
    index, turned = f.IndexIVFFlat(quantizer, 16, 4), f.index_factory(16, "PCA8,IVF4,Flat")
    graph, bits = f.IndexHNSWFlat(16, 8), f.index_binary_factory(32, "BIVF4")
    things = [
        *(quantizer, index, index.quantizer, index.invlists, f.downcast_InvertedLists(index.invlists)),
        *(index.cp, turned, turned.index, f.downcast_index(turned.index), f.extract_index_ivf(turned)),
        *(turned.chain, turned.chain.at(0), f.downcast_VectorTransform(turned.chain.at(0))),
        *(f.clone_index(turned), f.deserialize_index(f.serialize_index(turned))),
        *(copy.copy(turned), copy.deepcopy(turned), graph.hnsw, graph.storage, graph.hnsw.levels),
        *(bits, bits.quantizer, f.clone_binary_index(bits), f.PCAMatrix(16, 8), f.ProductQuantizer(16, 4, 4)),
    ]
    return [(each.thisown, each.this.own()) for each in things]


def _set(f: Any) -> Any:
    index = f.IndexFlatL2(16)
    found = []
    values: tuple[Any, ...] = (False, 1, [], "no")
    for value in values:
        index.thisown = value
        found.append((index.thisown, index.this.own()))
    index.this.disown()
    found.append((index.thisown, index.this.own()))
    index.this.acquire()
    return [*found, index.this.own(False), index.thisown, index.this.own(True), index.thisown]


def _no_more(f: Any) -> Any:
    del f.IndexFlatL2(16).thisown


@pytest.mark.parametrize("program", [_told, _set, _no_more])
def test_owners_are_told_as_by_faiss(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here == there


def test_what_is_said_of_an_owner_frees_nothing(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    index = f.IndexIDMap(f.IndexFlatL2(16))
    inner = index.index
    inner.thisown = True
    del inner
    gc.collect()
    index.add_with_ids(_XB, np.arange(100))
    assert index.search(_XB[:3], 1)[1].ravel().tolist() == [0, 1, 2]


def _referred_to(f: Any) -> Any:
    flat, transform = f.IndexFlatL2(16), f.PCAMatrix(16, 16)
    shards, replicas = f.IndexShards(16), f.IndexReplicas(16)
    turned = f.IndexPreTransform(flat)
    shards.add_shard(flat)
    replicas.addIndex(f.IndexFlatL2(16))
    turned.prepend_transform(transform)
    kept = [each.referenced_objects for each in (shards, replicas, turned)]
    return [[type(each).__name__ for each in found] for found in kept], kept[0][0] is flat


def test_what_a_method_is_given_is_referred_to_as_by_faiss(modules: tuple[Any, Any]) -> None:
    here, there = (outcome(lambda f=f: _referred_to(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there
