"""Whether anybody has committed, told by two numbers in shared memory instead of a question to SQLite.

A writer counts up the first number before its commit and the second after it, under SQLite's write lock. As
long as both equal what a reader has seen, nothing was committed since. A writer that dies in between leaves
them apart, and readers ask SQLite until the next commit. The file is derived; it must stay while somebody has
the collection open.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

FILE_NAME = "commits"
_SIZE_BYTES = 16
_NEVER_OPEN = -1


def settled_in(folder: Path) -> int | None:
    """`CommitCounter.settled` of a collection that need not be open; −1 before it has ever been."""
    try:
        fd = os.open(folder / FILE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _NEVER_OPEN if folder.exists() else None
    try:
        numbers = os.pread(fd, _SIZE_BYTES, 0)
    finally:
        os.close(fd)
    if len(numbers) < _SIZE_BYTES:
        return None
    started, finished = memoryview(numbers).cast("Q")
    return int(started) if started == finished else None


class CommitCounter:
    """The two numbers of one collection, or one other file, shared by all processes that have it open."""

    def __init__(self, folder: Path, name: str = FILE_NAME, mode: int = 0o644) -> None:
        self._numbers: memoryview | None = None
        self._is_writable = False
        try:
            self._map(folder / name, mode)
        except (OSError, ValueError):
            self._numbers = None  # a medium that cannot be written, or a full one: SQLite is asked every time

    def _map(self, path: Path, mode: int) -> None:
        self._is_writable = os.access(path.parent, os.W_OK)
        flags = os.O_RDWR | os.O_CREAT if self._is_writable else os.O_RDONLY
        fd = os.open(path, flags | os.O_CLOEXEC, mode)
        try:
            if os.fstat(fd).st_size < _SIZE_BYTES:
                os.ftruncate(fd, _SIZE_BYTES)
            access = mmap.ACCESS_WRITE if self._is_writable else mmap.ACCESS_READ
            self._numbers = memoryview(mmap.mmap(fd, _SIZE_BYTES, access=access)).cast("Q")
        finally:
            os.close(fd)

    def settled(self) -> int | None:
        """A number that differs once somebody has committed; None where only SQLite can tell."""
        numbers = self._numbers
        if numbers is None:
            return None
        started = numbers[0]
        return started if numbers[1] == started else None

    def begin(self) -> int:
        """Announce a commit; call it under the write lock, and `finish` with the answer after the commit."""
        numbers = self._numbers
        if numbers is None or not self._is_writable:
            return 0
        started = max(numbers[0], numbers[1]) + 1
        numbers[0] = started
        return started

    def finish(self, started: int) -> None:
        """The commit is visible, or undone."""
        numbers = self._numbers
        if numbers is not None and started > numbers[1]:
            numbers[1] = started
