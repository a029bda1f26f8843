"""Methods of FAISS that take places in memory, with arrays in their stead, which are checked first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import faiss
import numpy as np

from faissbase.dropin.bounds import check_call, check_list
from faissbase.dropin.frames import Array
from faissbase.dropin.refusals import Refused

_BLOCKS = (faiss.IndexIVFPQFastScan, faiss.IndexIVFAdditiveQuantizerFastScan)


def add_core(index: Any, x: Any, ids: Any, lists: Any) -> None:
    """Add the rows of ``x`` to the inverted lists of these numbers; ``ids`` may be None. -1: to none."""
    if isinstance(index, _BLOCKS):
        raise Refused(
            f"{_kind(index)}.add_core ends FAISS's process, for the class does not have it: call add"
        )
    is_binary = isinstance(index, faiss.IndexBinary)
    x = np.ascontiguousarray(x, np.uint8 if is_binary else np.float32)
    lists = np.ascontiguousarray(lists, np.int64)
    ids = None if ids is None else np.ascontiguousarray(ids, np.int64)
    n, width = x.shape
    if width != (index.code_size if is_binary else index.d) or lists.shape != (n,):
        raise Refused(f"add_core: {x.shape} vectors for lists {lists.shape} and d={index.d}")
    if ids is not None and ids.shape != (n,):
        raise Refused(f"add_core: {ids.shape} ids for {n} vectors")
    wrong = lists[(lists < -1) | (lists >= index.nlist)]
    if wrong.size:
        raise Refused(f"{_kind(index)}: there are lists 0 to {index.nlist - 1}, and no {wrong[0]}")
    pointer = None if ids is None else faiss.swig_ptr(ids)
    index.add_core(n, faiss.swig_ptr(x), pointer, faiss.swig_ptr(lists))


def permute_invlists(lists: Any, order: Any) -> None:
    """Put inverted lists into another order: the list ``order[i]`` becomes ``i``."""
    order = np.ascontiguousarray(order, np.int64)
    if order.shape != (lists.nlist,) or not np.array_equal(np.sort(order), np.arange(lists.nlist)):
        raise Refused(f"permute_invlists wants each of 0 to {lists.nlist - 1} once")
    lists.permute_invlists(faiss.swig_ptr(order))


def compute_distance_subset(index: Any, x: Any, labels: Any) -> Array:
    """Distances ``float32[n, k]`` of rows of ``x``, each to the vectors at its own positions; -1: to none."""
    x, labels = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(labels, np.int64)
    if x.ndim != 2 or x.shape[1] != index.d or labels.shape[:-1] != x.shape[:-1]:
        raise Refused(f"compute_distance_subset: {x.shape} vectors, {labels.shape} labels and d={index.d}")
    wrong = labels[(labels < -1) | (labels >= index.ntotal)]
    if wrong.size:
        raise Refused(f"{_kind(index)}: {wrong[0]} is no position from 0 to {index.ntotal - 1}")
    found = np.empty(labels.shape, np.float32)
    places = [faiss.swig_ptr(each) for each in (x, found, labels)]
    index.compute_distance_subset(len(x), places[0], labels.shape[1], *places[1:])
    return found


def search_and_reconstruct(index: Any, x: Any, k: int, params: Any = None) -> tuple[Array, ...]:
    """Distances, labels and codes ``uint8[n, k, code_size]`` of what is found in an index of bits."""
    x = np.ascontiguousarray(x, np.uint8)
    if x.ndim != 2 or x.shape[1] != index.code_size or type(k) is not int or k < 1:
        raise Refused(f"search_and_reconstruct: {x.shape} codes of {index.code_size} bytes and k={k!r:.40}")
    found = (
        np.empty((len(x), k), np.int32),
        np.empty((len(x), k), np.int64),
        np.empty((len(x), k, index.code_size), np.uint8),
    )
    index.search_and_reconstruct(len(x), faiss.swig_ptr(x), k, *map(faiss.swig_ptr, found), params)
    return found


def add_entries(lists: Any, list_no: Any, ids: Any, codes: Any) -> Any:
    """Put codes ``uint8[n, code_size]`` with their ids at the end of an inverted list; where they begin."""
    plain, ids, codes = _entries(lists, list_no, ids, codes)
    return plain.add_entries(list_no, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))


def update_entries(lists: Any, list_no: Any, offset: Any, ids: Any, codes: Any) -> None:
    """Put other codes and ids in the place of those of an inverted list from ``offset`` on."""
    plain, ids, codes = _entries(lists, list_no, ids, codes)
    _check_offset(lists, list_no, offset, len(ids))
    plain.update_entries(list_no, offset, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))


def get_single_id(lists: Any, list_no: Any, offset: Any) -> int:
    """The id at a place of an inverted list."""
    check_list(lists, list_no)
    _check_offset(lists, list_no, offset, 1)
    found: int = lists.get_single_id(list_no, offset)
    return found


def neighbor_range(graph: Any, no: Any, level: Any) -> tuple[int, int]:
    """Where the neighbours of a vector at a level begin and end in ``graph.neighbors``."""
    n, n_levels = graph.offsets.size() - 1, graph.cum_nneighbor_per_level.size() - 1
    if not (type(no) is type(level) is int and 0 <= no < n and 0 <= level < n_levels):
        raise Refused(
            f"{_kind(graph)} has {n} vectors on {n_levels} levels, and no {no!r:.40} on {level!r:.40}"
        )
    found = np.zeros(2, np.uint64)
    graph.neighbor_range(no, level, faiss.swig_ptr(found[:1]), faiss.swig_ptr(found[1:]))
    return int(found[0]), int(found[1])


def compute_distance_tables(quantizer: Any, x: Any) -> Array:
    """Squared distances ``float32[n, M, ksub]`` of parts of the rows of ``x`` to the centroids of a PQ."""
    return _tables(quantizer, x, quantizer.compute_distance_tables)


def compute_inner_prod_tables(quantizer: Any, x: Any) -> Array:
    """Inner products ``float32[n, M, ksub]`` of parts of the rows of ``x`` with the centroids of a PQ."""
    return _tables(quantizer, x, quantizer.compute_inner_prod_tables)


def _tables(quantizer: Any, x: Any, fill: Callable[..., None]) -> Array:
    x = np.ascontiguousarray(x, np.float32)
    if x.ndim != 2 or x.shape[1] != quantizer.d or quantizer.centroids.size() != quantizer.d * quantizer.ksub:
        raise Refused(f"{_kind(quantizer)}: {x.shape} vectors for tables of d={quantizer.d}")
    found = np.empty((len(x), quantizer.M, quantizer.ksub), np.float32)
    fill(len(x), faiss.swig_ptr(x), faiss.swig_ptr(found))
    return found


def encode_vectors(index: Any, x: Any, lists: Any, has_lists: Any = False) -> Array:
    """Codes ``uint8[n, size]`` of vectors in these inverted lists; ``has_lists``: with the lists' numbers."""
    x, lists = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(lists, np.int64)
    if x.ndim != 2 or x.shape[1] != index.d or not index.is_trained:
        raise Refused(f"encode_vectors: {x.shape} vectors for d={index.d}, is_trained={index.is_trained}")
    _check_lists(index, lists, len(x))
    size = index.code_size + (index.coarse_code_size() if has_lists else 0)
    codes = np.zeros((len(x), size), np.uint8)
    pointers = [faiss.swig_ptr(each) for each in (x, lists, codes)]
    index.encode_vectors(len(x), *pointers, bool(has_lists))
    return codes


