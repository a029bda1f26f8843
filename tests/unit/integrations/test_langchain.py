"""FaissbaseVectorStore does what LangChain's programs ask of a vector store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.server.running import Running, new_key

import faissbase
from faissbase.embedding import HashedEmbedder
from faissbase.errors import ConflictError, InvalidInputError

pytest.importorskip("langchain_core")
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from faissbase.integrations.langchain import FaissbaseVectorStore


class Hashed(Embeddings):  # type: ignore[misc]  # mypy does not follow LangChain's imports
    """LangChain's form of the embedder that needs no model."""

    def __init__(self, dimension: int = 256) -> None:
        self._embedder = HashedEmbedder(dimension)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._embedder.embed(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


TEXTS = [
    "Backups are made with the backup command.",
    "A backup can be restored into a new folder.",
    "Keys of the server are rotated by an administrator.",
    "Filters are evaluated inside the search.",
]
METADATAS: list[dict[str, Any]] = [{"page": page} for page in range(4)]
IDS = ["a", "b", "c", "d"]


@pytest.fixture(params=["memory", "folder", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FaissbaseVectorStore]:
    if request.param != "server":
        path = ":memory:" if request.param == "memory" else str(tmp_path / "data")
        yield FaissbaseVectorStore.from_texts(TEXTS, Hashed(), METADATAS, ids=IDS, path=path)
        return
    with Running(tmp_path / "data") as server:
        key = new_key(tmp_path / "data", "acme", "read", "write")[1]
        yield FaissbaseVectorStore.from_texts(
            TEXTS, Hashed(), METADATAS, ids=IDS, path=server.url, api_key=key
        )


def _ids(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


def test_documents_are_found_filtered_replaced_and_deleted(store: FaissbaseVectorStore) -> None:
    question = "How do I restore a backup into a folder?"
    [nearest] = store.similarity_search(question, k=1)
    assert nearest == Document(id="b", page_content=TEXTS[1], metadata={"page": 1})
    assert _ids(store.similarity_search(question, k=4, filter={"page": {"$ne": 1}}))[0] == "a"
    store.add_documents([Document(id="b", page_content="Nothing about it.", metadata={"page": 9})])
    assert _ids(store.similarity_search(question, k=1)) == ["a"]
    assert store.get_by_ids(["b", "nowhere", "d", "b"]) == [
        Document(id="b", page_content="Nothing about it.", metadata={"page": 9}),
        Document(id="d", page_content=TEXTS[3], metadata={"page": 3}),
    ]
    assert store.delete(["a", "nowhere"]) is True
    assert "a" not in _ids(store.similarity_search(question, k=10))
    assert len(store.collection) == 3


def test_scores_are_larger_where_nearer(store: FaissbaseVectorStore) -> None:
    found = store.similarity_search_with_score(TEXTS[2], k=4)
    assert found[0][0].id == "c"
    assert found[0][1] == pytest.approx(1, abs=1e-5)
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    near = store.similarity_search_with_relevance_scores(TEXTS[2], k=4, score_threshold=0.9)
    assert _ids([document for document, _ in near]) == ["c"]


def test_relevant_and_unlike_each_other(store: FaissbaseVectorStore) -> None:
    both = store.max_marginal_relevance_search("backup", k=2, fetch_k=4, lambda_mult=0.1)
    assert both[0].id in ("a", "b")
    assert both[1].id in ("c", "d")
    assert _ids(store.max_marginal_relevance_search("backup", k=2, fetch_k=4, lambda_mult=1.0)) == _ids(
        store.similarity_search("backup", k=2)
    )
    assert store.max_marginal_relevance_search("backup", filter={"page": 77}) == []


def test_a_retriever_and_coroutines_see_the_same(store: FaissbaseVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 2, "filter": {"page": {"$lt": 2}}})
    assert set(_ids(retriever.invoke("backup"))) == {"a", "b"}
    [added] = asyncio.run(store.aadd_documents([Document(page_content="A late page.")]))
    assert _ids(asyncio.run(store.asimilarity_search("a late page", k=1))) == [added]


def test_a_folder_is_found_again(tmp_path: Path) -> None:
    path = str(tmp_path / "data")
    FaissbaseVectorStore.from_texts(TEXTS, Hashed(), path=path, collection_name="docs")
    again = FaissbaseVectorStore(Hashed(), path=path, collection_name="docs")
    assert again.similarity_search(TEXTS[0], k=1)[0].page_content == TEXTS[0]
    with pytest.raises(ConflictError, match="256"):
        FaissbaseVectorStore(Hashed(128), path=path, collection_name="docs")


def test_wrong_calls_are_refused_and_store_nothing(memory: faissbase.Database) -> None:
    collection = memory.create_collection("docs", 256)
    store = FaissbaseVectorStore(Hashed(), collection)
    with pytest.raises(InvalidInputError, match=r"d=256, the embedding d=128"):
        FaissbaseVectorStore(Hashed(128), collection)
    with pytest.raises(InvalidInputError, match="expected 2 ids"):
        store.add_texts(["x", "y"], ids=["1"])
    with pytest.raises(InvalidInputError, match="metadata"):
        store.add_texts(["x", "y"], [{"n": 1}])
    with pytest.raises(InvalidInputError, match="reset"):
        store.delete()
    with pytest.raises(InvalidInputError, match="'where'"):
        store.similarity_search("x", where={"n": 1})
    with pytest.raises(InvalidInputError, match=r"0 to 1, got 1.5"):
        store.max_marginal_relevance_search("x", lambda_mult=1.5)
    assert len(collection) == 0
    assert store.add_texts([]) == []
