"""Methods of FAISS that take places in memory, of an index on a server: what lies there travels as arrays.

So are written what FAISS's ``contrib`` does by hand, and programs that avoid FAISS's own Python.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from faiss_proxy.connection import RemoteError
from faiss_proxy.pointers import is_pointer, numbers_at
from faissbase.dropin.frames import Array

Call = Callable[..., Any]  # a method of the index on the server, by its name and its arguments

_WITHOUT = ("remove_ids_c",)


def takes(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a method is given a place in memory, or is one of C++ that wants none."""
    return name in _WITHOUT or any(map(is_pointer, args))


def check_arguments(local: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise what Python raises where there are too few arguments, or too many."""
    try:
        inspect.signature(local).bind(None, *args, **kwargs)
    except TypeError:
        local(None, *args, **kwargs)


def check_raw(name: str, local: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise what Python raises where a method of C++ is given too little, or arrays instead of places."""
    check_arguments(local, args, kwargs)
    raise TypeError(f"{name} is a method of C++: it wants faiss.swig_ptr(array) for an array")


def _rows(index: Any, n: int, place: Any) -> Array:
    return _table(n, _width(index), place)


def _width(thing: Any) -> int:
    """How many numbers a row has that an index, a transform or a quantizer is given."""
    name = "code_size" if _is_binary(thing) else "d_in" if hasattr(type(thing), "d_in") else "d"
    found: int = getattr(thing, name)
    return found


def _is_binary(thing: Any) -> bool:
    return "Binary" in type(thing).__name__


def _table(n: int, width: int, place: Any) -> Array:
    return numbers_at(place, n * width).reshape(n, width)


def _codes(index: Any, n: int, place: Any) -> Array:
    return _table(n, index.sa_code_size(), place)


def _put(place: Any, array: Array) -> None:
    array = np.ascontiguousarray(array)
    ctypes.memmove(int(place), array.ctypes.data, array.nbytes)


def _train(call: Call, thing: Any, n: int, x: Any, *more: Any) -> None:
    """Of a `Clustering`, ``more`` is an index, and perhaps a place with weights."""
    call("train", _rows(thing, n, x), *(numbers_at(each, n) if is_pointer(each) else each for each in more))


def _add(call: Call, index: Any, n: int, x: Any) -> None:
    call("add", _rows(index, n, x))


def _add_with_ids(call: Call, index: Any, n: int, x: Any, ids: Any) -> None:
    call("add_with_ids", _rows(index, n, x), numbers_at(ids, n))


def _add_core(call: Call, index: Any, n: int, x: Any, ids: Any, lists: Any, context: Any = None) -> None:
    found = None if ids is None else numbers_at(ids, n)
    call("add_core", _rows(index, n, x), found, numbers_at(lists, n))


def _search(
    call: Call, index: Any, n: int, x: Any, k: int, distances: Any, labels: Any, params: Any = None
) -> None:
    found = call("search", _rows(index, n, x), k, params=params)
    for place, array in zip((distances, labels), found, strict=True):
        _put(place, array)


def _range_search(
    call: Call, index: Any, n: int, x: Any, radius: Any, result: Any, params: Any = None
) -> None:
    _fill(result, *call("range_search", _rows(index, n, x), radius, params=params))


def _range_search_preassigned(
    call: Call, index: Any, n: int, x: Any, radius: Any, lists: Any, distances: Any, result: Any
) -> None:
    assigned = [numbers_at(each, n * index.nprobe).reshape(n, -1) for each in (lists, distances)]
    _fill(result, *call("range_search_preassigned", _rows(index, n, x), radius, *assigned))


def _fill(result: Any, lims: Array, distances: Array, labels: Array) -> None:
    """Put what was found into FAISS's ``RangeSearchResult`` of this process."""
    sizes = np.append(np.diff(lims.astype(np.int64)), 0).astype(np.uint64)
    _put(result.lims, sizes)
    result.do_allocation()
    if labels.size:
        _put(result.distances, distances)
        _put(result.labels, labels)


def _permute(call: Call, lists: Any, order: Any) -> None:
    call("permute_invlists", numbers_at(order, lists.nlist))


def _assign(call: Call, index: Any, n: int, x: Any, labels: Any, k: int = 1) -> None:
    _put(labels, call("assign", _rows(index, n, x), k))


def _search_and_reconstruct(call: Call, index: Any, n: int, x: Any, k: int, *rest: Any) -> None:
    distances, labels, vectors, params = (*rest, None)[:4]
    found = call("search_and_reconstruct", _rows(index, n, x), k, params=params)
    for place, array in zip((distances, labels, vectors), found, strict=True):
        _put(place, array)


def _search_preassigned(call: Call, index: Any, n: int, x: Any, k: int, *rest: Any) -> None:
    lists, near, distances, labels, *more = rest
    if any(each not in (None, False) for each in more):
        raise RemoteError(
            "search_preassigned_c gives no pairs, and takes no parameters, on a server: fetch the index with "
            ".to_local()"
        )
    assigned = [numbers_at(each, n * index.nprobe).reshape(n, -1) for each in (lists, near)]
    found = call("search_preassigned", _rows(index, n, x), k, *assigned)
    for place, array in zip((distances, labels), found, strict=True):
        _put(place, array)


def _compute_distance_subset(
    call: Call, index: Any, n: int, x: Any, k: int, distances: Any, labels: Any
) -> None:
    _put(distances, call("compute_distance_subset", _rows(index, n, x), _table(n, k, labels)))


def _reconstruct(call: Call, index: Any, key: int, x: Any) -> None:
    _put(x, call("reconstruct", key))


def _reconstruct_batch(call: Call, index: Any, n: int, keys: Any, x: Any) -> None:
    _put(x, call("reconstruct_batch", numbers_at(keys, n)))


def _reconstruct_n(call: Call, index: Any, first: int, n: int, x: Any) -> None:
    _put(x, call("reconstruct_n", first, n))


def _compute_residual(call: Call, index: Any, x: Any, residual: Any, key: int) -> None:
    _put(residual, numbers_at(x, index.d) - call("reconstruct", key))


def _compute_residual_n(call: Call, index: Any, n: int, x: Any, residuals: Any, keys: Any) -> None:
    _put(residuals, _rows(index, n, x) - call("reconstruct_batch", numbers_at(keys, n)))


def _sa_encode(call: Call, index: Any, n: int, x: Any, codes: Any) -> None:
    _put(codes, call("sa_encode", _rows(index, n, x)))


def _sa_decode(call: Call, index: Any, n: int, codes: Any, x: Any) -> None:
    _put(x, call("sa_decode", _codes(index, n, codes)))


def _add_sa_codes(call: Call, index: Any, n: int, codes: Any, ids: Any = None) -> None:
    call("add_sa_codes", _codes(index, n, codes), None if ids is None else numbers_at(ids, n))


def _update_vectors(call: Call, index: Any, n: int, keys: Any, x: Any) -> None:
    call("update_vectors", numbers_at(keys, n), _rows(index, n, x))


def _remove_ids(call: Call, index: Any, selector: Any) -> Any:
    return call("remove_ids", selector)


def _permute_entries(call: Call, index: Any, order: Any) -> None:
    call("permute_entries", numbers_at(order, index.ntotal))


def _apply(call: Call, transform: Any, n: int, x: Any, found: Any) -> None:
    _put(found, call("apply", _rows(transform, n, x)))


def _reverse_transform(call: Call, transform: Any, n: int, x: Any, found: Any) -> None:
    _put(found, call("reverse_transform", _table(n, transform.d_out, x)))


def _compute_codes(call: Call, quantizer: Any, x: Any, codes: Any, n: int) -> None:
    _put(codes, call("compute_codes", _rows(quantizer, n, x)))


def _decode(call: Call, quantizer: Any, codes: Any, x: Any, n: int) -> None:
    _put(x, call("decode", _table(n, quantizer.code_size, codes)))


def _entries(lists: Any, n: int, place: Any) -> Array:
    """Codes of inverted lists."""
    width = lists.code_size
    if width == faiss.InvertedLists.INVALID_CODE_SIZE:
        raise RemoteError(
            f"no entries can be written into {type(lists).__name__} on a server: they have no codes of a size"
        )
    return _table(n, width, place)


def _add_entries(call: Call, lists: Any, list_no: int, n: int, ids: Any, codes: Any) -> Any:
    return call("add_entries", list_no, numbers_at(ids, n), _entries(lists, n, codes))


def _add_entry(call: Call, lists: Any, list_no: int, id_: int, code: Any, context: Any = None) -> Any:
    return call("add_entries", list_no, np.array([id_]), _entries(lists, 1, code))


def _update_entries(call: Call, lists: Any, list_no: int, offset: int, n: int, ids: Any, codes: Any) -> None:
    call("update_entries", list_no, offset, numbers_at(ids, n), _entries(lists, n, codes))


def _update_entry(call: Call, lists: Any, list_no: int, offset: int, id_: int, code: Any) -> None:
    call("update_entries", list_no, offset, np.array([id_]), _entries(lists, 1, code))


def _of_kind(name: str, plain: Callable[..., None], at: int) -> Callable[..., None]:
    """A method that is told at place ``at`` what its numbers are; without that it is for floats, or bits."""

    def method(call: Call, index: Any, *args: Any) -> None:
        if args[at] == (faiss.UInt8 if _is_binary(index) else faiss.Float32):
            plain(call, index, *args[:at], *args[at + 1 :])
        else:
            call(name, args[at])

    return method


def _neighbor_range(call: Call, graph: Any, no: int, level: int, begin: Any, end: Any) -> None:
    found = call("neighbor_range", no, level)
    for place, each in zip((begin, end), found, strict=True):
        _put(place, np.array([each], np.uint64))


def _compute_distance_tables(call: Call, quantizer: Any, n: int, x: Any, tables: Any) -> None:
    _put(tables, call("compute_distance_tables", _rows(quantizer, n, x)))


def _compute_inner_prod_tables(call: Call, quantizer: Any, n: int, x: Any, tables: Any) -> None:
    _put(tables, call("compute_inner_prod_tables", _rows(quantizer, n, x)))


def _compute_distance_table(call: Call, quantizer: Any, x: Any, table: Any) -> None:
    _compute_distance_tables(call, quantizer, 1, x, table)


def _compute_inner_prod_table(call: Call, quantizer: Any, x: Any, table: Any) -> None:
    _compute_inner_prod_tables(call, quantizer, 1, x, table)


def _encode_vectors(
    call: Call, index: Any, n: int, x: Any, lists: Any, codes: Any, has_lists: bool = False
) -> None:
    _put(codes, call("encode_vectors", _rows(index, n, x), numbers_at(lists, n), has_lists))


def _decode_vectors(call: Call, index: Any, n: int, codes: Any, lists: Any, x: Any) -> None:
    _put(x, call("decode_vectors", _table(n, index.code_size, codes), numbers_at(lists, n)))


def _search_centroid(call: Call, index: Any, x: Any, n: int, lists: Any) -> None:
    _put(lists, call("search_centroid", index, _rows(index, n, x)))


def _search_and_return_centroids(call: Call, index: Any, n: int, x: Any, k: int, *places: Any) -> None:
    found = call("search_and_return_centroids", index, _rows(index, n, x), k)
    for place, array in zip(places, found, strict=True):
        _put(place, array)


FUNCTIONS: dict[str, Callable[..., None]] = {
    "search_centroid": _search_centroid,
    "search_and_return_centroids": _search_and_return_centroids,
}
METHODS: dict[str, Callable[..., Any]] = {
    "train_c": _train,
    "add_c": _add,
    "add_with_ids_c": _add_with_ids,
    "add_core": _add_core,
    "train_ex": _of_kind("train_ex", _train, 2),
    "add_ex": _of_kind("add_ex", _add, 2),
    "add_with_ids_ex": _of_kind("add_with_ids_ex", _add_with_ids, 2),
    "search_ex": _of_kind("search_ex", _search, 2),
    "add_sa_codes_c": _add_sa_codes,
    "update_vectors_c": _update_vectors,
    "search_c": _search,
    "search_and_reconstruct_c": _search_and_reconstruct,
    "search_and_reconstruct": _search_and_reconstruct,  # of bits
    "search_preassigned_c": _search_preassigned,
    "range_search_c": _range_search,
    "range_search_preassigned_c": _range_search_preassigned,
    "assign_c": _assign,
    "compute_distance_subset": _compute_distance_subset,
    "reconstruct_c": _reconstruct,
    "reconstruct_batch_c": _reconstruct_batch,
    "reconstruct_n_c": _reconstruct_n,
    "compute_residual": _compute_residual,
    "compute_residual_n": _compute_residual_n,
    "sa_encode_c": _sa_encode,
    "sa_decode_c": _sa_decode,
    "remove_ids_c": _remove_ids,
    "permute_entries_c": _permute_entries,
    "permute_invlists": _permute,
    "apply_noalloc": _apply,
    "reverse_transform_c": _reverse_transform,
    "compute_codes_c": _compute_codes,
    "decode_c": _decode,
    "neighbor_range": _neighbor_range,
    "compute_distance_table": _compute_distance_table,
    "compute_distance_tables": _compute_distance_tables,
    "compute_inner_prod_table": _compute_inner_prod_table,
    "compute_inner_prod_tables": _compute_inner_prod_tables,
    "encode_vectors": _encode_vectors,
    "decode_vectors": _decode_vectors,
    "add_entries": _add_entries,
    "add_entry": _add_entry,
    "update_entries": _update_entries,
    "update_entry": _update_entry,
}
