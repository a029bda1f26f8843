"""What programs do with FAISS's GPUs: one function for each subject, run by its name."""

from __future__ import annotations

import sys
import threading
from typing import Any

import faiss
import numpy as np
from tests.e2e.faiss.programs.shown import show

D = 64
NB = 20_000


def _data(nb: int = NB, nq: int = 100, d: int = D, seed: int = 5) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return (random.standard_normal((n, d)).astype(np.float32) for n in (nb, nq))  # type: ignore[return-value]


def tutorial() -> None:
    """FAISS's tutorials 4 and 5."""
    xb, xq = _data()
    print("number of GPUs:", faiss.get_num_gpus())
    res = faiss.StandardGpuResources()
    flat = faiss.index_cpu_to_gpu(res, 0, faiss.IndexFlatL2(D))
    flat.add(xb)
    show(ntotal=flat.ntotal, d=flat.d, flat=flat.search(xq, 4), kind=type(flat).__name__)
    quantizer = faiss.IndexFlatL2(D)
    ivf = faiss.index_cpu_to_gpu(res, 0, faiss.IndexIVFFlat(quantizer, D, 100, faiss.METRIC_L2))
    assert not ivf.is_trained
    ivf.train(xb)
    assert ivf.is_trained
    ivf.add(xb)
    ivf.nprobe = 10
    show(ivf=ivf.search(xq, 4), nprobe=ivf.nprobe)
    every = faiss.index_cpu_to_all_gpus(faiss.IndexFlatL2(D))
    every.add(xb)
    show(every=every.search(xq, 4))


def classes() -> None:
    """Each class of index, made by its own name and settings."""
    xb, xq = _data()
    res = faiss.StandardGpuResources()
    res.setTempMemory(64 << 20)
    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = 0, True
    show(device=config.device, half=config.useFloat16)
    for flat in (faiss.GpuIndexFlatL2(res, D), faiss.GpuIndexFlatIP(res, D, config)):
        flat.add(xb)
        show(flat=flat.search(xq, 5), metric=flat.metric_type, one=flat.reconstruct(3))
        show(some=flat.reconstruct_n(5, 3), many=flat.reconstruct_batch([1, 5, 3]), n=flat.getNumVecs())
        show(with_vectors=flat.search_and_reconstruct(xq[:3], 2))
        flat.reset()
        show(ntotal=flat.ntotal)
    lists = faiss.GpuIndexIVFFlatConfig()
    lists.indicesOptions = faiss.INDICES_32_BIT
    lists.flatConfig.useFloat16 = True
    show(half=lists.flatConfig.useFloat16, options=lists.indicesOptions)
    for ivf in (
        faiss.GpuIndexIVFFlat(res, D, 64, faiss.METRIC_L2, lists),
        faiss.GpuIndexIVFPQ(res, D, 64, 16, 8, faiss.METRIC_L2),
        faiss.GpuIndexIVFScalarQuantizer(res, D, 64, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2),
    ):
        ivf.train(xb)
        ivf.add_with_ids(xb, np.arange(NB, dtype=np.int64) + 7)
        show(kind=type(ivf).__name__, least=ivf.search(xq, 5), of=isinstance(ivf, faiss.GpuIndexIVF))
        faiss.GpuParameterSpace().set_index_parameter(ivf, "nprobe", 16)
        show(nprobe=ivf.nprobe, found=ivf.search(xq, 5), lists=ivf.getNumLists(), size=ivf.getListLength(3))
        show(chosen=ivf.search(xq, 5, params=faiss.SearchParametersIVF(nprobe=4)))
    bits, asked = (np.random.default_rng(3).integers(0, 256, (n, 16), np.uint8) for n in (1000, 9))
    binary = faiss.GpuIndexBinaryFlat(res, 128)
    binary.add(bits)
    show(binary=binary.search(asked, 4), ntotal=binary.ntotal, device=binary.getDevice())


def there_and_back() -> None:
    """What is on the CPU, to a GPU with options, and back; it is the same index again."""
    xb, xq = _data()
    res = faiss.StandardGpuResources()
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    for spec in ("Flat", "IVF64,Flat", "IVF64,PQ16", "IVF64,SQ8", "PCA32,Flat", "IDMap,Flat"):
        index = faiss.index_factory(D, spec)
        index.train(xb)
        if spec != "IDMap,Flat":
            index.add(xb)
        try:
            moved = faiss.index_cpu_to_gpu(res, 0, index, options)
        except RuntimeError as error:
            print(spec, str(error).rpartition(": ")[2])
            continue
        show(kind=type(moved).__name__, moved=moved.search(xq, 5))
        back = faiss.index_gpu_to_cpu(moved)
        show(kind=type(back).__name__, back=back.search(xq, 5), ntotal=back.ntotal)
        show(bytes=faiss.serialize_index(back) if spec == "Flat" else None)
    binary = faiss.IndexBinaryFlat(128)
    binary.add(np.random.default_rng(3).integers(0, 256, (1000, 16), np.uint8))
    moved = faiss.index_binary_cpu_to_gpu(res, 0, binary)
    show(ntotal=moved.ntotal, back=faiss.index_binary_gpu_to_cpu(moved).ntotal)


