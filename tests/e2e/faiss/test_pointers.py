"""The idioms by which programs read FAISS's arrays through pointers, of an index on a server."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import pytest
from tests.e2e.server.running import Running

import faiss_proxy

_D, _NLIST = 16, 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("pointers") / "data") as running:
        yield running


@pytest.fixture
def modules(server: Running) -> Iterator[tuple[Any, Any]]:
    with faiss_proxy.remote(server.url):
        yield faiss, faiss_proxy


def _index(module: Any, spec: str) -> Any:
    xb = np.random.default_rng(0).random((700, _D), dtype=np.float32)
    index = module.index_factory(_D, spec)
    index.train(xb)
    index.add(xb)
    return index


def test_the_vectors_of_a_flat_index_are_read_by_rev_swig_ptr(modules: tuple[Any, Any]) -> None:
    found = []
    for module in modules:
        index = _index(module, "Flat")
        found.append(module.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, _D).copy())
    assert np.array_equal(*found)


@pytest.mark.parametrize("spec", [f"IVF{_NLIST},Flat", f"IVF{_NLIST},PQ4", f"IVF{_NLIST},PQ4x4fs"])
def test_inverted_lists_are_read_by_the_tools_of_contrib(modules: tuple[Any, Any], spec: str) -> None:
    found = []
    for module in modules:
        tools, index = (
            importlib.import_module(f"{module.__name__}.contrib.inspect_tools"),
            _index(module, spec),
        )
        assert tools.faiss is module
        found.append([tools.get_invlist(index.invlists, number) for number in range(_NLIST)])
    for local, remote in zip(*found, strict=True):
        assert all(map(np.array_equal, local, remote))
    assert sum(len(ids) for ids, _ in found[1]) == 700


def test_ids_of_a_list_are_read_by_rev_swig_ptr(modules: tuple[Any, Any]) -> None:
    found = []
    for module in modules:
        index = _index(module, f"IVF{_NLIST},Flat")
        lists = index.invlists
        n = lists.list_size(2)
        found.append(module.rev_swig_ptr(lists.get_ids(2), n).copy())
    assert np.array_equal(*found)
    assert found[1].dtype == np.int64


def test_nothing_behind_the_arrays_is_read(modules: tuple[Any, Any]) -> None:
    proxy = modules[1]
    flat, lists = _index(proxy, "Flat"), _index(proxy, f"IVF{_NLIST},Flat").invlists
    for pointer, n in (
        (flat.get_xb(), 700 * _D + 1),
        (flat.get_xb(), -1),
        (lists.get_ids(0), lists.list_size(0) + 1),
        (lists.get_codes(0), lists.list_size(0) * lists.code_size + 1),
        (lists.get_ids(_NLIST), 1),
        (lists.get_ids(-1), 1),
    ):
        with pytest.raises(faiss_proxy.RemoteError, match="there are"):
            proxy.rev_swig_ptr(pointer, n)
    assert len(proxy.rev_swig_ptr(flat.get_xb(), 0)) == 0


def test_other_functions_say_that_they_cannot_take_it(modules: tuple[Any, Any]) -> None:
    proxy = modules[1]
    with pytest.raises(faiss_proxy.RemoteError, match=r"fvec_norm_L2sqr cannot take .*to_local"):
        proxy.fvec_norm_L2sqr(_index(proxy, "Flat").get_xb(), _D)


def test_selectors_of_a_length_and_a_place_travel(modules: tuple[Any, Any]) -> None:
    ids = np.arange(0, 700, 7)
    found = []
    for module in modules:
        index = _index(module, "Flat")
        chosen = module.SearchParameters(sel=module.IDSelectorBatch(50, module.swig_ptr(ids)))
        found.append(index.search(np.zeros((3, _D), np.float32), 5, params=chosen)[1])
    assert np.array_equal(*found)
    assert set(found[1].ravel().tolist()) <= set(ids[:50].tolist())


@pytest.mark.parametrize("kind", ["IDSelectorBatch", "IDSelectorArray", "IDSelectorBitmap"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "list", "place"])
def test_ids_that_change_later_are_seen_where_faiss_sees_them(
    modules: tuple[Any, Any], kind: str, dtype: str
) -> None:
    found = []
    for module in modules:
        ids: Any = np.arange(1, 40, dtype="uint8" if "map" in kind else "int64")
        given = (
            ids.tolist() if dtype == "list" else ids if dtype == "place" else ids.astype(dtype, copy=False)
        )
        if "map" in kind:
            given = ids
        args = (39, module.swig_ptr(ids)) if dtype == "place" else (given,)
        chosen = module.SearchParameters(sel=getattr(module, kind)(*args))
        for each in (ids, given):
            each[0] = 100
        found.append(_index(module, "Flat").search(np.zeros((3, _D), np.float32), 39, params=chosen))
    assert all(map(np.array_equal, *found))


def test_what_is_of_this_process_refuses_an_object_of_the_servers(modules: tuple[Any, Any]) -> None:
    for index in (object(), _index(modules[1], "Flat")):
        with pytest.raises(TypeError):
            modules[1].Level1Quantizer(index, 4)
