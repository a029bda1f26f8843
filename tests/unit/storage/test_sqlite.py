"""SQLite files of ours: page checksums, formats, modes, and whose errors come out."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from faissbase.errors import (
    AccessError,
    CorruptionError,
    FaissbaseError,
    InternalError,
    NotFoundError,
    UnavailableError,
)
from faissbase.storage import salvage, sqlite
from faissbase.storage.sqlite import PAGE_BYTES

SCHEMA = "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)"
N_ROWS = 50


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of about twenty pages."""
    path = tmp_path / "a.sqlite"
    sqlite.create(path, SCHEMA)
    connection = sqlite.connect(path)
    connection.executemany("INSERT INTO t VALUES(?, ?)", ((i, bytes([i]) * 1500) for i in range(N_ROWS)))
    connection.close()
    return path


@pytest.fixture
def connection(path: Path) -> Iterator[apsw.Connection]:
    opened = sqlite.connect(path)
    yield opened
    opened.close()


def _page_checksum(page: bytes) -> bytes:
    """As the documentation of SQLite's ``cksumvfs`` has it: two sums of little-endian 32-bit words."""
    sums = [0, 0]
    words = struct.unpack(f"<{(len(page) - 8) // 4}I", page[:-8])
    for first, second in zip(words[::2], words[1::2], strict=True):
        sums[0] = (sums[0] + first + sums[1]) & 0xFFFFFFFF
        sums[1] = (sums[1] + second + sums[0]) & 0xFFFFFFFF
    return struct.pack("<2I", *sums)


def _pages(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PAGE_BYTES] for at in range(0, len(data), PAGE_BYTES)]


def _sum(path: Path) -> int:
    connection = sqlite.connect(path, read_only=True)
    try:
        with sqlite.sqlite_errors(path):
            rows = connection.execute("SELECT a, b FROM t").fetchall()
    finally:
        connection.close()
    assert all(row == (i, bytes([i]) * 1500) for i, row in enumerate(rows))
    return len(rows)


def test_every_page_carries_its_checksum(path: Path) -> None:
    pages = _pages(path)
    assert len(pages) > 15
    assert [page[-8:] for page in pages] == [_page_checksum(page) for page in pages]


def test_a_copy_carries_page_checksums_and_the_same_rows(path: Path, tmp_path: Path) -> None:
    source = sqlite.connect(path, read_only=True)
    source.execute("BEGIN; SELECT 1 FROM t")
    sqlite.copy(source, tmp_path / "copy")
    source.close()
    pages = _pages(tmp_path / "copy")
    assert [page[-8:] for page in pages] == [_page_checksum(page) for page in pages]
    assert _sum(tmp_path / "copy") == N_ROWS


def test_a_copy_larger_than_the_cache_has_checksums_for_what_was_in_the_log(tmp_path: Path) -> None:
    sqlite.create(tmp_path / "a.sqlite", SCHEMA)
    source = sqlite.connect(tmp_path / "a.sqlite")
    rows = ((i, bytes([i % 251]) * 3000) for i in range(2000))
    source.executemany("INSERT INTO t VALUES(?, ?)", rows)  # in the log, and about three caches full
    sqlite.copy(source, tmp_path / "copy")
    source.close()
    pages = _pages(tmp_path / "copy")
    assert len(pages) > 2000
    assert all(page[-8:] == _page_checksum(page) for page in pages)


def test_a_copy_is_of_the_moment_that_its_source_has_pinned(path: Path, tmp_path: Path) -> None:
    source, writer = sqlite.connect(path, read_only=True), sqlite.connect(path)
    source.execute("BEGIN; SELECT 1 FROM t")
    writer.execute("DELETE FROM t WHERE a >= 10")
    sqlite.copy(source, tmp_path / "copy")
    source.close()
    writer.close()
    assert (_sum(tmp_path / "copy"), _sum(path)) == (N_ROWS, 10)


def test_a_flipped_bit_in_any_page_is_an_error(path: Path) -> None:
    original = path.read_bytes()
    n_found = 0
    for at in range(0, len(original), PAGE_BYTES):
        damaged = bytearray(original)
        damaged[at + 2000] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CorruptionError, match=r"a\.sqlite: .*run verify\(\) and repair\(\)"):
            _sum(path)
        n_found += 1
    assert n_found > 15


def _flip_reserved_bytes(path: Path) -> None:
    """Byte 20 of the header: with any value but 8 SQLite passes over the page checksums, and says nothing."""
    with open(path, "r+b") as file:
        file.seek(20)
        file.write(b"\x09")


def test_a_header_that_turns_page_checksums_off_is_an_error(path: Path) -> None:
    _flip_reserved_bytes(path)
    for read_only in (False, True):
        with pytest.raises(CorruptionError, match=r"checksums .*run verify\(\) and repair\(\)"):
            sqlite.connect(path, read_only=read_only)


