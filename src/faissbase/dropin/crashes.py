"""Calls that FAISS does not survive, although each number in them is in order: refused before.

FAISS does not see that something is not trained, or empty, or that one of its parts cannot do what it is
asked; or it sees so in a thread of its own, where its exception ends the process.
"""

from __future__ import annotations

from typing import Any

import faiss

from faissbase.dropin.parts import given, parts, searched
from faissbase.dropin.refusals import Refused

# They do not see that they are not trained.
_UNCHECKED = (
    faiss.IndexAdditiveQuantizerFastScan,
    faiss.IndexIVFAdditiveQuantizerFastScan,
    faiss.AdditiveCoarseQuantizer,
)
_HOLDING = (
    faiss.IndexIVFPQR,
    faiss.IndexPreTransform,
    faiss.IndexIDMap,
    faiss.IndexRefine,
    faiss.IndexShards,
    faiss.IndexReplicas,
    faiss.IndexIVFIndependentQuantizer,
)
_LEAST_GRAPH = 100  # FAISS refuses to build one of fewer
_MOST_SOUND = 64
_sound: dict[int, int] = {}


def check_search(thing: Any, k: int, params: Any) -> None:
    """Refuse a search that leads FAISS out of an array, or to no end."""
    for inner, inner_k, inner_params in searched(thing, k, params):
        _check_searched(inner, inner_k)
        _check_range(inner, given(inner_params, "sel"))


def check_whole(thing: Any) -> None:
    """Refuse to work with an index that was made of nothing, as FAISS does before it reads one."""
    for inner in parts(thing):
        _check_made(inner)


def _check_made(index: Any) -> None:
    is_hollow = (
        (isinstance(index, faiss.IndexPQ) and not index.d)
        or (isinstance(index, faiss.IndexBinaryHNSW) and index.storage is None)
        or (isinstance(index, faiss.IndexIVFIndependentQuantizer) and index.quantizer is None)
    )
    if is_hollow:
        raise Refused(f"this {_kind(index)} was made of nothing, and ends FAISS's process: give it its parts")


def _check_searched(index: Any, k: int) -> None:
    """Refuse what an index does not survive although it is asked for no more than FAISS allows."""
    if isinstance(index, faiss.IndexShards | faiss.IndexBinaryShards) and not index.count():
        raise Refused(f"searching an {_kind(index)} without shards ends FAISS's process: add_shard first")
    _check_trained(index)
    if isinstance(index, faiss.IndexFastScan) and not index.ntotal and index.ntotal2:
        raise Refused(f"searching an {_kind(index)} after its reset ends FAISS's process: add to it first")
    if isinstance(index, faiss.AdditiveCoarseQuantizer) and k < 1:
        raise Refused(f"searching an {_kind(index)} for {k} vectors ends FAISS's process")
    is_endless = isinstance(index, faiss.IndexNSG) and 0 < index.ntotal < max(k, index.nsg.search_L)
    if is_endless or (isinstance(index, faiss.MultiIndexQuantizer) and k > index.ntotal):
        raise Refused(f"searching an {_kind(index)} for more than its {index.ntotal} vectors does not end")


def _check_range(index: Any, sel: Any) -> None:
    """A range that ends before it begins, or begins behind the end, leads a flat scan out of its array."""
    if not isinstance(index, faiss.IndexFlat) or not isinstance(sel, faiss.IDSelectorRange):
        return
    if max(sel.imin, 0) > min(sel.imax, index.ntotal):
        raise Refused(
            f"no vector of this {_kind(index)}, which has {index.ntotal}, is in "
            f"IDSelectorRange({sel.imin}, {sel.imax}), and FAISS would search outside of it"
        )


def check_range_search(thing: Any, params: Any) -> None:
    """Refuse a range search in a graph without an entry."""
    for inner, _, _ in searched(thing, 1, params):
        _check_trained(inner)
        if isinstance(inner, faiss.IndexHNSW) and not inner.ntotal:
            raise Refused(f"a range search in an {_kind(inner)} without vectors ends FAISS's process")


