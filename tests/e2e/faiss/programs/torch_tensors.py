"""Tensors of torch in indexes, by FAISS's `contrib.torch_utils`, and what it does not take."""

from __future__ import annotations

import contextlib
from typing import Any

import faiss
import faiss.contrib.torch_utils
import numpy as np
import torch
from faiss.contrib.torch.clustering import DatasetAssign, kmeans
from tests.e2e.faiss.programs.shown import show

torch.set_num_threads(1)
faiss.omp_set_num_threads(1)
_random = np.random.default_rng(5)
xb, xq = (torch.from_numpy(_random.random((n, 16), dtype=np.float32)) for n in (400, 6))


def shown(name: str, *found: Any) -> None:
    show(**{name: [each.numpy() if isinstance(each, torch.Tensor) else each for each in found]})
    print(name, [type(each).__name__ for each in found])


def refused(name: str, call: Any) -> None:
    try:
        call()
    except Exception as error:  # noqa: BLE001  # it is printed
        print(name, type(error).__name__, str(error).partition(" at ")[0])


def flat() -> None:
    index = faiss.IndexFlatL2(16)
    index.add(xb)
    shown("search", *index.search(xq, 4))
    distances, labels = torch.zeros(6, 4), torch.zeros(6, 4, dtype=torch.int64)
    index.search(xq, 4, distances, labels)
    shown("into", distances, labels)
    one, few = torch.zeros(16), torch.zeros(5, 16)
    index.reconstruct(3, one)
    index.reconstruct_n(2, 5, few)
    shown("reconstructed", one, few, index.reconstruct(7), index.reconstruct_n(0, 3))
    shown("assigned", index.assign(xq, 2))
    shown("range", *index.range_search(xq, 1.2))
    shown("with vectors", *index.search_and_reconstruct(xq, 3))
    shown("arrays", *index.search(xq.numpy(), 2))
    refused("halves", lambda: index.add(xb.half()))
    refused("as halves", lambda: index.add(xb.half(), faiss.Float16))
    refused("narrow", lambda: index.add(xb[:, :8]))
    refused("doubles", lambda: index.search(xq.double(), 3))


def lists() -> None:
    index = faiss.index_factory(16, "IVF8,SQ8")
    index.train(xb)
    index.add_with_ids(xb, torch.arange(400) + 3)
    index.nprobe = 4
    codes = index.sa_encode(xb)
    shown("codes", codes, index.sa_decode(codes), *index.search(xq, 3))
    refused("removed", lambda: index.remove_ids(torch.tensor([3, 4])))
    near, where = index.quantizer.search(xq, 4)
    shown("preassigned", *index.search_preassigned(xq, 3, where, near))
    plain = faiss.index_factory(16, "IVF8,Flat")
    plain.train(xb)
    plain.add(xb)
    plain.make_direct_map()
    plain.update_vectors(torch.tensor([1, 2]), xq[:2])
    shown("updated", *plain.search(xq, 2))
    mapped = faiss.IndexIDMap2(faiss.IndexFlatL2(16))
    mapped.add_with_ids(xb, torch.arange(400) * 2)
    shown("mapped", *mapped.search(xq, 2), mapped.reconstruct(4))


def here() -> None:
    shown("knn", *faiss.knn(xq, xb, 3))
    with contextlib.redirect_stdout(None):
        centroids = kmeans(4, DatasetAssign(xb), niter=3, seed=1)
    shown("centroids", centroids)


if __name__ == "__main__":
    for part in (flat, lists, here):
        part()
