"""FAISS's methods of C++, given places in memory of this process, of indexes on a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_D, _NLIST = 16, 6
_RANDOM = np.random.default_rng(2)
_XB, _XQ = (_RANDOM.random((n, _D), dtype=np.float32) for n in (400, 9))
_BITS = _RANDOM.integers(0, 256, (300, 4), np.uint8)


def _ivf(f: Any, spec: str = "Flat", *, is_filled: bool = True) -> Any:
    index = f.index_factory(_D, f"IVF{_NLIST},{spec}")
    index.train(_XB)
    if is_filled:
        index.add(_XB)
    index.nprobe = 3
    return index


def _flat(f: Any, metric: str = "METRIC_L2") -> Any:
    index = f.IndexFlat(_D, getattr(f, metric))
    index.add(_XB)
    return index


# ---- programs ------------------------------------------------------------------------------------


def _subset(f: Any, metric: str) -> Any:
    index, p = _flat(f, metric), f.swig_ptr
    labels = np.array([[0, 3, -1, 399]] * 9)
    found = np.full((9, 4), 5, np.float32)
    index.compute_distance_subset(9, p(_XQ), 4, p(found), p(labels))
    return found


def _filled_by_pointers(f: Any) -> Any:
    """What a program writes that avoids FAISS's Python: train, add, search, encode."""
    p, index = f.swig_ptr, f.IndexIVFPQ(f.IndexFlatL2(_D), _D, _NLIST, 4, 4)
    index.train_c(400, p(_XB))
    ids = np.arange(400) + 7
    index.add_with_ids_c(300, p(_XB), p(ids))
    codes = np.zeros((400, index.sa_code_size()), np.uint8)
    index.sa_encode_c(400, p(_XB), p(codes))
    index.add_sa_codes_c(100, p(codes[300:]), p(ids[300:]))
    back, labels = np.zeros_like(_XB), np.zeros((9, 2), np.int64)
    index.sa_decode_c(400, p(codes), p(back))
    index.assign_c(9, p(_XQ), p(labels), 2)
    n = index.remove_ids_c(f.IDSelectorRange(0, 50))
    return n, index.ntotal, codes, back, labels, index.search(_XQ, 4)


def _reconstructed(f: Any) -> Any:
    index, p = _ivf(f, "SQ8"), f.swig_ptr
    index.make_direct_map()
    keys, one, few = np.array([3, 399, 0]), np.zeros(_D, np.float32), np.zeros((3, _D), np.float32)
    index.reconstruct_c(7, p(one))
    index.reconstruct_batch_c(3, p(keys), p(few))
    some = np.zeros((5, _D), np.float32)
    index.reconstruct_n_c(10, 5, p(some))
    distances, labels = np.zeros((9, 2), np.float32), np.zeros((9, 2), np.int64)
    vectors = np.zeros((9, 2, _D), np.float32)
    index.search_and_reconstruct_c(9, p(_XQ), 2, p(distances), p(labels), p(vectors))
    index.update_vectors_c(3, p(keys), p(_XQ))
    return one, few, some, distances, labels, vectors, index.search(_XQ, 2)


def _residuals(f: Any) -> Any:
    index, p = _flat(f), f.swig_ptr
    one, few, keys = np.zeros(_D, np.float32), np.zeros((9, _D), np.float32), np.arange(9) * 2
    index.compute_residual(p(_XQ), p(one), 5)
    index.compute_residual_n(9, p(_XQ), p(few), p(keys))
    return one, few


def _preassigned(f: Any) -> Any:
    index, p = _ivf(f), f.swig_ptr
    near, lists = index.quantizer.search(_XQ, 3)
    distances, labels = np.zeros((9, 4), np.float32), np.zeros((9, 4), np.int64)
    index.search_preassigned_c(9, p(_XQ), 4, p(lists), p(near), p(distances), p(labels), False)
    return distances, labels


def _permuted(f: Any) -> Any:
    index, order = _flat(f), np.arange(400)[::-1].copy()
    index.permute_entries_c(f.swig_ptr(order))
    return index.search(_XQ, 2)


