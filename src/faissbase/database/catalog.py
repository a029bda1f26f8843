"""``catalog.sqlite``: which collections there are, by tenant and name.

It can be lost: every collection also keeps its own facts, and a missing catalog is made again from them.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faissbase.collection.folder import make_files
from faissbase.collection.store import Config
from faissbase.errors import (
    AlreadyExistsError,
    CorruptionError,
    FaissbaseError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.storage import forks, records, sqlite
from faissbase.storage.files import alone_in, identity, os_errors, publish, sync_folder
from faissbase.storage.salvage import damaged_meta, readable_collections
from faissbase.storage.sqlite import sqlite_errors
from faissbase.types import MAX_DIMENSION, METRICS, Problem

FILE_NAME = "catalog.sqlite"
_ADVICE = (
    "{error}. The catalog can be made again from its collections: faissbase.repair_catalog({root!s}), "
    "or `faissbase repair --data {root!s}`"
)
# Marks a folder whose collection is not in the catalog yet: what it holds was never acknowledged.
_UNFINISHED = "unfinished"
_UUID = re.compile("[0-9a-f]{32}")

_SCHEMA = """
CREATE TABLE collections(
    uuid TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    dimension INTEGER NOT NULL,
    metric TEXT NOT NULL,
    index_type TEXT NOT NULL,
    is_deleting INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE UNIQUE INDEX live_names ON collections(tenant, name) WHERE NOT is_deleting;
"""
# Made with the first collection that goes elsewhere: who never has one has the same file as ever.
_PLACEMENTS = """
CREATE TABLE IF NOT EXISTS placements(
    uuid TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    is_moving INTEGER NOT NULL
) WITHOUT ROWID
"""
_COLUMNS = "uuid, name, dimension, metric, index_type"


_TAKEN = "SELECT uuid FROM collections WHERE tenant = ? AND name = ? AND NOT is_deleting"


class Catalog:
    """The collections of a folder. Thread-safe; several processes may use one folder."""

    def __init__(
        self,
        root: Path,
        *,
        read_only: bool,
        told: dict[str, dict[str, Any]] | None = None,
        tenant: str | None = None,
    ) -> None:
        """Open the catalog of ``root``.

        ``told`` is what an older one has told, should it have to be made. Creations that were interrupted are
        looked for among all folders, of which each is listed, or those of ``tenant`` alone.
        """
        self.root = root
        self._path = root / FILE_NAME
        self._lock = threading.Lock()
        if not read_only:
            self._create_if_missing(told or {})
        try:
            self._connection: Any = sqlite.connect(self._path, read_only=read_only)
        except CorruptionError as error:
            raise CorruptionError(_ADVICE.format(error=error, root=root)) from error
        self._file = identity(self._path)
        self._n_connections = 1
        self._is_closed = False
        self._read_only = read_only
        forks.rest_before(self)
        forks.renew_after(self)
        self._n_changes = 0
        self._listed: dict[str, tuple[tuple[int, ...], list[Config]]] = {}
        self._placed: tuple[tuple[int, ...], dict[str, str]] | None = None
        try:
            self._check_pages()
            if not read_only:
                self._finish_interrupted(tenant)
        except BaseException:
            self._connection.close(True)
            raise

    def _check_pages(self) -> None:
        """It is small: check that its pages belong together, which their checksums do not say."""
        with self._use() as connection:
            [(found,)] = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if found != "ok":
                raise CorruptionError(f"{self._path}: {found}")

    def _create_if_missing(self, told: dict[str, dict[str, Any]]) -> None:
        """Make the catalog under another name first; of several processes one does it, the others wait."""
        if self._path.exists():
            return
        draft = self.root / f"{FILE_NAME}.draft"
        with os_errors(f"cannot create {self._path}"), alone_in(self.root):
            if self._path.exists():
                return
            try:
                for name in (draft.name, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):
                    (self.root / name).unlink(missing_ok=True)  # what is left of a catalog that was lost
                sqlite.create(draft, _SCHEMA)
                _adopt_collections(self.root, draft, told)
                publish(draft, self._path)
            finally:
                draft.unlink(missing_ok=True)

    @contextmanager
    def _use(self) -> Iterator[Any]:
        try:
            with sqlite_errors(self._path), self._lock:
                yield self._opened()
        except CorruptionError as error:
            raise CorruptionError(_ADVICE.format(error=error, root=self.root)) from error

    def _opened(self) -> Any:
        if self._is_closed:
            raise NotReadyError("the database is closed: connect() again")
        if self._connection is None:
            self._connection = sqlite.connect(self._path, read_only=self._read_only)
            self._file = identity(self._path)
            self._n_connections += 1
        return self._connection

    def rest(self) -> None:
        """Close the connection, if it is idle; it is opened again when it is needed. See `forks.Resting`."""
        if self._connection is not None and not self._connection.in_transaction:
            self._connection.close(True)
            self._connection = None

    def renew(self) -> None:
        self._lock = threading.Lock()

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._use() as connection:
            if identity(self._path) != self._file:  # SQLite would go on writing into the removed file
                raise UnavailableError(
                    f"no database at {self.root} any more: its folder was removed or renamed, connect() again"
                )
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
                self._n_changes += 1
                sqlite.empty_log(connection)  # damage to the log would undo the change, and tell nobody
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def folder(self, tenant: str, config: Config) -> Path:
        return self.root / tenant / config.uuid

    def find(self, tenant: str, name: str) -> Config | None:
        statement = f"SELECT {_COLUMNS} FROM collections WHERE tenant = ? AND name = ? AND NOT is_deleting"
        with self._use() as connection:
            row = connection.execute(statement, (tenant, name)).fetchone()
        return Config(*row) if row else None

    def find_by_id(self, tenant: str, uuid: str) -> Config | None:
        statement = f"SELECT {_COLUMNS} FROM collections WHERE tenant = ? AND uuid = ? AND NOT is_deleting"
        with self._use() as connection:
            row = connection.execute(statement, (tenant, uuid)).fetchone()
        return Config(*row) if row else None

    def configs(self, tenant: str) -> list[Config]:
        """What each collection of a tenant is, by name."""
        statement = f"SELECT {_COLUMNS} FROM collections WHERE tenant = ? AND NOT is_deleting ORDER BY name"
        with self._use() as connection:
            version = self._version(connection)
            known = self._listed.get(tenant)
            if known is None or known[0] != version:
                found = [Config(*row) for row in connection.execute(statement, (tenant,))]
                known = self._listed[tenant] = (version, found)
            return list(known[1])

    def _version(self, connection: Any) -> tuple[int, ...]:
        """Another one after every change, whoever made it."""
        return (self._n_connections, connection.pragma("data_version"), self._n_changes)

    # ---- collections that are elsewhere ----------------------------------------------------------

    def placement(self, config: Config) -> str | None:
        """The URL where the records of a collection are; None of one in this folder."""
        with self._use() as connection:
            version = self._version(connection)
            if self._placed is None or self._placed[0] != version:
                self._placed = version, _placements(connection)
            return self._placed[1].get(config.uuid)

    def place(self, tenant: str, config: Config, url: str, finish: Callable[[records.State], None]) -> None:
        """Have the records of a collection be at ``url`` from now on, and remove those in the folder.

        Parameters
        ----------
        finish : callable
            Called once nobody can write to the records in the folder any more, and before it is settled, with
            the state that they are in: has ``url`` hold the same. Where it raises, nothing has changed.
        """
        values = "INSERT OR REPLACE INTO placements VALUES(?, ?, ?)"
        with self._writing() as connection:  # tells whoever connects after a crash what was going on
            _check_live(connection, config)
            connection.execute(_PLACEMENTS)
            connection.execute(values, (config.uuid, url, 1))
        with self._writing() as connection:
            _check_live(connection, config)
            _end_records(self.folder(tenant, config), finish)
            connection.execute(values, (config.uuid, url, 0))
        shutil.rmtree(self.folder(tenant, config), ignore_errors=True)

    def bring(self, tenant: str, config: Config, folder: Path) -> None:
        """Take the finished files of a collection in; one that was elsewhere is in the folder from now on.

        Raises
        ------
        AlreadyExistsError
            The name is another collection's.
        """
        target = self.folder(tenant, config)
        with self._writing() as connection, os_errors(f"cannot write to {target}"):
            is_placed = config.uuid in _placements(connection)
            taken = connection.execute(_TAKEN, (tenant, config.name)).fetchone()
            if taken is not None and taken != (config.uuid,):
                raise AlreadyExistsError(f"collection {config.name!r} exists already")
            if folder.exists():  # else a call that was interrupted has moved it
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(exist_ok=True)
                os.rename(folder, target)
                for level in (target.parent, target.parent.parent):
                    sync_folder(level)
            if is_placed:
                connection.execute("DELETE FROM placements WHERE uuid = ?", (config.uuid,))
            elif taken is None:
                _insert(connection, tenant, config)

    def _finish_moves(self) -> None:
        """Finish what `place` and `bring` were at when they were interrupted."""
        with self._use() as connection:
            if not _has_placements(connection):
                return
        with self._writing() as connection:
            found = connection.execute(
                "SELECT tenant, placements.uuid, is_moving FROM placements JOIN collections USING(uuid)"
            ).fetchall()
            for tenant, uuid_text, is_moving in found:
                folder = self.root / tenant / uuid_text
                if not _has_ended(folder):
                    if not is_moving:  # brought, and not settled
                        connection.execute("DELETE FROM placements WHERE uuid = ?", (uuid_text,))
                    continue  # else nothing has happened yet, or it is happening just now
                connection.execute("UPDATE placements SET is_moving = 0 WHERE uuid = ?", (uuid_text,))
                shutil.rmtree(folder, ignore_errors=True)

    # ---- all of them -----------------------------------------------------------------------------

    def names(self, tenant: str) -> list[str]:
        statement = "SELECT name FROM collections WHERE tenant = ? AND NOT is_deleting ORDER BY name"
        with self._use() as connection:
            return [name for (name,) in connection.execute(statement, (tenant,))]

    def all_live(self) -> list[tuple[str, Config]]:
        """(tenant, config) of every collection."""
        statement = f"SELECT tenant, {_COLUMNS} FROM collections WHERE NOT is_deleting ORDER BY tenant, name"
        with self._use() as connection:
            return [(row[0], Config(*row[1:])) for row in connection.execute(statement)]

    def create(self, tenant: str, config: Config) -> None:
        """Make an empty collection; it exists once the catalog commits.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        """
        folder = self.folder(tenant, config)
        with self._writing() as connection:
            if connection.execute(_TAKEN, (tenant, config.name)).fetchone():
                raise AlreadyExistsError(f"collection {config.name!r} exists already")
            self._check_not_lost(connection, tenant, config.name)
            make_folder(folder, tenant, config)
            _insert(connection, tenant, config)
        with suppress(OSError):  # whoever connects removes it, and may have been faster
            (folder / _UNFINISHED).unlink()

    def _check_not_lost(self, connection: Any, tenant: str, name: str) -> None:
        """Refuse a name whose collection lies in the folder, and only its entry is lost."""
        with suppress(FileNotFoundError):
            folders = {uuid for uuid in os.listdir(self.root / tenant) if _UUID.fullmatch(uuid)}
            known = connection.execute("SELECT uuid FROM collections WHERE tenant = ?", (tenant,))
            for uuid in folders.difference(uuid for (uuid,) in known):
                folder = self.root / tenant / uuid
                facts = _facts(folder, {}) if _is_collection(folder) else None
                if facts is not None and facts[1].name == name:
                    raise CorruptionError(f"{folder} holds {name!r}, which the catalog does not know")

    def _lost(self, folder: Path) -> str:
        error = f"{folder} holds a collection that the catalog does not know"
        return _ADVICE.format(error=error, root=self.root)

    def lost_collections(self) -> list[Problem]:
        """Folders that hold a collection which the catalog does not know."""
        folders = [folder for folder in self.root.glob("*/*") if _UUID.fullmatch(folder.name)]
        with self._use() as connection:
            known = {uuid for (uuid,) in connection.execute("SELECT uuid FROM collections")}
        return [
            Problem("catalog", str(folder.relative_to(self.root)), self._lost(folder))
            for folder in sorted(folders)
            if folder.name not in known and _is_collection(folder)  # it may have been removed meanwhile
        ]

    def problems(self) -> list[Problem]:
        """What is wrong with the catalog: its pages, entries without a folder, folders without an entry."""
        with self._use() as connection:
            found = [text for (text,) in connection.execute("PRAGMA integrity_check")]
        problems = [Problem("catalog", FILE_NAME, text) for text in found if text != "ok"]
        for tenant, config in self.all_live():
            is_lost = not self.folder(tenant, config).exists() and self.placement(config) is None
            if is_lost and self.find(tenant, config.name) == config:
                where = f"{tenant}/{config.uuid}"
                problems.append(Problem("catalog", where, f"the folder of {config.name!r} is missing"))
        return problems + self.lost_collections()

    def delete(self, tenant: str, name: str) -> Config:
        """Delete a collection, first in the catalog, then on disk; what is interrupted is finished later."""
        statement = (
            "UPDATE collections SET is_deleting = 1 WHERE tenant = ? AND name = ? AND NOT is_deleting "
            f"RETURNING {_COLUMNS}"
        )
        with self._writing() as connection:
            row = connection.execute(statement, (tenant, name)).fetchone()
        if row is None:
            raise NotFoundError(f"no collection {name!r}")
        config = Config(*row)
        self._remove(tenant, config.uuid)
        return config

    def _remove(self, tenant: str, uuid_text: str) -> None:
        folder = self.root / tenant / uuid_text
        _tell_other_processes(folder)
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():  # the next connect tries again
            return
        with self._writing() as connection:
            connection.execute("DELETE FROM collections WHERE uuid = ?", (uuid_text,))
            if _has_placements(connection):
                connection.execute("DELETE FROM placements WHERE uuid = ?", (uuid_text,))

    def _finish_interrupted(self, of_tenant: str | None) -> None:
        """Finish deletions and moves, and undo creations, that a crash cut short."""
        self._finish_moves()
        with self._use() as connection:
            deleting = connection.execute("SELECT tenant, uuid FROM collections WHERE is_deleting").fetchall()
        for tenant, uuid_text in deleting:
            self._remove(tenant, uuid_text)
        folders = f"{of_tenant or '*'}/*"
        if not any(map(_is_unfinished, self.root.glob(folders))):
            return
        with self._writing() as connection:
            known = {row[0] for row in connection.execute("SELECT uuid FROM collections")}
            for folder in filter(_is_unfinished, self.root.glob(folders)):
                with suppress(OSError):  # the next connect tries again
                    if folder.name in known:
                        (folder / _UNFINISHED).unlink(missing_ok=True)
                    else:
                        _remove_unfinished(folder)

    def close(self) -> None:
        self._is_closed = True
        with suppress(NotReadyError), sqlite_errors(self._path), self._lock:
            self.rest()


def repair_catalog(root: str | os.PathLike[str]) -> list[str]:
    """Make the catalog of a database folder again from the collections in it; their names.

    The old catalog is kept beside it as ``catalog.sqlite.damaged``. Nobody else may have the folder open.

    Raises
    ------
    NotFoundError
        There is no collection in the folder.
    CorruptionError
        The catalog is made, but without collections that are too damaged to tell even their dimension.
    """
    folder = Path(root)
    if not any(folder.glob(f"*/*/{records.FILE_NAME}")):
        raise NotFoundError(f"no collection in {folder}")
    told = readable_collections(folder / FILE_NAME)
    with os_errors(f"cannot put {folder / FILE_NAME} aside"):
        for suffix in ("", "-wal", "-shm"):
            path = folder / f"{FILE_NAME}{suffix}"
            if path.exists():
                os.replace(path, folder / f"{FILE_NAME}.damaged{suffix}")
    catalog = Catalog(folder, read_only=False, told=told)
    try:
        lost = catalog.lost_collections()
        if lost:
            raise CorruptionError(
                f"made the catalog of {folder} again, but of {len(lost)} collections too little can be read "
                f"to enter them: {', '.join(problem.where for problem in lost)}"
            )
        return [config.name for _, config in catalog.all_live()]
    finally:
        catalog.close()


def _is_unfinished(folder: Path) -> bool:
    """Whether a creation was interrupted, after it had left its mark or before."""
    if not _UUID.fullmatch(folder.name):
        return False
    try:
        names = os.listdir(folder)
    except OSError:  # removed meanwhile, or no folder
        return False
    return not names or _UNFINISHED in names


def _remove_unfinished(folder: Path) -> None:
    """Remove a folder, its mark last: without it the rest would count as a collection."""
    for path in folder.iterdir():
        if path.name != _UNFINISHED:
            path.unlink()
    shutil.rmtree(folder)


def make_folder(folder: Path, tenant: str, config: Config) -> None:
    """The files of an empty collection, marked unfinished, on disk when this returns."""
    with os_errors(f"cannot create {folder}"):
        folder.mkdir(parents=True)
        try:
            (folder / _UNFINISHED).touch()
        except OSError:
            folder.rmdir()
            raise
    make_files(folder, tenant, config)
    with os_errors(f"cannot create {folder}"):
        for level in (folder, folder.parent, folder.parent.parent):
            sync_folder(level)


def _insert(connection: Any, tenant: str, config: Config) -> None:
    values = (config.uuid, tenant, config.name, config.dimension, config.metric, config.index_type)
    connection.execute("INSERT INTO collections VALUES(?, ?, ?, ?, ?, ?, 0)", values)


def _has_placements(connection: Any) -> bool:
    """Whether a collection was ever elsewhere."""
    wanted = "SELECT 1 FROM sqlite_schema WHERE name = 'placements'"
    return connection.execute(wanted).fetchone() is not None


def _placements(connection: Any) -> dict[str, str]:
    """The URL of each collection that is elsewhere, by its id."""
    if not _has_placements(connection):
        return {}
    return dict(connection.execute("SELECT uuid, url FROM placements WHERE NOT is_moving"))


def _check_live(connection: Any, config: Config) -> None:
    found = connection.execute("SELECT is_deleting FROM collections WHERE uuid = ?", (config.uuid,))
    if found.fetchone() != (0,):
        raise NotFoundError(f"collection {config.name!r} was deleted")


def _end_records(folder: Path, finish: Callable[[records.State], None]) -> None:
    """Have nobody read or write the records in a folder again, once ``finish`` is done with them."""
    opened = records.Records(folder, synchronous="FULL")
    try:
        with opened.write_transaction() as transaction:
            finish(transaction.state())
            transaction.set_meta("deleted", 1)
    finally:
        opened.close()


def _has_ended(folder: Path) -> bool:
    try:
        return bool(records.read_meta(folder).get("deleted"))
    except NotFoundError:
        return True


def _tell_other_processes(folder: Path) -> None:
    """Commit a mark that whoever has the collection open sees at its next call.

    Where that fails, the files are damaged, or another process that removes them was faster.
    """
    with suppress(FaissbaseError):
        opened = records.Records(folder, synchronous="NORMAL")
        try:
            with opened.write_transaction() as transaction:
                transaction.set_meta("deleted", 1)
        finally:
            opened.close()


def _adopt_collections(root: Path, draft: Path, told: dict[str, dict[str, Any]]) -> None:
    """Enter the collections that lie in the folder already, as when the catalog was lost.

    One that is too damaged to tell what it is, and of which the old catalog told nothing, is left out.
    """
    connection = sqlite.connect(draft)
    names: set[tuple[str, str]] = set()
    try:
        with sqlite_errors(draft):
            connection.execute("BEGIN")
            for file in sorted(root.glob(f"*/*/{records.FILE_NAME}")):
                facts = _facts(file.parent, told) if _is_collection(file.parent) else None
                if facts is not None and (facts[0], facts[1].name) not in names:
                    names.add((facts[0], facts[1].name))
                    _insert(connection, *facts)
            connection.execute("COMMIT")
    finally:
        connection.close()


def _is_collection(folder: Path) -> bool:
    """Whether a folder holds a collection that was finished and is not being deleted."""
    if not (folder / records.FILE_NAME).exists() or (folder / _UNFINISHED).exists():
        return False
    try:
        return not records.read_meta(folder).get("deleted")
    except NotFoundError:  # removed meanwhile
        return False
    except CorruptionError:
        return not damaged_meta(folder).get("deleted")


def _facts(folder: Path, told: dict[str, dict[str, Any]]) -> tuple[str, Config] | None:
    """Tenant and settings of the collection in a folder, as it tells them itself or the old catalog did."""
    try:
        facts = records.read_meta(folder)
    except NotFoundError:
        return None
    except CorruptionError:
        return _entry(folder, told.get(folder.name, {})) or _entry(folder, damaged_meta(folder))
    return _entry(folder, facts)


def _entry(folder: Path, facts: dict[str, Any]) -> tuple[str, Config] | None:
    """The catalog's entry from facts, unless they are damaged. Where a folder lies is what counts."""
    match facts:
        case {
            "name": str(name),
            "dimension": int(dimension),
            "metric": metric,
            "index_type": str(index_type),
        }:
            if 1 <= dimension <= MAX_DIMENSION and metric in METRICS:
                return folder.parent.name, Config(folder.name, name, dimension, metric, index_type)
    return None
