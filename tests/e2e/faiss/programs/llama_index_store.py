"""LlamaIndex's FAISS stores, kept in a folder and read from it."""

from __future__ import annotations

import sys
from typing import Any

import faiss
import numpy as np
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import VectorStoreQuery
from llama_index.vector_stores.faiss import FaissMapVectorStore, FaissVectorStore
from tests.e2e.faiss.programs.shown import show

D = 16


def _nodes(n: int) -> list[TextNode]:
    rows = np.random.default_rng(3).standard_normal((n, D))
    return [TextNode(id_=f"node-{i}", text=f"text {i}", embedding=row.tolist()) for i, row in enumerate(rows)]


def _asked(store: Any) -> None:
    query = np.random.default_rng(4).standard_normal(D).tolist()
    found = store.query(VectorStoreQuery(query_embedding=query, similarity_top_k=5))
    show(ids=found.ids, similarities=found.similarities, ntotal=store.client.ntotal)


def main(folder: str) -> None:
    for index in (faiss.IndexFlatL2(D), faiss.IndexHNSWFlat(D, 8), faiss.index_factory(D, "SQfp16")):
        store = FaissVectorStore(faiss_index=index)
        show(ids=store.add(_nodes(60)))
        _asked(store)
        path = f"{folder}/{type(index).__name__}"
        store.persist(path)
        _asked(FaissVectorStore.from_persist_path(path))
    mapped = FaissMapVectorStore(faiss_index=faiss.IndexIDMap2(faiss.IndexFlatIP(D)))
    show(ids=mapped.add(_nodes(40)))
    _asked(mapped)
    mapped.delete_nodes([f"node-{i}" for i in range(0, 40, 4)])
    _asked(mapped)


if __name__ == "__main__":
    main(sys.argv[1])
