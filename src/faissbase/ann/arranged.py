"""An HNSW graph laid out for searching: what a walk meets together lies together, and no place is empty.

FAISS keeps nodes in the order they came and room for ``2M`` neighbours of each, of which a third is used. A
walk waits for memory half of its time, so both cost it. Knows FAISS's HNSW and its labels: no slots.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from faissbase.ann.flat import lay_ints_over
from faissbase.types import Slots

_BLOCK_NODES = 16_384

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The nodes of a graph in another order, their lists without gaps.

    Attributes
    ----------
    order : int64[n + 1]
        The label in the index for each place here, and −1 at the end: so −1 leads to −1.
    rank : int32[n]
        The place of each label.
    neighbours : int32[m]
        Lists of places, each ended by −1 where it has fewer than FAISS would keep.
    starts : int64[n + 1]
        Where the lists of each place begin.
    """

    order: Slots
    rank: Ints
    neighbours: Ints
    starts: Slots

    @property
    def n_bytes(self) -> int:
        """Memory that it takes, with what FAISS keeps beside the lists."""
        lists = self.neighbours.nbytes + self.starts.nbytes
        return lists + self.order.nbytes + self.rank.nbytes + self.rank.nbytes

    def lay_over(self, index: Any) -> None:
        """Have ``index``, whose graph this was made of, walk it; its storage must have the same order.

        The caller keeps this alive. Nothing can be added to the index any more.
        """
        hnsw, order = index.hnsw, self.order[:-1]
        levels = faiss.vector_to_array(hnsw.levels)
        hnsw.entry_point = int(self.rank[hnsw.entry_point])
        hnsw.neighbors = lay_ints_over(self.neighbours)
        faiss.copy_array_to_vector(self.starts.astype(np.uint64), hnsw.offsets)
        faiss.copy_array_to_vector(np.ascontiguousarray(levels[order]), hnsw.levels)


def arranged(index: Any, should_stop: Callable[[], bool]) -> Arrangement | None:
    """The arrangement of an `IndexHNSW` of one vector or more; None where ``should_stop`` ended it."""
    lists = _Lists(index.hnsw)
    order = _met(lists, int(index.hnsw.entry_point), should_stop)
    if order is None:
        return None
    rank = np.empty(lists.n, np.int32)
    rank[order[:-1]] = np.arange(lists.n, dtype=np.int32)
    sizes = np.empty(lists.n, np.int64)
    for start in range(0, lists.n, _BLOCK_NODES):
        nodes = order[:-1][start : start + _BLOCK_NODES]
        used = np.count_nonzero(lists.base(nodes) >= 0, axis=1)
        # Above the base, lists are found by their distance from the first one: nothing can be left out.
        sizes[start : start + len(nodes)] = np.where(
            lists.is_tall[nodes], lists.sizes(nodes), np.minimum(used + 1, lists.width)
        )
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    # FAISS asks for whole lists before it reads them up to the first −1: so they all lie within the array.
    neighbours = np.full(int(starts[-1]) + lists.width, -1, np.int32)
    for start in range(0, lists.n, _BLOCK_NODES):
        if should_stop():
            return None
        _fill(neighbours, starts, lists, order[:-1][start : start + _BLOCK_NODES], start, rank)
    return Arrangement(order, rank, neighbours, starts)


class _Lists:
    """The lists of a graph as FAISS has them, where they are."""

    def __init__(self, hnsw: Any) -> None:
        self._all = _where_it_is(hnsw.neighbors)
        self._starts = faiss.vector_to_array(hnsw.offsets).astype(np.int64)
        self.n = len(self._starts) - 1
        self.width = int(hnsw.nb_neighbors(0))
        self.is_tall = faiss.vector_to_array(hnsw.levels) > 1

    def base(self, nodes: Slots) -> Ints:
        """The neighbours of each node on the base, ``int32[m, width]``, −1 where there is none."""
        found: Ints = self._all[self._starts[nodes][:, None] + np.arange(self.width)]
        return found

    def sizes(self, nodes: Slots) -> Slots:
        """Places of each node on all levels together."""
        found: Slots = self._starts[nodes + 1] - self._starts[nodes]
        return found

    def whole(self, node: int) -> Ints:
        """All places of one node."""
        found: Ints = self._all[self._starts[node] : self._starts[node + 1]]
        return found


def _where_it_is(numbers: Any) -> Ints:
    """FAISS's numbers, not copied; in a mapped file they may lie at any byte."""
    n = int(numbers.size())
    memory = memoryview((ctypes.c_uint8 * (4 * n)).from_address(int(numbers.data())))
    return np.frombuffer(memory, np.int32)


def _met(lists: _Lists, entry: int, should_stop: Callable[[], bool]) -> Slots | None:
    """The nodes breadth first from ``entry``, then any that it does not lead to, and −1 at the end."""
    order = np.full(lists.n + 1, -1, np.int64)
    is_met = np.zeros(lists.n + 1, np.bool_)
    is_met[-1] = True  # no neighbour
    first = np.empty(lists.n, np.int64)
    order[0], is_met[entry] = entry, True
    done, stop = 0, 1
    while done < stop:
        if should_stop():
            return None
        nodes = order[done : min(stop, done + _BLOCK_NODES)]
        done += len(nodes)
        found = lists.base(nodes).ravel()
        found = found[~is_met[found]]
        at = np.arange(len(found))
        first[found[::-1]] = at[::-1]
        found = found[first[found] == at]
        is_met[found] = True
        order[stop : stop + len(found)] = found
        stop += len(found)
    order[stop:-1] = np.flatnonzero(~is_met)
    return order


def _fill(neighbours: Ints, starts: Slots, lists: _Lists, nodes: Slots, first: int, rank: Ints) -> None:
    """The lists of ``nodes``, which come to lie at the places from ``first`` on."""
    base, at = lists.base(nodes), starts[first : first + len(nodes)]
    is_there = base >= 0
    neighbours[(at[:, None] + np.arange(lists.width))[is_there]] = rank[base[is_there]]
    for i in np.flatnonzero(lists.is_tall[nodes]):
        whole = lists.whole(int(nodes[i]))
        neighbours[at[i] : at[i] + len(whole)] = np.where(whole >= 0, rank[whole], -1)