def _transforms(f: Any) -> Any:
    p, turn = f.swig_ptr, f.PCAMatrix(_D, 8)
    turn.train_c(400, p(_XB))
    small, back = np.zeros((9, 8), np.float32), np.zeros((9, _D), np.float32)
    turn.apply_noalloc(9, p(_XQ), p(small))
    turn.reverse_transform_c(9, p(small), p(back))
    return small, back


def _quantizers(f: Any) -> Any:
    p, pq = f.swig_ptr, f.ProductQuantizer(_D, 4, 4)
    pq.train_c(400, p(_XB))
    codes, back = np.zeros((9, 2), np.uint8), np.zeros((9, _D), np.float32)
    pq.compute_codes_c(p(_XQ), p(codes), 9)
    pq.decode_c(p(codes), p(back), 9)
    return codes, back


def _clustered(f: Any) -> Any:
    p, clustering = f.swig_ptr, f.Clustering(_D, 5)
    index, weights = f.IndexFlatL2(_D), np.linspace(1, 2, 400, dtype=np.float32)
    clustering.train_c(400, p(_XB), index, p(weights))
    again = f.Clustering(_D, 5)
    again.train_c(400, p(_XB), index)
    return [f.vector_to_array(each.centroids) for each in (clustering, again)]


def _bits(f: Any) -> Any:
    p, index = f.swig_ptr, f.IndexBinaryFlat(32)
    index.add_c(300, p(_BITS))
    found = np.zeros((5, 3), np.int32), np.zeros((5, 3), np.int64), np.zeros((5, 3, 4), np.uint8)
    index.search_and_reconstruct(5, p(_BITS), 3, *map(p, found))
    labels, one = np.zeros((5, 2), np.int64), np.zeros(4, np.uint8)
    index.assign_c(5, p(_BITS), p(labels), 2)
    index.reconstruct_c(9, p(one))
    lists = f.IndexBinaryIVF(f.IndexBinaryFlat(32), 32, 4)
    lists.train_c(300, p(_BITS))
    lists.add(_BITS)
    more = np.zeros((5, 9), np.int32), np.zeros((5, 9), np.int64), np.zeros((5, 9, 4), np.uint8)
    lists.search_and_reconstruct(5, p(_BITS), 9, *map(p, more))
    return *found, labels, one, *more


def _of_a_kind(f: Any) -> Any:
    p, index, bits = f.swig_ptr, _ivf(f, is_filled=False), f.IndexBinaryFlat(32)
    index.train_ex(400, p(_XB), f.Float32)
    index.add_ex(200, p(_XB), f.Float32)
    ids = np.arange(200) + 500
    index.add_with_ids_ex(200, p(_XB), f.Float32, p(ids))
    bits.add_ex(300, p(_BITS), f.UInt8)
    found = np.zeros((9, 3), np.float32), np.zeros((9, 3), np.int64)
    index.search_ex(9, p(_XQ), f.Float32, 3, *map(p, found))
    wrong = [
        outcome(lambda: index.add_ex(1, p(_XB), f.Float16)),
        outcome(lambda: index.train_ex(1, p(_XB), f.Int8)),
        outcome(lambda: index.search_ex(1, p(_XB), f.UInt8, 3, *map(p, found))),
        outcome(lambda: bits.add_ex(1, p(_XB), f.Float32)),
    ]
    return index.ntotal, bits.ntotal, *found, wrong


def _entries(f: Any) -> Any:
    """Inverted lists that are written by hand, put into an index, and changed in it."""
    p, index = f.swig_ptr, _ivf(f, is_filled=False)
    lists, where = f.ArrayInvertedLists(_NLIST, _D * 4), index.quantizer.assign(_XB, 1).ravel()
    begins = []
    for list_no in range(_NLIST):
        ids = np.flatnonzero(where == list_no)
        codes = np.ascontiguousarray(_XB[ids]).view(np.uint8)
        begins.append(lists.add_entries(list_no, len(ids), p(ids), p(codes)))
        row = _XB[list_no].view(np.uint8).copy()
        begins.append(lists.add_entry(list_no, 1000 + list_no, p(row)))
    index.replace_invlists(lists)
    index.ntotal = lists.compute_ntotal()
    found = [index.search(_XQ, 4), begins, lists.get_single_id(2, 1)]
    row, ids = _XQ[0].view(np.uint8).copy(), np.array([77, 78])
    lists.update_entry(3, 0, 500, p(row))
    two = _XQ[:2].view(np.uint8).copy()
    lists.update_entries(1, 2, 2, p(ids), p(two))
    return [*found, index.search(_XQ, 4)]


