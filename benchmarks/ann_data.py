"""The data of the approximate benchmark: rows with four fields of metadata, queries, exact answers.

Knows files and arrays, and FAISS to cluster: no database.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.datasets import Dataset, Rows
from benchmarks.systems import interface
from faissbase.types import Float32, Metric

K = 10
N_CLUSTERS = 64
_BLOCK_ROWS = 65_536
_SPARE = 32  # float32 candidates beyond k that float64 ranks again
_TRAINING_ROWS = 30_000


@dataclass(frozen=True, eq=False)
class AnnData:
    """A data set whose metadata every system can hold, with the clusters its filters speak of.

    ``distances_to_clusters`` is ``float32[nq, n_clusters]``; smaller is nearer.
    """

    dataset: Dataset
    distances_to_clusters: Float32

    @cached_property
    def row_of(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.dataset.ids)}

    @property
    def rows(self) -> interface.Rows:
        return interface.Rows(self.dataset.ids, self.dataset.xb, self.dataset.metadatas)

    @property
    def raw_bytes(self) -> int:
        return self.dataset.xb.nbytes

    def column(self, name: str) -> npt.NDArray[np.int64]:
        return np.array([metadata[name] for metadata in self.dataset.metadatas], np.int64)


def sift(folder: Path) -> Dataset:
    """100,000 SIFT descriptors of photographs; the queries come from other photographs."""
    with np.load(folder / "sift-photos.npz") as arrays:
        xb = arrays["base"].astype(np.float32)
        xq = arrays["queries"].astype(np.float32)
        images = arrays["base_image"].tolist()
        truth = arrays["gt_ids"]
    ids = [f"sift-{row}" for row in range(len(xb))]
    metadatas = [{"group": f"picture {image}"} for image in images]
    return Dataset("sift-photos 100k x 128, l2", "l2", ids, xb, metadatas, [], xq, truth, [])


def prepared(dataset: Dataset, n_queries: int, seed: int, n_rows: int | None = None) -> AnnData:
    """The first rows and queries with the benchmark's own metadata.

    ``rank`` is a random order of the rows, ``cluster`` one of 64 k-means cells, ``group`` what the set itself
    groups by.
    """
    whole = dataset
    if n_rows is not None and n_rows < len(dataset.ids):
        dataset = _head(dataset, n_rows)
    xq = dataset.xq[:n_queries]
    truth = dataset.truth if dataset is whole else nearest(dataset.xb, xq, K, dataset.metric)
    form = dataset.searched_form(dataset.xb)
    centroids, clusters = _clustered(form, seed)
    ranks = np.random.default_rng(seed).permutation(len(dataset.ids))
    metadatas = [
        {"name": id, "group": _group(metadata), "rank": rank, "cluster": cluster}
        for id, metadata, rank, cluster in zip(
            dataset.ids, dataset.metadatas, ranks.tolist(), clusters.tolist(), strict=True
        )
    ]
    distances = _squared(dataset.searched_form(xq), centroids)
    cleaned = replace(dataset, metadatas=metadatas, documents=[], filters=[], xq=xq, truth=truth[: len(xq)])
    return AnnData(cleaned, distances)


def _head(dataset: Dataset, n_rows: int) -> Dataset:
    return replace(
        dataset,
        name=f"{dataset.name.rsplit(',', 1)[0]}, first {n_rows:,}, {dataset.metric}",
        ids=dataset.ids[:n_rows],
        xb=np.ascontiguousarray(dataset.xb[:n_rows]),
        metadatas=dataset.metadatas[:n_rows],
    )


def _group(metadata: interface.Metadata) -> str:
    for key in ("group", "section", "label"):
        if metadata.get(key) is not None:
            return str(metadata[key])
    return "none"


def _clustered(xb: Float32, seed: int) -> tuple[Float32, npt.NDArray[np.int64]]:
    """Centroids, and the cell of each row."""
    n_clusters = min(N_CLUSTERS, max(1, len(xb) // 64))
    means = faiss.Kmeans(xb.shape[1], n_clusters, niter=10, seed=seed)
    sample = np.random.default_rng(seed).choice(len(xb), min(len(xb), _TRAINING_ROWS), replace=False)
    means.train(xb[np.sort(sample)])
    return means.centroids, means.index.search(xb, 1)[1][:, 0]


def _squared(x: Float32, y: Float32) -> Float32:
    distances: Float32 = np.square(x[:, None] - y[None]).sum(axis=2)
    return distances


def nearest(
    xb: Float32, xq: Float32, k: int, metric: Metric, among: npt.NDArray[np.int64] | None = None
) -> Rows:
    """Exact answers ``int64[nq, k]``, ties to the smaller row; −1 where fewer rows there are.

    Candidates come from float32 sums, block by block; the order from float64.
    """
    numbers = np.arange(len(xb)) if among is None else among
    wanted = min(k + _SPARE, len(numbers))
    best = np.full((len(xq), 0), 0, np.float32)
    rows = np.full((len(xq), 0), 0, np.int64)
    for start in range(0, len(numbers), _BLOCK_ROWS):
        block = numbers[start : start + _BLOCK_ROWS]
        best = np.hstack([best, _far(xb[block], xq, metric)])
        rows = np.hstack([rows, np.broadcast_to(block, (len(xq), len(block)))])
        if best.shape[1] > wanted:
            kept = np.argpartition(best, wanted - 1, axis=1)[:, :wanted]
            best, rows = np.take_along_axis(best, kept, 1), np.take_along_axis(rows, kept, 1)
    return _ranked(xb, xq, np.sort(rows, axis=1), k, metric)


def _far(xb: Float32, xq: Float32, metric: Metric) -> Float32:
    """Smaller is nearer."""
    products: Float32 = xq @ xb.T
    if metric == "l2":
        squares: Float32 = np.einsum("ij,ij->i", xb, xb)
        return squares - 2 * products
    if metric == "cosine":
        products /= np.linalg.norm(xb, axis=1)
    return -products


def _ranked(xb: Float32, xq: Float32, rows: npt.NDArray[np.int64], k: int, metric: Metric) -> Rows:
    found = np.full((len(xq), k), -1, np.int64)
    for query, candidates in enumerate(rows):
        x, q = xb[candidates].astype(np.float64), xq[query].astype(np.float64)
        if metric == "l2":
            far = np.square(x - q).sum(axis=1)
        else:
            far = -(x @ q)
        if metric == "cosine":
            far /= np.linalg.norm(x, axis=1)
        order = np.argsort(far, kind="stable")[:k]
        found[query, : len(order)] = candidates[order]
    return found
