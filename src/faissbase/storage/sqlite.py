"""SQLite as we use it: its own build (apsw), page checksums, WAL, our errors. Knows no schema.

Every page carries a checksum (SQLite's ``cksumvfs``), verified whenever the page is read from the file,
so a flipped bit in an index or a row is an error and not another answer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import apsw
import apsw.sqlite_extra

from faissbase.errors import (
    AccessError,
    CorruptionError,
    FaissbaseError,
    InternalError,
    NotFoundError,
    UnavailableError,
)
from faissbase.storage import forks
from faissbase.storage.log import LogRoom

APPLICATION_ID = 0x46424153  # "FBAS"
FORMAT_VERSION = 1
PAGE_BYTES = 4096  # docs/decisions/002: a small commit writes three pages
CHECKSUM_BYTES = 8
_WAL_PAGES = 4000
_LOG_PAGES_LEFT_ALONE = 32
_SHARED_KIB = 32  # the least that the index of the log takes
# A batch's pages must fit, or SQLite writes them to the WAL more than once; taken only as it is filled.
_WRITER_CACHE_KIB = 32 << 10
BUSY_TIMEOUT_S = 30.0
_EMPTYING_PATIENCE_MS = 100

_vfs_lock = threading.Lock()
_vfs_name: str | None = None


def checksum_vfs() -> str:
    """The name of the VFS that keeps page checksums, loaded once per process."""
    global _vfs_name
    with _vfs_lock:
        if _vfs_name is None:
            loader = apsw.Connection("")
            apsw.sqlite_extra.load(loader, "cksumvfs")
            loader.close()
            _vfs_name = "cksmvfs"
    return _vfs_name


def _translate(error: apsw.Error, path: Path) -> FaissbaseError:
    extended = getattr(error, "extendedresult", 0)
    text = f"{path}: {error}"
    if isinstance(error, apsw.CorruptError | apsw.NotADBError) or extended == apsw.SQLITE_IOERR_DATA:
        return CorruptionError(f"{text}; run verify() and repair()")
    # Writers look before, so at a constraint a table and its index disagree.
    if isinstance(error, apsw.ConstraintError) or "invalid fts5 file format" in text:
        return CorruptionError(f"{text}; run verify() and repair()")
    if extended == apsw.SQLITE_IOERR_SHMSIZE:  # whoever opens the file first makes one beside it
        return UnavailableError(
            f"{path}: the disk is full: opening takes {_SHARED_KIB} KiB; free some space and try again"
        )
    if isinstance(error, apsw.FullError):
        # SQLite's own words are of the statement: of a copy they may be "not an error".
        return UnavailableError(
            f"{path}: the disk is full; nothing was stored, free some space and try again"
        )
    if isinstance(error, apsw.BusyError):
        return UnavailableError(f"{text}: another process held the write lock for {BUSY_TIMEOUT_S:g} s")
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError):
        return AccessError(f"{text}: not writable")
    if isinstance(error, apsw.IOError | apsw.CantOpenError | apsw.NoMemError):
        name = apsw.mapping_extended_result_codes.get(extended, extended)
        return UnavailableError(f"{text} ({name})")
    return InternalError(f"{text} (result {getattr(error, 'result', 0)})")


class sqlite_errors:
    """Turn every apsw error of the block into one of ours. A class, for it is entered on every call.

    No fork happens meanwhile: see `storage.forks`.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        forks.enter(self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        forks.leave()
        if isinstance(error, apsw.Error):
            raise _translate(error, self._path) from error
        if isinstance(error, UnicodeDecodeError):  # apsw's, for a text that is none any more
            raise CorruptionError(f"{self._path}: {error}; run verify() and repair()") from error


def create(path: Path, schema: str, synchronous: str = "FULL") -> None:
    """Make a new database file with page checksums and ``schema``, in WAL mode."""
    with sqlite_errors(path):
        connection = _new_file(path)
        try:
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN")  # undone by closing; a disk that is full has undone it already
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={FORMAT_VERSION}")
            connection.execute(schema)
            connection.execute("COMMIT")
        finally:
            connection.close()


def _new_file(path: Path) -> apsw.Connection:
    connection = forks.opened(apsw.Connection(str(path), vfs=checksum_vfs()))
    reserve = ctypes.c_int(CHECKSUM_BYTES)
    connection.file_control("main", apsw.SQLITE_FCNTL_RESERVE_BYTES, ctypes.addressof(reserve))
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    return connection


def copy(source: apsw.Connection, path: Path) -> None:
    """Copy the moment that ``source`` has pinned to a new file, synced, its page checksums with it.

    ``cksumvfs`` learns from the first page that pages want checksums. So not by ``VACUUM INTO``, which writes
    it last, and not into an empty file: what does not fit the cache would be written before it, and pages
    that came from the source's log, where they have no checksums yet, would never get one.

    A disk without room for it is an `OSError`: SQLite does not say which of the two files it was.
    """
    try:
        _copy(source, path)
    except apsw.FullError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _copy(source: apsw.Connection, path: Path) -> None:
    target = _new_file(path)
    try:
        target.execute("PRAGMA synchronous=FULL")
        target.execute("CREATE TABLE first_page(is_written)")
        copying = target.backup("main", source, "main")
        try:  # as a context it ends a step that failed with a SystemError
            copying.step(-1)
        finally:
            copying.close(True)
    finally:
        target.close()


def log_room(path: Path) -> LogRoom:
    """The room in the log of the database at ``path``, for its writing connection."""
    log = path.with_name(path.name + "-wal")
    return LogRoom(log, page_bytes=PAGE_BYTES, most_pages=_WAL_PAGES, first_pages=_LOG_PAGES_LEFT_ALONE)


def _watch_log(connection: apsw.Connection, log: LogRoom) -> None:
    """Tell ``log`` how long it is after each commit, and copy it back when it is full, as SQLite would."""

    def committed(connection: apsw.Connection, name: str, n_pages: int) -> int:
        log.committed(n_pages)
        if n_pages >= _WAL_PAGES:
            with suppress(apsw.Error):  # somebody still reads it: the next commit tries again
                connection.wal_checkpoint(name)
        return apsw.SQLITE_OK

    connection.set_wal_hook(committed)


def connect(
    path: Path, *, read_only: bool = False, synchronous: str = "FULL", log: LogRoom | None = None
) -> apsw.Connection:
    """Open an existing database made by `create`. A writer with ``log`` keeps room in it.

    Raises
    ------
    NotFoundError
        No such file.
    CorruptionError
        Not a database of ours, damaged, or of a format newer than this version knows.
    """
    if not path.exists():
        raise NotFoundError(f"no database at {path}")
    with sqlite_errors(path):
        connection = _open(path, read_only)
        try:
            _check_format(connection, path)
            connection.set_busy_timeout(int(BUSY_TIMEOUT_S * 1000))
            if not read_only:
                connection.execute(f"PRAGMA synchronous={synchronous}")
                connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
                if log is not None:
                    _watch_log(connection, log)
                connection.execute(f"PRAGMA cache_size=-{_WRITER_CACHE_KIB}")
        except (apsw.CantOpenError, apsw.ReadOnlyError) as error:  # its log is made by all who may write
            connection.close()
            denied = [each for each in (path.parent, path) if not os.access(each, os.W_OK)]
            if read_only or not denied:
                raise
            raise AccessError(
                f"{denied[0]} cannot be written to: connect(..., read_only=True) opens it for reading"
            ) from error
        except BaseException:
            connection.close()
            raise
    return connection


def _open(path: Path, read_only: bool) -> apsw.Connection:
    vfs = checksum_vfs()
    if not read_only:
        return forks.opened(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs))
    # A WAL database on a medium that cannot be written has no shared-memory file, and nobody changes it.
    frozen = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    uri = f"file:{quote(str(path.absolute()))}?mode=ro" + ("&immutable=1" if frozen else "")
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    return forks.opened(apsw.Connection(uri, flags=flags, vfs=vfs))


def _check_format(connection: apsw.Connection, path: Path) -> None:
    connection.set_busy_timeout(int(BUSY_TIMEOUT_S * 1000))
    application = connection.pragma("application_id")
    version = connection.pragma("user_version")
    if application != APPLICATION_ID:
        raise CorruptionError(f"{path} is not a faissbase file (application id {application:#x})")
    # SQLite's own answer, for a read of ours would end the locks that this process has on the file.
    if connection.pragma("checksum_verification") != "1":
        raise CorruptionError(
            f"{path}: its header turns page checksums off, so it is damaged; run verify() and repair()"
        )
    if version > FORMAT_VERSION:
        raise CorruptionError(
            f"{path} has format {version}, this version of faissbase reads up to {FORMAT_VERSION}: upgrade it"
        )


def empty_log(connection: apsw.Connection) -> None:
    """Bring what is committed from the log into the file itself, as far as others who read let it."""
    connection.set_busy_timeout(_EMPTYING_PATIENCE_MS)
    try:
        with suppress(apsw.Error):  # it stays in the log, and that is durable too
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.set_busy_timeout(int(BUSY_TIMEOUT_S * 1000))
