"""What lies at a place in FAISS's memory that a caller asks for: a copy, and never more than there is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np

from faissbase.dropin.bounds import check_list
from faissbase.dropin.refusals import Refused

# What the numbers are that a vector of FAISS's holds, by the end of its class's name.
_NUMBERS = {
    f"{name}{bits}": np.dtype(f"{name.lower()}{bits}") for name in ("Int", "UInt") for bits in (8, 16, 32, 64)
} | {"Float32": np.dtype(np.float32), "Float64": np.dtype(np.float64)}
_GRAPH = "NSG_Graph_int"


def numbers_of(kind: str) -> np.dtype[Any] | None:
    """The type of the numbers behind ``data`` of an object of that class; None where they are none."""
    if kind == _GRAPH:
        return np.dtype(np.int32)
    return _NUMBERS.get(
        kind.removeprefix("MaybeOwnedVector") if "Owned" in kind else kind.removesuffix("Vector")
    )


@dataclass(frozen=True, slots=True)
class Pointer:
    """A field of FAISS's that is a place in memory. Only its type in C++ is told."""

    kind: str


# By class and name: fields of which SWIG makes a copy that nobody can read, or free.
_copied: dict[tuple[type, str], Pointer] = {}


def read_field(thing: Any, name: str, read: Callable[[Any, str], Any]) -> Any:
    """What ``read`` gives of a field; its type, as a `Pointer`, where it is a place in memory."""
    known = _copied.get((type(thing), name))
    if known is not None:
        return known
    found = read(thing, name)
    if type(found).__name__ != "SwigPyObject":
        return found
    told = re.search(r"of type '(.+)' at", str(found))
    pointer = Pointer(told[1] if told else "void *")
    if found.own():
        found.disown()  # it has no destructor, of which SWIG would tell
        _copied[type(thing), name] = pointer
    return pointer


def memory_of(thing: Any, name: str, args: tuple[Any, ...], n_bytes: Any) -> Any:
    """A copy ``uint8[n_bytes]`` of what lies where a method or field of FAISS's points to.

    Raises
    ------
    Refused
        There is less than that.
    """
    size, itemsize = _size_of(thing, name, args)
    if type(n_bytes) is not int or not 0 <= n_bytes <= size or n_bytes % itemsize:
        raise Refused(f"{_kind(thing)}.{name}: there are {size:,} bytes, and {n_bytes!r:.40} were asked for")
    if not n_bytes:
        return np.zeros(0, np.uint8)
    if name == "data":
        numbers = thing.data if _kind(thing) == _GRAPH else thing.data()
        return faiss.rev_swig_ptr(numbers, n_bytes // itemsize).copy().view(np.uint8)
    pointer = getattr(thing, name)(*args)
    found = faiss.rev_swig_ptr(pointer, n_bytes // itemsize).copy().view(np.uint8)
    if name != "get_xb":
        getattr(thing, name.replace("get", "release"))(*args, pointer)
    return found


def _size_of(thing: Any, name: str, args: tuple[Any, ...]) -> tuple[int, int]:
    """How many bytes lie there, and how many are a number."""
    if name == "get_xb" and isinstance(thing, faiss.IndexFlat) and not args:
        return 4 * thing.ntotal * thing.d, 4
    if name in ("get_ids", "get_codes") and isinstance(thing, faiss.InvertedLists) and len(args) == 1:
        check_list(thing, args[0])
        return (8 * thing.list_size(args[0]), 8) if name == "get_ids" else (_code_bytes(thing, args[0]), 1)
    numbers = numbers_of(_kind(thing)) if name == "data" and not args else None
    if numbers is None:
        raise Refused(f"{_kind(thing)}.{name} gives no place that can be read from afar")
    n = thing.N * thing.K if _kind(thing) == _GRAPH else thing.size()
    return numbers.itemsize * n, numbers.itemsize


def _code_bytes(lists: Any, list_no: int) -> int:
    n = int(lists.list_size(list_no))
    if lists.code_size != faiss.InvertedLists.INVALID_CODE_SIZE:
        return n * int(lists.code_size)
    blocks = faiss.downcast_InvertedLists(lists)
    return -(-n // int(blocks.n_per_block)) * int(blocks.block_size)


def _kind(thing: Any) -> str:
    return type(thing).__name__
