"""Reading what can still be read from damaged SQLite files, page checksums passed over, and mending headers.

What comes from here is not to be believed before it was checked against a checksum of its own. Only for
repairs: nobody else may have the files open.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from faissbase.storage import forks, sqlite
from faissbase.storage.files import os_errors, publish, sync_data, sync_folder
from faissbase.storage.records import FILE_NAME, Records, StoredRow, create_file
from faissbase.storage.sqlite import CHECKSUM_BYTES, PAGE_BYTES

# What every file of ours begins with: page size, WAL mode twice, reserved bytes, three fixed fractions.
# **Source**: sqlite.org/fileformat2.html, "The Database Header".
_HEADER = b"SQLite format 3\x00" + struct.pack(">H6B", PAGE_BYTES, 2, 2, CHECKSUM_BYTES, 64, 32, 32)
_COLUMNS = "slot, id, checksum, norm, metadata, document"
# Below a damaged inner page nothing can be read: after so many slots in a row look only at every 64th.
_PATIENCE_SLOTS = 1 << 16
_STRIDE = 64
_DRAFT, _SALVAGED, _COPY = "salvage.draft", "salvage", "salvage.copy"
_PAGES_AT = 28  # where the header says how many pages there are


def page_checksum(page: bytes) -> bytes:
    """The last eight bytes of a sound page.

    **Source**: SQLite's ``cksumvfs``: two sums over little-endian words of 32 bits.
    """
    first = second = 0
    for a, b in struct.iter_unpack("<2I", page[:-CHECKSUM_BYTES]):
        first = (first + a + second) & 0xFFFFFFFF
        second = (second + b + first) & 0xFFFFFFFF
    return struct.pack("<2I", first, second)


def mend_header(path: Path) -> bool:
    """Put the fixed first bytes of a file right, if the checksum of its page then agrees; whether it did."""
    with os_errors(f"cannot mend {path}"), open(path, "r+b") as file:
        page = file.read(PAGE_BYTES)
        mended = _HEADER + page[len(_HEADER) :]
        if page == mended or len(page) < PAGE_BYTES or page_checksum(mended) != page[-CHECKSUM_BYTES:]:
            return False
        file.seek(0)
        file.write(_HEADER)
        file.flush()
        sync_data(file.fileno())
    return True


def damaged_meta(folder: Path) -> dict[str, Any]:
    """The facts that a damaged records file still tells; empty where it tells nothing."""
    with _damaged_records(folder) as connection:
        return dict(_rows_until_damage(connection, "SELECT key, value FROM meta"))


def readable_collections(path: Path) -> dict[str, dict[str, Any]]:
    """The facts of collections that a damaged catalog still tells, by uuid."""
    names = ("uuid", "tenant", "name", "dimension", "metric", "index_type")
    statement = f"SELECT {', '.join(names)} FROM collections WHERE NOT is_deleting"
    if not path.exists():
        return {}
    connection = _open_damaged(path)
    try:
        return {
            row[0]: dict(zip(names, row, strict=True)) for row in _rows_until_damage(connection, statement)
        }
    finally:
        connection.close(True)


def _rows_until_damage(connection: apsw.Connection, statement: str) -> Iterator[Any]:
    with suppress(apsw.Error, UnicodeDecodeError):
        yield from connection.execute(statement)


def _open_damaged(path: Path) -> apsw.Connection:
    connection = forks.opened(apsw.Connection(str(path), vfs=sqlite.checksum_vfs()))
    with suppress(apsw.Error):  # no database at all: whoever reads will be told so
        connection.execute("PRAGMA checksum_verification=OFF")
        connection.execute("PRAGMA writable_schema=ON")  # reads a file also where its end is missing
    return connection


@contextmanager
def _damaged_records(folder: Path) -> Iterator[apsw.Connection]:
    """The records file, or where its first page is lost a copy with a new one: every schema is the same."""
    path, copy = folder / FILE_NAME, folder / _COPY
    connection = _open_damaged(path) if path.exists() else apsw.Connection("")
    try:
        if path.exists() and not _has_schema(connection):
            connection.close(True)
            _copy_with_new_first_page(path, copy)
            connection = _open_damaged(copy / FILE_NAME)
        yield connection
    finally:
        connection.close(True)
        shutil.rmtree(copy, ignore_errors=True)


def _has_schema(connection: apsw.Connection) -> bool:
    try:
        return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchall())
    except (apsw.Error, UnicodeDecodeError):
        return False


def _copy_with_new_first_page(path: Path, copy: Path) -> None:
    with os_errors(f"cannot copy {path}"):
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        create_file(copy, {})
        page = bytearray((copy / FILE_NAME).read_bytes()[:PAGE_BYTES])
        shutil.copyfile(path, copy / FILE_NAME)
        page[_PAGES_AT : _PAGES_AT + 4] = struct.pack(">I", max(1, path.stat().st_size // PAGE_BYTES))
        with open(copy / FILE_NAME, "r+b") as file:
            file.write(page)


def readable_rows(folder: Path, n_slots: int) -> list[StoredRow]:
    """Every row below ``n_slots`` that can be read, ascending, of one id the newest; none is checked yet."""
    with _damaged_records(folder) as connection:
        found = _all_readable(connection, n_slots)
    newest: dict[str, StoredRow] = {}
    for slot in sorted(found, reverse=True):
        row = _as_stored_row(found[slot])
        if row is not None:
            newest.setdefault(row.id, row)
    return sorted(newest.values(), key=lambda row: row.slot)


def _all_readable(connection: apsw.Connection, n_slots: int) -> dict[int, Any]:
    """Rows by slot: from both ends up to the first damage, and between by looking for each slot.

    Pages in wrong places bring rows out of order; a slot that is met twice is looked for where it belongs.
    """
    found: dict[int, Any] = {}
    twice: set[int] = set()
    is_whole = True
    for order in ("ASC", "DESC"):
        seen: set[int] = set()
        statement = f"SELECT {_COLUMNS} FROM records ORDER BY slot {order}"
        try:
            for row in connection.execute(statement):
                if row[0] in seen or found.get(row[0], row) != row:
                    twice.add(row[0])
                seen.add(row[0])
                if 0 <= row[0] < n_slots:
                    found[row[0]] = row
        except (apsw.Error, UnicodeDecodeError):
            is_whole = False
    wanted = (
        sorted(twice) if is_whole else [slot for slot in range(n_slots) if slot not in found or slot in twice]
    )
    found.update((row[0], row) for row in _looked_for(connection, wanted))
    return found


def _looked_for(connection: apsw.Connection, slots: Sequence[int]) -> Iterator[Any]:
    statement = f"SELECT {_COLUMNS} FROM records WHERE slot = ?"
    at, n_failed = 0, 0
    while at < len(slots):
        try:
            yield from connection.execute(statement, (slots[at],))
            n_failed = 0
        except (apsw.Error, UnicodeDecodeError):
            n_failed += 1
        at += 1 if n_failed < _PATIENCE_SLOTS else _STRIDE


def _as_stored_row(found: Sequence[Any]) -> StoredRow | None:
    """A row whose values still have their types; damage can leave any value in any column."""
    slot, id, checksum, norm, metadata_json, document = found
    is_typed = isinstance(id, str) and isinstance(checksum, int) and isinstance(norm, int | float)
    is_typed = is_typed and isinstance(metadata_json, bytes) and isinstance(document, str | None)
    return StoredRow(slot, id, checksum, float(norm), metadata_json, document) if is_typed else None


def salvage(folder: Path, facts: dict[str, Any], n_slots: int) -> int:
    """Replace a damaged records file by a new one that holds every row which can still be read.

    The page checksums are passed over while reading, for each row has its own; whether a row is sound is for
    the caller to check. The damaged file is kept as ``records.sqlite.damaged``. Returns the number of rows.
    """
    rows = readable_rows(folder, n_slots)
    draft = folder / _DRAFT
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    create_file(draft, facts)
    fresh = Records(draft, synchronous="FULL")
    try:
        with fresh.write_transaction() as transaction:
            transaction.insert(
                (row.slot, row.id, row.checksum, row.norm, row.metadata_json, row.document) for row in rows
            )
            transaction.rebury(rows[-1].slot + 1 if rows else 0)
    finally:
        fresh.close()
    with os_errors(f"cannot replace {folder / FILE_NAME}"):
        sync_folder(draft)
        publish(draft, folder / _SALVAGED)
    finish_salvage(folder)
    return len(rows)


def finish_salvage(folder: Path) -> None:
    """Put a finished new records file in the place of the damaged one, also where that was interrupted."""
    salvaged, path = folder / _SALVAGED, folder / FILE_NAME
    if not salvaged.exists():
        return
    with os_errors(f"cannot replace {path}"):
        if (salvaged / FILE_NAME).exists():
            for suffix in ("-shm", "-wal", ""):
                damaged = path.with_name(path.name + suffix)
                if damaged.exists():
                    os.replace(damaged, path.with_name(f"{path.name}.damaged{suffix}"))
            publish(salvaged / FILE_NAME, path)
        shutil.rmtree(salvaged)
