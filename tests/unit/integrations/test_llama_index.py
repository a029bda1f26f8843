"""FaissbaseVectorStore does what LlamaIndex's programs ask of a vector store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import faissbase
from faissbase.embedding import HashedEmbedder
from faissbase.errors import InvalidInputError

pytest.importorskip("llama_index.core")
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import Document, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from faissbase.integrations.llama_index import FaissbaseVectorStore

TEXTS = {
    "a": "Backups are made with the backup command.",
    "b": "A backup can be restored into a new folder.",
    "c": "Keys of the server are rotated by an administrator.",
    "d": "Filters are evaluated inside the search.",
}
TAGS = {"a": ["copy"], "b": ["copy", "folder"], "c": ["key"], "d": []}


def _vector(text: str) -> list[float]:
    vector: list[float] = HashedEmbedder(256).embed([text])[0].tolist()
    return vector


class Hashed(BaseEmbedding):  # type: ignore[misc]  # mypy does not follow LlamaIndex's imports
    """LlamaIndex's form of the embedder that needs no model."""

    def _get_query_embedding(self, query: str) -> list[float]:
        return _vector(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return _vector(text)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return _vector(query)


def _node(id: str, text: str, page: int) -> TextNode:
    document = RelatedNodeInfo(node_id="first" if id in "ab" else "second")
    node = TextNode(
        id_=id,
        text=text,
        metadata={"page": page, "tags": TAGS[id]},
        relationships={NodeRelationship.SOURCE: document},
    )
    node.embedding = _vector(text)
    return node


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FaissbaseVectorStore]:
    with faissbase.connect(tmp_path / "data") as db:
        store = FaissbaseVectorStore(db.create_collection("nodes", 256))
        nodes = [_node(id, text, page) for page, (id, text) in enumerate(TEXTS.items())]
        assert store.add(nodes) == list(TEXTS)
        yield store


def _ids(store: FaissbaseVectorStore, question: str = "backup", k: int = 4, **more: Any) -> list[str]:
    found = store.query(
        VectorStoreQuery(query_embedding=_vector(question), query_str=question, similarity_top_k=k, **more)
    )
    assert len(found.nodes) == len(found.similarities) == len(found.ids)
    return list(found.ids)


def _filters(
    *each: tuple[str, FilterOperator, Any], condition: FilterCondition | None = None
) -> MetadataFilters:
    parts = [MetadataFilter(key=key, operator=operator, value=value) for key, operator, value in each]
    return MetadataFilters(filters=parts, condition=condition or FilterCondition.AND)


def test_nodes_come_back_as_they_were(store: FaissbaseVectorStore) -> None:
    question = VectorStoreQuery(query_embedding=_vector(TEXTS["b"]), similarity_top_k=1)
    found = store.query(question)
    assert found.ids == ["b"]
    assert found.similarities[0] == pytest.approx(1, abs=1e-5)
    [node] = found.nodes
    assert (node.node_id, node.text, node.ref_doc_id) == ("b", TEXTS["b"], "first")
    assert node.metadata == {"page": 1, "tags": ["copy", "folder"]}


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (_filters(("page", FilterOperator.EQ, 2)), "c"),
        (_filters(("page", FilterOperator.NE, 2)), "abd"),
        (_filters(("page", FilterOperator.GT, 1), ("page", FilterOperator.LTE, 2)), "c"),
        (_filters(("page", FilterOperator.IN, [0, 3])), "ad"),
        (_filters(("page", FilterOperator.NIN, [0, 3])), "bc"),
        (_filters(("tags", FilterOperator.CONTAINS, "copy")), "ab"),
        (_filters(("tags", FilterOperator.ANY, ["folder", "key"])), "bc"),
        (_filters(("tags", FilterOperator.ALL, ["folder", "copy"])), "b"),
        (_filters(("nowhere", FilterOperator.IS_EMPTY, None)), "abcd"),
        (
            _filters(
                ("page", FilterOperator.EQ, 0), ("page", FilterOperator.EQ, 3), condition=FilterCondition.OR
            ),
            "ad",
        ),
        (_filters(("page", FilterOperator.GTE, 2), condition=FilterCondition.NOT), "ab"),
    ],
)
def test_filters_mean_what_llama_index_says(
    store: FaissbaseVectorStore, filters: MetadataFilters, wanted: str
) -> None:
    assert sorted(_ids(store, filters=filters)) == list(wanted)
    assert sorted(node.node_id for node in store.get_nodes(filters=filters)) == list(wanted)


def test_queries_by_words_by_both_and_unlike_each_other(store: FaissbaseVectorStore) -> None:
    assert _ids(store, "rotated", mode=VectorStoreQueryMode.TEXT_SEARCH) == ["c"]
    assert _ids(store, "restored folder", 1, mode=VectorStoreQueryMode.HYBRID) == ["b"]
    unlike = _ids(store, "backup", 2, mode=VectorStoreQueryMode.MMR, mmr_threshold=0.1)
    assert unlike[0] in "ab"
    assert unlike[1] in "cd"


def test_documents_and_nodes_are_deleted(store: FaissbaseVectorStore) -> None:
    assert sorted(_ids(store, doc_ids=["first"])) == ["a", "b"]
    assert sorted(_ids(store, node_ids=["a", "d"])) == ["a", "d"]
    store.delete("first")
    assert sorted(_ids(store)) == ["c", "d"]
    store.delete_nodes(["c"], _filters(("page", FilterOperator.EQ, 99)))
    assert sorted(_ids(store)) == ["c", "d"]
    store.delete_nodes(["c"])
    assert _ids(store) == ["d"]
    store.clear()
    assert _ids(store) == []
    assert len(store.client) == 0


def test_an_index_of_llama_index_runs_on_it(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path / "data") as db:
        store = FaissbaseVectorStore(db.create_collection("nodes", 256))
        documents = [Document(text=text, id_=id) for id, text in TEXTS.items()]
        context = StorageContext.from_defaults(vector_store=store)
        index = VectorStoreIndex.from_documents(documents, storage_context=context, embed_model=Hashed())
        [found] = index.as_retriever(similarity_top_k=1).retrieve("Who rotates keys of the server?")
        assert found.node.ref_doc_id == "c"
        index.delete_ref_doc("c")
    with faissbase.connect(tmp_path / "data") as db:
        again = FaissbaseVectorStore(db.get_collection("nodes"))
        index = VectorStoreIndex.from_vector_store(again, embed_model=Hashed())
        found_again = index.as_retriever(similarity_top_k=4).retrieve("Who rotates keys of the server?")
        assert sorted(each.node.ref_doc_id for each in found_again) == ["a", "b", "d"]


def test_wrong_queries_are_refused(store: FaissbaseVectorStore) -> None:
    with pytest.raises(InvalidInputError, match="'svm'"):
        _ids(store, mode=VectorStoreQueryMode.SVM)
    with pytest.raises(InvalidInputError, match="'text_match' on 'page'"):
        _ids(store, filters=_filters(("page", FilterOperator.TEXT_MATCH, "x")))
    with pytest.raises(InvalidInputError, match="needs query_embedding"):
        store.query(VectorStoreQuery(query_str="x"))
    with pytest.raises(InvalidInputError, match="needs query_str"):
        store.query(VectorStoreQuery(query_embedding=_vector("x"), mode=VectorStoreQueryMode.HYBRID))
    with pytest.raises(InvalidInputError, match=r"clear\(\) removes everything"):
        store.delete_nodes()
    assert len(store.client) == 4
