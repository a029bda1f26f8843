"""Has anybody committed? Asked of SQLite for a few microseconds, where a query takes hundreds.

`PRAGMA data_version` is another number whenever another connection has committed, of this process or any
other. PostgreSQL has nothing as cheap; there it is not known, and asked each time.
"""

from __future__ import annotations

import os
import sqlite3
import threading

from sqlalchemy import Engine

from faissbase.memory.databases import is_in_memory
from faissbase.storage import forks


class Watch:
    """Watches the file of one engine. Any number of threads may ask."""

    def __init__(self, engine: Engine) -> None:
        has_file = engine.dialect.name == "sqlite" and not is_in_memory(engine)
        self._path = engine.url.database if has_file else None
        self._is_plain = self._path is not None and not self._path.startswith("file:")
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int, int] = (0, 0, 0)
        self._n_opened = 0
        forks.rest_before(self)

    def version(self) -> tuple[int, int] | None:
        """Another value after every commit; None where that is not known."""
        if self._path is None or not self._is_plain:
            return None
        with forks.holding_off(self._path), self._lock:
            try:
                self._open_again(self._path)
                assert self._connection is not None
                [(found,)] = self._connection.execute("PRAGMA data_version")
            except (OSError, sqlite3.Error):
                return None
            return self._n_opened, found

    def _open_again(self, path: str) -> None:
        """In a fork, or where another file took the place of the one that is open."""
        file = os.stat(path)
        seen = (os.getpid(), file.st_dev, file.st_ino)
        if self._connection is None or seen != self._opened:
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._opened = seen
            self._n_opened += 1

    def rest(self) -> None:
        """Close the connection, which nobody uses; it is opened again when it is needed."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None and self._opened[0] == os.getpid():
                self._connection.close()
            self._connection = None
