"""Every change of a file that the product or SQLite makes, told to a `Watcher` before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw
import pytest

from faissbase.storage import sqlite

OS_CALLS = ("pwrite", "ftruncate", "fdatasync", "fsync", "replace", "link", "unlink", "mkdir", "open")


class Watcher(Protocol):
    """Sees calls by name: those of ``os`` and, ``x...``, those of SQLite's virtual file system."""

    def before(self, call: str, path: Path) -> None:
        """Called before each; what it raises is raised in its place, a ``pwrite`` being half done then."""

    def after(self, call: str, path: Path, *facts: Any) -> None:
        """Called after each that did not fail; facts are offset and length, length, or the new path."""


class _WatchedFile(apsw.VFSFile):
    def __init__(
        self, watcher: Watcher, base: str, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._watcher = watcher
        self._path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "temporary")
        super().__init__(base, name, flags)

    def xWrite(self, data: Any, offset: int) -> None:  # SQLite's names
        self._watcher.before("xWrite", self._path)
        super().xWrite(data, offset)
        self._watcher.after("xWrite", self._path, offset, len(data))

    def xSync(self, flags: int) -> None:
        self._watcher.before("xSync", self._path)
        super().xSync(flags)
        self._watcher.after("xSync", self._path)

    def xTruncate(self, newsize: int) -> None:
        self._watcher.before("xTruncate", self._path)
        super().xTruncate(newsize)
        self._watcher.after("xTruncate", self._path, newsize)

    def xLock(self, level: int) -> None:
        """SQLite passes over a failed lock of a read-only connection; apsw would raise it later."""
        try:
            super().xLock(level)
        except apsw.IOError as error:
            raise apsw.BusyError from error


class _WatchedVfs(apsw.VFS):
    def __init__(self, watcher: Watcher, base: str) -> None:
        self.name = f"watched-{id(self)}"
        self._watcher, self._base = watcher, base
        super().__init__(self.name, base)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _WatchedFile(self._watcher, self._base, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._watcher.before("xDelete", Path(filename))
        super().xDelete(filename, syncdir)
        self._watcher.after("xDelete", Path(filename))


def _path(file: Any) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{file}") if isinstance(file, int) else file)


def _watched(watcher: Watcher, name: str) -> Callable[..., Any]:
    real: Callable[..., Any] = getattr(os, name)

    def call(file: Any, *args: Any, **options: Any) -> Any:
        path = _path(file)
        try:
            watcher.before(name, path)
        except OSError:
            if name == "pwrite":
                data, offset = args
                real(file, data[: len(data) // 2], offset)
                watcher.after(name, path, offset, len(data) // 2)
            raise
        result = real(file, *args, **options)
        facts = (args[1], result) if name == "pwrite" else args
        watcher.after(name, path, *facts)
        return result

    return call


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell ``watcher`` of all calls meanwhile. What SQLite has opened must be closed before the end."""
    vfs = _WatchedVfs(watcher, sqlite.checksum_vfs())
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in OS_CALLS:
            monkeypatch.setattr(os, name, _watched(watcher, name))
        monkeypatch.setattr(sqlite, "checksum_vfs", lambda: vfs.name)
        yield
    vfs.unregister()
