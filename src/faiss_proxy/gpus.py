"""The names that only a FAISS for GPUs has: the server's, where the FAISS of this process has none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faiss_proxy import classes, values
from faiss_proxy.classes import Remote
from faiss_proxy.connection import Connection, RemoteError
from faiss_proxy.settings import active
from faiss_proxy.standins import local
from faissbase.dropin.gpus import CONSTANTS

# What takes or gives places in memory, and what does the same from afar.
_INSTEAD = {
    "bfKnn": "knn_gpu",
    "bfKnn_tiling": "knn_gpu",
    "GpuDistanceParams": "knn_gpu",
    "GpuResourcesVector": "index_cpu_to_gpu_multiple_py",
    "index_cpu_to_gpu_multiple": "index_cpu_to_gpu_multiple_py",
    "index_binary_cpu_to_gpu_multiple": "index_binary_cpu_to_gpu",
}


def named(name: str) -> Any:
    """What the server's FAISS for GPUs has of that name.

    Raises
    ------
    AttributeError
        There is no such name; where it looks like one of a FAISS for GPUs, the text says of which server.
    """
    connection = active()
    if connection is None or not ("gpu" in name.lower() or name.startswith(CONSTANTS) or name in _INSTEAD):
        raise AttributeError(f"module 'faiss' has no attribute {name!r}")
    told = connection.gpus()
    if name in told["classes"]:
        found = local(connection, name)
        return values.recording(found) if values.is_value(found) else classes.proxy(found)
    if name in told["functions"]:
        return _function(name, told["functions"][name])
    if name in told["constants"]:
        return told["constants"][name]
    raise AttributeError(why_missing(connection, name))


def why_missing(connection: Connection, name: str) -> str:
    """Why the server does not have a name of a FAISS for GPUs."""
    if not connection.gpus()["classes"]:
        return (
            f"faiss.{name}: the FAISS of the server at {connection.url} is not one for GPUs: install "
            "faiss-gpu there in the place of faiss-cpu"
        )
    instead = f": use faiss.{_INSTEAD[name]}" if name in _INSTEAD else ""
    return f"faiss.{name} is nothing that the server at {connection.url} does from afar{instead}"


def _function(name: str, doc: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        there = next((each for each in (*args, *kwargs.values()) if isinstance(each, Remote)), None)
        connection = active() if there is None else there._handle.connection
        if connection is None:
            raise RemoteError(f"faiss.{name} is of a server's FAISS, and no server is chosen here")
        return classes._function(connection, name, args, kwargs)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc or None
    return function
