"""Places in memory as FAISS's programs speak of them: of this process, and of the server's."""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from faiss_proxy.connection import RemoteError
from faissbase.dropin import frames
from faissbase.dropin.places import numbers_of

# Methods that give a place, and what lies there.
GIVING = {"get_xb": np.float32, "get_ids": np.int64, "get_codes": np.uint8}
RELEASING = ("release_ids", "release_codes")
READING = ("rev_swig_ptr", "memcpy")


# The arrays that pointers were asked for, by where they lie, as long as their owners have them.
_known: weakref.WeakValueDictionary[int, frames.Array] = weakref.WeakValueDictionary()


def pointer_to(array: frames.Array) -> Any:
    """What ``faiss.swig_ptr`` gives: FAISS's own pointer. How many numbers are there is known from now on."""
    pointer = faiss.swig_ptr(array)
    _known[int(pointer)] = array
    return pointer


def is_pointer(value: Any) -> bool:
    """Whether it is a place in the memory of this process."""
    return type(value).__name__ == "SwigPyObject"


def array_behind(pointer: Any) -> frames.Array | None:
    """The array that a pointer was made of; None where there is none any more, or nobody has told."""
    return _known.get(int(pointer))


def numbers_at(pointer: Any, n: int) -> frames.Array:
    """The first ``n`` numbers where a pointer leads, as FAISS would read them."""
    found: frames.Array = faiss.rev_swig_ptr(pointer, n)
    return found


@dataclass(frozen=True, slots=True)
class Several:
    """An array of pointers, to objects on a server: the objects."""

    things: tuple[Any, ...]


class Memory:
    """A place in the server's memory; `rev_swig_ptr` and `memcpy` copy from it."""

    def __init__(self, thing: Any, name: str, args: tuple[Any, ...]) -> None:
        self._thing, self._name, self._args = thing, name, args
        self.dtype = np.dtype(GIVING[name]) if name in GIVING else numbers_of(type(thing).__name__)

    def read(self, n_bytes: int) -> frames.Array:
        """A copy ``uint8[n_bytes]`` of what lies there; `RemoteError` where that is more than there is."""
        found: frames.Array = self._thing._memory(self._name, self._args, n_bytes)
        return found


class Elsewhere(Memory):
    """A field that is a pointer in C++, into the server's memory: it is there, and cannot be followed."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __repr__(self) -> str:
        return f"<faiss_proxy place of type '{self._kind}' on a server>"

    def read(self, n_bytes: int) -> frames.Array:
        raise self._error()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self._error()

    def __int__(self) -> int:
        raise self._error()

    def _error(self) -> RemoteError:
        return RemoteError(
            f"this is a place of type '{self._kind}' in the server's memory: fetch the index with .to_local()"
        )


def read(name: str, *args: Any) -> Any:
    """``rev_swig_ptr`` and ``memcpy`` of FAISS, from a place in the server's memory."""
    if name == "rev_swig_ptr":
        memory, n = args
        return memory.read(int(n) * memory.dtype.itemsize).view(memory.dtype)
    target, memory, n_bytes = args
    data = memory.read(int(n_bytes))
    ctypes.memmove(int(target), data.ctypes.data, data.nbytes)
    return None
