"""A large data set grown from a small real one, so that a million rows need no download.

A row grows from a real row x (its parent) and the m nearest real rows n_j of x, whose mean is mu:
``y = mu + sqrt(1 - s²) (x - mu) + s e`` with e drawn from the normal distribution that has the covariance
of the n_j about mu. The noise stays in the span of the neighbours, so clusters stay clusters; the pull
towards mu takes out the spread that the noise brings in. The first rows are the real ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.ann_data import K, nearest
from benchmarks.datasets import Dataset
from faissbase.types import Float32

_STRENGTH = 0.7
_NEIGHBOURS = 8
_CHUNK_ROWS = 65_536


def grown(dataset: Dataset, n_rows: int, n_queries: int, seed: int) -> Dataset:
    """``n_rows`` rows grown from the data set; its held-out queries, with exact answers among them."""
    xb, parents = _grown_rows(dataset.xb, n_rows, seed)
    xq = dataset.xq[:n_queries]
    return replace(
        dataset,
        name=f"{n_rows:,} x {dataset.d} grown from {dataset.name.rsplit(',', 1)[0]}, {dataset.metric}",
        ids=[f"row-{row}" for row in range(n_rows)],
        xb=xb,
        metadatas=[dataset.metadatas[parent] for parent in parents.tolist()],
        documents=[],
        xq=xq,
        truth=nearest(xb, xq, K, dataset.metric),
        filters=[],
    )


def reduced(dataset: Dataset, d: int) -> Dataset:
    """The data set on its first ``d`` principal components, about the origin."""
    xb = dataset.xb
    _, vectors = np.linalg.eigh((xb.T @ xb).astype(np.float64))
    axes = np.ascontiguousarray(vectors[:, ::-1][:, :d], np.float32)
    name = f"{dataset.name.split(' x ')[0]} x {d} by PCA, {dataset.metric}"
    return replace(dataset, name=name, xb=xb @ axes, xq=dataset.xq @ axes)


def _grown_rows(x: Float32, n_rows: int, seed: int) -> tuple[Float32, npt.NDArray[np.int64]]:
    neighbours = _neighbours(x)
    is_whole = bool(np.all(x[:1_000] == np.rint(x[:1_000])))
    y = np.empty((n_rows, x.shape[1]), np.float32)
    parents = np.empty(n_rows, np.int64)
    for start in range(0, n_rows, _CHUNK_ROWS):
        random = np.random.default_rng([seed, start])
        stop = min(start + _CHUNK_ROWS, n_rows)
        parents[start:stop] = random.integers(0, len(x), stop - start)
        _grow_chunk(x, neighbours, parents[start:stop], random, y[start:stop])
    if is_whole:
        np.clip(np.rint(y, out=y), x.min(), x.max(), out=y)
    n_real = min(len(x), n_rows)
    y[:n_real], parents[:n_real] = x[:n_real], np.arange(n_real)
    return y, parents


def _neighbours(x: Float32) -> npt.NDArray[np.int64]:
    index: Any = faiss.IndexFlatL2(x.shape[1])
    index.add(x)
    found: npt.NDArray[np.int64] = index.search(x, _NEIGHBOURS + 1)[1][:, 1:]
    return found


def _grow_chunk(
    x: Float32,
    neighbours: npt.NDArray[np.int64],
    parents: npt.NDArray[np.int64],
    random: np.random.Generator,
    out: Float32,
) -> None:
    """Every row is a weighted sum of its parent and the parent's neighbours."""
    weights = random.standard_normal((len(parents), _NEIGHBOURS), np.float32)
    weights -= weights.mean(axis=1, keepdims=True)
    weights *= _STRENGTH / np.sqrt(_NEIGHBOURS - 1)
    shrink = np.sqrt(1 - _STRENGTH**2)
    weights += (1 - shrink) / _NEIGHBOURS
    np.multiply(x[parents], np.float32(shrink), out=out)
    for rank in range(_NEIGHBOURS):
        out += weights[:, rank, None] * x[neighbours[parents, rank]]
