"""Bytes on a disk: whole writes, syncs, renames that last. Knows only files; errors come out as ours."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType

from faissbase.errors import AccessError, FaissbaseError, UnavailableError

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def from_os_error(error: OSError, what: str) -> FaissbaseError:
    """The error of ours that an `OSError` means to a caller; ``what`` says which file and which step."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return UnavailableError(f"{what}: {reason}; nothing was stored, free some space and try again")
    if error.errno in _DENIED:
        return AccessError(f"{what}: {reason}")
    return UnavailableError(f"{what}: {reason}")


class os_errors:
    """Turn every `OSError` of the block into one of ours. A class, for it is entered on every write."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise from_os_error(error, self._what) from error


def write_at(fd: int, data: memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``; a short write goes on where it stopped."""
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def sync_data(fd: int) -> None:
    """Return once the file's bytes are on the device."""
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_folder(folder: Path) -> None:
    """Make names created, renamed or removed in ``folder`` last."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(temporary: Path, target: Path) -> None:
    """Rename a finished, synced file to its real name, and make the rename last."""
    os.replace(temporary, target)
    sync_folder(target.parent)
