"""Conversation memory: what was said, kept and found again.

    with ContextMemory("memory.db") as memory:
        memory.add([{"role": "user", "content": "My dog is called Rex."}], "conversation 1")
        memory.search("What is the dog's name?", "conversation 1")

What needs SQLAlchemy is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from faissbase.errors import NotReadyError

if TYPE_CHECKING:
    from faissbase.memory.context import ContextMemory
    from faissbase.memory.llm import ChatModel
    from faissbase.memory.models import Base, Memory
    from faissbase.memory.replicas import (
        get_vector_store,
        rebuild_index_from_db,
        save_vector_store,
        search_similar_memories,
    )
    from faissbase.memory.store import FAISSVectorStore

__all__ = [
    "Base",
    "ChatModel",
    "ContextMemory",
    "FAISSVectorStore",
    "Memory",
    "get_vector_store",
    "rebuild_index_from_db",
    "save_vector_store",
    "search_similar_memories",
]

_MODULES = {
    "Base": "models",
    "ChatModel": "llm",
    "ContextMemory": "context",
    "FAISSVectorStore": "store",
    "Memory": "models",
    "get_vector_store": "replicas",
    "rebuild_index_from_db": "replicas",
    "save_vector_store": "replicas",
    "search_similar_memories": "replicas",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("faissbase"):
            raise
        raise NotReadyError(
            f'a conversation memory needs {error.name}: pip install "faissbase[memory]"'
        ) from error
