"""Methods of FAISS that take places in memory, of an index on a server: what lies there travels as arrays.

So are written what FAISS's ``contrib`` does by hand, and programs that avoid FAISS's own Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from faiss_proxy.pointers import is_pointer, numbers_at
from faissbase.dropin.frames import Array

Call = Callable[..., Any]  # a method of the index on the server, by its name and its arguments


def takes(args: tuple[Any, ...]) -> bool:
    """Whether a method is given a place in memory."""
    return any(map(is_pointer, args))


def _rows(index: Any, n: int, place: Any) -> Array:
    is_binary = "Binary" in type(index).__name__
    width = index.code_size if is_binary else index.d
    return numbers_at(place, n * width).reshape(n, width)


def _put(place: Any, array: Array) -> None:
    array = np.ascontiguousarray(array)
    ctypes.memmove(int(place), array.ctypes.data, array.nbytes)


def _train(call: Call, index: Any, n: int, x: Any) -> None:
    call("train", _rows(index, n, x))


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


METHODS: dict[str, Callable[..., None]] = {
    "train_c": _train,
    "add_c": _add,
    "add_with_ids_c": _add_with_ids,
    "add_core": _add_core,
    "search_c": _search,
    "range_search_c": _range_search,
    "range_search_preassigned_c": _range_search_preassigned,
    "permute_invlists": _permute,
}
