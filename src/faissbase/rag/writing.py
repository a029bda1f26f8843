"""Chunks of documents in a collection: what is there, what has changed, and bringing it up to date.

The first chunk of a document carries ``document_hash``, and is written after its others: where it is there,
all are, and nothing of an earlier text is left. Knows one collection, no versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from faissbase.embedding import Embedder
from faissbase.rag.chunks import Chunk, Chunker
from faissbase.rag.documents import Document, content_hash
from faissbase.types import Collection, Float32

_BATCH_CHUNKS = 128  # embedded and written together
_PAGE_RECORDS = 1000
_LONGEST_SOURCE = 900  # bytes: an id may have 1,024


@dataclass
class IndexReport:
    """What was brought up to date, by the sources of documents.

    Attributes
    ----------
    added, changed, unchanged, removed : list of str
    skipped : dict of str to str
        What could not be read, or holds nothing, and why. What was stored of it before is still there.
    n_embedded, n_reused : int
        Chunks that were embedded, and those whose vectors were there already.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    n_embedded: int = 0
    n_reused: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a stored document: its hash is "" while it is being written."""

    source: str
    document_hash: str
    n_chunks: int
    folder: str | None


def chunk_id(source: str, position: int) -> str:
    """The id of a chunk: its source and number, or a hash of the source where that is long."""
    if len(source.encode()) > _LONGEST_SOURCE:
        source = content_hash(source.encode())
    return f"{source}#{position}"


def stored_documents(collection: Collection) -> dict[str, Stored]:
    """Every document of a collection, by its source."""
    found = {}
    for metadata in _metadatas(collection, {"chunk": 0}):
        source = metadata["source"]
        facts = (metadata["document_hash"], metadata["n_chunks"], metadata.get("folder"))
        found[source] = Stored(source, *facts)
    return found


def _metadatas(collection: Collection, where: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        page = collection.scroll(where, limit=_PAGE_RECORDS, cursor=cursor)
        for record in page.records:
            yield record.metadata
        cursor = page.cursor
        if cursor is None:
            return


def sweep(collection: Collection, stored: dict[str, Stored]) -> None:
    """Remove chunks that no document has: of writes to a server that ended halfway."""
    if collection.count() == sum(document.n_chunks for document in stored.values()):
        return
    gone = [
        chunk_id(metadata["source"], metadata["chunk"])
        for metadata in _metadatas(collection, None)
        if metadata["source"] not in stored or metadata["chunk"] >= stored[metadata["source"]].n_chunks
    ]
    _delete(collection, gone)


def _delete(collection: Collection, ids: list[str]) -> None:
    for piece in _pieces(ids):
        collection.delete(piece)


def _pieces(ids: list[str]) -> Iterator[list[str]]:
    """As many at once as every server takes."""
    return (ids[at : at + _PAGE_RECORDS] for at in range(0, len(ids), _PAGE_RECORDS))


def remove(collection: Collection, documents: Iterable[Stored]) -> None:
    """Remove documents, marked as unfinished before, their first chunks last."""
    given = list(documents)
    rest = [chunk_id(each.source, i) for each in given for i in range(1, each.n_chunks)]
    first = [chunk_id(each.source, 0) for each in given]
    for piece in _pieces(first):
        collection.update(piece, metadatas=[{"document_hash": ""}] * len(piece))
    _delete(collection, [*rest, *first])


class Writer:
    """Takes documents one after the other and stores them in batches; `finish` stores what is left."""

    def __init__(
        self,
        collection: Collection,
        embedder: Embedder,
        chunker: Chunker,
        stored: dict[str, Stored],
    ) -> None:
        self._collection = collection
        self._embedder = embedder
        self._chunker = chunker
        self._stored = stored
        self.report = IndexReport()
        self._waiting: list[_Waiting] = []

    def hash_of(self, content: str) -> str:
        """What is stored for a document of that content hash, cut as it is cut now."""
        return f"{content}/{self._chunker.settings}"

    def is_stored(self, source: str, content: str) -> bool:
        """Whether the document is stored as it is now; says so in the report."""
        known = self._stored.get(source)
        is_same = known is not None and known.document_hash == self.hash_of(content)
        if is_same:
            self.report.unchanged.append(source)
        return is_same

    def put(self, document: Document, content: str, folder: str = "") -> None:
        """Store a document, of that content hash, in the place of what there is of its source."""
        chunks = self._chunker.chunks(document)
        if not chunks and document.source not in self._stored:
            self.report.skipped[document.source] = "holds nothing but blanks"
            return
        listed = self.report.changed if document.source in self._stored else self.report.added
        listed.append(document.source)
        self._waiting.append(_Waiting(document.source, self.hash_of(content), folder, chunks))
        if sum(len(each.chunks) for each in self._waiting) >= _BATCH_CHUNKS:
            self.finish()

    def finish(self) -> None:
        """Store what waits: embed it, then take down what it replaces, then write it."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        records = [
            _Entry(chunk, each.folder, each.document_hash) for each in waiting for chunk in each.chunks
        ]
        vectors = self._vectors_of(records, [each.source for each in waiting])
        self._take_down(waiting)
        self._write(records, vectors)

    def _vectors_of(self, records: list[_Entry], sources: list[str]) -> Float32:
        """A vector for each: of the same text in the same document where there is one, else embedded."""
        known = self._known_vectors([source for source in sources if source in self._stored])
        new = [row for row, record in enumerate(records) if (record.source, record.text_hash) not in known]
        vectors = np.empty((len(records), self._embedder.dimension), np.float32)
        if new:
            vectors[new] = self._embedder.embed([records[row].chunk.embedded_text for row in new])
        for row, record in enumerate(records):
            if (record.source, record.text_hash) in known:
                vectors[row] = known[record.source, record.text_hash]
        self.report.n_embedded += len(new)
        self.report.n_reused += len(records) - len(new)
        return vectors

    def _known_vectors(self, sources: list[str]) -> dict[tuple[str, str], Float32]:
        known = {}
        for source in sources:
            ids = [chunk_id(source, i) for i in range(self._stored[source].n_chunks)]
            for piece in _pieces(ids):
                for record in self._collection.get(piece, include_vectors=True):
                    if record.vector is not None:
                        known[source, record.metadata["text_hash"]] = record.vector
        return known

    def _take_down(self, waiting: list[_Waiting]) -> None:
        """Mark what is replaced as unfinished, and delete the chunks that have no successor."""
        old = [
            (self._stored[each.source], len(each.chunks)) for each in waiting if each.source in self._stored
        ]
        if not old:
            return
        marks = [{"document_hash": "", "n_chunks": max(1, min(known.n_chunks, n))} for known, n in old]
        self._collection.update([chunk_id(known.source, 0) for known, _ in old], metadatas=marks)
        gone = [chunk_id(known.source, i) for known, n in old for i in range(n, known.n_chunks)]
        _delete(self._collection, gone)

    def _write(self, records: list[_Entry], vectors: Float32) -> None:
        # The first chunks come last: a server takes many records in several pieces.
        order = sorted(range(len(records)), key=lambda row: records[row].chunk.position == 0)
        if order:
            self._collection.upsert(
                [records[row].id for row in order],
                vectors[order],
                [records[row].metadata for row in order],
                [records[row].chunk.text for row in order],
            )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A document that is cut, and not yet stored."""

    source: str
    document_hash: str
    folder: str
    chunks: list[Chunk]


class _Entry:
    """A chunk on its way into the collection."""

    __slots__ = ("chunk", "id", "metadata", "source", "text_hash")

    def __init__(self, chunk: Chunk, folder: str, document_hash: str) -> None:
        self.chunk = chunk
        self.source = chunk.source
        self.id = chunk_id(chunk.source, chunk.position)
        self.text_hash = content_hash(chunk.embedded_text.encode())
        more = {"document_hash": document_hash, "text_hash": self.text_hash}
        self.metadata = chunk.metadata | more | ({"folder": folder} if folder else {})
