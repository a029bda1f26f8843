"""Centroids of many inverted lists, by two levels of k-means and two rounds over all of them.

FAISS compares every training vector with every centroid ten times, and a larger shard has more of both. Here
the vectors are parted by few centroids first, and each part finds its own share of them; two rounds of Lloyd
over all centroids, in groups, then settle what lies at the borders. The lists are as good (decision 016).
"""

from __future__ import annotations

import math
from typing import Any

import faiss
import numpy as np

from faissbase.ann import coarse
from faissbase.ann.engine import innermost
from faissbase.types import Float32

_TOP_POINTS = 256  # a centroid of the upper level
_UNBOUNDED = 1 << 30


def find_lists(index: Any, xt: Float32) -> bool:
    """Give an untrained IVF index of many lists its centroids; ``index.train`` then learns the codes alone.

    True where it did, and few rows are enough from then on.

    Trains the transforms before it. Leaves other indexes as they are, and such with a quantizer of another
    kind. One whose lists are in groups always gets them here: FAISS's own training would end the process.

    Parameters
    ----------
    index : faiss.Index
    xt : float32[m, d]
    """
    index = faiss.downcast_index(index)
    inner = innermost(index)
    if not _is_ours(inner) or len(xt) < inner.nlist:
        return False
    centroids, quantizer = _centroids(_transformed(index, xt), inner), faiss.downcast_index(inner.quantizer)
    if isinstance(quantizer, faiss.IndexIVF):
        _grouped(quantizer)
        quantizer.train(centroids)
    quantizer.add(centroids)
    return True


def _is_ours(index: Any) -> bool:
    if not isinstance(index, faiss.IndexIVF) or index.quantizer_trains_alone == 1:
        return False
    quantizer = faiss.downcast_index(index.quantizer)
    if isinstance(quantizer, faiss.IndexIVF):
        return not quantizer.is_trained
    is_plain = isinstance(quantizer, faiss.IndexFlat | faiss.IndexHNSWFlat)
    return is_plain and quantizer.ntotal == 0 and index.nlist >= coarse.LISTS_LEAST


def _grouped(index: Any) -> None:
    """Make an empty IVF index fit to hold centroids: to give one back, and to find the nearest."""
    index.cp.min_points_per_centroid = 1  # there are as many points as there are lists
    index.nprobe = coarse.GROUPS_ASSIGNED
    index.make_direct_map()


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
    top = means.found(np.ascontiguousarray(xt[::step]), n_parts, coarse.CLUSTERING_ROUNDS)
    part_of = means.nearest(top, xt)
    shares = _shares(np.bincount(part_of, minlength=n_parts), index.nlist)
    found = [
        means.found(xt[part_of == part], share, coarse.CLUSTERING_ROUNDS)
        for part, share in enumerate(shares.tolist())
        if share
    ]
    return means.found(xt, index.nlist, coarse.LLOYD_ROUNDS, np.concatenate(found))


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
        index = faiss.IndexFlat(self._d, self._metric)
        if start is not None:
            faiss.copy_array_to_vector(start.ravel(), clustering.centroids)
            if n >= coarse.LISTS_LEAST:
                index = faiss.index_factory(self._d, f"IVF{coarse.n_groups(n)},SQfp16", self._metric)
                _grouped(index)
        clustering.train(xt, index)
        centroids: Float32 = faiss.vector_to_array(clustering.centroids).reshape(n, self._d)
        return centroids

    def nearest(self, centroids: Float32, xt: Float32) -> Any:
        """``int64[m]``: the row of ``centroids`` that is nearest to each vector."""
        index = faiss.IndexFlat(self._d, self._metric)
        index.add(centroids)
        return index.search(xt, 1)[1].ravel()
