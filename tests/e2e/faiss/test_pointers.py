"""The idioms by which programs read FAISS's arrays through pointers, of an index on a server."""

from __future__ import annotations

import importlib
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome
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


@pytest.mark.parametrize("spec", [f"IVF{_NLIST},Flat", f"IVF{_NLIST},PQ4np", f"IVF{_NLIST},PQ4x4fs"])
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


_OF_HERE: list[Any] = [
    lambda proxy, index: proxy.Level1Quantizer(index, 4),
    lambda proxy, index: proxy.VectorTransformVector().push_back(proxy.PCAMatrix(_D, 4)),
    lambda proxy, index: proxy.Cloner().clone_Index(index),
]


@pytest.mark.parametrize("program", _OF_HERE)
def test_what_is_of_this_process_refuses_an_object_of_the_servers(
    modules: tuple[Any, Any], program: Any
) -> None:
    proxy = modules[1]
    index = _index(proxy, f"IVF{_NLIST},Flat")
    assert isinstance(index, proxy.Level1Quantizer)
    with pytest.raises(proxy.RemoteError, match="server"):
        program(proxy, index)


def test_what_is_of_this_process_takes_what_is(modules: tuple[Any, Any]) -> None:
    found = []
    for module in modules:
        with faiss_proxy.local():
            index = _index(module, f"IVF{_NLIST},Flat")
            vector = module.InvertedListsPtrVector()
            vector.push_back(index.invlists)
            found.append((vector.size(), module.Cloner().clone_Index(index).ntotal))
    assert found[0] == found[1] == (1, 700)


def _rotated(module: Any) -> Any:
    transform = module.LinearTransform(_D, _D, True)
    turned = np.linalg.qr(np.random.default_rng(2).random((_D, _D)))[0].astype(np.float32)
    module.copy_array_to_vector(turned.ravel(), transform.A)
    module.copy_array_to_vector(np.arange(_D, dtype=np.float32), transform.b)
    transform.is_trained = True
    transform.set_is_orthonormal()
    x = np.random.default_rng(3).random((5, _D), dtype=np.float32)
    applied = transform.apply(x)
    return transform.is_orthonormal, applied, transform.reverse_transform(applied)


def _turned(module: Any) -> Any:
    transform = module.RandomRotationMatrix(_D, _D)
    transform.init(1234)
    return transform.is_trained, transform.apply(np.eye(_D, dtype=np.float32))


def _refined(module: Any) -> Any:
    xb = np.random.default_rng(0).random((700, _D), dtype=np.float32)
    index = module.IndexRefineFlat(_index(module, "PQ4x4"), module.swig_ptr(xb))
    index.k_factor = 4
    return index.search(xb[:5], 3)


def _consistent(module: Any) -> Any:
    index = module.index_factory(_D, "IDMap2,Flat")
    index.add_with_ids(np.eye(_D, dtype=np.float32), np.arange(_D) * 3)
    index.construct_rev_map()
    return index.check_consistency(), index.reconstruct(3)


def _ranges(module: Any) -> Any:
    space = module.ParameterSpace()
    space.initialize(_index(module, f"IVF{_NLIST},PQ4x4"))
    each = [space.parameter_ranges.at(n) for n in range(space.parameter_ranges.size())]
    return [(it.name, module.vector_to_array(it.values)) for it in each], space.combination_name(1)


def _with_parameters(module: Any) -> Any:
    x = np.random.default_rng(3).random((5, _D), dtype=np.float32)
    index = _index(module, f"PCA8,IVF{_NLIST},Flat")
    chosen = module.SearchParametersIVF(nprobe=3, sel=module.IDSelectorRange(100, 600))
    found, inside = (module.search_with_parameters, 4), (module.range_search_with_parameters, 0.2)
    plain = [function(index, x, limit) for function, limit in (found, inside)]
    steered = [function(index, x, limit, chosen) for function, limit in (found, inside)]
    return plain, steered, found[0](index, x, 4, chosen, output_stats=True)[2]["ndis"]


