"""Centroids of many inverted lists, by two levels of k-means and two rounds over all of them.

FAISS compares every training vector with every centroid ten times, and a larger shard has more of both. Here
the vectors are parted by few centroids first, and each part finds its own share of them; two rounds of Lloyd
over all centroids then settle what lies at the borders. The lists are as good (decision 016).
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np

from faissbase.ann.engine import innermost
from faissbase.types import Float32

LISTS_LEAST = 2048
"""Fewer are left to FAISS: that takes seconds."""
LLOYD_ROUNDS = 2
LEVEL_ROUNDS = 10
FLAT_LISTS = 1 << 14
"""Above so many, a graph finds the nearest centroid, as it does in the index itself."""

_TOP_POINTS = 256  # a centroid of the upper level
_GRAPH_LINKS, _GRAPH_BREADTH, _GRAPH_EFFORT = 16, 40, 16
_UNBOUNDED = 1 << 30


def find_lists(index: Any, xt: Float32) -> None:
    """Give an untrained IVF index of many lists its centroids; ``index.train`` then learns the codes alone.

    Trains the transforms before it. Leaves other indexes as they are, and such with a quantizer of their own
    kind.

    Parameters
    ----------
    index : faiss.Index
    xt : float32[m, d]
    """
    index = faiss.downcast_index(index)
    inner = innermost(index)
    if not _has_many_lists(inner) or len(xt) < inner.nlist:
        return
    inner.quantizer.add(_centroids(_transformed(index, xt), inner))


def _has_many_lists(index: Any) -> bool:
    if not isinstance(index, faiss.IndexIVF) or index.nlist < LISTS_LEAST:
        return False
    quantizer = faiss.downcast_index(index.quantizer)
    is_plain = isinstance(quantizer, faiss.IndexFlat | faiss.IndexHNSWFlat)
    return is_plain and quantizer.ntotal == 0 and index.quantizer_trains_alone != 1


def _transformed(index: Any, xt: Float32) -> Float32:
    """``xt`` as it comes to the lists."""
    if not isinstance(index, faiss.IndexPreTransform):
        return xt
    for i in range(index.chain.size()):
        transform = faiss.downcast_VectorTransform(index.chain.at(i))
        if not transform.is_trained:
            transform.train(xt)
        xt = transform.apply(xt)
    return _transformed(faiss.downcast_index(index.index), xt)


def _centroids(xt: Float32, index: Any) -> Float32:
    means = _Means(index)
    n_parts = 1 << round(math.log2(index.nlist) / 2)
    step = max(1, len(xt) // (n_parts * _TOP_POINTS))
    top = means.found(np.ascontiguousarray(xt[::step]), n_parts, LEVEL_ROUNDS)
    part_of = means.nearest(top, xt)
    shares = _shares(np.bincount(part_of, minlength=n_parts), index.nlist)
    found = [
        means.found(xt[part_of == part], share, LEVEL_ROUNDS)
        for part, share in enumerate(shares.tolist())
        if share
    ]
    return means.found(xt, index.nlist, LLOYD_ROUNDS, np.concatenate(found))


def _shares(sizes: Any, n: int) -> Any:
    """``n`` centroids over parts of these sizes, by the largest remainder; none has more than vectors."""
    exact = sizes * n / sizes.sum()
    shares = np.floor(exact).astype(np.int64)
    most_left = np.argsort(shares - exact, kind="stable")
    shares[most_left[: n - shares.sum()]] += 1
    return shares


class _Means:
    """FAISS's k-means by the metric and the seed of an index."""

    def __init__(self, index: Any) -> None:
        self._d = index.d
        self._metric = index.metric_type
        self._given = index.cp

    def found(self, xt: Float32, n: int, rounds: int, start: Float32 | None = None) -> Float32:
        """``float32[n, d]`` after so many rounds, from ``start`` or from rows drawn by the seed."""
        settings = faiss.ClusteringParameters()
        settings.niter, settings.seed = rounds, self._given.seed
        settings.spherical = self._given.spherical
        settings.min_points_per_centroid, settings.max_points_per_centroid = 1, _UNBOUNDED
        clustering = faiss.Clustering(self._d, n, settings)
        if start is not None:
            faiss.copy_array_to_vector(start.ravel(), clustering.centroids)
        clustering.train(xt, self._searching(n))
        centroids: Float32 = faiss.vector_to_array(clustering.centroids).reshape(n, self._d)
        return centroids

    def nearest(self, centroids: Float32, xt: Float32) -> Any:
        """``int64[m]``: the row of ``centroids`` that is nearest to each vector."""
        index = self._searching(len(centroids))
        index.add(centroids)
        return index.search(xt, 1)[1].ravel()

    def _searching(self, n: int) -> Any:
        if n <= FLAT_LISTS:
            return faiss.IndexFlat(self._d, self._metric)
        graph = faiss.IndexHNSWFlat(self._d, _GRAPH_LINKS, self._metric)
        graph.hnsw.efConstruction, graph.hnsw.efSearch = _GRAPH_BREADTH, _GRAPH_EFFORT
        return graph
