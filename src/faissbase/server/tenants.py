"""The data folder as tenants see it: each its own collections, and nothing of the others."""

from __future__ import annotations

import threading
from pathlib import Path

from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.collection import LocalCollection
from faissbase.collection.store import Config
from faissbase.database.database import Database
from faissbase.errors import FaissbaseError, NotFoundError, NotReadyError
from faissbase.server.claims import Claims
from faissbase.server.keys import Key
from faissbase.server.quotas import Usage
from faissbase.types import Durability

_KNOWN = 4096


class Tenants:
    """A `Database` for each tenant, opened when first used. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        *,
        durability: Durability,
        memory_budget: int | None,
        bounds: Bounds = UNBOUNDED,
    ) -> None:
        self.folder = folder
        self.claims = Claims()
        self._durability: Durability = durability
        self._memory_budget = memory_budget
        self._bounds = bounds
        self._lock = threading.Lock()
        self._databases: dict[str, Database] = {}
        self._usages: dict[str, Usage] = {}
        self._known: dict[tuple[str, str], LocalCollection] = {}
        self._is_closed = False

    def database(self, tenant: str) -> Database:
        found = self._databases.get(tenant)
        if found is not None:
            return found
        with self._lock:
            if self._is_closed:
                raise NotReadyError("the server is stopping")
            if tenant not in self._databases:
                self._databases[tenant] = Database(
                    self.folder,
                    read_only=False,
                    durability=self._durability,
                    tenant=tenant,
                    memory_budget=self._memory_budget,
                    bounds=self._bounds,
                )
            return self._databases[tenant]

    def usage(self, tenant: str) -> Usage:
        """What the tenant holds, against its quotas."""
        found = self._usages.get(tenant)
        return found or self._usages.setdefault(tenant, Usage(self.database(tenant)))

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

    def collection(self, key: Key, index: str) -> LocalCollection:
        """`find`, open for use. What was found before and is there yet is not looked up again."""
        known = self._known.get((key.tenant, index))
        if known is not None and key.indexes is None and _is_there(known):
            return known
        found = self.database(key.tenant).open(self.find(key, index))
        if len(self._known) >= _KNOWN:
            self._known = {}
        self._known[key.tenant, index] = found
        return found

    def close(self) -> None:
        """Finish writes, checkpoint and close all files."""
        with self._lock:
            self._is_closed = True
            databases, self._databases = list(self._databases.values()), {}
        for database in databases:
            database.close()


def _is_there(collection: LocalCollection) -> bool:
    """Whether nobody has deleted a collection, which it notices by a look at shared memory."""
    try:
        return len(collection) >= 0
    except (NotFoundError, NotReadyError):
        return False
    except FaissbaseError:  # damaged: whatever it is asked for tells
        return True