def test_such_a_header_is_an_error_also_where_the_log_has_a_newer_first_page(path: Path) -> None:
    writer = sqlite.connect(path)
    writer.execute("PRAGMA user_version=0")
    beside = path.with_name("b.sqlite")
    for suffix in ("", "-wal"):
        beside.with_name(beside.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    writer.close()
    assert beside.with_name("b.sqlite-wal").stat().st_size
    _flip_reserved_bytes(beside)
    with pytest.raises(CorruptionError, match="checksums"):
        sqlite.connect(beside)


def test_a_header_is_mended_where_its_page_checksum_proves_it(path: Path) -> None:
    whole = path.read_bytes()
    assert not salvage.mend_header(path)
    for at in (0, 16, 18, 20, 23):
        damaged = bytearray(whole)
        damaged[at] ^= 5
        path.write_bytes(damaged)
        assert salvage.mend_header(path)
        assert path.read_bytes() == whole
    damaged[3000] ^= 1
    path.write_bytes(damaged)
    assert not salvage.mend_header(path)
    assert path.read_bytes() == damaged


def test_commits_are_synced_unless_relaxed(path: Path) -> None:
    full, relaxed = sqlite.connect(path), sqlite.connect(path, synchronous="NORMAL")
    assert (full.pragma("synchronous"), relaxed.pragma("synchronous")) == (2, 1)
    assert full.pragma("journal_mode") == "wal"
    full.close()
    relaxed.close()


def test_what_was_closed_leaves_one_file(path: Path) -> None:
    assert [file.name for file in path.parent.iterdir()] == ["a.sqlite"]


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    for read_only in (False, True):
        with pytest.raises(NotFoundError, match="no database at"):
            sqlite.connect(tmp_path / "none", read_only=read_only)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\x00", bytes(3 * PAGE_BYTES)])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CorruptionError):
        sqlite.connect(tmp_path / "a")


def test_a_database_of_somebody_else_is_refused(tmp_path: Path) -> None:
    foreign = apsw.Connection(str(tmp_path / "foreign"))
    foreign.execute("CREATE TABLE t(a)")
    foreign.close()
    with pytest.raises(CorruptionError, match="not a faissbase file"):
        sqlite.connect(tmp_path / "foreign")


def test_a_newer_format_is_refused_and_told(path: Path, connection: apsw.Connection) -> None:
    connection.execute(f"PRAGMA user_version={sqlite.FORMAT_VERSION + 1}")
    for read_only in (False, True):
        with pytest.raises(CorruptionError, match=r"has format 2, .* reads up to 1: upgrade it"):
            sqlite.connect(path, read_only=read_only)


def test_a_read_only_connection_cannot_write(path: Path) -> None:
    connection = sqlite.connect(path, read_only=True)
    with pytest.raises(AccessError, match="not writable"), sqlite.sqlite_errors(path):
        connection.execute("DELETE FROM t")
    connection.close()
    assert _sum(path) == N_ROWS


def test_a_folder_that_cannot_be_written_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert _sum(path) == N_ROWS
    assert [file.name for file in path.parent.iterdir()] == ["a.sqlite"]


def test_a_lock_held_too_long_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.01)
    holder, waiter = sqlite.connect(path), sqlite.connect(path)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match=r"write lock for 0\.01 s"), sqlite.sqlite_errors(path):
        waiter.execute("BEGIN IMMEDIATE")
    holder.close()
    waiter.close()


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (apsw.FullError("full"), UnavailableError),
        (apsw.IOError("io"), UnavailableError),
        (apsw.CantOpenError("open"), UnavailableError),
        (apsw.BusyError("busy"), UnavailableError),
        (apsw.CorruptError("bad"), CorruptionError),
        (apsw.NotADBError("bad"), CorruptionError),
        (apsw.ReadOnlyError("no"), AccessError),
        (apsw.SQLError("syntax"), InternalError),
        (apsw.ConstraintError("twice"), CorruptionError),
    ],
)
def test_errors_come_out_as_ours_and_name_the_file(error: apsw.Error, wanted: type[FaissbaseError]) -> None:
    with (
        pytest.raises(wanted, match=r"^/data/x\.sqlite: ") as caught,
        sqlite.sqlite_errors(Path("/data/x.sqlite")),
    ):
        raise error
    assert caught.value.retryable is (wanted is UnavailableError)
    assert caught.value.__cause__ is error


def test_no_room_for_what_lies_beside_the_file_is_told_as_a_full_disk() -> None:
    error = apsw.IOError("disk I/O error")
    vars(error)["extendedresult"] = apsw.SQLITE_IOERR_SHMSIZE
    wanted = pytest.raises(UnavailableError, match="the disk is full: opening takes 32 KiB")
    with wanted, sqlite.sqlite_errors(Path("x")):
        raise error


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), sqlite.sqlite_errors(Path("x")):
        raise ZeroDivisionError


def test_a_failed_creation_leaves_nothing_that_opens(tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        sqlite.create(tmp_path / "a", f"{SCHEMA}; CREATE NONSENSE")
    with pytest.raises(CorruptionError):
        sqlite.connect(tmp_path / "a")
