"""A folder of collections. Composes catalog and collections; checks names and settings."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.collection import LocalCollection
from faissbase.collection.folder import check_name, new_config
from faissbase.collection.inputs import check_count
from faissbase.collection.stats import Served
from faissbase.collection.store import Config
from faissbase.database.background import Background
from faissbase.database.backup import open_backup, write_backup
from faissbase.database.catalog import FILE_NAME, Catalog
from faissbase.database.opened import Opened
from faissbase.database.placements import Places, elsewhere
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
)
from faissbase.storage.files import os_errors
from faissbase.storage.keys import FILE_NAME as KEYS_FILE
from faissbase.storage.records import State
from faissbase.storage.totals import Tally, Totals, count_stored
from faissbase.types import (
    DURABILITIES,
    Durability,
    Metric,
    OpenHere,
    Placement,
    Problem,
)

_opened = Opened()
_tally = Tally()

DEFAULT_TENANT = "default"
_MEMORY_PREFIX = "faissbase-memory-"
_LOCK_NAME = ".lock"


def connect(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    durability: Durability = "full",
    memory_budget: int | None = None,
    tenant: str = DEFAULT_TENANT,
    places: Places | None = None,
) -> Database:
    """Open a folder as a database, making it where there is none; see ``faissbase.connect``."""
    if durability not in DURABILITIES:
        raise InvalidInputError(f"durability must be one of {', '.join(DURABILITIES)}, got {durability!r}")
    budget = None if memory_budget is None else check_count(memory_budget, "memory_budget")
    text = os.fspath(path)
    if "://" in text:
        raise InvalidInputError(f"{text!r} is no folder")
    if text == ":memory:":
        if read_only:
            raise InvalidInputError("':memory:' starts empty: read_only makes no sense with it")
        folder, lock = _temporary_folder()
        return Database(
            folder, read_only=False, durability="relaxed", memory_budget=budget, temporary_lock=lock
        )
    if not text:
        raise InvalidInputError("a database needs a folder of its own, got '' for its path")
    root = Path(text)
    _check_root(root, read_only)
    return Database(
        root.absolute(),  # the process may change its folder, and what is open must not move
        read_only=read_only,
        durability=durability,
        tenant=tenant,
        memory_budget=budget,
        places=places,
    )


def _check_root(root: Path, read_only: bool) -> None:
    with os_errors(f"cannot open {root}"):
        if root.exists() and not root.is_dir():
            raise InvalidInputError(f"{root} is a file, a database is a folder")
        if (root / FILE_NAME).exists():
            return
    if read_only:
        is_lost = any(root.glob("*/*/records.sqlite"))
        advice = ": its catalog is missing, open it once for writing to make it again" if is_lost else ""
        raise NotFoundError(f"no database at {root}{advice}")
    with os_errors(f"cannot create {root}"):
        root.mkdir(parents=True, exist_ok=True)
        strangers = [entry.name for entry in root.iterdir() if not _is_ours(entry)]
    if strangers:
        raise InvalidInputError(
            f"{root} is no database and holds other things ({strangers[0]!r}, ...): give it its own folder"
        )


def _is_ours(entry: Path) -> bool:
    if entry.is_dir() and not entry.name.startswith("."):
        inside = list(entry.iterdir())
        return not inside or any((folder / "records.sqlite").exists() for folder in inside)
    return entry.name.startswith((FILE_NAME, KEYS_FILE, "."))


def _temporary_folder() -> tuple[Path, int]:
    """A new folder, and the file descriptor of its lock; folders whose lock nobody holds are removed."""
    base = Path(tempfile.gettempdir())
    for leftover in base.glob(f"{_MEMORY_PREFIX}*"):
        fd = _lock_of(leftover)
        if fd is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(fd)
    draft = Path(tempfile.mkdtemp(prefix=".faissbase-"))
    fd = os.open(draft / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    root = base / f"{_MEMORY_PREFIX}{draft.name.removeprefix('.faissbase-')}"  # named once it is locked
    draft.rename(root)
    return root, fd


def _lock_of(folder: Path) -> int | None:
    """The lock of a temporary folder, held, if its owner is gone; a folder that has none is left alone."""
    try:
        fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _remove_own(root: Path, lock: int, process: int) -> None:
    """Remove a temporary folder, unless this is a fork of the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(root, ignore_errors=True)
        os.close(lock)