def check_reconstructing(thing: Any) -> None:
    """Refuse to have hits reconstructed by a class that cannot."""
    for inner, _, _ in searched(thing, 1, None):
        if isinstance(inner, faiss.IndexIVFSpectralHash):
            raise Refused(f"an {_kind(inner)} reconstructs no vectors, and ends FAISS's process: call search")


def _check_trained(index: Any) -> None:
    if isinstance(index, _UNCHECKED) and not index.is_trained:
        raise Refused(f"this {_kind(index)} is not trained, and FAISS would read what is not there: train it")


def check_codes(thing: Any) -> None:
    """Refuse to make or read codes that there are none of yet."""
    for inner in parts(thing):
        _check_trained(inner)
        if isinstance(inner, faiss.IndexLattice) and not inner.is_trained:
            raise Refused(f"this {_kind(inner)} is not trained, and has no codes: train it")


def check_refining(thing: Any, version: int | None) -> None:
    """Refuse ids that are no places of codes.

    The codes by which an IndexIVFPQR refines lie at the place that an id says.
    """
    if not isinstance(thing, _HOLDING) or (version is not None and _sound.get(int(thing.this)) == version):
        return
    for inner in parts(thing):
        if isinstance(inner, faiss.IndexIVFPQR):
            _check_ids(inner)
    if version is not None:
        if len(_sound) >= _MOST_SOUND:
            _sound.clear()
        _sound[int(thing.this)] = version


def _check_ids(index: Any) -> None:
    n, lists = index.refine_codes.size() // max(1, index.refine_pq.code_size), index.invlists
    for list_no in range(lists.nlist):
        pointer = lists.get_ids(list_no)
        ids = faiss.rev_swig_ptr(pointer, lists.list_size(list_no))
        wrong = ids[(ids < 0) | (ids >= n)]
        if wrong.size:
            raise Refused(
                f"{_kind(index)} keeps its refining codes by the id, for ids 0 to {n - 1}, and has others, "
                f"such as {wrong[0]}: FAISS would read outside of them"
            )
        lists.release_ids(list_no, pointer)


def check_added(thing: Any, n: int) -> None:
    """Refuse to add so few rows that FAISS divides by their number, or looks for more of them for ever."""
    graphs = [each for each in parts(thing) if isinstance(each, faiss.IndexNSG | faiss.IndexNNDescent)]
    for graph in graphs:
        _check_built(graph, n)
    if n:
        return
    for inner in parts(thing):
        is_empty = isinstance(inner, faiss.IndexFastScan) and not inner.ntotal
        if is_empty or isinstance(inner, faiss.IndexRaBitQFastScan):
            raise Refused(f"adding nothing to an {_kind(inner)} ends FAISS's process")


def _check_built(index: Any, n: int) -> None:
    """Refuse sizes at which the building of a graph never ends, or writes outside of it."""
    is_nsg = isinstance(index, faiss.IndexNSG)
    descent = index if is_nsg else index.nndescent
    fields = ("GK", "nndescent_R", "nndescent_iter") if is_nsg else ("K", "R", "iter")
    sizes = {name: getattr(descent, name) for name in fields}
    if is_nsg:
        sizes |= {"nsg.R": index.nsg.R}
    small = [f"{name}={value}" for name, value in sizes.items() if value < 1]
    if small:
        raise Refused(f"{_kind(index)} cannot be built with {', '.join(small)}: 1 or more is wanted")
    needed = max(index.nsg.L, index.nsg.search_L, index.GK + 1) if is_nsg else descent.K + 1
    if _LEAST_GRAPH < n < needed or (is_nsg and 0 < n < needed and index.build_type == 0):
        raise Refused(f"{_kind(index)} with these settings is built of {needed} rows or more, got {n}")


def _kind(thing: Any) -> str:
    return type(thing).__name__
