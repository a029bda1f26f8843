"""Indexes that have a name on the server."""

from __future__ import annotations

from typing import Any

from faiss_proxy import classes
from faiss_proxy.connection import Connection, RemoteError
from faiss_proxy.settings import active


def _server() -> Connection:
    connection = active()
    if connection is None:
        raise RemoteError("no server is configured: call configure(api_url=...) first")
    return connection


def open_index(name: str) -> Any:
    """The index of that name on the server, which all who open it share. `NotFoundError` if there is none."""
    return classes._sent(_server(), {"op": "open", "name": name}, [], [], is_safe=True)


def list_indexes() -> list[dict[str, Any]]:
    """What each named index is: its name, class, d, metric, ntotal and size_bytes."""
    found: list[dict[str, Any]] = classes._sent(_server(), {"op": "list"}, [], [], is_safe=True)
    return found


def delete_index(name: str) -> None:
    """Delete an index and its files on the server. `NotFoundError` if there is none."""
    classes._sent(_server(), {"op": "delete", "name": name}, [], [])
