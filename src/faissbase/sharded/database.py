"""The datasets under a URL as a database: the interface of the folder, over object storage."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.folder import check_name, new_config
from faissbase.collection.stats import Served
from faissbase.collection.store import Config
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    ConflictError,
    FaissbaseError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
)
from faissbase.sharded.bucket import Bucket, existing_bucket, open_bucket
from faissbase.sharded.cache import Cache
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import OpenGroup
from faissbase.sharded.manifest import Manifest
from faissbase.storage.totals import Totals
from faissbase.types import Metric, OpenHere, Placement, is_name

REFRESH_S = 1.0
GroupsOf = Callable[[str], OpenGroup]
_LIKE_AN_ID = re.compile("[0-9a-f]{32}")
_NO_BACKUP = (
    "the collections at {url} are shards, and a backup is of a folder: copy the bucket, whose objects never "
    "change, or bring a collection into a folder with faissbase demote"
)


class ShardedDatabase(OpenHere):
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
    bounds : Bounds
    clock : callable
        Seconds that only rise, by which the age of what is served is told.
    groups : callable, optional
        From the name of a dataset to what opens its versions; in this process where nothing is said.
    """

    def __init__(  # noqa: PLR0913  # each is a setting of its own, all by name
        self,
        bucket: Bucket,
        cache: Path,
        *,
        read_only: bool = False,
        allow_partial: bool = False,
        memory_budget: int | None = None,
        refresh_s: float = REFRESH_S,
        bounds: Bounds = UNBOUNDED,
        clock: Callable[[], float] = time.monotonic,
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
        self._bounds = bounds
        self._clock = clock
        self._seen_at_s: dict[str, float] = {}
        self._opening: dict[str, threading.Lock] = {}

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
        """The collection of that name at its newest version, or `NotFoundError`."""
        check_name(name)
        found = self._known(name)
        if found is None:
            return self._opened_now(name)
        try:
            self._refresh(name, found)
        except NotFoundError:
            if not found.is_gone:
                raise
            return self._opened_now(name)
        return found

    def _known(self, name: str) -> ShardedCollection | None:
        """The collection of that name, where it is open."""
        with self._lock:
            if self._closing.is_set():
                raise NotReadyError(f"the database at {self.url} is closed: connect() again")
            return self._open.get(name)

    def _opened_now(self, name: str) -> ShardedCollection:
        """Open a collection. Those of other names are not waited for."""
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:
            found = self._known(name)
            if found is None:
                seen_at_s = self._clock()
                found = self._made(name)
                with self._lock:
                    self._open[name], self._seen_at_s[name] = found, seen_at_s
                    self._start_refreshing()
        return found

    def _made(self, name: str) -> ShardedCollection:
        dataset = Dataset(self.bucket, name)
        manifest = dataset.newest()
        return ShardedCollection(
            dataset,
            Cache(self._cache / manifest.uuid, self.bucket),
            read_only=self.read_only,
            allow_partial=self._allow_partial,
            memory_budget=self._memory_budget,
            bounds=self._bounds,
            groups=None if self._groups is None else self._groups(name),
            manifest=manifest,
        )

    def get_or_create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> ShardedCollection:
        """The collection of that name, made where there is none; `ConflictError` where it is another kind."""
        config = new_config(name, dimension, metric, index_type)
        try:
            found = self.create_collection(name, dimension, metric, index_type)
        except AlreadyExistsError:
            found = self.get_collection(name)
        for what in ("dimension", "metric", "index_type"):
            has, asked = getattr(found, what), getattr(config, what)
            if has != asked:
                raise ConflictError(f"collection {name!r} exists with {what}={has!r}, not {asked!r}")
        return found

    def list_collections(self) -> list[str]:
        """The names there are, sorted."""
        return [manifest.name for manifest in self._manifests()]

    def _manifests(self) -> list[Manifest]:
        """The newest version of each dataset, by name."""
        names = filter(is_name, self.bucket.folders())
        found = (Dataset(self.bucket, name).latest() for name in names)
        return [manifest for manifest in found if manifest is not None and not manifest.is_deleted]

    # ---- as servers see it -----------------------------------------------------------------------

    def describe(self, name_or_id: str) -> Config:
        """What a collection is, found by its name or by its id, which comes first; or `NotFoundError`."""
        for collection in self._opened().values():
            if name_or_id == collection.config.uuid:
                return collection.config
        if _LIKE_AN_ID.fullmatch(name_or_id):
            for config in self.describe_all():
                if config.uuid == name_or_id:
                    return config
        known = self._known(name_or_id)
        if known is not None and not known.is_gone:
            return known.config
        manifest = Dataset(self.bucket, name_or_id).latest() if is_name(name_or_id) else None
        if manifest is None or manifest.is_deleted:
            raise NotFoundError(f"no index {name_or_id!r}")
        return manifest.config

    def describe_all(self) -> list[Config]:
        """What each collection is, by name."""
        return [manifest.config for manifest in self._manifests()]

    def placement(self, config: Config) -> Placement:
        """Where the records of a collection are: ``"folder"`` or ``"sharded"``."""
        return "sharded"

    def open(self, config: Config) -> ShardedCollection:
        """The collection that `describe` has found."""
        found = self._known(config.name)
        return self._opened_now(config.name) if found is None or found.is_gone else found

    def totals(self, config: Config, *, is_fresh: bool = False) -> Totals:
        """What a collection holds, by its manifest: no shard is opened for it."""
        known = self._known(config.name)
        is_known = known is not None and not known.is_gone
        manifest = known.manifest if known and is_known else Dataset(self.bucket, config.name).newest()
        return manifest.totals

    def count_stored(self, config: Config, ids: list[str]) -> int:
        """How many of these ids a collection holds."""
        return len(self.open(config).get(ids)) if ids else 0

    def served(self, config: Config) -> Served | None:
        """Which version of a collection is answered from, where it is open."""
        found = self._known(config.name)
        if found is None or found.is_gone:
            return None
        age_s = self._clock() - self._seen_at_s.get(config.name, self._clock())
        stats = found.stats()
        return Served(stats.memory_bytes, found.version, max(0.0, age_s), stats.measured_recall)

    def oldest_s(self) -> float | None:
        """How long ago it was that the store was asked for news of every open collection; None of none."""
        seen = [at_s for name, at_s in list(self._seen_at_s.items()) if name in self._opened()]
        return max(0.0, self._clock() - min(seen)) if seen else None

    def open_backup(self) -> IO[bytes]:
        """Refused, with what to do instead."""
        raise InvalidInputError(_NO_BACKUP.format(url=self.url))

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Refused, with what to do instead."""
        raise InvalidInputError(_NO_BACKUP.format(url=self.url))

    def delete_collection(self, name: str) -> None:
        """Delete a collection and all it holds. `NotFoundError` where there is none."""
        self._check_writable()
        check_name(name)
        Dataset(self.bucket, name).delete()
        opened = self._opened().get(name)
        if opened is not None:
            with suppress(NotFoundError):
                self._refresh(name, opened)

    def refresh(self) -> None:
        """Have every open collection switch to its newest version now."""
        for name, collection in self._opened().items():
            self._refresh(name, collection)

    def _refresh(self, name: str, collection: ShardedCollection) -> None:
        """Switch to the newest version; a collection that is gone is closed."""
        seen_at_s = self._clock()
        try:
            collection.refresh()
        except NotFoundError:
            if collection.is_gone:
                self._forget(name, collection)
            raise
        self._seen_at_s[name] = seen_at_s

    def _forget(self, name: str, collection: ShardedCollection) -> None:
        with self._lock:
            if self._open.get(name) is collection:
                del self._open[name]
                self._seen_at_s.pop(name, None)
        collection.close()

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

    def _opened(self) -> dict[str, ShardedCollection]:
        with self._lock:
            return dict(self._open)

    def _start_refreshing(self) -> None:
        if self._refresh_s > 0 and self._refresher is None:
            self._refresher = threading.Thread(
                target=self._refresh_often, name="faissbase-refresh", daemon=True
            )
            self._refresher.start()

    def _refresh_often(self) -> None:
        while not self._closing.wait(self._refresh_s):
            for name, collection in self._opened().items():
                with suppress(FaissbaseError):  # what is open goes on serving; the next round tries again
                    self._refresh(name, collection)

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
        (existing_bucket if read_only else open_bucket)(url, storage_options),
        cache,
        read_only=read_only,
        allow_partial=allow_partial,
        memory_budget=memory_budget,
        refresh_s=refresh_s,
    )
