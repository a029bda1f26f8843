"""What programs do with places in memory of their own process, while a server is configured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

from faiss_proxy import pointers

_XB = np.random.default_rng(0).random((50, 8), dtype=np.float32)


def _heap(f: Any) -> Any:
    found, ids = np.zeros((4, 3), np.float32), np.zeros((4, 3), np.int64)
    heap = f.float_maxheap_array_t()
    heap.k, heap.nh, heap.val, heap.ids = 3, 4, f.swig_ptr(found), f.swig_ptr(ids)
    heap.heapify()
    heap.addn(8, f.swig_ptr(_XB[:4].copy()))
    heap.reorder()
    return found, ids


def _kinds(f: Any) -> Any:
    pointer = f.swig_ptr(_XB)
    return type(pointer).__name__, int(pointer) == _XB.ctypes.data, f.rev_swig_ptr(pointer, 9)


def _merged(f: Any) -> Any:
    tools = __import__(f"{f.__name__}.contrib.exhaustive_search", fromlist=["x"])
    index = f.IndexFlatL2(8)
    index.add(_XB)
    return tools.range_search_gpu(_XB[:5], 0.7, index, index, gpu_k=3)


def _cast(f: Any) -> Any:
    """A pointer of FAISS's that was not made by `swig_ptr`."""
    ids = np.arange(10, 30)
    place = f.cast_integer_to_idx_t_ptr(ids.ctypes.data)
    index = f.IndexFlatL2(8)
    index.add(_XB)
    return index.search(_XB[:3], 2, params=f.SearchParameters(sel=f.IDSelectorBatch(9, place)))


@pytest.mark.parametrize("program", [_heap, _kinds, _merged, _cast])
def test_pointers_of_this_process_are_faiss_own(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def test_an_array_is_not_kept_by_its_pointer() -> None:
    array = np.zeros(9, np.float32)
    pointer = pointers.pointer_to(array)
    assert pointers.array_behind(pointer) is array
    del array
    assert pointers.array_behind(pointer) is None


# ---- of an index on a server ---------------------------------------------------------------------


def _vectors(f: Any) -> Any:
    index = f.IndexPQ(8, 2, 4)
    index.train(_XB)
    index.add(_XB)
    mapped = f.IndexIDMap(f.IndexFlatL2(8))
    mapped.add_with_ids(_XB, np.arange(50) * 3)
    codes, centroids, ids = index.codes, index.pq.centroids, mapped.id_map
    copied = np.zeros(50, np.int64)
    f.memcpy(f.swig_ptr(copied), ids.data(), copied.nbytes)
    return copied, *(f.rev_swig_ptr(each.data(), each.size()).copy() for each in (codes, centroids, ids))


def _neighbours(f: Any) -> Any:
    xb = np.random.default_rng(1).random((300, 8), dtype=np.float32)
    index = f.IndexNSGFlat(8, 16)
    index.add(xb)
    tools = __import__(f"{f.__name__}.contrib.inspect_tools", fromlist=["x"])
    return tools.get_NSG_neighbors(index.nsg), f.IndexNSGFlat(8, 16).nsg.get_final_graph()


@pytest.mark.parametrize("program", [_vectors, _neighbours])
def test_what_data_points_to_is_read_as_a_copy(modules: tuple[Any, Any], program: Any) -> None:
    here, there = (outcome(lambda f=f: program(f)) for f in modules)  # type: ignore[misc]
    assert here[0] == "gave"
    assert here == there


def test_nothing_behind_the_data_is_read(modules: tuple[Any, Any]) -> None:
    f = modules[1]
    vector = f.IndexPQ(8, 2, 4).pq.centroids
    with pytest.raises(f.RemoteError, match="there are 512 bytes"):
        f.rev_swig_ptr(vector.data(), 129)
