"""A vector of pointers to inverted lists, of this process or of a server: what stacks are made of."""

from __future__ import annotations

from functools import cache
from typing import Any

from faiss_proxy.classes import Remote
from faiss_proxy.connection import RemoteError
from faiss_proxy.pointers import Several
from faiss_proxy.values import Alike

NAME = "InvertedListsPtrVector"


@cache
def vector(local: Any) -> Any:
    """A class that is FAISS's ``local``, and takes objects of a server instead of those of this process."""
    body = {name: it for name, it in vars(_Either).items() if not name.startswith("__")}
    more = {"_local": local, "__doc__": local.__doc__, "__module__": "faiss_proxy"}
    return Alike(local.__name__, (local,), {**body, **more})


class _Either:
    """The methods of such a vector."""

    _local: Any

    def _things(self) -> list[Any]:
        found: list[Any] = self.__dict__.setdefault("_there", [])
        return found

    def push_back(self, lists: Any) -> None:
        things, is_there = self._things(), isinstance(lists, Remote)
        if self.size() and is_there != bool(things):
            raise RemoteError(
                "inverted lists of this process and of a server are not stacked: fetch the index with "
                ".to_local()"
            )
        if is_there:
            things.append(lists)
        else:
            self._local.push_back(self, lists)

    def size(self) -> int:
        found: int = len(self._things()) or self._local.size(self)
        return found

    def at(self, n: int) -> Any:
        things = self._things()
        if not things or type(n) is not int or n < 0:
            return self._local.at(self, n)
        if n >= len(things):
            told = f"__n (which is {n}) >= this->size() (which is {len(things)})"
            raise RuntimeError(f"C++ exception vector::_M_range_check: {told}")
        return things[n]

    def clear(self) -> None:
        self._things().clear()
        self._local.clear(self)

    def data(self) -> Any:
        things = self._things()
        return Several(tuple(things)) if things else self._local.data(self)

    def resize(self, n: int) -> None:
        self._check_here()
        self._local.resize(self, n)

    def swap(self, other: Any) -> None:
        self._check_here()
        self._local.swap(self, other)

    def _check_here(self) -> None:
        if self._things():
            raise RemoteError("these inverted lists are on a server: make a new vector of them")
