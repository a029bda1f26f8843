"""Stand-ins for classes that only the server's FAISS has, such as those for GPUs.

The server tells them by name, bases, methods and fields. Of a stand-in the class of remote objects is made as
of any class of FAISS's; it makes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss

from faiss_proxy.connection import Connection, RemoteError

_OFF = {"GpuIndexBinaryFlat": "index_binary_gpu_to_cpu"}

_locals: dict[tuple[str, str], type] = {}


def local(connection: Connection, name: str) -> type:
    """FAISS's class of that name, or what stands for it here."""
    own = getattr(faiss, name, None)
    if own is not None:
        found: type = own
        return found
    key = (str(connection.facts()["faiss"]), name)
    if key not in _locals:
        told = connection.gpus()["classes"][name]
        bases = tuple(local(connection, base) for base in told["bases"])
        body = {
            **{method: _stub(method) for method in told["methods"]},
            **{field: property(doc=None) for field in told["fields"]},
            "__module__": "faiss.swigfaiss",
            "__doc__": told["doc"] or None,
        }
        if not bases or faiss.ParameterSpace not in bases:
            body["__init__"] = _unmade
        _locals.setdefault(key, type(name, bases, body))
    return _locals[key]


def off(thing: Any) -> str | None:
    """The function that brings an index from its GPU into memory; None for what is on none."""
    name = next(each.__name__ for each in type(thing).__mro__ if "_local" in vars(each))
    return _OFF.get(name, "index_gpu_to_cpu") if name.startswith("GpuIndex") else None


def _unmade(self: Any, *_: Any, **__: Any) -> None:
    raise RemoteError(f"{type(self).__name__} is of a server's FAISS, and no server is chosen here")


def _stub(name: str) -> Callable[..., Any]:
    def method(self: Any, *_: Any, **__: Any) -> Any:
        _unmade(self)

    method.__name__ = name
    return method
