"""`DocumentIndex`: documents in a database, cut, embedded, kept up to date, and found again.

Written against the `Collection` protocol: it is the same on a folder and on a server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from faissbase.collection import inputs
from faissbase.embedding import Embedder, EmbedderSource, as_embedder, check_same_embedder
from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.rag import checking
from faissbase.rag.chunks import CHUNK_CHARS, OVERLAP_CHARS, Chunker
from faissbase.rag.diversity import diverse
from faissbase.rag.documents import Document, File, file_hash, files_in, parse_document, read_bytes
from faissbase.rag.versions import FIRST, Collections, Version, Versions
from faissbase.rag.writing import IndexReport, Stored, Writer, remove, stored_documents, sweep
from faissbase.types import Collection, Hit, Where

__all__ = ["DocumentIndex"]


class DocumentIndex:
    """The documents of one name in a database.

    Parameters
    ----------
    db : Database or RemoteDatabase
        What ``faissbase.connect`` returns.
    name : str
        The index is made where there is none.
    embedder : Embedder, callable or model
        As `faissbase.embedding.as_embedder` takes it. Its name and dimension are stored with each version
        and compared on opening.
    version : str, optional
        Stay with this version, whichever is the current one.
    metric, index_type : str
        Of the first version, where it is made now; otherwise what is stored counts.
    chunk_chars, overlap_chars : int
        How documents are cut: see `split`. Documents that were cut otherwise are cut anew when they are
        added again.

    Raises
    ------
    ConflictError
        The index was embedded by another embedder: make a version of its own for this one.

    Notes
    -----
    Searches may run anywhere at any time. Documents should be added by one process at a time.

    Examples
    --------
    >>> import faissbase
    >>> from faissbase.embedding import HashedEmbedder
    >>> from faissbase.rag import Document, DocumentIndex
    >>> index = DocumentIndex(faissbase.connect(":memory:"), "notes", HashedEmbedder())
    >>> report = index.add_documents([Document("Cats sleep a lot.", "cats"), Document("Rain falls.", "rain")])
    >>> report.added, [hit.document for hit in index.search("do cats sleep?", k=1)]
    (['cats', 'rain'], ['Cats sleep a lot.'])
    """

    def __init__(
        self,
        db: Collections,
        name: str,
        embedder: EmbedderSource,
        *,
        version: str | None = None,
        metric: str = "cosine",
        index_type: str = "auto",
        chunk_chars: int = CHUNK_CHARS,
        overlap_chars: int = OVERLAP_CHARS,
    ) -> None:
        self._db = db
        self._embedder = as_embedder(embedder)
        self._chunker = Chunker(chunk_chars, overlap_chars)
        self._versions = Versions(db, name)
        self._pinned = version
        self._opened: tuple[str, Collection] | None = None
        if self._versions.is_there():
            self._versions.finish_deleting()
        else:
            kind = (self._embedder.name, self._embedder.dimension, metric, index_type)
            self._versions.begin(Version.new(FIRST, *kind))
        self._version()

    def __repr__(self) -> str:
        return f"<DocumentIndex {self.name!r}, version {self.version!r}: {len(self)} chunks>"

    def __len__(self) -> int:
        """How many chunks there are."""
        return self._open().count()

    @property
    def name(self) -> str:
        """The name of the index."""
        return self._versions.name

    @property
    def embedder(self) -> Embedder:
        """What embeds its chunks and questions."""
        return self._embedder

    @property
    def version(self) -> str:
        """The version that it searches and writes now."""
        return self._version().version

    def _version(self) -> Version:
        pinned = self._pinned
        found = self._versions.current() if pinned is None else self._versions.find(pinned)
        what = f"version {found.version!r} of index {self.name!r}"
        check_same_embedder((found.embedder, found.dimension), self._embedder, what)
        return found

    def _open(self) -> Collection:
        version, opened = self._version(), self._opened
        if opened is None or opened[0] != version.key:
            opened = self._opened = (version.key, self._versions.collection(version))
        return opened[1]

    # ---- documents -----------------------------------------------------------------------------------

    def add_documents(self, documents: Document | Iterable[Document]) -> IndexReport:
        """Store documents, each in the place of what there is of its source.

        One that is stored as it is now is passed over; of one that has changed, only chunks whose text is
        new are embedded. Killed at any moment, each document is whole after the next call with it.
        """
        given = [documents] if isinstance(documents, Document) else inputs.as_list(documents, "documents")
        _check_distinct(given)
        writer, _, _ = self._writer()
        for document in given:
            content = document.content_hash
            if not writer.is_stored(document.source, content):
                writer.put(document, content)
        writer.finish()
        return writer.report

    def add_folder(
        self, folder: str | os.PathLike[str], *, label: str | None = None, encoding: str = "utf-8"
    ) -> IndexReport:
        """Bring the index up to date with the text, Markdown and PDF files below a folder.

        New files are added, changed ones replaced, and what is not there any more is removed. Files that
        have not changed are read, and neither parsed nor embedded. A file that cannot be read does not end
        it: the report says which and why, and what was stored of it stays.

        Parameters
        ----------
        folder : path
        label : str, optional
            What sources begin with, ``label/path/in/folder.md``; the folder's own name where none is given.
            Folders with the same label are one.
        encoding : str
            Of text without a byte order mark.

        Raises
        ------
        NotFoundError
            No such folder.
        ConflictError
            Its name stands for another folder already: give a label.
        """
        root = Path(folder)
        if not root.is_dir():
            raise NotFoundError(f"no folder at {root}")
        label = self._labelled(root, label)
        writer, stored, collection = self._writer()
        seen = set()
        for file in files_in(root):
            source = f"{label}/{file.source}"
            seen.add(source)
            _put_file(writer, File(file.path, source, file.problem), label, encoding)
        writer.finish()
        gone = [each for each in stored.values() if each.folder == label and each.source not in seen]
        remove(collection, gone)
        writer.report.removed.extend(sorted(each.source for each in gone))
        return writer.report

    def _labelled(self, root: Path, label: str | None) -> str:
        path = root.resolve()
        found = path.name if label is None else checking.text(label, "label").strip("/")
        if not found:
            raise InvalidInputError(f"{root} has no name of its own: give a label")
        self._versions.claim_folder(found, str(path), is_said=label is not None)
        return found

    def _writer(self) -> tuple[Writer, dict[str, Stored], Collection]:
        collection = self._open()
        stored = stored_documents(collection)
        sweep(collection, stored)
        return Writer(collection, self._embedder, self._chunker, stored), stored, collection

    def delete_documents(self, sources: str | Iterable[str]) -> int:
        """Remove documents by their sources, and return how many there were."""
        wanted = [sources] if isinstance(sources, str) else list(sources)
        collection = self._open()
        stored = stored_documents(collection)
        found = [stored[source] for source in dict.fromkeys(wanted) if source in stored]
        remove(collection, found)
        return len(found)

    def sources(self) -> list[str]:
        """The sources of all documents, sorted."""
        return sorted(stored_documents(self._open()))

    # ---- searching -----------------------------------------------------------------------------------

    def search(
        self,
        text: str,
        k: int = 5,
        *,
        where: Where | None = None,
        score_threshold: float | None = None,
        recall: float | None = None,
    ) -> list[Hit]:
        """The k chunks nearest to a question, nearest first.

        Parameters
        ----------
        text : str
        k : int
        where : dict, optional
            Only chunks whose metadata match: ``{"source": ...}``, ``{"page": {"$lte": 3}}``,
            ``{"headings": {"$contains": "Install"}}`` and whatever the documents brought.
        score_threshold : float, optional
            Only hits whose score, larger when nearer, is at least this.
        recall : float, optional
            As ``Collection.search`` takes it.

        Returns
        -------
        list of Hit
            ``document`` is the chunk's text; ``metadata`` has ``source``, ``start``, ``end``, and where there
            are any ``headings`` or ``page``.
        """
        least = None if score_threshold is None else checking.number(score_threshold, "score_threshold")
        hits = self._search(text, inputs.check_k(k), where, recall)
        return [hit for hit in hits if least is None or hit.score >= least]

    def mmr_search(
        self,
        text: str,
        k: int = 5,
        *,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        where: Where | None = None,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        """k chunks that are near a question and unlike each other: `FAISSVectorStore.mmr_search`."""
        k, fetch_k = inputs.check_k(k), checking.count(fetch_k, "fetch_k")
        weight = checking.share(lambda_mult, "lambda_mult")
        least = None if score_threshold is None else checking.number(score_threshold, "score_threshold")
        query, collection = self._embedded(text), self._open()
        hits = collection.search(query, max(k, fetch_k), where)
        hits = [hit for hit in hits if least is None or hit.score >= least]
        records = collection.get([hit.id for hit in hits], include_vectors=True) if hits else []
        vectors = {record.id: record.vector for record in records if record.vector is not None}
        hits = [hit for hit in hits if hit.id in vectors]  # deleted between the two calls
        if not hits:
            return []
        return [hits[i] for i in diverse(query, np.stack([vectors[hit.id] for hit in hits]), k, weight)]

    def hybrid_search(self, text: str, k: int = 5, *, where: Where | None = None) -> list[Hit]:
        """The k chunks that are nearest and that hold the question's words, ranks of both fused."""
        return self._open().hybrid_search(text, self._embedded(text), inputs.check_k(k), where)

    def _search(self, text: str, k: int, where: Where | None, recall: float | None) -> list[Hit]:
        found: list[Hit] = self._open().search(self._embedded(text), k, where, recall=recall)
        return found

    def _embedded(self, text: str) -> Any:
        return self._embedder.embed([inputs.check_text(text)])[0]

    # ---- versions ------------------------------------------------------------------------------------

    def list_versions(self) -> list[Version]:
        """Every version and what it was made with, the oldest first."""
        return self._versions.all()

    def create_version(
        self,
        version: str,
        *,
        embedder: EmbedderSource | None = None,
        metric: str | None = None,
        index_type: str | None = None,
        chunk_chars: int | None = None,
        overlap_chars: int | None = None,
    ) -> DocumentIndex:
        """Make an empty version, and return the index as it is in it, to be filled.

        Whatever is not given is as it is here. Searches stay where they are until `switch_version`.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        """
        mine = self._version()
        source = self._embedder if embedder is None else as_embedder(embedder)
        kind = (source.name, source.dimension, metric or mine.metric, index_type or mine.index_type)
        chunker = Chunker(
            self._chunker.chunk_chars if chunk_chars is None else chunk_chars,
            self._chunker.overlap_chars if overlap_chars is None else overlap_chars,
        )
        self._versions.create(Version.new(version, *kind))
        return DocumentIndex(
            self._db,
            self.name,
            source,
            version=version,
            chunk_chars=chunker.chunk_chars,
            overlap_chars=chunker.overlap_chars,
        )

    def switch_version(self, version: str) -> None:
        """Have a version answer from now on, here and in every other process that is not kept at one.

        Where another embedder has made it, this index says so at the next search: open it with that one.
        """
        self._versions.switch(version)

    def delete_version(self, version: str) -> None:
        """Delete a version and all its chunks; not the one that answers."""
        self._versions.delete(version)


def _check_distinct(documents: list[Document]) -> None:
    seen = set()
    for document in documents:
        if not isinstance(document, Document):
            raise InvalidInputError(
                f"expected documents, got {type(document).__name__}: use Document(text, source)"
            )
        if document.source in seen:
            raise InvalidInputError(f"source {document.source!r} is repeated within one call")
        seen.add(document.source)


def _put_file(writer: Writer, file: File, label: str, encoding: str) -> None:
    """Store what is in a file, where that is new; what is wrong with it goes into the report."""
    try:
        data = read_bytes(file)
        content = file_hash(file, data, encoding)
        if not writer.is_stored(file.source, content):
            writer.put(parse_document(file, data, encoding), content, label)
    except InvalidInputError as error:
        writer.report.skipped[file.source] = str(error)
