"""Calls that fail when told to: writes, syncs, renames of the product and of SQLite beneath it."""

from __future__ import annotations

import ctypes
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
from tests.crash.watch import OS_CALLS, watched

_SIGNATURES = {
    "pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "ftruncate": (ctypes.c_int, ctypes.c_int, ctypes.c_int64),
    "unlink": (ctypes.c_int, ctypes.c_char_p),
}
FAULTY_CALLS = (*OS_CALLS, *(f"sqlite {name}" for name in _SIGNATURES), "xSync")
_IO_ERRORS = ("fdatasync", "fsync", "replace", "unlink", "sqlite unlink", "sqlite ftruncate")


class Faults:
    """A watcher that lets the n-th call of one name fail, alone or with all that follow.

    Syncs, renames and removals fail with an I/O error, everything else because the disk is full.
    """

    def __init__(self) -> None:
        self.n_failed = 0
        self.on_call: Callable[[str], None] | None = None
        self.calls: Counter[str] = Counter()
        self._name: str | None = None
        self._n = 0
        self._is_lasting = False

    def start(self, name: str, n: int, *, is_lasting: bool) -> None:
        """Let the ``n``-th call of ``name`` from now on fail; with ``is_lasting`` also those after it."""
        self.calls.clear()
        self.n_failed = 0
        self._name, self._n, self._is_lasting = name, n, is_lasting

    def stop(self) -> None:
        self._name = None

    def error_number(self, call: str) -> int:
        """Count a call; the number of the error it has to fail with, or 0."""
        if self.on_call is not None:
            self.on_call(call)
        self.calls[call] += 1
        n = self.calls[call]
        if call != self._name or n < self._n or (n > self._n and not self._is_lasting):
            return 0
        self.n_failed += 1
        return errno.EIO if call in _IO_ERRORS else errno.ENOSPC

    def before(self, call: str, path: Path) -> None:
        if call.startswith("x"):
            if call == "xSync" and self.error_number(call):
                raise apsw.IOError(f"{call} of {path.name} made to fail")
            return
        number = self.error_number(call)
        if number:
            raise OSError(number, os.strerror(number), str(path))

    def after(self, call: str, path: Path, *facts: Any) -> None:
        pass


def _failing(faults: Faults, name: str, address: int) -> Any:
    """A C function that calls the one at ``address``, or fails."""
    kind = ctypes.CFUNCTYPE(*_SIGNATURES[name], use_errno=True)
    real = kind(address)

    def call(*args: Any) -> int:
        number = faults.error_number(f"sqlite {name}")
        if number:
            ctypes.set_errno(number)
            return -1
        return int(real(*args))

    return kind(call)


@contextmanager
def faulty() -> Iterator[Faults]:
    """Let calls fail as the `Faults` are told.

    SQLite's system calls are replaced beneath it, so that it sees an error number and no exception; only
    its syncs, which it makes directly, fail by an exception of a virtual file system.
    """
    faults = Faults()
    vfs = apsw.VFS(f"system-calls-{id(faults)}", base="unix")
    replaced: dict[str, Any] = {}
    for name in _SIGNATURES:
        address = vfs.xGetSystemCall(name)
        assert address is not None
        replaced[name] = _failing(faults, name, address)
        vfs.xSetSystemCall(name, ctypes.cast(replaced[name], ctypes.c_void_p).value or 0)
    try:
        with watched(faults):
            yield faults
    finally:
        for name in _SIGNATURES:
            vfs.xSetSystemCall(name, 0)
        vfs.unregister()
