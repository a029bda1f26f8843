"""Segment files: ``segments/<generation>.<name>.faiss``, written under another name, synced, renamed.

Knows names, bytes and the builder's lock; not what is in a file, nor which files are live (`records` does).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xxhash import xxh3_64

from faissbase.errors import CorruptionError
from faissbase.storage.files import FolderLock, os_errors, publish, sync_data, sync_folder

FOLDER_NAME = "segments"
_PIECE_BYTES = 4 << 20
_DRAFT_SUFFIX = ".draft"
_NAME = re.compile(r"(\d+)\.[0-9a-f]{32}\.faiss\Z")
_SIGN, _WRAP = 1 << 63, 1 << 64


class SegmentFolder:
    """The segment files of one collection."""

    def __init__(self, collection_folder: Path) -> None:
        self.folder = collection_folder / FOLDER_NAME

    def path(self, name: str) -> Path:
        return self.folder / name

    @contextmanager
    def building(self) -> Iterator[bool]:
        """Hold the builder's lease for the block; False where somebody else has it.

        The lease is a lock of the kernel's: it ends with the process that holds it.
        """
        with os_errors(f"cannot make {self.folder}"):
            if not self.folder.exists():
                self.folder.mkdir(exist_ok=True)
                sync_folder(self.folder.parent)
        lock = FolderLock(self.folder)
        try:
            yield lock.take(shared=False)
        finally:
            lock.release()

    @contextmanager
    def draft(self, generation: int) -> Iterator[Path]:
        """A new file's path to write to, gone at the end of the block unless `keep` has given it its name."""
        path = self.folder / f"{generation}.{uuid.uuid4().hex}.faiss{_DRAFT_SUFFIX}"
        try:
            yield path
        finally:
            with suppress(OSError):  # the next builder removes it
                path.unlink(missing_ok=True)

    def keep(self, draft: Path) -> tuple[str, int, int]:
        """Make a written draft durable under its real name; its name, size in bytes and checksum."""
        target = draft.with_name(draft.name.removesuffix(_DRAFT_SUFFIX))
        with os_errors(f"cannot keep {target}"):
            fd = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
            try:
                sync_data(fd)
                size_bytes = os.fstat(fd).st_size
            finally:
                os.close(fd)
            checksum = _checksum(draft)
            publish(draft, target)
        return target.name, size_bytes, checksum

    def check(self, name: str, size_bytes: int, checksum: int) -> Path:
        """The path of a live file, its bytes compared with what was written.

        Raises
        ------
        CorruptionError
            It is missing, has another length or other bytes.
        """
        path = self.path(name)
        if not path.exists():
            raise CorruptionError(f"{path} is missing; optimize() makes it again")
        with os_errors(f"cannot read {path}"):
            if path.stat().st_size != size_bytes or _checksum(path) != checksum:
                raise CorruptionError(f"{path} is damaged; optimize() makes it again")
        return path

    def remove_others(self, live: Iterable[str]) -> None:
        """Remove every file that is not live; only for who holds the lease. Who has one mapped keeps it."""
        kept = set(live)
        for path in self.folder.glob("*"):
            name = path.name.removesuffix(_DRAFT_SUFFIX)
            if _NAME.match(name) and path.name not in kept:
                with suppress(OSError):  # the next builder tries again
                    path.unlink()


def _checksum(path: Path) -> int:
    """XXH3, 64 bits, of a whole file, as SQLite's signed integer."""
    digest = xxh3_64()
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    value = digest.intdigest()
    return value - _WRAP if value >= _SIGN else value
