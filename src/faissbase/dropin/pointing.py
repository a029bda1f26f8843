"""Methods of FAISS that take places in memory, with arrays in their stead, which are checked first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

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


def _kind(thing: Any) -> str:
    return type(thing).__name__


METHODS: dict[str, Callable[..., Any]] = {"add_core": add_core, "permute_invlists": permute_invlists}
