"""Indexes that have a name: on disk, every acknowledged change of them, whatever happens to this process.

An index is a file as FAISS writes it, and a journal of the calls that have changed it since. A call is done
first, then written to the journal and synced, then acknowledged: one that ends the process is not repeated.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import faiss

from faissbase.dropin import frames
from faissbase.dropin.facts import META, Facts, is_named, read_facts
from faissbase.dropin.graphs import Held
from faissbase.dropin.journal import Journal
from faissbase.errors import CorruptionError, UnavailableError
from faissbase.storage.files import os_errors, sync_folder
from faissbase.types import is_name

_LEAST_JOURNAL_BYTES = 64 << 20
_PIECE_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
_GONE = ".gone-"
# What a call of a journal raises where it cannot be done again: then it succeeded, so now it must, too.
_REFUSALS = (RuntimeError, AssertionError, TypeError, ValueError, AttributeError, LookupError)


class Named:
    """An index in its folder. Whoever calls its methods holds the lock of its graph alone."""

    def __init__(self, folder: Path, held: Held) -> None:
        self.folder = folder
        self.held = held
        self.is_lost = False
        self._generation = 0
        self.size_bytes = 0
        self._journal: Journal | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    # ---- writing ---------------------------------------------------------------------------------

    def note(self, body: dict[str, Any], arrays: Sequence[frames.Array], *, is_synced: bool) -> None:
        """Write a call to the journal; where that is long, the index itself.

        Raises
        ------
        UnavailableError
            It could not be written. The index in memory is ahead of its files and must be let go.
        """
        pieces = frames.pack(body | {"ntotal": self.held.thing.ntotal}, arrays)
        assert self._journal is not None
        n_bytes = self._journal.n_bytes + sum(piece.nbytes for piece in pieces)
        if n_bytes > max(_LEAST_JOURNAL_BYTES, self.size_bytes):
            self.checkpoint()
            return
        with os_errors(f"cannot write the journal of {self.name!r}"):
            self._journal.add(pieces, is_synced=is_synced)

    def checkpoint(self) -> None:
        """Write the index itself, durably, and begin an empty journal."""
        thing, generation = self.held.thing, self._generation + 1
        path = self.folder / f"index.{generation}.faiss"
        is_binary = isinstance(thing, faiss.IndexBinary)
        with os_errors(f"cannot write {self.name!r}"):
            checksum, size_bytes = _written(thing, path, is_binary)
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
            journal = Journal(self._journal_path(generation), is_new=True)
            try:
                _publish(self.folder, facts)
            except BaseException:
                journal.close()
                raise
        self._begin(facts, journal)
        _remove_others(self.folder, generation)

    def _begin(self, facts: Facts, journal: Journal) -> None:
        self.close()
        self._generation, self.size_bytes, self._journal = facts.generation, facts.size_bytes, journal

    def settle(self) -> None:
        """Write the index itself where its journal is not empty."""
        if self._journal is not None and self._journal.n_bytes:
            self.checkpoint()

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
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
        named = cls(folder, Held(read(str(path))))
        with os_errors(f"cannot read the journal of {folder.name!r}"):
            journal = Journal(named._journal_path(facts.generation), is_new=False)
            try:
                for n, (body, arrays) in enumerate(journal.records()):
                    _redone(named, redo, n, body, arrays)
            except BaseException:
                journal.close()
                raise
        named._begin(facts, journal)
        named.held.graph.named[folder.name] = named
        _remove_others(folder, facts.generation)
        return named


def _redone(named: Named, redo: Any, n: int, body: Any, arrays: list[frames.Array]) -> None:
    """Do a call of the journal again, and see that it has led where it led the first time."""
    try:
        redo(named.held, body, arrays)
    except MemoryError:
        raise UnavailableError(f"not enough memory to open {named.name!r}") from None
    except _REFUSALS as error:
        raise CorruptionError(f"call {n} of the journal of {named.name!r} fails now: {error}") from error
    found, wanted = named.held.thing.ntotal, body.get("ntotal")
    if found != wanted:
        raise CorruptionError(
            f"call {n} of the journal of {named.name!r} leads to ntotal={found}, it was {wanted}"
        )


class _Out:
    """Takes what FAISS writes to a file; keeps its checksum and size, and what went wrong."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = self.size_bytes = 0
        self.error: OSError | None = None

    def __call__(self, piece: bytes) -> int:
        try:
            self._file.write(piece)
        except OSError as error:
            self.error = error
            raise
        self.checksum = zlib.crc32(piece, self.checksum)
        self.size_bytes += len(piece)
        return len(piece)


def _written(thing: Any, path: Path, is_binary: bool) -> tuple[int, int]:
    """Write an index durably; its checksum and size. FAISS's own files do not tell of a full disk."""
    write = faiss.write_index_binary if is_binary else faiss.write_index
    with open(path, "wb", buffering=_BUFFER_BYTES) as file:
        out = _Out(file)
        try:
            write(thing, faiss.PyCallbackIOWriter(out))
        except Exception:
            if out.error is not None:
                raise out.error from None
            raise
        file.flush()
        os.fsync(file.fileno())
    return out.checksum, out.size_bytes


def _publish(folder: Path, facts: Facts) -> None:
    """Say durably that the index is what ``facts`` tell."""
    draft = folder / f"{META}.draft"
    with open(draft, "w") as file:
        json.dump({each: getattr(facts, each) for each in Facts.__slots__}, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    draft.rename(folder / META)
    sync_folder(folder)


def _checksum(path: Path) -> int:
    checksum = 0
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _remove_others(folder: Path, generation: int) -> None:
    kept = {META, f"index.{generation}.faiss", f"journal.{generation}"}
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink(missing_ok=True)


def remove(folder: Path) -> Path:
    """Remove an index at once and durably; the folder with its files, which are still to be deleted."""
    gone = folder.parent / f"{_GONE}{uuid.uuid4().hex}"
    folder.rename(gone)
    sync_folder(folder.parent)
    return gone


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes have left beside the indexes of ``folder``."""
    for each in folder.iterdir():
        if each.is_dir() and not (is_name(each.name) and is_named(each)):
            shutil.rmtree(each, ignore_errors=True)
