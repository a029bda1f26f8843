"""Objects under a URL: read, written once, listed. Knows keys and bytes: no manifests, no shards.

Imports obstore (extra ``scale``), which speaks to folders, S3, GCS and Azure. Keys are relative to the URL.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from xxhash import xxh3_128

from faissbase.errors import (
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.sharded.failures import reason, store_errors
from faissbase.sharded.ranges import PIECE_BYTES, copy_to
from faissbase.storage.files import os_errors, sync_data, sync_folder

SCHEMES = ("file", "memory", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss")
_PIECE_BYTES = 8 << 20
PROBE_FOLDER = "probes"
_LINK_TRIES = 5
_RETRIED = timedelta(minutes=1)  # obstore's own three minutes are long to wait for a store that is silent
_LASTING_PARTS = 2  # <dataset>/shards stays where it is empty, for others will need it again


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as a listing tells it."""

    key: str
    size_bytes: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class File:
    """An object that holds a file, and how to tell that it came back whole.

    Attributes
    ----------
    path : str
        The file's place within what it belongs to, as ``"segments/0.a.faiss"``.
    key : str
        Where the object is in the bucket.
    size_bytes : int
    checksum : str
        XXH3 of 128 bits, in hexadecimal digits.
    """

    path: str
    key: str
    size_bytes: int
    checksum: str


class Bucket(Protocol):
    """What the shards need of a store. Every method raises `UnavailableError` where the store fails."""

    @property
    def url(self) -> str: ...

    def get(self, key: str) -> bytes:
        """The whole object, or `NotFoundError`."""
        ...

    def create(self, key: str, content: bytes) -> bool:
        """Write an object that must not be there yet; False where it is. Durable once it returns."""
        ...

    def list(self, prefix: str, after: str | None = None) -> Iterator[Stored]:
        """The objects whose keys begin with the folder ``prefix``, those behind ``after`` alone."""
        ...

    def folders(self) -> tuple[str, ...]:
        """The first parts of all keys, sorted; found without looking at every key."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are gone already are passed over."""
        ...

    def upload(self, source: Path, path: str, key: str) -> File:
        """Store a finished file under a key that was never used; durable once it returns."""
        ...

    def download(self, file: File, target: Path) -> None:
        """Bring the object of a file to ``target``, checked; `CorruptionError` where it is another."""
        ...

    @property
    def is_here(self) -> bool:
        """Whether it is a folder of this machine, whose objects need not be fetched."""
        ...

    def size(self, key: str) -> int:
        """How many bytes an object has, or `NotFoundError`."""
        ...

    def read(self, key: str, start: int, size_bytes: int) -> bytes:
        """A part of an object, unchecked; fewer bytes where the store brings fewer."""
        ...


def is_url(path: str) -> bool:
    """Whether ``connect`` finds a bucket there, and not a server or a folder of a database."""
    return urlsplit(path).scheme in SCHEMES


def open_bucket(url: str, options: Mapping[str, Any] | None = None) -> ObjectBucket:
    """The bucket at a URL: ``s3://bucket/prefix``, ``gs://``, ``az://``, ``file:///folder`` or a folder.

    Parameters
    ----------
    url : str
    options : dict, optional
        What the store needs to know, by the names of its own variables in lower case, as
        ``{"aws_endpoint": "http://...", "aws_access_key_id": ...}``; those of the environment otherwise.

    Raises
    ------
    InvalidInputError
        No such kind of store.
    NotReadyError
        The extra is not installed.
    """
    try:
        import obstore  # noqa: F401
    except ImportError as error:
        raise NotReadyError('object storage is reached by obstore: pip install "faissbase[scale]"') from error
    folder = _folder(url)
    if folder is not None:
        return ObjectBucket(folder.as_uri(), _local_store(folder), folder)
    if urlsplit(url).scheme not in SCHEMES:
        raise InvalidInputError(f"{url!r} is none of {', '.join(f'{scheme}://' for scheme in SCHEMES)}")
    return ObjectBucket(url.rstrip("/"), _remote_store(url, dict(options or {})), None)


