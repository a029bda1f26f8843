"""FAISS's ``contrib`` with indexes on a server: what writes into them, and what reads their insides."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_D, _NLIST = 16, 6
_RANDOM = np.random.default_rng(2)
_XB, _XQ = (_RANDOM.random((n, _D), dtype=np.float32) for n in (400, 9))
_BITS = _RANDOM.integers(0, 256, (300, 4), np.uint8)


def _tools(f: Any, name: str) -> Any:
    return importlib.import_module(f"{f.__name__}.contrib.{name}")


def _ivf(f: Any, spec: str = "Flat", *, is_filled: bool = True) -> Any:
    index = f.index_factory(_D, f"IVF{_NLIST},{spec}")
    index.train(_XB)
    if is_filled:
        index.add(_XB)
    index.nprobe = 3
    return index


def _added(f: Any, spec: str) -> Any:
    index = _ivf(f, spec, is_filled=False)
    lists = index.quantizer.assign(_XB, 1).ravel()
    lists[5] = -1
    tools = _tools(f, "ivf_tools")
    tools.add_preassigned(index, _XB[:200], lists[:200])
    ids = np.arange(200) * 3  # kept here: the tool itself lets go of it before it is read
    tools.add_preassigned(index, _XB[200:], lists[200:], ids)
    return index.ntotal, index.search(_XQ, 4)


def _binary(f: Any) -> Any:
    quantizer = f.IndexBinaryFlat(32)
    index = f.IndexBinaryIVF(quantizer, 32, 4)
    index.train(_BITS)
    tools = _tools(f, "ivf_tools")
    tools.add_preassigned(index, _BITS, quantizer.assign(_BITS, 1).ravel())
    index.nprobe = 2
    distances, lists = quantizer.search(_BITS[:5], 2)
    found = tools.search_preassigned(index, _BITS[:5], 3, lists, distances)
    return found, tools.range_search_preassigned(index, _BITS[:5], 9, lists, distances)


def _ranges(f: Any, spec: str) -> Any:
    index = _ivf(f, spec)
    distances, lists = index.quantizer.search(_XQ, 3)
    tools = _tools(f, "ivf_tools")
    near, none = (tools.range_search_preassigned(index, _XQ, radius, lists, distances) for radius in (1.1, 0))
    return near, none, near[0][-1] > 0


def _sorted(f: Any) -> Any:
    index = _ivf(f)
    _tools(f, "ivf_tools").sort_invlists_by_size(index)
    sizes = _tools(f, "inspect_tools").get_invlist_sizes(index.invlists)
    return sizes, index.search(_XQ, 4), index.quantizer.reconstruct_n(0, _NLIST)


def _requantized(f: Any) -> Any:
    """Another quantizer, that is filled by it, one that is filled before, and the first again."""
    index, tools = _ivf(f), _tools(f, "ivf_tools")
    graph, flat = f.IndexHNSWFlat(_D, 8), f.IndexFlatL2(_D)
    flat.add(_XB[:_NLIST])
    first = tools.replace_ivf_quantizer(index, graph)
    found = [index.search(_XQ, 4), type(f.downcast_index(index.quantizer)).__name__, index.own_fields]
    second = tools.replace_ivf_quantizer(index, flat)
    found += [type(second).__name__, index.search(_XQ, 4)]
    tools.replace_ivf_quantizer(index, first)
    return [*found, index.search(_XQ, 4), second.ntotal]


def _two_levels(f: Any) -> Any:
    index = f.index_factory(_D, f"PCA8,IVF{_NLIST},Flat")
    _tools(f, "clustering").train_ivf_index_with_2level(index, _XB, clustering_niter=3)
    index.add(_XB)
    return index.is_trained, index.search(_XQ, 4)


def _big_batch(f: Any, spec: str) -> Any:
    search = _tools(f, "big_batch_search").big_batch_search
    ways: dict[str, Any] = {"verbose": 1}
    return [search(_ivf(f, spec), _XQ, 4, method=method, **ways) for method in ("knn_function", "index")]


_PROGRAMS = [
    *(lambda f, spec=spec: _added(f, spec) for spec in ("Flat", "SQ8", "PQ4x4np")),
    *(lambda f, spec=spec: _ranges(f, spec) for spec in ("Flat", "PQ4x4np")),
    *(lambda f, spec=spec: _big_batch(f, spec) for spec in ("Flat", "SQ8", "PQ4x4np")),
    _binary,
    _sorted,
    _requantized,
    _two_levels,
]


@pytest.mark.parametrize("program", _PROGRAMS)
def test_tools_of_contrib_do_the_same_on_a_server(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


@pytest.mark.parametrize("wrong", [_NLIST, -2, 2**40])
def test_a_list_that_is_not_there_is_refused_before_anything_is_added(
    modules: tuple[Any, Any], wrong: int
) -> None:
    index = _ivf(modules[1], is_filled=False)
    with pytest.raises(modules[1].RemoteError, match=f"no {wrong}"):
        _tools(modules[1], "ivf_tools").add_preassigned(index, _XB[:2], np.array([0, wrong]))
    assert index.ntotal == 0


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 4], [0, 1, 2, 3, 4, 6]])
def test_lists_are_not_put_into_an_order_that_is_none(modules: tuple[Any, Any], order: list[int]) -> None:
    f = modules[1]
    lists = f.downcast_InvertedLists(_ivf(f).invlists)
    wrong = np.array(order)
    with pytest.raises(f.RemoteError, match="each of 0 to 5 once"):
        lists.permute_invlists(f.swig_ptr(wrong))


def test_fast_scan_has_no_lists_to_add_to(modules: tuple[Any, Any]) -> None:
    index = _ivf(modules[1], "PQ4x4fs", is_filled=False)
    with pytest.raises(modules[1].RemoteError, match="call add"):
        _tools(modules[1], "ivf_tools").add_preassigned(index, _XB[:2], np.array([0, 1]))


def test_an_index_is_cut_into_files_of_this_machine(modules: tuple[Any, Any], tmp_path: Path) -> None:
    found = []
    for f in modules:
        names = str(tmp_path / f"{f.__name__}.%d.index")
        f.shard_ivf_index_centroids(_ivf(f), 2, names, lambda n, _: n % 2)
        found.append([array for n in range(2) for array in f.read_index(names % n).search(_XQ, 3)])
    assert all(map(np.array_equal, *found))
