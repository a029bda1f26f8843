"""Opening files to read, and replacing them whole: temporary name, sync, rename, sync the folder.

Knows bytes and operating system errors, no format.
"""

from __future__ import annotations

import fcntl
import glob
import gzip
import itertools
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)


def size_of(path: Path) -> int:
    """Bytes of a regular file; NotFoundError or InvalidInputError where there is none."""
    with reading(path):
        size = path.stat().st_size
    if not path.is_file():
        raise InvalidInputError(f"{path} is not a regular file")
    return size


def open_binary(path: Path) -> BinaryIO:
    """The file's bytes, unpacked where its name ends in ``.gz``."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate what goes wrong while reading ``path`` into errors that name it."""
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise InvalidInputError(f"{path} is damaged or cut short: {error}") from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise _os_error("read", path, error) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Translate what goes wrong while writing ``path`` into errors that name it."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"cannot write {path}: a text is not valid Unicode: {error}") from error
    except OSError as error:
        raise _os_error("write", path, error) from error


def _os_error(verb: str, path: Path, error: OSError) -> FaissbaseError:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return NotFoundError(f"cannot {verb} {path}: {reason}")
    if isinstance(error, IsADirectoryError):
        return InvalidInputError(f"cannot {verb} {path}: it is a folder")
    if isinstance(error, PermissionError):
        return AccessError(f"cannot {verb} {path}: {reason}")
    # gzip and pyarrow report bad content as an OSError that no system call gave.
    if error.errno is None:
        return InvalidInputError(f"{path} is damaged: {reason}")
    return UnavailableError(f"cannot {verb} {path}: {reason}")


class Draft:
    """A file under a temporary name beside ``path``, which `publish` renames into place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with writing(path):
            if path.is_dir():
                raise AlreadyExistsError(f"cannot write {path}: a folder has that name")
            if not path.parent.is_dir():
                raise NotFoundError(f"cannot write {path}: make the folder {path.parent} first")
            self.temporary, self.file = _open_new(path)

    def sync(self) -> None:
        """Make the bytes durable. The file stays open, and with it the lock that says somebody is at it."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def discard(self) -> None:
        """Remove the temporary file; the target stays as it was."""
        try:
            with suppress(OSError):  # closing writes what is left, on a disk that may be full
                self.file.close()
        finally:
            self.temporary.unlink(missing_ok=True)


def publish(drafts: Sequence[Draft]) -> None:
    """Rename synced drafts of one folder into place and sync the folder.

    With several drafts the first is the one readers open. Its old file goes first and its new one comes last:
    a crash in between leaves no such file, never new rows beside old vectors.
    """
    first, *others = drafts
    if others:
        first.path.unlink(missing_ok=True)
    for draft in reversed(drafts):
        os.replace(draft.temporary, draft.path)
        draft.file.close()
    _sync_folder(first.path.parent)


def _open_new(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside ``path``, locked. What killed processes have left of such files is removed first."""
    for leftover in path.parent.glob(f"{glob.escape(path.name)}.faissbase-*.tmp"):
        _remove_abandoned(leftover)
    for number in itertools.count():
        temporary = path.with_name(f"{path.name}.faissbase-{os.getpid()}-{number}.tmp")
        try:
            file = temporary.open("x+b")
        except FileExistsError:
            continue
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            return temporary, file
        file.close()  # another process took it for abandoned, between its making and its locking
    raise AssertionError("count() does not end")


def _remove_abandoned(leftover: Path) -> None:
    with suppress(OSError), leftover.open("rb") as file:  # removed meanwhile, or somebody is at it
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leftover.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