def _folder(url: str) -> Path | None:
    """The folder of this machine that is meant; None where it is another store."""
    parts = urlsplit(url)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path) if parts.scheme else url).absolute()


def existing_bucket(url: str, options: Mapping[str, Any] | None = None) -> ObjectBucket:
    """`open_bucket` for who only reads: a URL with nothing below it was most likely mistyped.

    Raises
    ------
    NotFoundError
        There is no such folder or bucket, or no object below the prefix.
    """
    folder = _folder(url)
    if folder is not None and not folder.exists():
        raise NotFoundError(f"nothing is at {folder.as_uri()}: there is no such folder")
    bucket = open_bucket(url, options)
    if folder is None and next(bucket.list(""), None) is None:
        raise NotFoundError(f"nothing is at {bucket.url}: it is empty, or not written like this")
    return bucket


def _local_store(folder: Path) -> Any:
    from obstore.store import LocalStore

    with os_errors(f"cannot open {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    return LocalStore(folder)


_MEMORY: dict[str, Any] = {}
_ENDPOINTS = ("aws_endpoint", "azure_storage_endpoint", "google_base_url")


def _remote_store(url: str, options: dict[str, Any]) -> Any:
    from obstore.store import MemoryStore, from_url

    if url.startswith("memory://"):
        return _MEMORY.setdefault(url.rstrip("/"), MemoryStore())
    options.setdefault("retry_config", {"retry_timeout": _RETRIED})
    endpoints = (options.get(name, os.environ.get(name.upper(), "")) for name in _ENDPOINTS)
    if any(str(endpoint).startswith("http://") for endpoint in endpoints):
        options.setdefault("client_options", {"allow_http": True})
    try:
        return from_url(url, **options)
    except Exception as error:  # obstore's errors have no common root that is public
        raise InvalidInputError(f"{url}: {reason(error)}") from error


class ObjectBucket:
    """A `Bucket` over obstore. ``folder`` is set where it is a folder of this machine."""

    def __init__(self, url: str, store: Any, folder: Path | None) -> None:
        self.url = url
        self._store = store
        self._folder = folder
        self._settled: set[Path] = set()  # folders whose own names are on the device

    def __repr__(self) -> str:
        return f"<bucket {self.url}>"

    def get(self, key: str) -> bytes:
        import obstore

        with store_errors(f"cannot read {self.url}/{key}"):
            return bytes(obstore.get(self._store, key).bytes())

    def create(self, key: str, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with store_errors(f"cannot write {self.url}/{key}"):
            try:
                obstore.put(self._store, key, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            self._sync(key)
        return True

    def list(self, prefix: str, after: str | None = None) -> Iterator[Stored]:
        import obstore

        with store_errors(f"cannot list {self.url}/{prefix}"):
            for found in obstore.list(self._store, prefix.rstrip("/") + "/", offset=after):
                for meta in found:
                    yield Stored(meta["path"], meta["size"], meta["last_modified"])

    def folders(self) -> tuple[str, ...]:
        import obstore

        with store_errors(f"cannot list {self.url}"):
            found = obstore.list_with_delimiter(self._store)["common_prefixes"]
            return tuple(sorted(prefix.strip("/") for prefix in found))

    def delete(self, keys: Sequence[str]) -> None:
        import obstore

        with store_errors(f"cannot delete from {self.url}"):
            for key in keys:
                with suppress(FileNotFoundError):
                    obstore.delete(self._store, key)
                self._remove_empty(key)

    def _remove_empty(self, key: str) -> None:
        """Remove the folders that a key has left empty; other stores have none."""
        if self._folder is None:
            return
        folder = (self._folder / key).parent
        with suppress(OSError):  # not empty, or gone already
            while len(folder.relative_to(self._folder).parts) > _LASTING_PARTS:
                self._settled.discard(folder)
                folder.rmdir()
                folder = folder.parent

    def upload(self, source: Path, path: str, key: str) -> File:
        import obstore

        with os_errors(f"cannot read {source}"):
            file = File(path, key, source.stat().st_size, checksum_of(source))
        with store_errors(f"cannot write {self.url}/{key}"):
            os.utime(source)  # what an object's age is told by: of a link, when it was written otherwise
            if self._folder is None or not _linked(source, self._folder / key):
                obstore.put(self._store, key, source)
            self._sync(key)
        return file

    def download(self, file: File, target: Path) -> None:
        _remove(target)
        with store_errors(f"cannot read {self.url}/{file.key}"):
            if self._folder is not None and _linked(self._folder / file.key, target):
                found = target.stat().st_size, checksum_of(target)
            else:
                found = self._fetch(file.key, target, file.size_bytes)
        if found != (file.size_bytes, file.checksum):
            with suppress(OSError):
                target.unlink()
            raise CorruptionError(
                f"{self.url}/{file.key} is damaged: expected {file.size_bytes} bytes with checksum "
                f"{file.checksum}, got {found[0]} with {found[1]}"
            )

    def fetch(self, key: str, target: Path) -> None:
        """Bring an object of somebody else's, whose checksum nobody knows, to ``target``."""
        _remove(target)
        with store_errors(f"cannot read {self.url}/{key}"):
            self._fetch(key, target, self.size(key))

    def _fetch(self, key: str, target: Path, expected_bytes: int) -> tuple[int, str]:
        """Copy an object; its size and checksum. One that should be small takes one request."""
        if expected_bytes <= PIECE_BYTES:
            content = self.get(key)
            with os_errors(f"cannot write {target}"):
                target.write_bytes(content)
            return len(content), xxh3_128(content).hexdigest()
        try:
            with os_errors(f"cannot write {target}"), open(target, "wb", buffering=0) as out:
                return expected_bytes, copy_to(out.fileno(), partial(self.read, key), expected_bytes)
        except UnavailableError:  # a range beyond the end looks like this too: asked now, not a trip before
            size_bytes = self.size(key)
            if size_bytes == expected_bytes:
                raise
            return size_bytes, "another"

    @property
    def is_here(self) -> bool:
        return self._folder is not None

    def size(self, key: str) -> int:
        import obstore

        with store_errors(f"cannot read {self.url}/{key}"):
            return int(obstore.head(self._store, key)["size"])

    def read(self, key: str, start: int, size_bytes: int) -> bytes:
        import obstore

        with store_errors(f"cannot read {self.url}/{key}"):
            return bytes(obstore.get_range(self._store, key, start=start, length=size_bytes))

    def _sync(self, key: str) -> None:
        """Make an object of a folder last, its name included; other stores answer when it does."""
        if self._folder is None:
            return
        path = self._folder / key
        fd = os.open(path, os.O_RDONLY)
        try:
            sync_data(fd)
        finally:
            os.close(fd)
        while path != self._folder:
            path = path.parent
            sync_folder(path)
            if path in self._settled:
                return
            self._settled.add(path)


def _remove(target: Path) -> None:
    """Make way: what is there may be a second name of another object, which must not be written to."""
    with os_errors(f"cannot replace {target}"):
        target.unlink(missing_ok=True)


def _linked(source: Path, target: Path) -> bool:
    """Give a file that is never written again a second name; False where the file system cannot."""
    if not source.exists():
        raise FileNotFoundError(source)
    for _ in range(_LINK_TRIES):  # an empty folder may be removed between the two steps
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return True
    return False


def checksum_of(path: Path) -> str:
    """**Source**: XXH3, 128 bits (xxhash.com)."""
    digest = xxh3_128()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def check_creates_once(bucket: Bucket) -> None:
    """Refuse a store that lets two writers create the same object: the later manifest would win in silence.

    Raises
    ------
    NotReadyError
        It does.
    """
    key = f"{PROBE_FOLDER}/{uuid.uuid4().hex}"
    first, second = bucket.create(key, b"first"), bucket.create(key, b"second")
    is_kept = first and not second and bucket.get(key) == b"first"
    bucket.delete([key])
    if not is_kept:
        raise NotReadyError(
            f"{bucket.url} does not refuse to create an object twice (conditional put), so two writers could "
            "lose each other's records: use a store that does, such as S3, GCS, Azure or a folder"
        )
