"""A vector store in one file, with a checksum over all of it. Knows bytes only.

magic (8) | length of the header (8) | header (JSON) | standings | vectors | checksum (16)
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash

from faissbase.errors import CorruptionError
from faissbase.memory.standing import Standings
from faissbase.storage.files import os_errors, publish, sync_data
from faissbase.types import Float32

_MAGIC = b"faissmem"
_FORMAT = 1
_NUMBER_BYTES = 8
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a store's memories come from, and up to which change.

    Attributes
    ----------
    database : str
        The database's own id; empty for a store that has none.
    conversation : str
    embedder : str
    seq : int
        The last change of the conversation that is in the store.
    """

    database: str = ""
    conversation: str = ""
    embedder: str = ""
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds: ids, ``float32[n, d]``, and n standings."""

    origin: Origin
    ids: list[int | str] = field(repr=False)
    vectors: Float32 = field(repr=False)
    standings: Standings = field(repr=False)


def write(path: str | os.PathLike[str], contents: Contents) -> None:
    """Write a file under a temporary name, sync it, rename it."""
    target = Path(path)
    with os_errors(f"cannot write {target}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with open(fd, "wb") as file:
                _write_to(file, contents)
                file.flush()
                sync_data(file.fileno())
            publish(Path(draft), target)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise


def _write_to(file: IO[bytes], contents: Contents) -> None:
    n, d = contents.vectors.shape
    # Not by orjson, which knows no int beyond 64 bits and no half of a surrogate pair: both may be ids.
    header = json.dumps(
        {"format": _FORMAT, "n": n, "dimension": d, "origin": asdict(contents.origin), "ids": contents.ids}
    ).encode()
    digest = xxhash.xxh3_128()
    pieces: list[Any] = [
        _MAGIC,
        len(header).to_bytes(_NUMBER_BYTES, "little"),
        header,
        *(np.ascontiguousarray(column).view(np.uint8) for column in contents.standings.columns),
        np.ascontiguousarray(contents.vectors).reshape(-1).view(np.uint8),
    ]
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
    file.write(digest.digest())


def read(path: str | os.PathLike[str]) -> Contents:
    """What a file holds.

    Raises
    ------
    FileNotFoundError
    CorruptionError
        Damaged, cut short, or of a format that is not known.
    """
    with os_errors_but_missing(path), open(path, "rb") as file:
        data = np.fromfile(file, np.uint8)
    prefix = len(_MAGIC) + _NUMBER_BYTES
    if len(data) < prefix + _DIGEST_BYTES or data[: len(_MAGIC)].tobytes() != _MAGIC:
        raise CorruptionError(f"{path} is no file of a vector store")
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:].tobytes()
    if xxhash.xxh3_128_digest(body.data) != digest:
        raise CorruptionError(f"{path} is damaged: its checksum does not agree")
    n_header = int.from_bytes(data[len(_MAGIC) : prefix].tobytes(), "little")
    header = json.loads(body[prefix : prefix + n_header].tobytes())
    if header["format"] != _FORMAT:
        raise CorruptionError(f"{path} has format {header['format']}, expected {_FORMAT}")
    return _contents(header, body[prefix + n_header :])


def os_errors_but_missing(path: str | os.PathLike[str]) -> os_errors:
    """`os_errors`, that lets a `FileNotFoundError` through."""
    return _OrMissing(f"cannot read {os.fspath(path)}")


class _OrMissing(os_errors):
    __slots__ = ()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, FileNotFoundError):
            super().__exit__(kind, error, trace)


def _contents(header: dict[str, Any], body: Any) -> Contents:
    n, d = header["n"], header["dimension"]
    at, columns = 0, []
    for kind in Standings.TYPES:
        size = n * np.dtype(kind).itemsize
        columns.append(np.frombuffer(body[at : at + size].tobytes(), kind).copy())
        at += size
    vectors = np.frombuffer(body[at:].tobytes(), np.float32).reshape(n, d).copy()
    return Contents(Origin(**header["origin"]), header["ids"], vectors, Standings(*columns))
