"""LangChain's vector store over a collection, in a folder or on a server.

Needs the package ``langchain-core``.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from faissbase.connecting import connect
from faissbase.embedding import as_embedder
from faissbase.errors import InvalidInputError
from faissbase.rag.diversity import diverse
from faissbase.types import Collection, Hit, Metric

try:
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import VectorStore
except ImportError as missing:
    raise ImportError("FaissbaseVectorStore needs LangChain: pip install langchain-core") from missing

_Filter = Mapping[str, Any] | None


class FaissbaseVectorStore(VectorStore):  # type: ignore[misc]  # mypy does not follow LangChain's imports
    """Documents of LangChain in a collection: durable, filtered inside the search, of many processes at once.

    Parameters
    ----------
    embedding : Embeddings
    collection : Collection, optional
        A collection of a folder or of a server, of the embedding's dimension. Where none is given, the one
        called ``collection_name`` in ``path`` is opened, or made.
    path : path, ":memory:" or address
        See `faissbase.connect`.
    collection_name : str
    metric : {"cosine", "l2", "ip"}
    index_type : str
        See ``create_collection``; both are of use only where the collection is made.
    api_key : str, optional
        Of a server.

    Raises
    ------
    InvalidInputError
        The collection has another dimension than the embedding.
    """

    def __init__(
        self,
        embedding: Embeddings,
        collection: Collection | None = None,
        *,
        path: str = ":memory:",
        collection_name: str = "langchain",
        metric: Metric = "cosine",
        index_type: str = "auto",
        api_key: str | None = None,
    ) -> None:
        dimension = as_embedder(embedding).dimension
        if collection is None:
            database = connect(path) if api_key is None else connect(path, api_key=api_key)
            collection = database.get_or_create_collection(
                collection_name, dimension=dimension, metric=metric, index_type=index_type
            )
            self._database = database  # one in memory lives as long as this object
        if collection.dimension != dimension:
            raise InvalidInputError(
                f"collection {collection.name!r} has d={collection.dimension}, the embedding d={dimension}"
            )
        self.collection = collection
        self._embedding = embedding

    @property
    def embeddings(self) -> Embeddings:
        """What embeds documents and queries."""
        return self._embedding

    # ---- documents -----------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts, durably, and return their ids. One whose id is there already is replaced.

        Raises
        ------
        InvalidInputError
            Metadata or ids that are too few or too many, or no JSON; nothing was stored.
        """
        _refuse(kwargs, "add_texts")
        found = list(texts)
        if ids is not None and len(ids) != len(found):
            raise InvalidInputError(f"expected {len(found)} ids, one for each text, got {len(ids)}")
        keys = [key or uuid.uuid4().hex for key in (ids or [None] * len(found))]
        if found:
            self.collection.upsert(keys, self._embedding.embed_documents(found), metadatas, found)
        return keys

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete by ids; those that are not there are passed over.

        Raises
        ------
        InvalidInputError
            No ids: ``store.collection.reset()`` removes everything.
        """
        _refuse(kwargs, "delete")
        if ids is None:
            raise InvalidInputError("delete() needs ids; store.collection.reset() removes every document")
        self.collection.delete(ids)
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents that are there, in the order of their ids."""
        records = self.collection.get(list(dict.fromkeys(ids)))
        return [_document(record.id, record.document, record.metadata) for record in records]

    # ---- searching -----------------------------------------------------------------------------------

    def similarity_search(
        self, query: str, k: int = 4, filter: _Filter = None, **kwargs: Any
    ) -> list[Document]:
        """The k nearest documents; ``filter`` is the filter language of the collections."""
        return [found for found, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, filter: _Filter = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """The k nearest documents with their scores: larger is nearer, whatever the metric."""
        vector = self._embedding.embed_query(query)
        return [(_of_hit(hit), hit.score) for hit in self._hits(vector, k, filter, **kwargs)]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: _Filter = None, **kwargs: Any
    ) -> list[Document]:
        """The k documents nearest to a vector."""
        return [_of_hit(hit) for hit in self._hits(embedding, k, filter, **kwargs)]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: _Filter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Of the ``fetch_k`` nearest, k that are near the query and unlike each other."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: _Filter = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`max_marginal_relevance_search` around a vector."""
        if not 0 <= lambda_mult <= 1:
            raise InvalidInputError(f"lambda_mult must be 0 to 1, got {lambda_mult}")
        hits = {hit.id: hit for hit in self._hits(embedding, max(k, fetch_k), filter, **kwargs)}
        if not hits:
            return []
        records = self.collection.get(list(hits), include_vectors=True)  # one deleted meanwhile is not there
        vectors = np.stack([record.vector for record in records if record.vector is not None])
        chosen = diverse(np.asarray(embedding, np.float32), vectors, k, lambda_mult)
        return [_of_hit(hits[records[row].id]) for row in chosen]

    def _hits(self, vector: list[float], k: int, filter: _Filter, **options: Any) -> list[Hit]:
        known = {name: options.pop(name) for name in ("recall", "nprobe", "ef_search") if name in options}
        _refuse(options, "a search")
        hits: list[Hit] = self.collection.search(np.asarray(vector, np.float32), k, filter, **known)
        return hits

    def _select_relevance_score_fn(self) -> Any:
        return _relevance

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> FaissbaseVectorStore:
        """A store with these texts in it; further arguments are those of the class."""
        store = cls(embedding, **kwargs)
        store.add_texts(texts, metadatas, ids=ids)
        return store


def _document(id: str, document: str | None, metadata: dict[str, Any]) -> Document:
    return Document(id=id, page_content=document or "", metadata=metadata)


def _of_hit(hit: Hit) -> Document:
    return _document(hit.id, hit.document, hit.metadata)


def _relevance(score: float) -> float:
    """From 0 to 1, as LangChain wants it: the cosine, 0 if it is negative; ``1 / (1 + distance)`` for l2."""
    return min(1.0, max(0.0, score))


def _refuse(options: dict[str, Any], what: str) -> None:
    """An option that would be ignored is an error."""
    if options:
        raise InvalidInputError(f"{what} does not know {next(iter(options))!r}")
