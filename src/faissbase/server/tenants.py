"""What the server holds as tenants see it: each its own collections, and nothing of the others."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from faissbase.collection.collection import LocalCollection
from faissbase.collection.store import Config
from faissbase.dropin.facts import FOLDER
from faissbase.errors import (
    ConflictError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.server.claims import Claims
from faissbase.server.databases import OpenDatabase, ServedCollection, ServedDatabase
from faissbase.server.keys import Key
from faissbase.server.quotas import Usage
from faissbase.storage.files import HeldFolder
from faissbase.types import RepairReport

_KNOWN = 4096
_SURE_S = 0.05  # a look costs as much as a tenth of a small search


class Tenants:
    """A database for each tenant, opened when first used. Thread-safe.

    Parameters
    ----------
    folder : Path
        The data folder, with the keys.
    opener : callable
        From a tenant to its database.
    url : str, optional
        Of the object storage that the databases are in, where it is not the folder.
    """

    def __init__(self, folder: Path, opener: OpenDatabase, url: str | None = None) -> None:
        self.folder = folder
        self.url = url
        self.claims = Claims()
        self._held = HeldFolder(folder)
        self._sure_until_s = 0.0
        self._opener = opener
        self._lock = threading.Lock()
        self._databases: dict[str, ServedDatabase] = {}
        self._usages: dict[str, Usage] = {}
        self._known: dict[tuple[str, str], ServedCollection] = {}
        self._under_repair: frozenset[str] = frozenset()
        self._is_closed = False

    @property
    def has_faiss(self) -> bool:
        """Whether FAISS's own indexes are kept here too, which are files of the folder."""
        return self.url is None

    def is_folder_there(self) -> bool:
        """Whether the data folder is where it was; what is open would be written to wherever it is now."""
        return self._held.is_there()

    def require_folder(self, *, is_fresh: bool) -> None:
        """Refuse where `is_folder_there` is not so; without ``is_fresh`` what was so a moment ago counts."""
        now_s = time.monotonic()
        if not is_fresh and now_s < self._sure_until_s:
            return
        self._sure_until_s = now_s + _SURE_S
        if not self._held.is_there():
            self._sure_until_s = 0.0
            raise UnavailableError(
                "the data folder is gone: it was moved or removed while the server runs, or another is in "
                "its place. Put it back, or restart the server"
            )

    def tidy(self, text: str) -> str:
        """A text without where the data are: that is nobody's business."""
        if self.url is not None:
            text = text.replace(self.url, "the store")
        return without_folder(text, str(self.folder))

    def age_s(self) -> float | None:
        """For how long news of what is served from object storage may have been missed; None of nothing."""
        with self._lock:
            databases = list(self._databases.values())
        ages = [age for age in (database.oldest_s() for database in databases) if age is not None]
        return max(ages, default=None)

    def database(self, tenant: str) -> ServedDatabase:
        found = self._databases.get(tenant)
        if found is not None:
            return found
        with self._lock:
            if self._is_closed:
                raise NotReadyError("the server is stopping")
            if tenant not in self._databases:
                self._databases[tenant] = self._opener(tenant)
            return self._databases[tenant]

    def usage(self, tenant: str) -> Usage:
        """What the tenant holds, against its quotas."""
        found = self._usages.get(tenant)
        if found is not None:
            return found
        faiss = self.folder / tenant / FOLDER if self.has_faiss else None
        return self._usages.setdefault(tenant, Usage(self.database(tenant), faiss))

    def find(self, key: Key, index: str) -> Config:
        """The index of that id or name which the key is good for.

        Raises
        ------
        NotFoundError
            There is none, it is another tenant's, or the key is not good for it: all three read the same.
        """
        config = self.database(key.tenant).describe(index)
        if not key.may_use((config.name, config.uuid)):
            raise NotFoundError(f"no index {index!r}")
        return config

    def collection(self, key: Key, index: str) -> ServedCollection:
        """`find`, open for use. What was found before and is there yet is not looked up again.

        Raises
        ------
        UnavailableError
            It is being repaired: to wait for that would hold up others.
        """
        known = self._known.get((key.tenant, index))
        if known is not None and key.indexes is None and not self._under_repair and is_there(known):
            return known
        config = self.find(key, index)
        if config.uuid in self._under_repair:
            raise UnavailableError(f"index {index!r} is being repaired: try again once that is done")
        found: ServedCollection = self.database(key.tenant).open(config)
        if len(self._known) >= _KNOWN:
            self._known = {}
        self._known[key.tenant, index] = found
        return found

    def repair(self, key: Key, index: str) -> RepairReport:
        """Make a damaged index whole again out of what is sound; it answers nobody meanwhile.

        Raises
        ------
        ConflictError
            It is being repaired already, or another process has it open.
        InvalidInputError
            It is kept as shards, which are never written to.
        """
        config = self.find(key, index)
        found = self.database(key.tenant).open(config)
        if not isinstance(found, LocalCollection):
            raise InvalidInputError(
                f"index {index!r} is kept as shards, which are never written to: build it anew"
            )
        with self._lock:
            if config.uuid in self._under_repair:
                raise ConflictError(f"index {index!r} is being repaired already")
            self._under_repair |= {config.uuid}
        try:
            return found.repair()
        finally:
            with self._lock:
                self._under_repair -= {config.uuid}

    def close(self) -> None:
        """Finish writes, checkpoint and close all files."""
        with self._lock:
            self._is_closed = True
            databases, self._databases = list(self._databases.values()), {}
        for database in databases:
            database.close()
        self._held.close()


def without_folder(text: str, folder: str) -> str:
    """``text`` with paths in the data folder told from there."""
    return text.replace(f"{folder}/", "").replace(folder, "the data folder")


def is_there(collection: ServedCollection) -> bool:
    """Whether nobody has deleted a collection, which it notices by a look at shared memory."""
    try:
        return len(collection) >= 0
    except (NotFoundError, NotReadyError):
        return False
    except FaissbaseError:  # damaged: whatever it is asked for tells
        return True