def decode_vectors(index: Any, codes: Any, lists: Any) -> Array:
    """Vectors ``float32[n, d]`` of codes of these inverted lists."""
    codes, lists = np.ascontiguousarray(codes, np.uint8), np.ascontiguousarray(lists, np.int64)
    if codes.ndim != 2 or codes.shape[1] != index.code_size or not index.is_trained:
        raise Refused(f"decode_vectors: {codes.shape} codes of {index.code_size} bytes")
    _check_lists(index, lists, len(codes))
    found = np.zeros((len(codes), index.d), np.float32)
    index.decode_vectors(len(codes), *(faiss.swig_ptr(each) for each in (codes, lists, found)))
    return found


def _check_lists(index: Any, lists: Array, n: int) -> None:
    if isinstance(index, faiss.IndexIVFFastScan):
        raise Refused(f"{_kind(index)} keeps its codes in blocks: call sa_encode")
    if lists.shape != (n,) or (n and not 0 <= lists.min() <= lists.max() < index.nlist):
        raise Refused(
            f"{_kind(index)}: each of {n} vectors is of a list: there are lists 0 to {index.nlist - 1}"
        )


_NOTHING: dict[str, tuple[Any, ...]] = {
    "train_ex": (),
    "add_ex": (),
    "add_with_ids_ex": (np.int64,),
    "search_ex": (1, np.float32, np.int64),
}


