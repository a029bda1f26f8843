"""The journal of a named index: the calls that have changed it since its file was written.

A record is a head (a mark, how long the call is, its checksum, the head's own checksum), the call as a frame,
and a mark at its end. What a crash leaves of the last record is told from damage: it ends too early, or in
zeros where a file has got its length and not its content.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from faissbase.dropin import frames
from faissbase.errors import CorruptionError

_HEAD = struct.Struct("<4sQI")
_CHECKSUM = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + _CHECKSUM.size
_MARK, _END = b"FBJ2", b"end\n"
_PIECE_BYTES = 16 << 20
_NO_LIMIT = 1 << 62


class Journal:
    """An open journal, written at its end. Every `OSError` is the caller's."""

    def __init__(self, path: Path, *, is_new: bool) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if is_new else 0), 0o600)
        self.n_bytes = 0 if is_new else os.fstat(self._fd).st_size

    def add(self, pieces: Sequence[memoryview], *, is_synced: bool) -> None:
        """Write a call at the end; ``is_synced``: and have it on the device."""
        checksum, n_bytes = 0, sum(piece.nbytes for piece in pieces)
        for piece in pieces:
            checksum = zlib.crc32(piece, checksum)
        head = _HEAD.pack(_MARK, n_bytes, checksum)
        head += _CHECKSUM.pack(zlib.crc32(head))
        for piece in (memoryview(head), *pieces, memoryview(_END)):
            _write(self._fd, piece)
        if is_synced:
            os.fdatasync(self._fd)
        self.n_bytes += _HEAD_BYTES + n_bytes + len(_END)

    def records(self) -> Iterator[tuple[Any, list[frames.Array]]]:
        """Each call, oldest first. Then what a crash has left of one that was being written is cut.

        Raises
        ------
        CorruptionError
            A record is not what was written.
        """
        at = 0
        while at < self.n_bytes:
            n_bytes = self._length_at(at)
            if n_bytes is None:
                break
            found = self._read(at + _HEAD_BYTES, n_bytes + len(_END))
            checksum = _HEAD.unpack(self._read(at, _HEAD.size))[2]
            if found[n_bytes:] != _END or zlib.crc32(found[:n_bytes]) != checksum:
                if self._ends_in_zeros(at + _HEAD_BYTES + n_bytes):
                    break
                raise CorruptionError(f"a call at byte {at:,} of the journal is damaged")
            yield frames.read(_filler(found), _NO_LIMIT)
            at += _HEAD_BYTES + n_bytes + len(_END)
        os.ftruncate(self._fd, at)  # a call that was being written was never acknowledged
        os.lseek(self._fd, at, os.SEEK_SET)
        self.n_bytes = at

    def _length_at(self, at: int) -> int | None:
        """How long the call is whose record begins at ``at``; None where a crash has cut it."""
        if at + _HEAD_BYTES > self.n_bytes:
            return None
        head = self._read(at, _HEAD_BYTES)
        mark, n_bytes, _ = _HEAD.unpack(head[: _HEAD.size])
        if mark != _MARK or zlib.crc32(head[: _HEAD.size]) != _CHECKSUM.unpack(head[_HEAD.size :])[0]:
            if self._ends_in_zeros(at):
                return None
            raise CorruptionError(f"a record at byte {at:,} of the journal is damaged")
        is_whole = at + _HEAD_BYTES + n_bytes + len(_END) <= self.n_bytes
        return int(n_bytes) if is_whole else None

    def _ends_in_zeros(self, at: int) -> bool:
        """Whether there is nothing but zeros from ``at`` to the end."""
        while at < self.n_bytes:
            piece = self._read(at, min(_PIECE_BYTES, self.n_bytes - at))
            if any(memoryview(piece)):
                return False
            at += len(piece)
        return True

    def _read(self, at: int, n_bytes: int) -> bytearray:
        found = bytearray(n_bytes)
        view, done = memoryview(found), 0
        while done < n_bytes:
            n = os.preadv(self._fd, [view[done : done + _PIECE_BYTES]], at + done)
            if not n:
                raise OSError("the journal has become shorter")
            done += n
        return found

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _filler(source: bytearray) -> frames.Fill:
    at, view = 0, memoryview(source)

    def fill(target: memoryview) -> None:
        nonlocal at
        target[:] = view[at : at + target.nbytes]
        at += target.nbytes

    return fill


def _write(fd: int, piece: memoryview) -> None:
    while piece.nbytes:
        piece = piece[os.write(fd, piece[:_PIECE_BYTES]) :]
