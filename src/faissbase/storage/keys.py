"""``keys.sqlite``: the API keys of a data folder, by the hashes of their secrets. Knows no clock.

A secret is never stored: whoever reads this file cannot make a request with it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from faissbase.errors import CorruptionError, NotReadyError
from faissbase.storage import forks, sqlite
from faissbase.storage.commits import CommitCounter
from faissbase.storage.files import alone_in, os_errors, publish
from faissbase.storage.sqlite import sqlite_errors

FILE_NAME = "keys.sqlite"
_SCHEMA = """
CREATE TABLE keys(
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    hash BLOB NOT NULL,
    scopes TEXT NOT NULL,
    indexes TEXT,
    created_s REAL NOT NULL,
    expires_s REAL,
    revoked_s REAL
) WITHOUT ROWID;
"""
_COLUMNS = "id, tenant, name, hash, scopes, indexes, created_s, expires_s, revoked_s"
_INSERT = "INSERT INTO keys VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is stored. Times are seconds since 1970; blanks separate ``scopes`` and ``indexes``.

    ``indexes`` is None where a key is good for all of its tenant's indexes.
    """

    id: str
    tenant: str
    name: str
    hash: bytes
    scopes: str
    indexes: str | None
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None


class KeyFile:
    """The keys of one folder. Thread-safe; several processes may use one file.

    Each change has a connection of its own: whoever reads never waits for a write, nor for its sync.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._lock = threading.Lock()
        self._connection: Any = None
        self._n_connections = 0
        self._commits: CommitCounter | None = None
        forks.rest_before(self)
        forks.renew_after(self)

    def rest(self) -> None:
        """Close the connection; it is opened again when it is needed. See `forks.Resting`."""
        if self._connection is not None:
            self._connection.close(True)
            self._connection = None

    def renew(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def _use(self) -> Iterator[Any]:
        """The connection, or None where no key was ever made."""
        with _advised(self._path), sqlite_errors(self._path), self._lock:
            if self._connection is None and self._path.exists():
                self._connection = sqlite.connect(self._path)
                self._n_connections += 1
                self._commits = _commits_of(self._path)
            yield self._connection

    def version(self) -> tuple[str, int]:
        """Differs once somebody has changed a key."""
        commits = self._commits
        settled = None if commits is None else commits.settled()
        if settled is not None:
            return "commits", settled
        with self._use() as connection:
            if connection is None:
                return "none", 0
            [(version,)] = connection.execute("PRAGMA data_version").fetchall()
            return f"sqlite {self._n_connections}", int(version)

    def rows(self) -> list[KeyRow]:
        """Every key, in the order in which they were made."""
        with self._use() as connection:
            if connection is None:
                return []
            found = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_s, id").fetchall()
        return [KeyRow(*row) for row in found]

    def insert(self, row: KeyRow) -> None:
        """Add a key; durable when this returns."""
        self._create_if_missing()
        self._change(_INSERT, *astuple(row))

    def replace(self, id: str, row: KeyRow, ends_s: float) -> bool:
        """Add a key and have another end at ``ends_s``, both or neither.

        Neither where the other has ended by the time that the new one is made.
        """
        revokes = "UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL"
        ends = (
            "UPDATE keys SET expires_s = min(ifnull(expires_s, ?1), ?1) WHERE id = ?2 AND revoked_s IS NULL"
        )
        statement = revokes if ends_s <= row.created_s else ends
        good = f" AND ifnull(expires_s, {row.created_s!r} + 1) > {row.created_s!r} RETURNING id"
        with self._writing() as connection:
            was_good = bool(connection.execute(statement + good, (ends_s, id)).fetchall())
            if was_good:
                connection.execute(_INSERT, astuple(row))
        return was_good

    def set_revoked(self, id: str, at_s: float) -> None:
        self._change("UPDATE keys SET revoked_s = ? WHERE id = ? AND revoked_s IS NULL", at_s, id)

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        """One change, whole or not at all, durable at the end."""
        with _advised(self._path), sqlite_errors(self._path):
            connection = sqlite.connect(self._path)
            commits, started = _commits_of(self._path), 0
            try:
                connection.execute("BEGIN IMMEDIATE")
                started = commits.begin()
                yield connection
                connection.execute("COMMIT")
            finally:
                connection.close(True)  # undoes what is open
                commits.finish(started)

    def _change(self, statement: str, *bindings: Any) -> None:
        with self._writing() as connection:
            connection.execute(statement, bindings)

    def _create_if_missing(self) -> None:
        """Make the file under another name first, readable by its owner alone."""
        if self._path.exists():
            return
        draft = self._path.with_name(f"{FILE_NAME}.draft")
        with os_errors(f"cannot create {self._path}"), alone_in(self._path.parent):
            if self._path.exists():
                return
            draft.unlink(missing_ok=True)
            os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            sqlite.create(draft, _SCHEMA)
            publish(draft, self._path)

    def close(self) -> None:
        with suppress(NotReadyError), sqlite_errors(self._path), self._lock:
            self.rest()


@contextmanager
def _advised(path: Path) -> Iterator[None]:
    """Say what helps a damaged file of keys: nothing in it can be made again from something else."""
    try:
        yield
    except CorruptionError as error:
        raise CorruptionError(
            f"{path} is damaged ({error.__cause__ or error}), and no key is good as long as it is: put a "
            "copy of it back, or move it away and make new keys with faissbase keys create"
        ) from error


def _commits_of(path: Path) -> CommitCounter:
    return CommitCounter(path.parent, f"{FILE_NAME}-commits", mode=0o600)