class Database(OpenHere):
    """The collections of one folder and tenant. Made by `connect`; use it with ``with`` or `close` it."""

    def __init__(
        self,
        root: Path,
        *,
        read_only: bool,
        durability: Durability,
        tenant: str = DEFAULT_TENANT,
        memory_budget: int | None = None,
        temporary_lock: int | None = None,
        bounds: Bounds = UNBOUNDED,
        places: Places | None = None,
    ) -> None:
        self.path = root
        self.tenant = check_name(tenant, "tenant")
        self.read_only = read_only
        self._durability: Durability = durability
        self._memory_budget = memory_budget
        self._bounds = bounds
        self._places = places
        self._background = Background()
        # A server opens one for each tenant: what others have left is seen to when it starts.
        sought = None if tenant == DEFAULT_TENANT else tenant
        self._catalog = Catalog(root, read_only=read_only, tenant=sought)
        self._lock = threading.Lock()
        self._collections: dict[str, LocalCollection] = {}
        self._is_closed = False
        if temporary_lock is not None:
            self._remover = weakref.finalize(self, _remove_own, root, temporary_lock, os.getpid())

    def __repr__(self) -> str:
        return f"<faissbase database at {self.path}>"

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> LocalCollection:
        """Make an empty collection.

        Parameters
        ----------
        name : str
            1 to 128 letters, digits, ``.``, ``_`` or ``-``, starting with a letter or digit. Capitals count.
        dimension : int
            1 to 65,535.
        metric : {"cosine", "l2", "ip"}
            ``l2`` is the squared distance, as FAISS has it.
        index_type : str
            ``"auto"`` (exact while that is fastest, then an index that is built in the background), a short
            name such as ``"HNSW"`` or ``"IVF_PQ"``, a FAISS class name, or a factory string: see the README.

        Raises
        ------
        AlreadyExistsError
            The name is taken.
        """
        self._check_writable()
        config = new_config(name, dimension, metric, index_type)
        self._catalog.create(self.tenant, config)
        return self._collection(config)

    def get_collection(self, name: str) -> LocalCollection:
        """The collection of that name, or `NotFoundError`, which names those there are."""
        self._check_open()
        config = self._catalog.find(self.tenant, check_name(name))
        if config is None:
            names = ", ".join(self.list_collections()[:20]) or "none"
            lost = "".join(f". {problem.message}" for problem in self._catalog.lost_collections()[:1])
            raise NotFoundError(f"no collection {name!r}; there are: {names}{lost}")
        return self._collection(config)

    def get_or_create_collection(
        self, name: str, dimension: int, metric: Metric = "cosine", index_type: str = "auto"
    ) -> LocalCollection:
        """The collection of that name, made where there is none.

        Raises
        ------
        ConflictError
            It exists with another dimension, metric or index type.
        """
        self._check_open()
        wanted = new_config(name, dimension, metric, index_type)
        found = self._catalog.find(self.tenant, name)
        if found is None:
            try:
                return self.create_collection(name, dimension, metric, index_type)
            except AlreadyExistsError:  # another process was faster
                return self.get_or_create_collection(name, dimension, metric, index_type)
        for what in ("dimension", "metric", "index_type"):
            has, asked = getattr(found, what), getattr(wanted, what)
            if has != asked:
                raise ConflictError(f"collection {name!r} exists with {what}={has!r}, not {asked!r}")
        return self._collection(found)

    def list_collections(self) -> list[str]:
        """The names there are, sorted."""
        self._check_open()
        return self._catalog.names(self.tenant)

    def describe(self, name_or_id: str) -> Config:
        """What a collection is, found by its name or by its id, which comes first; or `NotFoundError`."""
        self._check_open()
        found = self._catalog.find_by_id(self.tenant, name_or_id) or self._catalog.find(
            self.tenant, name_or_id
        )
        if found is None:
            raise NotFoundError(f"no index {name_or_id!r}")
        return found

    def describe_all(self) -> list[Config]:
        """What each collection is, by name."""
        self._check_open()
        return self._catalog.configs(self.tenant)

    def totals(self, config: Config, *, is_fresh: bool = False) -> Totals:
        """What a collection holds; its indexes are not opened for it. See `Tally.of`."""
        self._check_open()
        url = self._catalog.placement(config)
        if url is not None:
            return self._elsewhere(config, url).totals(url)
        return _tally.of(self._catalog.folder(self.tenant, config), is_fresh=is_fresh)

    def count_stored(self, config: Config, ids: list[str]) -> int:
        """How many of these ids a collection holds."""
        self._check_open()
        url = self._catalog.placement(config)
        if url is not None:
            return self._elsewhere(config, url).count_stored(url, ids)
        return count_stored(self._catalog.folder(self.tenant, config), ids)

    def placement(self, config: Config) -> Placement:
        """Where the records of a collection are: ``"folder"`` or ``"sharded"``."""
        self._check_open()
        return "folder" if self._catalog.placement(config) is None else "sharded"

    def url(self, config: Config) -> str | None:
        """Where the records of a collection are; None of one in this folder."""
        self._check_open()
        return self._catalog.placement(config)

    def place(self, config: Config, url: str, finish: Callable[[State], None]) -> None:
        """Have the records of a collection be at a URL from now on; see `Catalog.place`."""
        self._check_writable()
        self._catalog.place(self.tenant, config, url, finish)
        self._forget(config)

    def bring(self, config: Config, folder: Path) -> None:
        """Take the finished files of a collection into this folder; see `Catalog.bring`."""
        self._check_writable()
        self._catalog.bring(self.tenant, config, folder)

    def folder(self, config: Config) -> Path:
        """Where the files of a collection are that is in this folder."""
        return self._catalog.folder(self.tenant, config)

    def served(self, config: Config) -> Served | None:
        """What is open of a collection; None where nothing is."""
        url = self._catalog.placement(config)
        if url is not None:
            return self._elsewhere(config, url).served(url)
        with self._lock:
            found = self._collections.get(config.uuid)
        if found is None or not found.is_open:
            return None
        stats = found.stats()
        return Served(stats.memory_bytes, recall=stats.recall)

    def oldest_s(self) -> float | None:
        """For how long news of collections that are elsewhere may have been missed; None where none is."""
        return None if self._places is None else self._places.oldest_s()

    def open(self, config: Config) -> LocalCollection:
        """The collection that `describe` has found."""
        return self._collection(config)

    def delete_collection(self, name: str) -> None:
        """Delete a collection and all its files. `NotFoundError` where there is none."""
        self._check_writable()
        found = self._catalog.find(self.tenant, check_name(name))
        url = None if found is None else self._catalog.placement(found)
        if found is not None and url is not None:
            self._elsewhere(found, url).delete(url)
        self._forget(self._catalog.delete(self.tenant, name), is_deleted=True)

    def _forget(self, config: Config, *, is_deleted: bool = False) -> None:
        with self._lock:
            collection = self._collections.pop(config.uuid, None)
        if collection is not None:
            (collection.close_deleted if is_deleted else collection.close)()

    def _elsewhere(self, config: Config, url: str) -> Places:
        """What opens a collection that is not in this folder."""
        if self._places is None:
            raise elsewhere(config.name, url)
        return self._places

    def verify_catalog(self) -> list[Problem]:
        """What is wrong with the list of collections itself; see ``verify`` of each for their contents.

        Finds damaged pages, entries whose folder is missing, and collections that the catalog does not know:
        `faissbase.repair_catalog` enters those again.
        """
        self._check_open()
        return self._catalog.problems()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write every collection to one file, each as of one moment, while others go on writing.

        Raises
        ------
        AlreadyExistsError
            ``path`` exists.
        """
        self._check_open()
        write_backup(self._catalog, Path(path))

    def open_backup(self) -> IO[bytes]:
        """A backup of this tenant alone, as an open file that is gone when it is closed."""
        self._check_open()
        return open_backup(self._catalog, self.tenant)

    def close(self) -> None:
        """Finish what runs and close all files. A ``":memory:"`` database is gone then."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            collections, self._collections = list(self._collections.values()), {}
        self._background.close()
        for collection in collections:
            collection.close()
        self._catalog.close()
        if self._places is not None:
            self._places.close()
        if hasattr(self, "_remover"):
            self._remover()

    def _collection(self, config: Config) -> LocalCollection:
        url = self._catalog.placement(config)
        if url is not None:
            self._forget(config)  # another process may have moved it while it was open here
            opened: LocalCollection = self._elsewhere(config, url).open(url, read_only=self.read_only)
            return opened  # it has the same interface, and its class is not known here
        with self._lock:
            if config.uuid not in self._collections:
                self._collections[config.uuid] = LocalCollection(
                    self._catalog.folder(self.tenant, config),
                    config,
                    read_only=self.read_only,
                    durability=self._durability,
                    memory_budget=self._memory_budget,
                    on_open=self._note_open,
                    on_work=self._background.submit,
                    bounds=self._bounds,
                )
            return self._collections[config.uuid]

    def _note_open(self, collection: LocalCollection) -> None:
        """A method, so that a collection that is held keeps its database."""
        _opened.note(collection)

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotReadyError("the database is closed: connect() again")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise AccessError(f"{self.path} is open read-only")
