"""One file per segment: what FAISS writes, and after it a trailer that says what it is.

FAISS reads the front of the file and never sees the trailer. A file that is cut short has none.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faissbase.ann.spec import Spec
from faissbase.errors import CorruptionError, UnavailableError
from faissbase.types import Float32, Metric

_MAGIC = b"FBSEG01\n"
_END = struct.Struct("<QQ8s")  # bytes of ranges, bytes of facts, magic


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a segment file holds: ``n`` vectors of ``d`` numbers, and the trained ranges of SQ8 codes.

    ``ranges`` is ``float32[m]``, empty where the codes are in the file or need none.
    """

    factory: str
    metric: str
    n: int
    d: int
    ranges: Float32


def write(path: Path, index: Any, flags: int, trailer: Trailer) -> None:
    """Write a new file. Not synced.

    Raises
    ------
    UnavailableError
        The disk is full, or failed; a part of the file may be there.
    """
    try:
        faiss.write_index(index, os.fspath(path), flags)
        _write_trailer(path, trailer)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnavailableError(f"cannot write {path}: {reason}; free some space and try again") from error


def _write_trailer(path: Path, trailer: Trailer) -> None:
    ranges = trailer.ranges.astype("<f4").tobytes()
    facts = {key: value for key, value in asdict(trailer).items() if key != "ranges"}
    encoded = json.dumps(facts | {"blob": os.path.getsize(path)}).encode()
    with open(path, "ab") as file:
        file.write(ranges + encoded + _END.pack(len(ranges), len(encoded), _MAGIC))


def read_trailer(path: Path, spec: Spec, metric: Metric, n: int | None, d: int) -> Trailer:
    """The trailer, after comparing it with what is expected; n None expects any number of vectors.

    Raises
    ------
    CorruptionError
        Cut short, not a segment, or a segment of something else.
    """
    try:
        trailer, size_bytes = _read(path)
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise CorruptionError(f"{path} is not a whole segment file: {error}") from error
    if size_bytes != os.path.getsize(path):
        raise CorruptionError(f"{path} has {os.path.getsize(path):,} bytes, expected {size_bytes:,}")
    found = (trailer.factory, trailer.metric, trailer.n, trailer.d)
    wanted = (spec.factory, metric, trailer.n if n is None else n, d)
    if found != wanted:
        raise CorruptionError(f"{path} holds {found}, expected {wanted}")
    return trailer


def _read(path: Path) -> tuple[Trailer, int]:
    with open(path, "rb") as file:
        file.seek(-_END.size, os.SEEK_END)
        n_ranges, n_facts, magic = _END.unpack(file.read())
        if magic != _MAGIC:
            raise ValueError("its trailer is missing")
        file.seek(-_END.size - n_ranges - n_facts, os.SEEK_END)
        ranges = np.frombuffer(file.read(n_ranges), "<f4").astype(np.float32)
        facts = json.loads(file.read(n_facts))
    size_bytes = facts.pop("blob") + n_ranges + n_facts + _END.size
    return Trailer(**facts, ranges=ranges), size_bytes


def read_index(path: Path, flags: int = 0) -> Any:
    """FAISS's index in the front of the file.

    Raises
    ------
    CorruptionError
        FAISS cannot read it.
    """
    try:
        return faiss.read_index(os.fspath(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise CorruptionError(f"{path}: {str(error).splitlines()[0]}") from error
