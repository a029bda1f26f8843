"""The indexes that an index is made of, and what it asks them when it is searched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import faiss

_FIELDS = ("index", "base_index", "refine_index", "index_ivf", "quantizer", "storage")
_SEVERAL = (faiss.IndexShards, faiss.IndexReplicas, faiss.IndexBinaryShards, faiss.IndexBinaryReplicas)
_IVF = (faiss.IndexIVF, faiss.IndexBinaryIVF)
_WITHOUT_PARAMS = (
    faiss.IndexIDMap,
    faiss.IndexBinaryIDMap,
    faiss.IndexRowwiseMinMaxBase,
    faiss.IndexBinaryFromFloat,
)


def parts(thing: Any) -> Iterator[Any]:
    """``thing`` and every index within it, by its own class."""
    yield thing
    for field in _fields(type(thing).__name__):
        inner = getattr(thing, field)
        if inner is not None:
            yield from parts(downcast(inner))
    for inner in _several(thing):
        yield from parts(inner)


def holding(thing: Any) -> Iterator[Any]:
    """``thing`` and every index within it that holds its vectors; not those that only say where they are."""
    yield thing
    for field in _fields(type(thing).__name__):
        inner = getattr(thing, field) if field != "quantizer" else None
        if inner is not None:
            yield from holding(downcast(inner))
    for inner in _several(thing):
        yield from holding(inner)


def searched(thing: Any, k: int, params: Any) -> Iterator[tuple[Any, int, Any]]:
    """What is searched in the course of a search of ``thing``: each index, its k and its parameters."""
    yield thing, k, params
    for inner, inner_k, inner_params in _handed_on(thing, k, params):
        if inner is not None:
            yield from searched(downcast(inner), inner_k, inner_params)


def given(params: Any, name: str) -> Any:
    """A field of search parameters as the object that was given; None where none was."""
    return getattr(params, "__dict__", {}).get("_given", {}).get(name)


def _handed_on(thing: Any, k: int, params: Any) -> Iterator[tuple[Any, int, Any]]:
    if isinstance(thing, faiss.IndexPreTransform):
        yield thing.index, k, given(params, "index_params")
    elif isinstance(thing, _WITHOUT_PARAMS):
        yield thing.index, k, None
    elif isinstance(thing, faiss.IndexRefine):
        factor = max(thing.k_factor, getattr(params, "k_factor", 0))
        yield thing.base_index, int(k * factor), given(params, "base_index_params")
    elif isinstance(thing, _IVF) and thing.is_trained:
        nprobe = getattr(params, "nprobe", thing.nprobe)
        yield thing.quantizer, min(nprobe, thing.nlist), given(params, "quantizer_params")
    elif isinstance(thing, faiss.IndexIVFIndependentQuantizer):
        yield thing.index_ivf, k, params
    for inner in _several(thing):
        yield inner, k, params


@cache
def _fields(name: str) -> tuple[str, ...]:
    kind = getattr(faiss, name, object)
    if not issubclass(kind, faiss.Index | faiss.IndexBinary):
        return ()
    return tuple(each for each in _FIELDS if isinstance(getattr(kind, each, None), property))


def _several(thing: Any) -> Iterator[Any]:
    if isinstance(thing, _SEVERAL):
        for i in range(thing.count()):
            yield downcast(thing.at(i))


def downcast(index: Any) -> Any:
    """An index by its own class."""
    binary = isinstance(index, faiss.IndexBinary)
    return faiss.downcast_IndexBinary(index) if binary else faiss.downcast_index(index)
