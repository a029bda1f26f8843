"""A FAISS index with the parameters of one call beside it, whatever its class. Knows labels, not slots.

Parameters are never set on the index, which many threads search at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np

from faissbase.ann.coarse import groups_probed
from faissbase.ann.codes import SignedBytes
from faissbase.ann.flat import Neighbours, picked
from faissbase.types import Float32, Mask, Slots

# Classes whose search takes no parameters, hence no selector either.
_BARE = (
    faiss.IndexPQ,
    faiss.IndexFastScan,
    faiss.IndexLSH,
    faiss.IndexAdditiveQuantizer,
)
_NO_SELECTOR = (faiss.IndexIVFAdditiveQuantizer,)
_RABITQ_IVF = (faiss.IndexIVFRaBitQ, faiss.IndexIVFRaBitQFastScan)

_WIDEN = 1.2  # room for chance when deleted or unselected labels are dropped after the search
_WIDEN_AGAIN = 4


@contextmanager
def omp_threads(n: int) -> Iterator[None]:
    """``n`` OpenMP threads for what this thread calls; its own setting comes back after."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(n)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def innermost(index: Any) -> Any:
    """The index behind all transforms, as its own class."""
    index = faiss.downcast_index(index)
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def _shape(index: Any) -> str:
    """The classes and lists that parameters depend on."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        return f"transformed {_shape(index.index)}"
    if isinstance(index, faiss.IndexIVF):
        return f"{type(index).__name__} {index.nlist} over {_shape(index.quantizer)}"
    return type(index).__name__


class Selector:
    """Which slots may be found: ``mask`` is ``bool[n]``, slots beyond it may not.

    Bitmaps and FAISS's objects are made once per segment and kept with their buffers. Of use to many
    threads; the mask must not change.
    """

    __slots__ = ("_parts", "mask")

    def __init__(self, mask: Mask) -> None:
        self.mask = mask
        self._parts: dict[tuple[int, int, int], Selected] = {}

    def part(self, first: int, stop: int, order: Slots | None = None) -> Selected:
        """The same for labels that count from ``first``, or for the places of `Engine.order`."""
        key = (first, stop, id(order))  # a part keeps its order: no other gets the same id
        part = self._parts.get(key)
        if part is None:
            # Two threads may both make one; either serves.
            part = self._parts[key] = Selected(self.mask[first:stop], stop - first, order)
        return part


class Selected:
    """Which of ``n`` labels of one segment may be found: ``mask`` by label, ``bits`` by `Engine.order`."""

    __slots__ = ("_n_selected", "bits", "mask", "n", "order", "parameters", "selector")

    def __init__(self, mask: Mask, n: int, order: Slots | None = None) -> None:
        self.mask = mask
        self.order = order
        self.n = n
        self.bits = np.packbits(mask if order is None else mask[order[:-1]], bitorder="little")
        self.selector = faiss.IDSelectorBitmap(self.bits)
        self.parameters: dict[tuple[str, int], Any] = {}
        self._n_selected: int | None = None

    @property
    def n_selected(self) -> int:
        if self._n_selected is None:
            self._n_selected = int(np.count_nonzero(self.mask))
        return self._n_selected


class Engine:
    """An index to search. ``kept`` is what it reads and does not own, ``codes`` what it compares, if any.

    ``order`` has the label for each place of an index whose vectors lie in another order, ``int64[n + 1]``,
    and −1 at the end.
    """

    def __init__(
        self, index: Any, *kept: Any, codes: SignedBytes | None = None, order: Slots | None = None
    ) -> None:
        self.index = index
        self.codes = codes
        self.order = order
        self._kept = kept
        self._inner = innermost(index)
        self.takes_selector = not isinstance(self._inner, (*_BARE, *_NO_SELECTOR))
        self._shape = _shape(index)
        self._parameters: dict[int, Any] = {}

    @property
    def n_lists(self) -> int:
        """Lists of IVF; 0 otherwise."""
        return int(self._inner.nlist) if isinstance(self._inner, faiss.IndexIVF) else 0

    def prepared(self, queries: Float32, out: Float32 | None = None) -> Float32:
        """Queries as the index compares them, written into ``out`` where that is given."""
        if self.codes is not None:
            return self.codes.rounded(queries, out)
        if out is not None:
            out[:] = queries
        return queries

    def parameters(self, effort: int, selected: Selected | None) -> Any:
        """FAISS's parameters for one call, made once for each effort and selector."""
        if selected is None or not self.takes_selector:
            found = self._parameters.get(effort)
            if found is None:
                found = self._parameters[effort] = self._made(effort, None)
            return found
        found = selected.parameters.get((self._shape, effort))
        if found is None:
            found = selected.parameters[self._shape, effort] = self._made(effort, selected.selector)
        return found

    def _made(self, effort: int, selector: Any) -> Any:
        if isinstance(self._inner, _BARE):
            return None
        parameters = self._own_parameters(effort, {} if selector is None else {"sel": selector})
        index = faiss.downcast_index(self.index)
        while isinstance(index, faiss.IndexPreTransform):
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
            index = faiss.downcast_index(index.index)
        return parameters

    def _own_parameters(self, effort: int, given: dict[str, Any]) -> Any:
        inner = self._inner
        if isinstance(inner, faiss.IndexHNSW):
            most = max(1, inner.ntotal)  # to FAISS it is a C int
            return faiss.SearchParametersHNSW(efSearch=min(effort, most), **given)
        if isinstance(inner, faiss.IndexIVF):
            given["nprobe"] = min(effort, inner.nlist)
            quantizer = faiss.downcast_index(inner.quantizer)
            if isinstance(quantizer, faiss.IndexHNSW):
                given["quantizer_params"] = faiss.SearchParametersHNSW(efSearch=2 * given["nprobe"])
            elif isinstance(quantizer, faiss.IndexIVF):
                groups = groups_probed(given["nprobe"], quantizer.nlist)
                given["quantizer_params"] = faiss.SearchParametersIVF(nprobe=groups)
            if isinstance(inner, _RABITQ_IVF):
                return faiss.IVFRaBitQSearchParameters(**given)
            return faiss.SearchParametersIVF(**given)
        if isinstance(inner, faiss.IndexRaBitQ):
            return faiss.RaBitQSearchParameters(**given)
        return faiss.SearchParameters(**given)

    def search(self, queries: Float32, depth: int, effort: int, selected: Selected | None) -> Neighbours:
        """Up to ``depth`` candidates of each query, nearest first by the index's own distances.

        ``queries`` are contiguous: FAISS's wrapper is left out, which lets go of Python's lock to ask for d.
        """
        queries = self.prepared(queries)
        if selected is not None and not self.takes_selector:
            return self._search_and_drop(queries, depth, effort, selected)
        distances = np.empty((len(queries), depth), np.float32)
        labels = np.empty((len(queries), depth), np.int64)
        places = (faiss.swig_ptr(queries), depth, faiss.swig_ptr(distances), faiss.swig_ptr(labels))
        self.index.search_c(len(queries), *places, self.parameters(effort, selected))
        return distances, labels if self.order is None else self.order.take(labels)

    def _search_and_drop(self, queries: Float32, depth: int, effort: int, selected: Selected) -> Neighbours:
        """For indexes that take no selector: search for more, drop what is not selected, widen if need be."""
        n, n_selected = selected.n, selected.n_selected
        if not n_selected:
            shape = (len(queries), depth)
            return np.full(shape, np.inf, np.float32), np.full(shape, -1, np.int64)
        wide = min(n, int(_WIDEN * depth * n / n_selected) + depth)
        while True:
            distances, labels = self.index.search(queries, wide, params=self.parameters(effort, None))
            is_selected = (labels >= 0) & selected.mask[labels]
            enough = is_selected.sum(axis=1).min(initial=depth) >= min(depth, n_selected)
            if enough or wide >= n:
                break
            wide = min(n, _WIDEN_AGAIN * wide)
        labels = np.where(is_selected, labels, -1)
        order = np.argsort(~is_selected, axis=1, kind="stable")[:, :depth]
        return picked(distances, labels, order)
