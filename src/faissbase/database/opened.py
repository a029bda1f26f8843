"""The collections of this process whose files are open, of all its databases, and which must let go."""

from __future__ import annotations

import os
import resource
import threading
import time
import weakref
from typing import Protocol

from faissbase.storage.malloc import return_freed_memory

_FILES_A_COLLECTION = 16
_MAX_OPEN = max(8, min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _FILES_A_COLLECTION))
_KEPT = 32
_IDLE_S = 60.0


class Releasable(Protocol):
    """What has files open."""

    @property
    def is_open(self) -> bool: ...

    @property
    def used_at(self) -> float:
        """When it was last used, by `time.monotonic`."""
        ...

    def release(self) -> None: ...


class Opened:
    """Keeps nobody alive. Its thread is there only while somebody may grow idle.

    Parameters
    ----------
    max_open : int
        More are never open: who was used longest ago lets go.
    kept : int
        So many stay open however long nobody uses them, those used last.
    idle_s : float
        The others let go after so many seconds without use.
    """

    def __init__(self, max_open: int = _MAX_OPEN, kept: int = _KEPT, idle_s: float = _IDLE_S) -> None:
        self._max_open, self._kept, self._idle_s = max_open, min(kept, max_open), idle_s
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Releasable] = weakref.WeakSet()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()

    def note(self, opened: Releasable) -> None:
        """Take note of who has just opened files."""
        if self._process != os.getpid():  # the others are the parent's, and its thread was not inherited
            self.__init__(self._max_open, self._kept, self._idle_s)  # type: ignore[misc]
        with self._lock:
            self._open.add(opened)
            by_use = self._by_use() if len(self._open) > self._kept else []
            if by_use and self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="faissbase-idle", daemon=True)
                self._thread.start()
        n_excess = max(0, len(by_use) - self._max_open)
        for oldest in [each for each in by_use if each is not opened][:n_excess]:
            oldest.release()

    def _by_use(self) -> list[Releasable]:
        """Who has files open, whoever was used longest ago first."""
        open_now = [each for each in self._open if each.is_open]
        self._open = weakref.WeakSet(open_now)
        return sorted(open_now, key=lambda each: each.used_at)

    def _watch(self) -> None:
        while self._has_watched():
            time.sleep(self._idle_s / 4)

    def _has_watched(self) -> bool:
        """Have the idle ones let go; False where there are too few left to look at again."""
        with self._lock:
            by_use = self._by_use()
            if len(by_use) <= self._kept:
                self._thread = None
                return False
        until = time.monotonic() - self._idle_s
        idle = [each for each in by_use[: -self._kept] if each.used_at < until]
        for each in idle:
            each.release()
        if idle:
            return_freed_memory()
        return True
