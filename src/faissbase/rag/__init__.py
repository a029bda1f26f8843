"""Stores for retrieval: vectors with metadata in memory, and indexes over documents in a database."""

from faissbase.rag.chunks import Chunk, split
from faissbase.rag.documents import Document, load_documents
from faissbase.rag.index import DocumentIndex
from faissbase.rag.store import FAISSVectorStore
from faissbase.rag.versions import Version
from faissbase.rag.writing import IndexReport

__all__ = [
    "Chunk",
    "Document",
    "DocumentIndex",
    "FAISSVectorStore",
    "IndexReport",
    "Version",
    "load_documents",
    "split",
]
