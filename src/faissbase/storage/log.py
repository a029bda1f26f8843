"""Room in SQLite's log (``*-wal``), made before commits need it.

A sync of bytes that made a file longer has to write the file's length too: on ext4 a commit of three pages
took 335 µs while the log grew and 240 µs once it had its length. Zeros beyond the last frame are no frames:
SQLite reads a log up to the first one whose salt or checksum does not fit.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from faissbase.storage.files import sync_data, write_at

FRAME_HEADER_BYTES = 24
_STEP_MIN_BYTES = 1 << 20
_STEP_MAX_BYTES = 4 << 20
# What is written at once the kernel keeps as one unit, and walks through whole at each small write into it.
_PIECE_BYTES = 64 << 10


class LogRoom:
    """Lengthens one log by zeros. Only the holder of the write lock may: nobody else then adds frames."""

    def __init__(self, path: Path, *, page_bytes: int, most_pages: int, first_pages: int) -> None:
        self._path = path
        self._frame_bytes = page_bytes + FRAME_HEADER_BYTES
        self._first_bytes = first_pages * self._frame_bytes  # a log that stays small is left alone
        self._most_bytes = most_pages * self._frame_bytes
        self._used_bytes = 0
        self._is_growing_slowly = False
        self._room_bytes = 0
        self._is_given_up = False

    def committed(self, n_pages: int) -> None:
        """Take note that the log now holds ``n_pages``."""
        used = n_pages * self._frame_bytes
        # A large commit writes its own length, with the one sync that it needs anyway.
        self._is_growing_slowly = 0 < used - self._used_bytes <= self._first_bytes
        self._used_bytes = used

    def make(self) -> None:
        """Lengthen the log where the next commits would; call it inside a write transaction.

        A disk without room for it is left as it was: the commit itself may still fit.
        """
        used = self._used_bytes
        has_room = used < self._first_bytes or used + self._first_bytes <= self._room_bytes
        if has_room or self._is_given_up or not self._is_growing_slowly:
            return
        try:
            self._room_bytes = self._path.stat().st_size
            if self._room_bytes < min(self._most_bytes, used + self._first_bytes):
                self._lengthen(self._room_bytes)
        except OSError:
            self._is_given_up = True

    def _lengthen(self, size: int) -> None:
        step = min(max(size, _STEP_MIN_BYTES), _STEP_MAX_BYTES)
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            zeros = memoryview(bytes(_PIECE_BYTES))
            for at in range(size, size + step, _PIECE_BYTES):
                write_at(fd, zeros, at)
            sync_data(fd)
            self._room_bytes = size + step
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, size)
            raise
        finally:
            os.close(fd)