def _pickled(module: Any) -> Any:
    errors = []
    for thing in (module.SearchParametersIVF(nprobe=3), module.IDSelectorBatch([1, 2])):
        with pytest.raises(TypeError) as raised:
            pickle.dumps(thing)
        errors.append(str(raised.value))
    return errors


def _deleted(module: Any) -> Any:
    with pytest.raises(AttributeError) as raised:
        del module.IndexFlatL2(_D).d
    return str(raised.value)


def _misread(module: Any) -> Any:
    errors = []
    reads: list[Any] = [
        ((Path(__file__),), {}),
        ((), {"fname": "x"}),
        (("x",), {"io_flags": 0}),
        ((str(Path(__file__).parent),), {}),
    ]
    writes: list[Any] = [((module.IndexFlatL2(_D), Path("x")), {}), ((), {"idx": 1, "fname": "x"})]
    for args, kwargs in reads:
        with pytest.raises((TypeError, RuntimeError)) as raised:
            module.read_index(*args, **kwargs)
        errors.append((type(raised.value).__name__, str(raised.value)))
    for args, kwargs in writes:
        with pytest.raises(TypeError) as raised:
            module.write_index(*args, **kwargs)
        errors.append(("TypeError", str(raised.value)))
    return errors


def _without_lists(module: Any) -> Any:
    with tempfile.NamedTemporaryFile() as file:
        module.write_index(_index(module, f"IVF{_NLIST},Flat"), file.name)
        whole = [module.read_index(file.name, flags).ntotal for flags in (module.IO_FLAG_MMAP, 0)]
        with pytest.raises(RuntimeError, match="could not load ArrayInvertedLists"):
            module.read_index(file.name, module.IO_FLAG_SKIP_IVF_DATA)
    return whole


_BY_HAND = [
    _without_lists,
    _rotated,
    _turned,
    _refined,
    _consistent,
    _ranges,
    _with_parameters,
    _pickled,
    _deleted,
    _misread,
]


@pytest.mark.parametrize("program", _BY_HAND)
def test_what_programs_do_by_hand_gives_the_same(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda module=module: program(module)) for module in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def _short_refined(proxy: Any) -> Any:
    xb = np.zeros((699, _D), np.float32)
    return proxy.IndexRefineFlat(_index(proxy, "PQ4x4"), proxy.swig_ptr(xb))


def _refined_by_nothing(proxy: Any) -> Any:
    return proxy.IndexRefineFlat(_index(proxy, "PQ4x4"), proxy.swig_ptr(np.zeros((700, _D), np.float32)))


def _small_matrix(proxy: Any) -> Any:
    return proxy.copy_array_to_vector(np.zeros(3, np.float32), proxy.LinearTransform(_D, _D).A)


def _ids_of_a_map(proxy: Any) -> Any:
    return proxy.copy_array_to_vector(np.zeros(9, np.int64), proxy.index_factory(_D, "IDMap,Flat").id_map)


def _trained_without(proxy: Any) -> Any:
    proxy.LinearTransform(_D, _D).is_trained = True


def _straight_without(proxy: Any) -> Any:
    return proxy.LinearTransform(_D, _D).set_is_orthonormal()


def _huge_k(proxy: Any) -> Any:
    index = _index(proxy, f"IVF{_NLIST},Flat")
    return proxy.search_with_parameters(index=index, x=np.zeros((1, _D), np.float32), k=2**31)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (_huge_k, "2,147,483,648"),
        (_short_refined, "699"),
        (_refined_by_nothing, "not there any more"),
        (_small_matrix, "256 numbers"),
        (_ids_of_a_map, "0 numbers"),
        (_trained_without, "is_trained"),
        (_straight_without, "no matrix"),
    ],
)
def test_what_would_lead_outside_of_arrays_is_refused(
    modules: tuple[Any, Any], program: Any, said: str
) -> None:
    with pytest.raises(faiss_proxy.RemoteError, match=said):
        program(modules[1])
    assert _index(modules[1], "Flat").ntotal == 700
