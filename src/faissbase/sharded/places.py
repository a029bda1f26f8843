"""Collections of a folder whose records are datasets in object storage: opened when they are first used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from faissbase.collection.stats import Served
from faissbase.errors import NotFoundError
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.storage.totals import Totals

OpenAt = Callable[[str, bool], ShardedDatabase]


class ShardPlaces:
    """The datasets at URLs such as ``s3://bucket/prefix/docs``. Thread-safe.

    Parameters
    ----------
    opener : callable
        From the URL above a dataset, and whether it is only read, to its database.
    """

    def __init__(self, opener: OpenAt) -> None:
        self._opener = opener
        self._lock = threading.Lock()
        self._open: dict[tuple[str, bool], ShardedDatabase] = {}

    def _at(self, url: str, *, read_only: bool | None = None) -> tuple[ShardedDatabase, str]:
        """The database with a dataset, one that is open where it does not matter how; and its name."""
        base, _, name = url.rstrip("/").rpartition("/")
        with self._lock:
            for wanted in (False, True) if read_only is None else (read_only,):
                if (base, wanted) in self._open:
                    return self._open[base, wanted], name
            key = base, bool(read_only)
            self._open[key] = self._opener(*key)
            return self._open[key], name

    def open(self, url: str, *, read_only: bool) -> ShardedCollection:
        db, name = self._at(url, read_only=read_only)
        return db.open(db.describe(name))

    def totals(self, url: str) -> Totals:
        db, name = self._at(url)
        return db.totals(db.describe(name))

    def served(self, url: str) -> Served | None:
        db, name = self._at(url)
        return db.served(db.describe(name))

    def oldest_s(self) -> float | None:
        with self._lock:
            ages = [db.oldest_s() for db in self._open.values()]
        return max((age for age in ages if age is not None), default=None)

    def count_stored(self, url: str, ids: list[str]) -> int:
        return len(self.open(url, read_only=False).get(ids)) if ids else 0

    def delete(self, url: str) -> None:
        db, name = self._at(url, read_only=False)
        with suppress(NotFoundError):
            db.delete_collection(name)

    def close(self) -> None:
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for db in opened:
            db.close()