def _tables(f: Any) -> Any:
    p, pq = f.swig_ptr, f.ProductQuantizer(_D, 4, 4)
    pq.train(_XB)
    found = [np.zeros((n, 4, 16), np.float32) for n in (9, 9, 1, 1)]
    pq.compute_distance_tables(9, p(_XQ), p(found[0]))
    pq.compute_inner_prod_tables(9, p(_XQ), p(found[1]))
    pq.compute_distance_table(p(_XQ), p(found[2]))
    pq.compute_inner_prod_table(p(_XQ), p(found[3]))
    return found


def _neighbours(f: Any) -> Any:
    index = f.IndexHNSWFlat(_D, 8)
    index.add(_XB)
    begin, end = np.zeros(1, np.uint64), np.zeros(1, np.uint64)
    found = []
    for no, level in ((0, 0), (7, 0), (399, 1)):
        index.hnsw.neighbor_range(no, level, f.swig_ptr(begin), f.swig_ptr(end))
        found.append((int(begin[0]), int(end[0])))
    return found


def _encoded(f: Any, spec: str) -> Any:
    p, index = f.swig_ptr, _ivf(f, spec)
    lists = index.quantizer.assign(_XB, 1).ravel()
    codes, whole = (np.zeros((400, index.code_size + n), np.uint8) for n in (0, index.coarse_code_size()))
    index.encode_vectors(400, p(_XB), p(lists), p(codes))
    index.encode_vectors(400, p(_XB), p(lists), p(whole), True)
    back = np.zeros_like(_XB)
    index.decode_vectors(400, p(codes), p(lists), p(back))
    return codes, whole, back


def _centroids(f: Any) -> Any:
    p, index, found = f.swig_ptr, _ivf(f), []
    for each in (index, f.index_factory(_D, f"PCA8,IVF{_NLIST},Flat")):
        if not each.is_trained:
            each.train(_XB)
            each.add(_XB)
        nearest, of_queries = np.zeros(9, np.int64), np.zeros(9, np.int64)
        distances, labels, lists = np.zeros((9, 2), np.float32), *(np.zeros((9, 2), np.int64) for _ in "ab")
        f.search_centroid(each, p(_XQ), 9, p(nearest))
        f.search_and_return_centroids(each, 9, p(_XQ), 2, p(distances), p(labels), p(of_queries), p(lists))
        found.append([nearest, of_queries, distances, labels, lists])
    return found


def _mapped(f: Any) -> Any:
    index = _ivf(f)
    found = [index.direct_map.no()]
    index.make_direct_map()
    return [
        *found,
        index.direct_map.no(),
        index.direct_map.get(7),
        outcome(lambda: index.direct_map.get(400)),
    ]


_PROGRAMS = [
    _tables,
    _neighbours,
    *(lambda f, spec=spec: _encoded(f, spec) for spec in ("Flat", "SQ8", "PQ4x4np")),
    _centroids,
    _mapped,
    _of_a_kind,
    *(lambda f, metric=metric: _subset(f, metric) for metric in ("METRIC_L2", "METRIC_INNER_PRODUCT")),
    _filled_by_pointers,
    _reconstructed,
    _residuals,
    _preassigned,
    _permuted,
    _transforms,
    _quantizers,
    _clustered,
    _bits,
    _entries,
]