def several() -> None:
    """Shards and replicas; on one GPU FAISS gives the index itself."""
    xb, xq = _data()
    index = faiss.IndexFlatL2(D)
    index.add(xb)
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    resources = [faiss.StandardGpuResources(), faiss.StandardGpuResources()]
    for found in (
        faiss.index_cpu_to_all_gpus(index, co=options, ngpu=1),
        faiss.index_cpu_to_gpus_list(index, gpus=[0]),
        faiss.index_cpu_to_gpu_multiple_py(resources, index, options, [0, 0]),
        faiss.index_cpu_to_gpu_multiple_py(resources, index, None, [0, 0]),
    ):
        show(kind=type(found).__name__, found=found.search(xq, 5), ntotal=found.ntotal)
    shards = faiss.IndexShards(D, False, True)
    for piece, res in zip(np.split(xb, 2), resources, strict=True):
        part = faiss.GpuIndexFlatL2(res, D)
        part.add(piece)
        shards.add_shard(part)
    show(shards=shards.search(xq, 5), ntotal=shards.ntotal)


def brute_force() -> None:
    xb, xq = _data()
    res = faiss.StandardGpuResources()
    show(l2=faiss.knn_gpu(res, xq, xb, 5))
    show(ip=faiss.knn_gpu(res, xq, xb, 5, metric=faiss.METRIC_INNER_PRODUCT, device=0))
    distances, labels = np.empty((100, 3), np.float32), np.empty((100, 3), np.int32)
    found = faiss.knn_gpu(res, xq.astype(np.float16), xb.astype(np.float16), 3, D=distances, I=labels)
    show(found=found, distances=distances, labels=labels, same=found[0] is distances and found[1] is labels)
    show(pairs=faiss.pairwise_distance_gpu(res, xq, xb[:50]))


def kmeans() -> None:
    xb, _ = _data()
    more = {"remote": True} if faiss.__name__ == "faiss_proxy" else {}
    found = faiss.Kmeans(D, 20, niter=5, gpu=True, seed=3, **more)
    found.train(xb)
    show(shape=found.centroids.shape, n=len(found.obj), falls=bool(found.obj[0] > found.obj[-1]))


def refused() -> None:
    """What FAISS cannot do on a GPU: the same words."""
    xb, xq = _data(500)
    res = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatL2(res, D)
    index.add(xb)
    graph = faiss.IndexHNSWFlat(D, 16)
    for call in (
        lambda: index.search(xq, 3000),
        lambda: index.remove_ids(np.array([1])),
        lambda: index.range_search(xq, 1.0),
        lambda: index.search(xq[:, :9], 3),
        lambda: index.add(xb[:, :9]),
        lambda: faiss.index_cpu_to_gpu(res, 9, faiss.IndexFlatL2(D)),
        lambda: faiss.index_cpu_to_gpu(res, 0, graph),
        lambda: faiss.serialize_index(index),
        lambda: faiss.clone_index(index),
        lambda: faiss.GpuIndexIVFPQ(res, D, 64, 7, 8, faiss.METRIC_L2),
        lambda: setattr(faiss.GpuClonerOptions(), "no_such_option", 1),
    ):
        try:
            call()
        except Exception as error:  # noqa: BLE001  # it is what is shown
            print(type(error).__name__, str(error))
        else:
            print("done")
    show(still=index.search(xq, 3))


def by_place() -> None:
    print(faiss.bfKnn)


def threads() -> None:
    """Many threads on one index: FAISS itself ends the process, so this is for the proxy alone."""
    xb, xq = _data()
    res = faiss.StandardGpuResources()
    index = faiss.GpuIndexFlatL2(res, D)
    index.add(xb)
    wanted = index.search(xq, 5)
    wrong: list[int] = []

    def ask(n: int) -> None:
        for _ in range(30):
            found = index.search(xq, 5)
            other = faiss.GpuIndexFlatIP(res, D)
            other.add(xb[:100])
            wrong.extend([n] * (not all(map(np.array_equal, found, wanted))))

    every = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for each in every:
        each.start()
    for each in every:
        each.join()
    show(wrong=wrong)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
