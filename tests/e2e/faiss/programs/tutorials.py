"""What FAISS's tutorials do, at a fifth of their size: one function for each, run by its name."""

from __future__ import annotations

import sys
from typing import Any

import faiss
import numpy as np
from tests.e2e.faiss.programs.shown import show

D, NB, NQ, K = 64, 20_000, 2_000, 4


def _data() -> tuple[Any, Any]:
    random = np.random.RandomState(1234)
    xb = random.random_sample((NB, D)).astype(np.float32)
    xb[:, 0] += np.arange(NB) / 1000.0
    xq = random.random_sample((NQ, D)).astype(np.float32)
    xq[:, 0] += np.arange(NQ) / 1000.0
    return xb, xq


def _searched(index: Any, x: Any, k: int = K, **more: Any) -> None:
    D, I = index.search(x, k, **more)  # noqa: E741
    print(I[:5], D[:5])
    show(D=D, I=I)


def flat() -> None:
    xb, xq = _data()
    index = faiss.IndexFlatL2(D)
    print(index.is_trained)
    index.add(xb)
    print(index.ntotal)
    _searched(index, xb[:5])
    _searched(index, xq)


def ivf_flat() -> None:
    xb, xq = _data()
    quantizer = faiss.IndexFlatL2(D)
    index = faiss.IndexIVFFlat(quantizer, D, 100)
    assert not index.is_trained
    index.train(xb)
    assert index.is_trained
    index.add(xb)
    _searched(index, xq)
    index.nprobe = 10
    _searched(index, xq)


def ivf_pq() -> None:
    xb, xq = _data()
    quantizer = faiss.IndexFlatL2(D)
    index = faiss.IndexIVFPQ(quantizer, D, 100, 8, 8)
    index.train(xb)
    index.add(xb)
    _searched(index, xb[:5])
    index.nprobe = 10
    _searched(index, xq)


def hnsw() -> None:
    xb, xq = _data()
    faiss.omp_set_num_threads(1)  # a graph that many threads build is another one each time
    index = faiss.IndexHNSWFlat(D, 32)
    index.hnsw.efConstruction = 40
    index.add(xb)
    index.hnsw.efSearch = 64
    print(index.hnsw.efSearch, index.hnsw.max_level)
    _searched(index, xb[:5])
    _searched(index, xq)


def pq_fastscan() -> None:
    xb, xq = _data()
    index = faiss.IndexPQFastScan(D, 8, 4, faiss.METRIC_L2, 32)
    assert not index.is_trained
    index.train(xb)
    assert index.is_trained
    index.add(xb)
    _searched(index, xb[:5])
    _searched(index, xq)
    index.nprobe = 10  # there is none: an error


def pq_fastscan_refine() -> None:
    xb, xq = _data()
    index = faiss.IndexPQFastScan(D, 8, 4, faiss.METRIC_L2)
    refined = faiss.IndexRefineFlat(index)
    assert not refined.is_trained
    refined.train(xb)
    assert refined.is_trained
    refined.add(xb)
    _searched(refined, xq, 10, params=faiss.IndexRefineSearchParameters(k_factor=3))
    _searched(index, xq)


def refine_comparison() -> None:
    from faiss.contrib import datasets
    from faiss.contrib.evaluation import knn_intersection_measure

    data = datasets.SyntheticDataset(D, 5_000, NB, 500)
    params = faiss.IndexRefineSearchParameters(k_factor=3.0)
    found = {}
    for kind in ("SQfp16", "SQ8"):
        index = faiss.index_factory(D, f"PQ32x4fs,Refine({kind})")
        index.train(data.get_train())
        index.add(data.get_database())
        _, found[kind] = index.search(data.get_queries(), 100, params=params)
        measured = knn_intersection_measure(found[kind], data.get_groundtruth())
        show(kind=kind, I=found[kind], intersection=measured)


def gpus() -> None:
    """FAISS without GPUs has none of these names; neither has the proxy without one."""
    print("number of GPUs:", faiss.get_num_gpus())
    index = faiss.IndexFlatL2(D)
    faiss.index_cpu_to_all_gpus(index)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
