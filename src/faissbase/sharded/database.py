"""The datasets under a URL as a database: the interface of the folder, over object storage."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from faissbase.collection.folder import check_name, new_config
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    ConflictError,
    FaissbaseError,
    NotReadyError,
)
from faissbase.sharded.bucket import Bucket, open_bucket
from faissbase.sharded.cache import Cache
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import OpenGroup
from faissbase.types import Metric, is_name

REFRESH_S = 1.0
GroupsOf = Callable[[str], OpenGroup]


class ShardedDatabase:
    """The datasets under a URL; use it with ``with``, or `close` it. Thread-safe.

    Parameters
    ----------
    bucket : Bucket
    cache : Path
        A folder on a disk of this machine, with room for the shards that are opened.
    read_only : bool
    allow_partial : bool
        See `ShardedCollection`.
    memory_budget : int, optional
    refresh_s : float
        How often open collections look for a newer version, in seconds; 0 for never, then call `refresh`.
    groups : callable, optional
        From the name of a dataset to what opens its versions; in this process where nothing is said.
    """

    def __init__(
        self,
        bucket: Bucket,
        cache: Path,
        *,
        read_only: bool = False,
        allow_partial: bool = False,
        memory_budget: int | None = None,
        refresh_s: float = REFRESH_S,
        groups: GroupsOf | None = None,
    ) -> None:
        self.bucket = bucket
        self.url = bucket.url
        self.read_only = read_only
        self._cache = cache
        self._allow_partial = allow_partial
        self._memory_budget = memory_budget
        self._lock = threading.Lock()
        self._open: dict[str, ShardedCollection] = {}
        self._closing = threading.Event()
        self._refresh_s = refresh_s
        self._groups = groups
        self._refresher: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<faissbase database at {self.url}>"

    def __enter__(self) -> ShardedDatabase:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> ShardedCollection:
        """Make an empty collection; see `Database.create_collection`."""
        self._check_writable()
        config = new_config(name, dimension, metric, index_type)
        Dataset(self.bucket, name).create(config.dimension, config.metric, config.index_type)
        return self.get_collection(name)

    def get_collection(self, name: str) -> ShardedCollection:
        """The collection of that name, or `NotFoundError`."""
        check_name(name)
        with self._lock:
            if self._closing.is_set():
                raise NotReadyError(f"the database at {self.url} is closed: connect() again")
            found = self._open.get(name)
            if found is not None:
                found.refresh()
                return found
            dataset = Dataset(self.bucket, name)
            cache = Cache(self._cache / dataset.newest().uuid, self.bucket)
            opened = ShardedCollection(
                dataset,
                cache,
                read_only=self.read_only,
                allow_partial=self._allow_partial,
                memory_budget=self._memory_budget,
                groups=None if self._groups is None else self._groups(name),
            )
            self._open[name] = opened
            self._start_refreshing()
            return opened

    def get_or_create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> ShardedCollection:
        """The collection of that name, made where there is none; `ConflictError` where it is another kind."""
        config = new_config(name, dimension, metric, index_type)
        wanted = (config.dimension, config.metric, config.index_type)
        try:
            found = self.create_collection(name, dimension, metric, index_type)
        except AlreadyExistsError:
            found = self.get_collection(name)
        there = (found.dimension, found.metric, found.index_type)
        if there != wanted:
            raise ConflictError(f"collection {name!r} is {there}, not {wanted}")
        return found

    def list_collections(self) -> list[str]:
        """The names there are, sorted."""
        names = {stored.key.partition("/")[0] for stored in self.bucket.list("")}
        return sorted(name for name in names if is_name(name) and self._is_there(name))

    def _is_there(self, name: str) -> bool:
        manifest = Dataset(self.bucket, name).latest()
        return manifest is not None and not manifest.is_deleted

    def delete_collection(self, name: str) -> None:
        """Delete a collection and all it holds. `NotFoundError` where there is none."""
        self._check_writable()
        check_name(name)
        Dataset(self.bucket, name).delete()
        with self._lock:
            opened = self._open.pop(name, None)
        if opened is not None:
            opened.close()

    def refresh(self) -> None:
        """Have every open collection switch to its newest version now."""
        for collection in self._opened():
            collection.refresh()

    def close(self) -> None:
        """Close what is open."""
        self._closing.set()
        with self._lock:
            opened, self._open = self._open, {}
            refresher = self._refresher
        if refresher is not None:
            refresher.join()
        for collection in opened.values():
            collection.close()

    def _opened(self) -> list[ShardedCollection]:
        with self._lock:
            return list(self._open.values())

    def _start_refreshing(self) -> None:
        if self._refresh_s > 0 and self._refresher is None:
            self._refresher = threading.Thread(
                target=self._refresh_often, name="faissbase-refresh", daemon=True
            )
            self._refresher.start()

    def _refresh_often(self) -> None:
        while not self._closing.wait(self._refresh_s):
            for collection in self._opened():
                with suppress(FaissbaseError):  # what is open goes on serving; the next round tries again
                    collection.refresh()

    def _check_writable(self) -> None:
        if self.read_only:
            raise AccessError(f"the database at {self.url} is open read-only")


def connect(
    url: str,
    cache: Path,
    *,
    storage_options: Mapping[str, Any] | None = None,
    read_only: bool = False,
    allow_partial: bool = False,
    memory_budget: int | None = None,
    refresh_s: float = REFRESH_S,
) -> ShardedDatabase:
    """The datasets under a URL of object storage; see ``faissbase.connect``."""
    return ShardedDatabase(
        open_bucket(url, storage_options),
        cache,
        read_only=read_only,
        allow_partial=allow_partial,
        memory_budget=memory_budget,
        refresh_s=refresh_s,
    )
