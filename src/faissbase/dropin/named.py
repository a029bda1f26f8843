"""Indexes that have a name: on disk, every acknowledged change of them, whatever happens to this process.

An index is a file as FAISS writes it, and a journal of the calls that have changed it since. A call is done
first, then written to the journal and synced, then acknowledged: one that ends the process is not repeated.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss

from faissbase.dropin import frames
from faissbase.dropin.graphs import Held
from faissbase.errors import CorruptionError
from faissbase.storage.files import os_errors, sync_folder

_META = "index.json"
_RECORD = struct.Struct("<4sQI")
_MARK = b"FBJ1"
_LEAST_JOURNAL_BYTES = 64 << 20
_PIECE_BYTES = 16 << 20
_NO_LIMIT = 1 << 62


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file beside an index says of it."""

    generation: int
    kind: str
    d: int
    ntotal: int
    metric: int
    is_binary: bool
    checksum: int
    size_bytes: int


class Named:
    """An index in its folder. Whoever calls its methods holds the lock of its graph alone."""

    def __init__(self, folder: Path, held: Held) -> None:
        self.folder = folder
        self.held = held
        self.version = 0
        self.is_lost = False
        self._generation = 0
        self._size_bytes = 0
        self._journal: int | None = None
        self._journal_bytes = 0

    @property
    def name(self) -> str:
        return self.folder.name

    # ---- writing ---------------------------------------------------------------------------------

    def note(self, body: Any, arrays: Sequence[frames.Array], *, is_synced: bool) -> None:
        """Write a call to the journal; where that is long, the index itself.

        Raises
        ------
        UnavailableError
            It could not be written. The index in memory is ahead of its files and must be let go.
        """
        pieces = frames.pack(body, arrays)
        n_bytes, checksum = sum(piece.nbytes for piece in pieces), 0
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        self.version += 1
        if self._journal_bytes + n_bytes > max(_LEAST_JOURNAL_BYTES, self._size_bytes):
            self.checkpoint()
            return
        with os_errors(f"cannot write the journal of {self.name!r}"):
            assert self._journal is not None
            for piece in [memoryview(_RECORD.pack(_MARK, n_bytes, checksum)), *pieces]:
                _write(self._journal, piece)
            if is_synced:
                os.fdatasync(self._journal)
        self._journal_bytes += n_bytes

    def checkpoint(self) -> None:
        """Write the index itself, durably, and begin an empty journal."""
        thing, generation = self.held.thing, self._generation + 1
        path = self.folder / f"index.{generation}.faiss"
        is_binary = isinstance(thing, faiss.IndexBinary)
        with os_errors(f"cannot write {self.name!r}"):
            checksum, size_bytes = _written(thing, path, is_binary)
            journal = os.open(self._journal_path(generation), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            facts = Facts(
                generation,
                type(thing).__name__,
                thing.d,
                thing.ntotal,
                thing.metric_type,
                is_binary,
                checksum,
                size_bytes,
            )
            draft = self.folder / f"{_META}.draft"
            with open(draft, "w") as file:
                json.dump({each: getattr(facts, each) for each in Facts.__slots__}, file)
                file.flush()
                os.fsync(file.fileno())
            sync_folder(self.folder)
            draft.rename(self.folder / _META)
            sync_folder(self.folder)
        self._begin(facts, journal, 0)
        _remove_others(self.folder, generation)

    def _begin(self, facts: Facts, journal: int, journal_bytes: int) -> None:
        self.close()
        self._generation, self._size_bytes = facts.generation, facts.size_bytes
        self._journal, self._journal_bytes = journal, journal_bytes

    def settle(self) -> None:
        """Write the index itself where its journal is not empty."""
        if self._journal_bytes:
            self.checkpoint()

    def close(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _journal_path(self, generation: int) -> Path:
        return self.folder / f"journal.{generation}"

    # ---- reading ---------------------------------------------------------------------------------

    @classmethod
    def opened(cls, folder: Path, redo: Callable[[Held, Any, list[frames.Array]], None]) -> Named:
        """The index in ``folder``, with what its journal says done again by ``redo``.

        Raises
        ------
        CorruptionError
            Its file or its journal, but for the journal's end, is not what was written.
        """
        facts = read_facts(folder)
        path = folder / f"index.{facts.generation}.faiss"
        with os_errors(f"cannot read {folder.name!r}"):
            if (facts.size_bytes, facts.checksum) != (path.stat().st_size, _checksum(path)):
                raise CorruptionError(f"{path.name} of index {folder.name!r} is damaged")
        read = faiss.read_index_binary if facts.is_binary else faiss.read_index
        held = Held(read(str(path)))
        named = cls(folder, held)
        held.graph.named[folder.name] = named
        with os_errors(f"cannot read the journal of {folder.name!r}"):
            journal = os.open(named._journal_path(facts.generation), os.O_RDWR | os.O_CREAT, 0o600)
        stop = 0
        for body, arrays, at in _records(journal):
            redo(held, body, arrays)
            stop = at
        os.ftruncate(journal, stop)  # a call that was being written was never acknowledged
        os.lseek(journal, stop, os.SEEK_SET)
        named._begin(facts, journal, stop)
        _remove_others(folder, facts.generation)
        return named


def read_facts(folder: Path) -> Facts:
    """What an index is, by the file beside it."""
    try:
        return Facts(**json.loads((folder / _META).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CorruptionError(f"{_META} of index {folder.name!r} cannot be read: {error}") from error


def is_named(folder: Path) -> bool:
    """Whether there is an index in ``folder``; one that was not written to its end is none."""
    return (folder / _META).exists()


def _records(journal: int) -> Iterator[tuple[Any, list[frames.Array], int]]:
    """Each call that was written whole, and where it ends."""
    size, at = os.fstat(journal).st_size, 0
    while at + _RECORD.size <= size:
        mark, n_bytes, checksum = _RECORD.unpack(os.pread(journal, _RECORD.size, at))
        stop = at + _RECORD.size + n_bytes
        if mark != _MARK or stop > size:
            return
        found, at = memoryview(bytearray(n_bytes)), at + _RECORD.size
        done = 0
        while done < n_bytes:
            done += os.preadv(journal, [found[done : done + _PIECE_BYTES]], at + done)
        if zlib.crc32(found) != checksum:
            return
        body, arrays = frames.read(_filler(found), _NO_LIMIT)
        yield body, arrays, stop
        at = stop


def _filler(source: memoryview) -> frames.Fill:
    at = 0

    def fill(target: memoryview) -> None:
        nonlocal at
        target[:] = source[at : at + target.nbytes]
        at += target.nbytes

    return fill


def _written(thing: Any, path: Path, is_binary: bool) -> tuple[int, int]:
    """Write an index durably; its checksum and size."""
    write = faiss.write_index_binary if is_binary else faiss.write_index
    try:
        write(thing, str(path))
    except RuntimeError as error:  # FAISS's, for a write that failed
        raise OSError(str(error)) from error
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
    return _checksum(path), path.stat().st_size


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _write(fd: int, piece: memoryview) -> None:
    while piece.nbytes:
        piece = piece[os.write(fd, piece[:_PIECE_BYTES]) :]


def _remove_others(folder: Path, generation: int) -> None:
    kept = {_META, f"index.{generation}.faiss", f"journal.{generation}"}
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove an index: at once it is none any more, then its files go."""
    (folder / _META).unlink()
    sync_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
