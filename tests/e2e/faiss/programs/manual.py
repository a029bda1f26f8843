"""What FAISS's manual shows beside the tutorials: one function for each page, run by its name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from tests.e2e.faiss.programs.shown import show

D = 32


def _data(nb: int = 4_000, nq: int = 50, seed: int = 9) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, D)).astype(np.float32) for n in (nb, nq))  # type: ignore[return-value]


def ids_and_transforms() -> None:
    xb, xq = _data()
    mapped = faiss.IndexIDMap(faiss.IndexFlatL2(D))
    mapped.add_with_ids(xb, np.arange(len(xb), dtype=np.int64) * 7)
    show(mapped=mapped.search(xq, 5), ids=faiss.vector_to_array(mapped.id_map))
    coarse = faiss.IndexFlatL2(16)
    turned = faiss.IndexPreTransform(faiss.PCAMatrix(D, 16), faiss.IndexIVFPQ(coarse, 16, 10, 8, 4))
    turned.train(xb)
    turned.add(xb)
    show(turned=turned.search(xq, 5))
    refined = faiss.IndexRefineFlat(faiss.IndexPQ(D, 8, 4))
    refined.train(xb)
    refined.add(xb)
    refined.k_factor = 4
    show(refined=refined.search(xq, 5))
    shards = faiss.IndexShards(D, True, False)
    for piece in np.split(xb, 4):
        part = faiss.IndexFlatL2(D)
        part.add(piece)
        shards.add_shard(part)
    show(shards=shards.search(xq, 5), ntotal=shards.ntotal)


def special_operations() -> None:
    xb, xq = _data()
    index = faiss.index_factory(D, "IVF16,Flat")
    index.train(xb)
    index.add(xb)
    index.nprobe = 4
    index.make_direct_map()
    show(one=index.reconstruct(7), many=index.reconstruct_n(10, 20), some=index.reconstruct_batch([3, 1, 2]))
    show(range=index.range_search(xq[:5], 40.0), with_vectors=index.search_and_reconstruct(xq, 3))
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    show(removed=index.remove_ids(np.array([1, 5, 4, 4000])), ntotal=index.ntotal)
    index.set_direct_map_type(faiss.DirectMap.NoMap)
    show(removed=index.remove_ids(faiss.IDSelectorRange(100, 200)), ntotal=index.ntotal)
    chosen = faiss.SearchParametersIVF(sel=faiss.IDSelectorBatch(np.arange(0, 4_000, 2)), nprobe=8)
    show(chosen=index.search(xq, 5, params=chosen))
    other = faiss.clone_index(index)
    other.reset()
    other.add_with_ids(xb[:100], np.arange(100) + 10_000)
    index.merge_from(other, 0)
    show(merged=index.ntotal, emptied=other.ntotal, found=index.search(xq, 5))


def files_and_parameters(folder: str) -> None:
    xb, xq = _data()
    index = faiss.index_factory(D, "IVF16,PQ8x4")
    index.train(xb)
    index.add(xb)
    path = Path(folder) / "kept.index"
    faiss.write_index(index, str(path))
    show(file=np.fromfile(path, np.uint8), again=faiss.serialize_index(faiss.read_index(str(path))))
    faiss.ParameterSpace().set_index_parameters(index, "nprobe=9,ht=10")
    show(nprobe=index.nprobe, ht=index.polysemous_ht, found=index.search(xq, 5))
    ivf = faiss.extract_index_ivf(index)
    show(nlist=ivf.nlist, sizes=[ivf.invlists.list_size(i) for i in range(ivf.nlist)])
    try:
        faiss.read_index(str(Path(folder) / "none.index"))
    except RuntimeError as error:
        print(str(error).replace(folder, "FOLDER"))


def binary() -> None:
    random = np.random.default_rng(2)
    xb, xq = random.integers(0, 256, (3_000, 8), np.uint8), random.integers(0, 256, (20, 8), np.uint8)
    flat = faiss.IndexBinaryFlat(64)
    flat.add(xb)
    show(flat=flat.search(xq, 5))
    ivf = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(64), 64, 16)
    ivf.train(xb)
    ivf.add(xb)
    ivf.nprobe = 3
    show(ivf=ivf.search(xq, 5))
    graph = faiss.index_binary_factory(64, "BHNSW16")
    faiss.omp_set_num_threads(1)
    graph.add(xb)
    show(graph=graph.search(xq, 5))


def local_parts() -> None:
    """What runs in the program's own process in either case, and indexes that are given what it gives."""
    xb, xq = _data()
    faiss.normalize_L2(xb)
    means = faiss.Kmeans(D, 20, niter=5, seed=3)
    error = means.train(xb)
    show(centroids=means.centroids, error=float(error), nearest=means.index.search(xq, 2))
    show(knn=faiss.knn(xq, xb, 4), distances=faiss.pairwise_distances(xq[:5], xb[:9]))
    index = faiss.IndexFlatIP(D)
    index.add(means.centroids)
    show(assigned=index.assign(xb, 1), best=faiss.kmin(xq, 3), random=faiss.randn((3, 4), 5))


def warnings() -> None:
    """What C++ says on the way comes to this process's own streams."""
    random = np.random.default_rng(4)
    index = faiss.index_factory(8, "IVF20,Flat")
    index.verbose = True
    index.train(random.random((300, 8), np.float32))
    print("trained", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
