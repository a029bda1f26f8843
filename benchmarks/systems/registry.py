"""Which systems there are and which of them can be imported here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.systems.interface import Place, System

_ADAPTERS = {
    "faissbase": "ours:Faissbase",
    "faiss-hnsw32": "libraries:FaissHnsw32",
    "faiss-hnsw16": "libraries:FaissHnsw16",
    "faiss-hnsw32-fp16": "libraries:FaissHnsw32Fp16",
    "faiss-flat": "libraries:FaissFlat",
    "hnswlib": "libraries:Hnswlib",
    "usearch": "libraries:USearch",
    "qdrant-edge": "qdrant:QdrantEdge",
    "zvec": "zvec:Zvec",
    "lancedb": "lance:Lance",
    "chromadb": "chroma:Chroma",
    "milvus-lite": "milvus:MilvusLite",
}
_NEEDS = {
    "hnswlib": ("hnswlib",),
    "usearch": ("usearch",),
    "qdrant-edge": ("qdrant_edge",),
    "zvec": ("zvec",),
    "lancedb": ("lancedb", "pyarrow"),
    "chromadb": ("chromadb",),
    "milvus-lite": ("pymilvus", "milvus_lite"),
}
NAMES = tuple(_ADAPTERS)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A system that is left out, and why."""

    name: str
    reason: str


def adapter(name: str) -> type[System]:
    """The adapter class called ``name``."""
    module, symbol = _ADAPTERS[name].split(":")
    found: type[System] = getattr(importlib.import_module(f"benchmarks.systems.{module}"), symbol)
    return found


def opened(name: str, place: Place) -> System:
    """The system called ``name`` in its place."""
    return adapter(name)(place)


def importable(names: Iterable[str]) -> tuple[list[str], list[Skipped]]:
    """The names that can be used here, and those that cannot with what the import said."""
    able, skipped = [], []
    for name in names:
        reason = _why_not(name)
        if reason is None:
            able.append(name)
        else:
            skipped.append(Skipped(name, reason))
    return able, skipped


def _why_not(name: str) -> str | None:
    for package in _NEEDS.get(name, ()):
        try:
            importlib.import_module(package)
        except ImportError as error:
            return f"{type(error).__name__}: {error}"
    return None
