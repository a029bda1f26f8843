"""Stores for retrieval: vectors with metadata in memory, and indexes over documents in a database."""

from faissbase.rag.store import FAISSVectorStore

__all__ = ["FAISSVectorStore"]
