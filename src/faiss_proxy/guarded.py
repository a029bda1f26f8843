"""Classes of FAISS's whose objects stay in this process, and say why they cannot take one of a server's."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from functools import cache
from typing import Any

from faiss_proxy.classes import Remote
from faiss_proxy.connection import RemoteError
from faiss_proxy.values import Alike

NAMES = ("VectorTransformVector", "Cloner", "SlidingIndexWindow")


@cache
def guarded(local: type) -> Any:
    """A class that is FAISS's ``local``, and checks what its methods are given."""
    found = {name: it for name, it in vars(local).items() if isinstance(it, types.FunctionType)}
    body = {
        name: _checked(local, found[name])
        for name in found
        if not name.startswith("__") or name == "__init__"
    }
    more = {"_local": local, "__doc__": local.__doc__, "__module__": "faiss_proxy"}
    return Alike(local.__name__, (local,), {**body, **more})


def _checked(local: type, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any) -> Any:
        for each in args:
            if isinstance(each, Remote):
                raise RemoteError(
                    f"this {local.__name__} is of this process, and the {type(each).__name__} is on a "
                    "server: fetch the index with .to_local()"
                )
        return method(self, *args)

    return call
