"""Bytes on a disk: whole writes, syncs, renames that last, locks. Knows only files; all errors are ours."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from faissbase.errors import AccessError, FaissbaseError, NotFoundError, UnavailableError

_DRAFT_PREFIX = ".faissbase-draft-"
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


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file, or leave the one that is there; durable when this returns."""
    draft = path.with_name(f"{path.name}.draft")
    with os_errors(f"cannot write {path}"):
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        publish(draft, path)


def identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Which file this is, whatever its name; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block; the lock goes with the process that holds it."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class FolderLock:
    """A lock on a folder, many shared or one alone, that goes with the process which holds it.

    On the folder itself, so it leaves no file. A file system without such locks is taken as if all were free.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = -1
        self._folder = folder
        with os_errors(f"cannot open {folder}"):
            try:
                self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise NotFoundError(f"{folder} is gone") from None
        self._process = os.getpid()

    def take(self, *, shared: bool) -> bool:
        """Take the lock at once, if it is free; whether it was."""
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def wait(self, *, shared: bool) -> None:
        """Take the lock, however long others have it."""
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def is_in_place(self) -> bool:
        """Whether the folder is still where it was opened: neither gone nor another one in its place."""
        with suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._fd), self._folder.stat())
        return False

    def release(self) -> None:
        """Let go, also for forks of this process, which have inherited the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if self._process == os.getpid():
                with suppress(OSError):
                    fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def __del__(self) -> None:
        self.release()


@contextmanager
def draft_folder(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` for what is not finished yet, gone at the end of the block.

    What killed processes have left is removed first: whoever lives holds a lock on its own.
    """
    remove_drafts(parent)
    folder, lock = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_drafts(parent: Path) -> None:
    """Remove what killed processes have left of `draft_folder`."""
    for leftover in parent.glob(f"{_DRAFT_PREFIX}*"):
        _remove_abandoned(leftover)


def _locked_folder(parent: Path) -> tuple[Path, FolderLock]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=_DRAFT_PREFIX))
        try:
            lock = FolderLock(folder)
            if lock.take(shared=False) and folder.exists():
                return folder, lock
        except FaissbaseError:
            if folder.exists():
                folder.rmdir()
                raise
        # else another process took it for abandoned, between its making and its locking


def _remove_abandoned(folder: Path) -> None:
    with suppress(FaissbaseError):  # removed meanwhile
        lock = FolderLock(folder)
        if lock.take(shared=False):
            shutil.rmtree(folder, ignore_errors=True)
        lock.release()


class HeldFolder:
    """A folder that is held open, so that another one in its place is known for another.

    A number of a file alone would not tell: it may be given out again.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        with os_errors(f"cannot open {path}"):
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._held = os.fstat(self._fd)

    def is_there(self) -> bool:
        """Whether its path still leads to it."""
        try:
            return os.path.samestat(os.stat(self._path), self._held)
        except OSError:
            return False

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
