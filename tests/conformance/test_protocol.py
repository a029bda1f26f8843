"""A collection in a folder follows the protocol that the application layers are written against."""

from __future__ import annotations

import inspect

import faissbase
from faissbase.collection.collection import LocalCollection


def _takes_any_collection(collection: faissbase.Collection) -> int:
    return collection.upsert(["a"], [[1.0, 0.0]]) + len(collection)


def test_a_local_collection_follows_the_protocol(memory: faissbase.Database) -> None:
    assert _takes_any_collection(memory.create_collection("docs", 2)) == 2


def test_the_protocol_and_the_collection_take_the_same_arguments() -> None:
    for name, method in vars(faissbase.Collection).items():
        if inspect.isfunction(method) and not name.startswith("_"):
            assert inspect.signature(method) == inspect.signature(getattr(LocalCollection, name)), name