def _of_kind(name: str) -> Callable[..., Any]:
    """A method that is told of what kind its numbers are: given none, so that FAISS says what it takes."""

    def method(index: Any, kind: Any) -> Any:
        if kind == (faiss.UInt8 if isinstance(index, faiss.IndexBinary) else faiss.Float32):
            raise Refused(f"{name}: floats and bits are given to the method without _ex")
        nothing = [each if type(each) is int else np.zeros(1, each) for each in (np.float32, *_NOTHING[name])]
        x, *more = (each if type(each) is int else faiss.swig_ptr(each) for each in nothing)
        return getattr(index, name)(0, x, kind, *more)

    return method


# ---- functions -----------------------------------------------------------------------------------


def search_centroid(index: Any, x: Any) -> Array:
    """The inverted list ``int64[n]`` that each row of ``x`` is nearest to."""
    x = _queries(index, x)
    found = np.empty(len(x), np.int64)
    faiss.search_centroid(index, faiss.swig_ptr(x), len(x), faiss.swig_ptr(found))
    return found


def search_and_return_centroids(index: Any, x: Any, k: Any) -> tuple[Array, ...]:
    """Distances and labels, the list of each query, and the list of each label."""
    x = _queries(index, x)
    if type(k) is not int or k < 1:
        raise Refused(f"search_and_return_centroids: k={k!r:.40}")
    check_call(index, "search", (x, k), {})
    found = (
        np.empty((len(x), k), np.float32),
        np.empty((len(x), k), np.int64),
        np.empty(len(x), np.int64),
        np.empty((len(x), k), np.int64),
    )
    pointers = map(faiss.swig_ptr, found)
    faiss.search_and_return_centroids(index, len(x), faiss.swig_ptr(x), k, *pointers)
    return found


def _queries(index: Any, x: Any) -> Array:
    rows: Array = np.ascontiguousarray(x, np.float32)
    if rows.ndim != 2 or rows.shape[1] != index.d or not index.is_trained:
        raise Refused(f"{rows.shape} vectors for an index of d={index.d}, is_trained={index.is_trained}")
    return rows


def _entries(lists: Any, list_no: Any, ids: Any, codes: Any) -> tuple[Any, Array, Array]:
    """Lists by their own class, ids and codes, as FAISS reads them."""
    check_list(lists, list_no)
    plain = faiss.downcast_InvertedLists(lists)
    if type(plain) is not faiss.ArrayInvertedLists:
        raise Refused(f"entries are written into ArrayInvertedLists on a server, and not into {_kind(plain)}")
    ids, codes = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(codes, np.uint8)
    if ids.ndim != 1 or codes.shape != (len(ids), plain.code_size):
        raise Refused(f"{ids.shape} ids and {codes.shape} codes for lists of code_size={plain.code_size}")
    return plain, ids, codes


def _check_offset(lists: Any, list_no: int, offset: Any, n: int) -> None:
    size = lists.list_size(list_no)
    if type(offset) is not int or not 0 <= offset <= offset + n <= size:
        raise Refused(f"list {list_no} has {size} entries, and not {n} from {offset!r:.40} on")


def _kind(thing: Any) -> str:
    return type(thing).__name__


METHODS: dict[str, tuple[type, Callable[..., Any]]] = {
    "add_core": (object, add_core),
    "permute_invlists": (object, permute_invlists),
    "compute_distance_subset": (faiss.IndexFlat, compute_distance_subset),
    "search_and_reconstruct": (faiss.IndexBinary, search_and_reconstruct),
    "add_entries": (faiss.InvertedLists, add_entries),
    "update_entries": (faiss.InvertedLists, update_entries),
    "get_single_id": (faiss.InvertedLists, get_single_id),
    **{name: (object, _of_kind(name)) for name in _NOTHING},
    "neighbor_range": (faiss.HNSW, neighbor_range),
    "compute_distance_tables": (faiss.ProductQuantizer, compute_distance_tables),
    "compute_inner_prod_tables": (faiss.ProductQuantizer, compute_inner_prod_tables),
    "encode_vectors": (faiss.IndexIVF, encode_vectors),
    "decode_vectors": (faiss.IndexIVF, decode_vectors),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "search_centroid": search_centroid,
    "search_and_return_centroids": search_and_return_centroids,
}


def method_of(thing: Any, name: str) -> Callable[..., Any] | None:
    """What is done with arrays where FAISS's method takes places; None where it is not one of those."""
    of, method = METHODS.get(name, (object, None))
    is_one = method is not None and isinstance(thing, of) and hasattr(type(thing), name)
    return partial(method, thing) if method is not None and is_one else None
