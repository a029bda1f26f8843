"""Calls of FAISS and their results as bytes: JSON for what is small, arrays as they lie in memory.

A frame is the length of its head (4 bytes, little-endian), the head (JSON: the body, dtype and shape of each
array), and the arrays one after the other. Knows only plain values and arrays: no faiss, no network.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

Array: TypeAlias = npt.NDArray[Any]
Fill: TypeAlias = Callable[[memoryview], None]
Allocate: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], Array]
PATH = "/v1/faiss"  # of the route that takes them
MEDIA = "application/vnd.faissbase.faiss"
_LENGTH = struct.Struct("<I")
MOST_HEAD_BYTES = 64 << 20
_KINDS = "biufc"
_LETTER_BYTES = 4  # of NumPy's texts
_CELLS = "UO"  # texts, objects: NumPy may make numbers of them
_MOST_INT, _LEAST_INT = 2**64, -(2**63)
_MOST_DIMENSIONS = 8
_MOST_ARRAYS = 10_000


class FrameError(ValueError):
    """These bytes are no frame."""


class Opaque:
    """Something that does not travel: FAISS is to refuse it as it would refuse the thing itself."""


def opaque(name: str) -> Opaque:
    """Something that does not travel, by the name of its class, which FAISS may show."""
    made: Opaque = type(name, (Opaque,), {})()
    return made


def _nothing_special(_: object) -> Any:
    return None


def encode(value: Any, arrays: list[Array], special: Callable[[Any], Any] = _nothing_special) -> Any:
    """``value`` as JSON, its arrays put aside.

    ``special`` is asked about everything but plain scalars, and gives what goes in its place, a dict of one
    key, or None.
    """
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is str:
        return value if value.isascii() else _encode_text(value)
    if kind is int:
        return value if _LEAST_INT <= value < _MOST_INT else {"int": str(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    found = special(value)
    if found is not None:
        return found
    if isinstance(value, list | tuple):
        items = [encode(item, arrays, special) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        pairs = value.items()
        return {"dict": [[encode(k, arrays, special), encode(v, arrays, special)] for k, v in pairs]}
    return _encode_numbers(value, arrays)


def _encode_text(value: str) -> Any:
    """A text; one with halves of characters, as which C++ gives single bytes, is none to JSON."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"text": value.encode("utf-8", "surrogatepass").hex()}
    return value


def _encode_numbers(value: Any, arrays: list[Array]) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
        return {"scalar": [value.dtype.str, value.tobytes().hex()]}
    if isinstance(value, bytes | bytearray | memoryview):
        arrays.append(np.frombuffer(value, np.uint8))
        return {"bytes": len(arrays) - 1}
    if not isinstance(value, np.ndarray) and hasattr(value, "shape") and hasattr(value, "__array__"):
        value = np.asarray(value)  # a tensor, a series
    if isinstance(value, np.ndarray) and value.dtype.kind in _KINDS and value.ndim <= _MOST_DIMENSIONS:
        arrays.append(value if value.flags.c_contiguous else np.ascontiguousarray(value))
        return {"array": len(arrays) - 1}
    if isinstance(value, np.ndarray) and value.dtype.kind in _CELLS and value.ndim <= _MOST_DIMENSIONS:
        cells = [encode(each, arrays) for each in value.reshape(-1).tolist()]
        width = value.dtype.itemsize // _LETTER_BYTES if value.dtype.kind == "U" else 0
        return {"cells": [value.dtype.kind, list(value.shape), cells, width]}
    return {"opaque": type(value).__name__}


def decode(body: Any, arrays: Sequence[Array], special: Callable[[str, Any], Any]) -> Any:
    """What `encode` was given; ``special`` makes what it does not know of the tag and its content.

    Raises
    ------
    FrameError
        No value has this form.
    """
    if isinstance(body, list):
        return [decode(item, arrays, special) for item in body]
    if not isinstance(body, dict):
        return body
    if len(body) != 1:
        raise FrameError(f"expected a tag and its content, got {len(body)} keys")
    [(tag, content)] = body.items()
    known = _DECODERS.get(tag)
    try:
        return special(tag, content) if known is None else known(content, arrays, special)
    except (TypeError, ValueError, LookupError) as error:
        if isinstance(error, FrameError) or known is None:
            raise
        raise FrameError(f"a {tag!r} cannot be read: {error}") from error


def _decode_dict(pairs: Any, arrays: Sequence[Array], special: Callable[[str, Any], Any]) -> dict[Any, Any]:
    return {decode(k, arrays, special): decode(v, arrays, special) for k, v in pairs}


