"""Files of others: read in a process of its own, with limits, and written again by us.

A damaged file can make FAISS crash, ask for all memory or never end; one of inverted lists on disk names any
file of this machine. So a file is first read where that hurts nobody, and what is used is what FAISS has
written then.
Run as ``python -m faissbase.dropin.reading IN OUT KIND``.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from faissbase.dropin.allowed import Refused
from faissbase.dropin.frames import Array
from faissbase.storage.files import os_errors

_ON_DISK = b"ilod"
_PIECE_BYTES = 16 << 20
_FACTOR, _LEAST_BYTES = 6, 1 << 30
_CPU_S = 600
_KINDS = {
    "index": (faiss.read_index, faiss.write_index),
    "binary": (faiss.read_index_binary, faiss.write_index_binary),
    "transform": (faiss.read_VectorTransform, faiss.write_VectorTransform),
    "quantizer": (faiss.read_ProductQuantizer, faiss.write_ProductQuantizer),
}
_CLASSES = {
    faiss.Index: _KINDS["index"],
    faiss.IndexBinary: _KINDS["binary"],
    faiss.VectorTransform: _KINDS["transform"],
    faiss.ProductQuantizer: _KINDS["quantizer"],
}
_REFUSED = 3


def read_foreign(data: Array, kind: str, folder: Path) -> Any:
    """The object in the bytes ``uint8[n]`` of a file.

    Raises
    ------
    RuntimeError
        FAISS's own, where it cannot read them; or they took too much memory or time.
    Refused
        Inverted lists on disk.
    """
    if kind not in _KINDS:
        raise Refused(f"a file of {kind!r} cannot be sent to the server")
    with (
        os_errors("cannot keep a file for reading"),
        tempfile.TemporaryDirectory(dir=folder, prefix=".in-") as name,
    ):
        given, clean = Path(name) / "given", Path(name) / "clean"
        with open(given, "wb") as file:
            file.write(data.data)
        command = [sys.executable, "-m", "faissbase.dropin.reading", str(given), str(clean), kind]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout.strip().replace(str(given), "the file")
        if done.returncode == _REFUSED:
            raise Refused(said)
        if done.returncode:
            raise RuntimeError(said or "the file is damaged: reading it ended the process that tried")
        return _KINDS[kind][0](str(clean))


def written(thing: Any, folder: Path) -> Array:
    """The bytes ``uint8[n]`` of the file that FAISS writes of an object; they are on disk, and go with it."""
    for the_class, (_, write) in _CLASSES.items():
        if isinstance(thing, the_class):
            with (
                os_errors("cannot keep a file for sending"),
                tempfile.TemporaryDirectory(dir=folder, prefix=".out-") as name,
            ):
                path = str(Path(name) / "out")
                write(thing, path)
                return np.memmap(path, np.uint8, "r")
    raise Refused(f"a {type(thing).__name__} cannot be fetched by itself, the index that it is of can")


def _main(given: Path, clean: Path, kind: str) -> int:
    size = given.stat().st_size
    most = _FACTOR * size + _LEAST_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    read, write = _KINDS[kind]
    if kind in ("index", "binary") and _may_be_on_disk(given):
        print(
            "inverted lists on disk cannot be sent to the server: bring them into memory first, with "
            "faiss.read_index and ArrayInvertedLists"
        )
        return _REFUSED
    try:
        write(read(str(given)), str(clean))
    except (RuntimeError, MemoryError) as error:
        print(error or "not enough memory")
        return 1
    return 0


def _may_be_on_disk(given: Path) -> bool:
    """Whether the file says that it has inverted lists on disk, or holds those letters by chance."""
    before = b""
    with open(given, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            if _ON_DISK in before + piece:
                return _has_disk_lists(given)
            before = piece[-len(_ON_DISK) + 1 :]
    return False


def _has_disk_lists(given: Path) -> bool:
    """Look without opening the lists. What cannot be looked at counts as having them."""
    try:
        found = faiss.read_index(str(given), faiss.IO_FLAG_SKIP_IVF_DATA)
    except RuntimeError:
        return True
    return _any_on_disk(found)


def _any_on_disk(index: Any) -> bool:
    index = faiss.downcast_index(index)
    lists = getattr(index, "invlists", None)
    if lists is not None and isinstance(faiss.downcast_InvertedLists(lists), faiss.OnDiskInvertedLists):
        return True
    inner = [
        getattr(index, name, None) for name in ("index", "quantizer", "base_index", "refine_index", "storage")
    ]
    if isinstance(index, faiss.IndexShards | faiss.IndexReplicas):
        inner += [index.at(i) for i in range(index.count())]
    return any(_any_on_disk(each) for each in inner if each is not None)


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
