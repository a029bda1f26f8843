"""Places in memory as FAISS's programs speak of them: of this process, and of the server's."""

from __future__ import annotations

import ctypes
from typing import Any

import faiss
import numpy as np

from faissbase.dropin import frames

# Methods that give a place, and what lies there.
GIVING = {"get_xb": np.float32, "get_ids": np.int64, "get_codes": np.uint8}
RELEASING = ("release_ids", "release_codes")
READING = ("rev_swig_ptr", "memcpy")


class Pointer:
    """What `swig_ptr` gives while a server is configured: a place in memory, and the array that is there."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.pointer = faiss.swig_ptr(array)


class Memory:
    """A place in the server's memory; `rev_swig_ptr` and `memcpy` copy from it."""

    def __init__(self, thing: Any, name: str, args: tuple[Any, ...]) -> None:
        self._thing, self._name, self._args = thing, name, args
        self.dtype = np.dtype(GIVING[name])

    def read(self, n_bytes: int) -> frames.Array:
        """A copy ``uint8[n_bytes]`` of what lies there; `RemoteError` where that is more than there is."""
        found: frames.Array = self._thing._memory(self._name, self._args, n_bytes)
        return found


def read(name: str, *args: Any) -> Any:
    """``rev_swig_ptr`` and ``memcpy`` of FAISS, from a place in the server's memory."""
    if name == "rev_swig_ptr":
        memory, n = args
        return memory.read(int(n) * memory.dtype.itemsize).view(memory.dtype)
    target, memory, n_bytes = args
    data = memory.read(int(n_bytes))
    pointer = target.pointer if isinstance(target, Pointer) else target
    ctypes.memmove(int(pointer), data.ctypes.data, data.nbytes)
    return None