def _scalar(content: Any, *_: Any) -> Any:
    dtype = _dtype(content[0])
    return np.frombuffer(bytes.fromhex(content[1]), dtype, 1)[0]


def _cells(content: Any, arrays: Sequence[Array], special: Callable[[str, Any], Any]) -> Array:
    kind, shape, cells, width = (*content, 0)[:4]  # journals of before tell no width
    found = np.empty(len(cells), object)
    found[:] = [decode(each, arrays, special) for each in cells]
    if type(width) is not int or not 0 <= width * _LETTER_BYTES * max(1, len(cells)) <= MOST_HEAD_BYTES:
        raise FrameError(f"{len(cells):,} texts of {width!r:.40} letters")
    return (found if kind == "O" else found.astype(f"U{width}")).reshape(_shape(shape))


def _opaque(name: Any, *_: Any) -> Any:
    return opaque(str(name))


_DECODERS: dict[str, Callable[[Any, Sequence[Array], Callable[[str, Any], Any]], Any]] = {
    "text": lambda text, *_: bytes.fromhex(text).decode("utf-8", "surrogatepass"),
    "int": lambda text, *_: int(str(text)[:400]),
    "float": lambda text, *_: float(text),
    "tuple": lambda items, arrays, special: tuple(decode(item, arrays, special) for item in items),
    "dict": _decode_dict,
    "scalar": _scalar,
    "bytes": lambda n, arrays, _: arrays[int(n)].tobytes(),
    "array": lambda n, arrays, _: arrays[int(n)],
    "cells": _cells,
    "opaque": _opaque,
}


def _dtype(text: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(text))
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise FrameError(f"no numbers: {dtype}")
    return dtype


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def pack(body: Any, arrays: Sequence[Array]) -> list[memoryview]:
    """The pieces of a frame, which is their bytes one after the other; arrays are not copied."""
    facts = [[array.dtype.str, list(array.shape)] for array in arrays]
    try:
        head = orjson.dumps({"body": body, "arrays": facts})
    except TypeError as error:  # a text that is none: a lone surrogate
        raise ValueError(f"cannot be sent: {error}") from error
    pieces = [memoryview(_LENGTH.pack(len(head)) + head)]
    return pieces + [_bytes_of(array) for array in arrays if array.size]


def read(fill: Fill, most_bytes: int, allocate: Allocate = np.empty) -> tuple[Any, list[Array]]:
    """Body and arrays of the next frame; ``fill`` fills what it is given with the next bytes.

    ``allocate`` makes an array of a shape and dtype, to be filled.

    Raises
    ------
    FrameError
        They are no frame, or one of more than ``most_bytes``.
    MemoryError
        There is no room for an array.
    """
    length = bytearray(_LENGTH.size)
    fill(memoryview(length))
    (n_head,) = _LENGTH.unpack(length)
    if n_head > min(MOST_HEAD_BYTES, most_bytes):
        raise FrameError(f"a head of {n_head:,} bytes")
    head = bytearray(n_head)
    fill(memoryview(head))
    try:
        found = orjson.loads(head)
        body, facts = found["body"], [(_dtype(dtype), _shape(shape)) for dtype, shape in found["arrays"]]
    except (ValueError, TypeError, KeyError) as error:
        raise FrameError(f"no frame: {error}") from error
    if len(facts) > _MOST_ARRAYS:
        raise FrameError(f"{len(facts):,} arrays, at most {_MOST_ARRAYS:,} are taken")
    n_bytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in facts)
    if n_bytes > most_bytes:
        raise FrameError(f"arrays of {n_bytes:,} bytes, at most {most_bytes:,} are taken")
    try:
        arrays = [allocate(shape, dtype) for dtype, shape in facts]
    except ValueError as error:  # a dimension beyond what there can be
        raise FrameError(f"no shape: {error}") from error
    for array in arrays:
        if array.size:
            fill(_bytes_of(array))
    return body, arrays


def unpack(content: bytes) -> tuple[Any, list[Array]]:
    """Body and arrays of the frame that is in ``content``."""
    at, view = 0, memoryview(content)

    def fill(target: memoryview) -> None:
        nonlocal at
        target[:] = view[at : at + target.nbytes]
        at += target.nbytes

    return read(fill, len(content))


def _shape(shape: Any) -> tuple[int, ...]:
    if len(shape) > _MOST_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise FrameError(f"no shape: {shape!r}"[:200])
    return tuple(shape)
