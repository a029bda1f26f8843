"""A FAISS index in a file, with a checksum after it: FAISS reads the front and never sees the rest.

A damaged FAISS file usually loads, and answers wrongly; hence the checksum, which is compared first.
Imports faiss.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import faiss
from xxhash import xxh3_64

from faissbase.ann.checked import refuse_lists_on_disk
from faissbase.errors import CorruptionError, NotFoundError, UnavailableError
from faissbase.storage import files

_MAGIC = b"FBIVF01\n"
_END = struct.Struct("<QQ8s")  # bytes in front, their checksum, magic
_READ_BYTES = 1 << 22


def write(path: Path, index: Any) -> None:
    """Write ``index`` beside ``path``, sync it, and give it its name.

    Raises
    ------
    UnavailableError
        The folder is not there, the disk is full, or failed; what was at ``path`` still is.
    """
    if not path.parent.is_dir():
        raise UnavailableError(f"cannot write {path}: there is no folder {path.parent}")
    with files.os_errors(f"cannot write {path}"), files.draft_folder(path.parent) as folder:
        draft = folder / path.name
        try:
            faiss.write_index(index, os.fspath(draft))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise UnavailableError(f"cannot write {path}: {reason}") from error
        _seal(draft)
        files.publish(draft, path)


def read(path: Path) -> Any:
    """The ``IndexIVFPQ`` in a file, after comparing its checksum if it has one.

    Raises
    ------
    NotFoundError
        No such file.
    CorruptionError
        Damaged, or no such index.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    with files.os_errors(f"cannot read {path}"):
        _check(path)
        refuse_lists_on_disk(path)
    try:
        index = faiss.read_index(os.fspath(path))
    except (RuntimeError, MemoryError) as error:
        raise CorruptionError(f"{path} is no FAISS index: {str(error).splitlines()[0]}") from error
    if type(index) is not faiss.IndexIVFPQ:
        raise CorruptionError(f"{path} holds {type(index).__name__}, expected IndexIVFPQ")
    if index.metric_type not in (faiss.METRIC_L2, faiss.METRIC_INNER_PRODUCT):
        raise CorruptionError(
            f"{path} holds an index of metric {index.metric_type}, expected l2 or inner product"
        )
    if not index.is_trained:
        raise CorruptionError(f"{path} holds an index that is not trained: train it, then write it again")
    index.set_direct_map_type(faiss.DirectMap.NoMap)  # not used here, and none takes ids of one's own
    return index


def _seal(path: Path) -> None:
    """Add size and checksum, and sync."""
    size = path.stat().st_size
    checksum = _checksum(path, size)
    with open(path, "ab") as file:
        file.write(_END.pack(size, checksum, _MAGIC))
        file.flush()
        files.sync_data(file.fileno())


def _check(path: Path) -> None:
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - _END.size))
        end = file.read()
    if len(end) < _END.size or not end.endswith(_MAGIC):
        return  # FAISS's own file, without a checksum
    front, checksum, _ = _END.unpack(end)
    if front != size - _END.size or checksum != _checksum(path, front):
        raise CorruptionError(f"{path} is damaged: its checksum differs; take a copy or build it again")


def _checksum(path: Path, size: int) -> int:
    """Of the first ``size`` bytes. **Source**: XXH3, 64 bits (xxhash.com)."""
    digest = xxh3_64()
    with open(path, "rb") as file:
        while size > 0 and (part := file.read(min(size, _READ_BYTES))):
            digest.update(part)
            size -= len(part)
    return digest.intdigest()
