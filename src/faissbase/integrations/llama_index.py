"""LlamaIndex's vector store over a collection, in a folder or on a server.

Needs the package ``llama-index-core``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from faissbase.errors import InvalidInputError
from faissbase.rag.diversity import diverse
from faissbase.types import Collection, Hit, Record

try:
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.schema import BaseNode, MetadataMode
    from llama_index.core.vector_stores.types import (
        BasePydanticVectorStore,
        FilterCondition,
        FilterOperator,
        MetadataFilters,
        VectorStoreQuery,
        VectorStoreQueryMode,
        VectorStoreQueryResult,
    )
    from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict
except ImportError as missing:
    raise ImportError("FaissbaseVectorStore needs LlamaIndex: pip install llama-index-core") from missing

_OPERATORS = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.CONTAINS: "$contains",
}
_MMR_CANDIDATES = 4  # times what is asked


class FaissbaseVectorStore(BasePydanticVectorStore):  # type: ignore[misc]  # mypy does not follow its imports
    """Nodes of LlamaIndex in a collection: durable, filtered inside the search, of many processes at once.

    Parameters
    ----------
    collection : Collection
        Of a folder or of a server, of the embedding model's dimension.
    """

    stores_text: bool = True
    _collection: Collection = PrivateAttr()

    def __init__(self, collection: Collection) -> None:
        super().__init__()
        self._collection = collection

    @classmethod
    def class_name(cls) -> str:
        """LlamaIndex's name for this class."""
        return "FaissbaseVectorStore"

    @property
    def client(self) -> Collection:
        """The collection."""
        return self._collection

    # ---- nodes ---------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Add nodes that have embeddings, durably, and return their ids; known ones are replaced."""
        if not nodes:
            return []
        metadatas = [
            {**node_to_metadata_dict(node, remove_text=True), "node_id": node.node_id} for node in nodes
        ]
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        ids = [node.node_id for node in nodes]
        self._collection.upsert(ids, [node.get_embedding() for node in nodes], metadatas, texts)
        return ids

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete the nodes of a document."""
        self._collection.delete(where={"ref_doc_id": ref_doc_id})

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete the nodes that have one of these ids, where they match the filters.

        Raises
        ------
        InvalidInputError
            Neither is given: `clear` removes everything.
        """
        where = _where(filters, node_ids=node_ids)
        if where is None:
            raise InvalidInputError("delete_nodes() needs node_ids or filters; clear() removes everything")
        self._collection.delete(where=where)

    def clear(self) -> None:
        """Remove every node."""
        self._collection.reset()

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """The nodes that have one of these ids, where they match the filters; all without either."""
        where = _where(filters, node_ids=node_ids)
        return [_node(record) for record in self._collection.get(where=where or {})]

    # ---- searching -----------------------------------------------------------------------------------

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nodes nearest to a query, by vector, by words, by both, or near and unlike each other.

        Raises
        ------
        InvalidInputError
            A mode or a filter that the collection does not have, or a query without what its mode needs.
        """
        # LlamaIndex means no restriction by an empty list.
        where = _where(query.filters, node_ids=query.node_ids or None, doc_ids=query.doc_ids or None)
        hits = self._hits(query, where, **kwargs)
        return VectorStoreQueryResult(
            nodes=[_node(hit) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def _hits(self, query: VectorStoreQuery, where: dict[str, Any] | None, **options: Any) -> list[Hit]:
        k, mode = query.similarity_top_k, query.mode
        if mode in (VectorStoreQueryMode.TEXT_SEARCH, VectorStoreQueryMode.SPARSE):
            return self._collection.text_search(_text(query), k, where)
        vector = _vector(query)
        if mode == VectorStoreQueryMode.HYBRID:
            return self._collection.hybrid_search(_text(query), vector, query.hybrid_top_k or k, where)
        if mode == VectorStoreQueryMode.MMR:
            return self._unlike_each_other(query, vector, where, **options)
        if mode != VectorStoreQueryMode.DEFAULT:
            raise InvalidInputError(
                f"mode {mode.value!r} is none of default, text_search, sparse, hybrid and mmr"
            )
        hits: list[Hit] = self._collection.search(vector, k, where, **options)
        return hits

    def _unlike_each_other(
        self, query: VectorStoreQuery, vector: Any, where: dict[str, Any] | None, **options: Any
    ) -> list[Hit]:
        n_fetched = options.pop("mmr_prefetch_k", None) or _MMR_CANDIDATES * query.similarity_top_k
        found = self._collection.search(vector, n_fetched, where, **options)
        hits = {hit.id: hit for hit in found}
        if not hits:
            return []
        records = self._collection.get(list(hits), include_vectors=True)
        vectors = np.stack([record.vector for record in records if record.vector is not None])
        weight = 0.5 if query.mmr_threshold is None else query.mmr_threshold
        chosen = diverse(vector, vectors, query.similarity_top_k, weight)
        return [hits[records[row].id] for row in chosen]


def _node(found: Hit | Record) -> BaseNode:
    return metadata_dict_to_node(found.metadata, text=found.document or "")


def _vector(query: VectorStoreQuery) -> Any:
    if query.query_embedding is None:
        raise InvalidInputError(f"a query of mode {query.mode.value!r} needs query_embedding")
    return np.asarray(query.query_embedding, np.float32)


def _text(query: VectorStoreQuery) -> str:
    if query.query_str is None:
        raise InvalidInputError(f"a query of mode {query.mode.value!r} needs query_str")
    return str(query.query_str)


def _where(
    filters: MetadataFilters | None,
    *,
    node_ids: Sequence[str] | None = None,
    doc_ids: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """All of it as one filter of the collection; None where nothing is asked."""
    found: list[dict[str, Any]] = []
    if filters is not None and filters.filters:
        found.append(_combined(filters))
    if node_ids is not None:
        found.append({"node_id": {"$in": list(node_ids)}})
    if doc_ids is not None:
        found.append({"ref_doc_id": {"$in": list(doc_ids)}})
    if not found:
        return None
    return found[0] if len(found) == 1 else {"$and": found}


def _combined(filters: MetadataFilters) -> dict[str, Any]:
    parts = [_combined(each) if isinstance(each, MetadataFilters) else _one(each) for each in filters.filters]
    if filters.condition == FilterCondition.OR:
        return {"$or": parts}
    if filters.condition == FilterCondition.NOT:
        return {"$not": {"$or": parts}}
    return {"$and": parts}


def _one(each: Any) -> dict[str, Any]:
    if each.operator in _OPERATORS:
        return {each.key: {_OPERATORS[each.operator]: each.value}}
    if each.operator in (FilterOperator.ANY, FilterOperator.ALL):
        joined = "$or" if each.operator == FilterOperator.ANY else "$and"
        return {joined: [{each.key: {"$contains": value}} for value in each.value]}
    if each.operator == FilterOperator.IS_EMPTY:
        return {"$or": [{each.key: {"$exists": False}}, {each.key: {"$in": ["", None]}}]}
    raise InvalidInputError(
        f"a filter with {each.operator.value!r} on {each.key!r} is none of the collection's"
    )