@pytest.mark.parametrize("program", _PROGRAMS)
def test_methods_of_cpp_take_places_as_with_faiss(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


# ---- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f: _subset(f, "METRIC_L1"),
        lambda f: _flat(f).add_c(3),
        lambda f: _flat(f).compute_distance_subset(_XQ),
        lambda f: _ivf(f).add_core(_XQ),
        lambda f: f.IndexBinaryFlat(32).search_and_reconstruct(_BITS, 3),
        lambda f: _ivf(f).get_InvertedListScanner(),
        lambda f: _flat(f).get_distance_computer(1, 2),
    ],
)
def test_an_error_is_that_of_faiss(modules: tuple[Any, Any], wrong: Any) -> None:
    here, there = (outcome(lambda f=f: wrong(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "raised"
    assert here == there


def _lists(f: Any) -> Any:
    return f.downcast_InvertedLists(_ivf(f).invlists)


_ID, _ROW, _ORDER = np.array([5]), _XQ[:1].view(np.uint8).copy(), np.full(400, 2**40)
_FAR, _BEFORE, _NO_LIST = (np.array([n]) for n in (400, -2, _NLIST))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda f, p: _flat(f).compute_distance_subset(1, p(_XQ), 1, p(_XQ.copy()), p(_FAR)),
        lambda f, p: _flat(f).compute_distance_subset(1, p(_XQ), 1, p(_XQ.copy()), p(_BEFORE)),
        lambda f, p: _flat(f).compute_residual(p(_XQ), p(_XQ.copy()), -1),
        lambda f, p: _flat(f).permute_entries_c(p(_ORDER)),
        lambda f, p: _flat(f).permute_entries(_ORDER),
        lambda f, p: _lists(f).add_entries(_NLIST, 1, p(_ID), p(_ROW)),
        lambda f, p: _lists(f).update_entries(0, 10**6, 1, p(_ID), p(_ROW)),
        lambda f, p: _lists(f).update_entries(0, -1, 1, p(_ID), p(_ROW)),
        lambda f, p: _lists(f).get_single_id(0, 10**6),
        lambda f, p: _lists(f).get_single_id(-1, 0),
        lambda f, p: f.IndexHNSWFlat(_D, 8).hnsw.neighbor_range(0, 0, p(_ORDER), p(_ORDER)),
        lambda f, p: _ivf(f).encode_vectors(1, p(_XQ), p(_NO_LIST), p(_XQ.copy())),
        lambda f, p: f.downcast_InvertedLists(_ivf(f, "PQ4x4fs").invlists).add_entries(0, 1, p(_ID), p(_ROW)),
    ],
)
def test_what_leads_outside_of_arrays_is_refused(modules: tuple[Any, Any], wrong: Any) -> None:
    with pytest.raises(modules[1].RemoteError, match=r"no position|each of 0|there are lists|entries|levels"):
        wrong(modules[1], modules[1].swig_ptr)


# ---- more than there is room for -----------------------------------------------------------------


def _most(f: Any, method: str, k: Any) -> Any:
    return getattr(_flat(f), method)(_XQ, k)


def _most_bits(f: Any, method: str, k: Any) -> Any:
    return getattr(f.IndexBinaryFlat(32), method)(_BITS[:2], k)


@pytest.mark.parametrize("k", [2**40, 2**62, 2**63 - 1, 2**63, 2**70, np.int64(2**40), -(2**70)])
@pytest.mark.parametrize(
    ("program", "method"),
    [
        *((_most, method) for method in ("search", "assign", "search_and_reconstruct")),
        *((_most_bits, method) for method in ("search", "assign")),
    ],
)
def test_a_k_that_there_is_no_memory_for_is_the_error_of_faiss(
    modules: tuple[Any, Any], program: Any, method: str, k: Any
) -> None:
    here, there = (outcome(lambda f=f: program(f, method, k)) for f in modules)  # type: ignore[misc]
    assert here[0] == "raised"
    assert here == there


# ---- names ---------------------------------------------------------------------------------------


def test_a_named_index_has_what_was_written_by_pointers_again(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    index, p = _ivf(f), f.swig_ptr
    index.save_as("written")
    ids, rows = np.array([900, 901]), _XQ[:2].view(np.uint8).copy()
    lists = f.downcast_InvertedLists(index.invlists)
    lists.add_entries(2, 2, p(ids), p(rows))
    lists.update_entry(1, 0, 902, p(rows))
    index.add_c(9, p(_XQ))
    wanted = f.serialize_index(index)
    calls = index._handle.connection._calls
    calls.names.give_up(calls.names.open("written").graph.root().named["written"])
    assert np.array_equal(f.serialize_index(f.open_index("written")), wanted)
