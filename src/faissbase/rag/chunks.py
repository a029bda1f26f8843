"""Documents cut into chunks of a size, where the text itself has its joints. Knows texts, not vectors."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.rag import checking
from faissbase.rag.documents import Document
from faissbase.rag.headings import Outline

CHUNK_CHARS = 1200
OVERLAP_CHARS = 150

# The splitter takes time that grows as the square of a line without joints: 50 s for 2 MB.
_LONG_LINE = 20_000
_LINE = re.compile(r"[^\n]*\n?")


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a document: ``document.text[start:end]``.

    Attributes
    ----------
    text : str
    document : Document
    position : int
        Which chunk of its document, from 0.
    n_chunks : int
        How many its document has.
    start, end : int
        Where it lies in the document's text.
    headings : tuple of str
        The headings it stands under, the outermost first.
    page : int or None
        The page it is on, from 1: chunks do not go over the ends of pages.
    """

    text: str
    document: Document
    position: int
    n_chunks: int
    start: int
    end: int
    headings: tuple[str, ...]
    page: int | None

    @property
    def source(self) -> str:
        """Of its document."""
        return self.document.source

    @property
    def metadata(self) -> dict[str, Any]:
        """What is stored with it: the document's own metadata, and where it is from."""
        facts: dict[str, Any] = {
            "source": self.source,
            "kind": self.document.kind,
            "chunk": self.position,
            "n_chunks": self.n_chunks,
            "start": self.start,
            "end": self.end,
        }
        if self.headings:
            facts["headings"] = list(self.headings)
        if self.page is not None:
            facts["page"] = self.page
        return {**self.document.metadata, **facts}

    @property
    def embedded_text(self) -> str:
        """The text under its headings: what it is about is often said there alone."""
        return "\n\n".join([" > ".join(self.headings), self.text]) if self.headings else self.text


def split(
    documents: Document | Iterable[Document],
    *,
    chunk_chars: int = CHUNK_CHARS,
    overlap_chars: int = OVERLAP_CHARS,
) -> list[Chunk]:
    """Documents cut into chunks of ``chunk_chars`` characters at most.

    Markdown is cut between its sections, paragraphs and list items, text between paragraphs, sentences and
    words, as far as they fit. Neighbours share up to ``overlap_chars``. A document of nothing but blanks has
    no chunks.

    Raises
    ------
    InvalidInputError
        A size that cannot be.
    NotReadyError
        semantic-text-splitter is not installed (``pip install "faissbase[rag]"``).
    """
    chunker = Chunker(chunk_chars, overlap_chars)
    given = [documents] if isinstance(documents, Document) else documents
    return [chunk for document in given for chunk in chunker.chunks(document)]


class Chunker:
    """Cuts documents into chunks of one size; for arguments and errors see `split`."""

    def __init__(self, chunk_chars: int = CHUNK_CHARS, overlap_chars: int = OVERLAP_CHARS) -> None:
        self.chunk_chars = checking.count(chunk_chars, "chunk_chars")
        is_whole = isinstance(overlap_chars, int) and not isinstance(overlap_chars, bool)
        if not is_whole or not 0 <= overlap_chars < self.chunk_chars:
            raise InvalidInputError(
                f"overlap_chars must be from 0 to chunk_chars - 1 ({self.chunk_chars - 1}), "
                f"got {overlap_chars!r}"
            )
        self.overlap_chars = overlap_chars

    @property
    def settings(self) -> str:
        """What chunks depend on beside the document, in one line."""
        return f"{self.chunk_chars}/{self.overlap_chars}"

    def chunks(self, document: Document) -> list[Chunk]:
        """The chunks of one document, in order."""
        splitter = self._splitter(document.kind)
        places = [
            (begin + first + start, text)
            for begin, end in _parts(document)
            for first, piece in _pieces(document.text[begin:end])
            for start, text in splitter.chunk_indices(piece)
        ]
        outline = Outline(document.text) if document.kind == "markdown" else None
        return [
            Chunk(
                text,
                document,
                position,
                len(places),
                start,
                start + len(text),
                () if outline is None else outline.at(start),
                bisect_right(document.page_starts, start) if document.page_starts else None,
            )
            for position, (start, text) in enumerate(places)
        ]

    def _splitter(self, kind: str) -> Any:
        try:
            from semantic_text_splitter import MarkdownSplitter, TextSplitter
        except ImportError as error:
            raise NotReadyError(
                'documents are cut by semantic-text-splitter: pip install "faissbase[rag]"'
            ) from error
        splitter = MarkdownSplitter if kind == "markdown" else TextSplitter
        return splitter(self.chunk_chars, overlap=self.overlap_chars)


def _parts(document: Document) -> Iterator[tuple[int, int]]:
    """What is cut by itself: each page, so that a chunk is on the page it says; else the whole."""
    starts = document.page_starts or (0,)
    yield from pairwise((*starts, len(document.text)))


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """The text as it is, or, where a line is very long, in pieces; each with its place."""
    if max(map(len, text.split("\n"))) <= _LONG_LINE:
        yield 0, text
        return
    start = at = 0
    for line in _LINE.findall(text):
        if len(line) > _LONG_LINE:
            if at > start:
                yield start, text[start:at]
            yield from _cut(line, at)
            start = at + len(line)
        at += len(line)
    if at > start:
        yield start, text[start:at]


def _cut(line: str, place: int) -> Iterator[tuple[int, str]]:
    """A very long line, cut behind blanks where there are any."""
    start = 0
    while start < len(line):
        stop = min(start + _LONG_LINE, len(line))
        blank = line.rfind(" ", start + _LONG_LINE // 2, stop)
        if blank >= 0 and stop < len(line):
            stop = blank + 1
        yield place + start, line[start:stop]
        start = stop
