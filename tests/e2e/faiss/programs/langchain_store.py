"""LangChain's FAISS store, from texts to the answers of a store that was saved and loaded."""

from __future__ import annotations

import hashlib
import sys
import warnings
from typing import Any

import numpy as np
from tests.e2e.faiss.programs.shown import digest, show

warnings.simplefilter("ignore", DeprecationWarning)
from langchain_community.docstore.in_memory import InMemoryDocstore  # noqa: E402
from langchain_community.vectorstores import FAISS  # noqa: E402
from langchain_community.vectorstores.utils import DistanceStrategy  # noqa: E402
from langchain_core.documents import Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402

D = 32
WORDS = ["index", "vector", "query", "cluster", "graph", "code", "list", "residual", "rotation", "flat"]
TEXTS = [f"{a} of a {b}, {n}" for n, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS if a != b)]


class Hashed(Embeddings):  # type: ignore[misc]  # of no class that mypy is shown
    """Words as fixed random directions, a text as their sum."""

    def embed_query(self, text: str) -> list[float]:
        seeds = [hashlib.sha256(word.encode()).digest()[:4] for word in text.split()]
        rows = [np.random.default_rng(int.from_bytes(seed, "little")).standard_normal(D) for seed in seeds]
        found: list[float] = np.sum(rows, axis=0).tolist()
        return found

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


def _hits(found: list[tuple[Document, Any]]) -> list[Any]:
    return [[each.id, each.page_content, each.metadata, score] for each, score in found]


def _searched(store: FAISS) -> None:
    query = "rotation of a graph"
    show(scored=_hits(store.similarity_search_with_score(query, k=5)))
    show(filtered=_hits(store.similarity_search_with_score(query, k=3, filter={"even": True}, fetch_k=40)))
    show(texts=[each.page_content for each in store.similarity_search(query, k=4)])
    found = store.max_marginal_relevance_search(query, k=4, fetch_k=20, lambda_mult=0.3)
    show(diverse=[each.page_content for each in found])
    vector = Hashed().embed_query("code list")
    show(by_vector=_hits(store.similarity_search_with_score_by_vector(vector, k=3, score_threshold=60.0)))
    show(retrieved=[each.page_content for each in store.as_retriever(search_kwargs={"k": 2}).invoke(query)])
    show(ntotal=store.index.ntotal, d=store.index.d, vectors=digest(store.index.reconstruct_n(0, 20)))


def _of_every_strategy() -> None:
    for strategy in (DistanceStrategy.MAX_INNER_PRODUCT, DistanceStrategy.EUCLIDEAN_DISTANCE):
        store = FAISS.from_texts(
            TEXTS[:30],
            Hashed(),
            ids=[f"s{n}" for n in range(30)],
            distance_strategy=strategy,
            normalize_L2=True,
        )
        show(index=type(store.index).__name__, hits=_hits(store.similarity_search_with_score("flat", k=4)))
        show(relevant=_hits(store.similarity_search_with_relevance_scores("flat", k=2)))


def _over_an_index_of_ones_own() -> None:
    import faiss

    index = faiss.IndexHNSWFlat(D, 16)
    store = FAISS(Hashed(), index, InMemoryDocstore(), {})
    show(added=store.add_texts(TEXTS, ids=[f"h{n}" for n in range(len(TEXTS))])[-1])
    _searched(store)


def main(folder: str) -> None:
    embeddings = Hashed()
    metadatas = [{"n": n, "even": n % 2 == 0} for n in range(60)]
    store = FAISS.from_texts(TEXTS[:60], embeddings, metadatas, ids=[f"a{n}" for n in range(60)])
    _searched(store)
    show(deleted=store.delete([f"a{n}" for n in range(0, 60, 3)]), left=store.index.ntotal)
    _searched(store)
    pairs = [(text, embeddings.embed_query(text)) for text in TEXTS[60:]]
    other = FAISS.from_embeddings(pairs, embeddings, ids=[f"b{n}" for n in range(len(pairs))])
    store.merge_from(other)
    show(merged=store.index.ntotal, other=other.index.ntotal)
    store.save_local(folder, "kept")
    loaded = FAISS.load_local(folder, embeddings, "kept", allow_dangerous_deserialization=True)
    _searched(loaded)
    again = FAISS.deserialize_from_bytes(
        loaded.serialize_to_bytes(), embeddings, allow_dangerous_deserialization=True
    )
    _searched(again)
    _of_every_strategy()
    _over_an_index_of_ones_own()


if __name__ == "__main__":
    main(sys.argv[1])
