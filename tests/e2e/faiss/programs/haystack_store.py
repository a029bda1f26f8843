"""Haystack's document store on FAISS: written, searched with filters, deleted from, saved and loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from haystack import Document
from haystack_integrations.components.retrievers.faiss import FAISSEmbeddingRetriever
from haystack_integrations.document_stores.faiss import FAISSDocumentStore
from tests.e2e.faiss.programs.shown import show

_random = np.random.default_rng(3)
ROWS = _random.standard_normal((60, 16)).astype(np.float32)


def _hits(found: list[Any]) -> list[Any]:
    return [[each.id, each.content, each.meta, each.score] for each in found]


def _life(spec: str, folder: Path) -> None:
    store = FAISSDocumentStore(index_path=str(folder / spec), index_string=spec, embedding_dim=16)
    documents = [
        Document(id=f"d{n}", content=f"text {n}", meta={"even": n % 2 == 0}, embedding=ROWS[n].tolist())
        for n in range(50)
    ]
    show(written=store.write_documents(documents), n=store.count_documents())
    retriever = FAISSEmbeddingRetriever(document_store=store, top_k=4)
    show(hits=_hits(retriever.run(query_embedding=ROWS[55].tolist())["documents"]))
    even = {"field": "meta.even", "operator": "==", "value": True}
    show(even=_hits(retriever.run(query_embedding=ROWS[3].tolist(), filters=even)["documents"]))
    store.delete_documents(["d0", "d3"])
    show(left=store.count_documents(), hits=_hits(store.search(ROWS[3].tolist(), top_k=3)))
    store.save(str(folder / spec))
    again = FAISSDocumentStore(index_path=str(folder / spec), index_string=spec, embedding_dim=16)
    show(loaded=again.count_documents(), hits=_hits(again.search(ROWS[3].tolist(), top_k=3)))


if __name__ == "__main__":
    for spec in ("Flat", "SQfp16"):
        _life(spec, Path(mkdtemp(dir=sys.argv[1])))  # a store takes up what is there
