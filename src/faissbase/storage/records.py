"""``records.sqlite``: ids, metadata, documents, checksums, tombstones, redo copies of one collection.

Knows rows and slots; not vectors as numbers, not filters, not FAISS.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from faissbase.errors import ConflictError, CorruptionError, NotFoundError, NotReadyError, UnavailableError
from faissbase.storage import forks, sqlite
from faissbase.storage.commits import CommitCounter
from faissbase.storage.files import identity
from faissbase.storage.signs import plain_words, sought, spaced
from faissbase.storage.sqlite import sqlite_errors
from faissbase.types import Row, Slots

FILE_NAME = "records.sqlite"
_IDLE_READERS = 4

SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE records(
    slot INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    checksum INTEGER NOT NULL,
    norm REAL NOT NULL,
    metadata BLOB NOT NULL,
    document TEXT
);
CREATE TABLE redo(slot INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE tombstones(seq INTEGER PRIMARY KEY, slot INTEGER NOT NULL, next_slot INTEGER NOT NULL);
CREATE TABLE blocks(block INTEGER PRIMARY KEY, checksum INTEGER NOT NULL);
CREATE TABLE progress(source TEXT PRIMARY KEY, rows_done INTEGER NOT NULL) WITHOUT ROWID;
CREATE VIRTUAL TABLE documents USING fts5(
    document, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2'
);
INSERT INTO documents(documents, rank) VALUES('pgsz', 4000);
"""
# A leaf of the text index, 4,050 bytes by default, would not fit into a page: most of it would lie in another
# one, and a page of zeros has the page checksum zero.
# Made with the first segment; a file without it has none.
_SEGMENTS_SCHEMA = """
CREATE TABLE IF NOT EXISTS segments(
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    first_slot INTEGER NOT NULL,
    stop_slot INTEGER NOT NULL,
    spec TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    facts BLOB NOT NULL
) WITHOUT ROWID
"""

_COLUMNS = "slot, id, checksum, norm, metadata, document"

# A slot is never reused: the next one is above every stored row and above every slot that was ever buried.
_NEXT_SLOT = """
SELECT max(
    ifnull((SELECT max(slot) + 1 FROM records), 0),
    ifnull((SELECT next_slot FROM tombstones ORDER BY seq DESC LIMIT 1), 0)
)
"""
_STATE = f"""
SELECT
    (SELECT value FROM meta WHERE key = 'generation'),
    ({_NEXT_SLOT}),
    (SELECT ifnull(max(seq), 0) FROM tombstones),
    (SELECT value FROM meta WHERE key = 'deleted'),
    (SELECT value FROM meta WHERE key = 'segments')
"""


# The state in the first row; in the others, what was buried after a tombstone.
_NEWS = f"""
SELECT 0, * FROM ({_STATE})
UNION ALL
SELECT 1, slot, NULL, NULL, NULL, NULL FROM tombstones WHERE seq > ?
"""

_DELETED = "SELECT value FROM meta WHERE key = 'deleted' AND value"
_IN_GENERATION = "(SELECT value FROM meta WHERE key = 'generation') = ?"
_FEW_ROWS = 32
_ROWS = "SELECT slot, id, metadata, document FROM records WHERE "


@dataclass(frozen=True, slots=True)
class State:
    """Where a collection stands after a commit; two equal states hold the same records."""

    generation: int
    next_slot: int
    last_seq: int
    is_deleted: bool
    segments: int = 0  # rises whenever the list of segments changes; 0 where there has never been one


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """An index file that is live: which slots it covers, how it was made, what was measured of it."""

    name: str
    first_slot: int
    stop_slot: int
    spec: str
    size_bytes: int
    checksum: int
    facts: bytes  # JSON


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row as it is kept. ``norm`` times the stored vector is the vector as it was given."""

    slot: int
    id: str
    checksum: int
    norm: float
    metadata_json: bytes
    document: str | None


def _int64s(slots: Slots | Sequence[int]) -> Any:
    """Bind int64s as one value for ``IN carray(?)``, which takes no empty array."""
    values = np.ascontiguousarray(slots, dtype=np.int64)
    return apsw.carray(values if len(values) else array("q", [-1]))


def _texts(ids: Sequence[str]) -> Any:
    return apsw.carray(tuple(ids), flags=apsw.SQLITE_CARRAY_TEXT)


def _all(connection: apsw.Connection, statement: str, *bindings: Any) -> list[Any]:
    return connection.execute(statement, bindings).fetchall()


def _stream(connection: apsw.Connection, statement: str, *bindings: Any) -> Iterator[Any]:
    cursor = connection.cursor()
    try:
        yield from cursor.execute(statement, bindings)
    finally:
        cursor.close()


def _varints(data: bytes) -> list[int]:
    """SQLite's numbers of variable length, at least one: seven bits a byte, the first ones first."""
    if not isinstance(data, bytes) or not data or data[-1] >= 0x80:
        raise CorruptionError(f"the full-text index in {FILE_NAME} is damaged; run repair()")
    values, value = [], 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            values.append(value)
            value = 0
    return values


def create_file(folder: Path, meta: dict[str, Any], synchronous: str = "FULL") -> None:
    """Make the records file of a new, empty collection."""
    path = folder / FILE_NAME
    sqlite.create(path, SCHEMA, synchronous)
    with sqlite_errors(path):
        connection = sqlite.connect(path, synchronous=synchronous)
        try:
            facts = {"generation": 0, **meta}
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO meta VALUES(?, ?)", facts.items())
            connection.execute("COMMIT")
        finally:
            connection.close()


def read_meta(folder: Path) -> dict[str, Any]:
    """The facts a collection keeps about itself: name, dimension, metric and so on."""
    path = folder / FILE_NAME
    with sqlite_errors(path):
        connection = sqlite.connect(path, read_only=True)
        try:
            return dict(_all(connection, "SELECT key, value FROM meta"))
        finally:
            connection.close()


def match_expression(text: str) -> str:
    """An FTS5 expression that finds documents with any word of ``text``; empty where it has no word.

    Words without spaces between them, as in Chinese, count whole, too: so they stand in older indexes.
    """
    found = plain_words(text)
    if not text.isascii():
        found = list(dict.fromkeys((*found, *sought(text))))
    return " OR ".join(f'"{word}"' for word in found)


def _state_of(generation: Any, next_slot: Any, last_seq: Any, deleted: Any, segments: Any) -> State:
    numbers = (generation, next_slot, last_seq, segments or 0)
    if set(map(type, numbers)) != {int} or min(numbers) < 0:
        raise CorruptionError(f"{FILE_NAME}: generation, slots, seq, segments: {numbers}; run repair()")
    return State(generation, next_slot, last_seq, bool(deleted), segments or 0)


def _slots_of(buried: list[Any]) -> Slots:
    try:
        return np.array(buried, dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise CorruptionError(f"a tombstone in {FILE_NAME} names no slot; run repair()") from error


class ReadTransaction:
    """One moment of the file: every call sees the same commit, whatever others write meanwhile."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def _all(self, statement: str, *bindings: Any) -> list[Any]:
        return _all(self._connection, statement, *bindings)

    def state(self) -> State:
        return _state_of(*self._all(_STATE)[0])

    def meta(self, key: str) -> Any:
        """One fact of the collection, or None."""
        found = self._all("SELECT value FROM meta WHERE key = ?", key)
        return found[0][0] if found else None

    def segments(self, state: State) -> list[SegmentRow]:
        """The live segments of the generation, ascending by slot."""
        if not state.segments:
            return []
        statement = (
            "SELECT name, first_slot, stop_slot, spec, size_bytes, checksum, facts FROM segments "
            "WHERE generation = ? ORDER BY first_slot"
        )
        return [SegmentRow(*row) for row in self._all(statement, state.generation)]

    def n_missing(self, state: State) -> int:
        """Slots that hold no record though none was buried there, by the index of ids; 0 unless damaged."""
        [(n_records,)] = self._all("SELECT count(*) FROM records INDEXED BY sqlite_autoindex_records_1")
        [(n_buried,)] = self._all("SELECT count(*) FROM tombstones")
        return state.next_slot - int(n_records) - int(n_buried)

    def buried_since(self, seq: int) -> Slots:
        """The slots buried after tombstone ``seq``, in that order."""
        found = self._all("SELECT slot FROM tombstones WHERE seq > ? ORDER BY seq", seq)
        return _slots_of([slot for (slot,) in found])

    def slots_of(self, ids: Sequence[str]) -> dict[str, int]:
        """The slot of each id that is stored."""
        if len(ids) == 1:
            found = dict(self._all("SELECT id, slot FROM records WHERE id = ?", ids[0]))
        else:
            found = dict(self._all("SELECT id, slot FROM records WHERE id IN carray(?)", _texts(ids)))
        if not set(map(type, found.values())) <= {int}:
            raise CorruptionError(f"the index of ids in {FILE_NAME} names no slots; run repair()")
        return found

    def rows(self, slots: Slots | Sequence[int]) -> dict[int, Row]:
        """Row by slot; slots that hold no record any more are left out."""
        statement = f"{_ROWS}slot IN carray(?)"
        return {found[0]: Row(*found[1:]) for found in self._all(statement, _int64s(slots))}

    def sizes(self, slots: Slots | Sequence[int]) -> list[int]:
        """Bytes of id, metadata and document of the rows in ``slots``, ascending by slot; none is read."""
        own = "ifnull(octet_length(id) + octet_length(metadata), 0) + ifnull(octet_length(document), 0)"
        statement = f"SELECT {own} FROM records WHERE slot IN carray(?) ORDER BY slot"
        return [size for (size,) in self._all(statement, _int64s(slots))]

    def stored_rows(self, slots: Slots | Sequence[int]) -> list[StoredRow]:
        """The rows in ``slots``, ascending by slot."""
        statement = f"SELECT {_COLUMNS} FROM records WHERE slot IN carray(?) ORDER BY slot"
        return [StoredRow(*row) for row in self._all(statement, _int64s(slots))]

    def stored_range(self, first_slot: int, stop_slot: int) -> Iterator[StoredRow]:
        """Every row of a range of slots, ascending."""
        statement = f"SELECT {_COLUMNS} FROM records WHERE slot >= ? AND slot < ? ORDER BY slot"
        for row in _stream(self._connection, statement, first_slot, stop_slot):
            yield StoredRow(*row)

    def metadata_of(self, first_slot: int, stop_slot: int) -> Iterator[tuple[int, bytes]]:
        """(slot, metadata JSON) of every row of a range of slots, ascending."""
        statement = "SELECT slot, metadata FROM records WHERE slot >= ? AND slot < ? ORDER BY slot"
        return _stream(self._connection, statement, first_slot, stop_slot)

    def text_ranking(self, text: str) -> Iterator[tuple[int, float]]:
        """(slot, BM25 score) of the documents with any word of ``text``, best first.

        **Source**: SQLite FTS5 ``bm25()``, k1 = 1.2 and b = 0.75, its sign turned so that larger is nearer.
        """
        expression = match_expression(text)
        if expression:
            statement = "SELECT rowid, -rank FROM documents WHERE documents MATCH ? ORDER BY rank, rowid"
            yield from _stream(self._connection, statement, expression)

    def redo_rows(self) -> list[tuple[int, bytes]]:
        return self._all("SELECT slot, vector FROM redo")

    def block_checksums(self) -> list[tuple[int, int]]:
        return self._all("SELECT block, checksum FROM blocks ORDER BY block")

    def rows_done(self, source: str) -> int:
        """How many rows of a file an interrupted load has already committed."""
        found = self._all("SELECT rows_done FROM progress WHERE source = ?", source)
        return int(found[0][0]) if found else 0

    def document_slots(self) -> tuple[set[int], set[int]]:
        """The slots that have a document, and those that the full-text index knows."""
        stored = self._all("SELECT slot FROM records WHERE document NOTNULL")
        indexed = self._all("SELECT id FROM documents_docsize")
        return {slot for (slot,) in stored}, {slot for (slot,) in indexed}

    def word_counts(self) -> tuple[int, int, int]:
        """Words in all documents, by the full-text index: of each together, in all, and as it finds them.

        **Source**: FTS5's shadow tables; the averages are row 1 of ``documents_data``: documents, words.
        """
        each = sum(_varints(size)[0] for (size,) in self._all("SELECT sz FROM documents_docsize"))
        averages = _varints(self._all("SELECT max(block) FROM documents_data WHERE id = 1")[0][0] or b"\0")
        self._all(
            "CREATE VIRTUAL TABLE IF NOT EXISTS temp.words USING fts5vocab(main, documents, 'instance')"
        )
        found = int(self._all("SELECT count(*) FROM temp.words")[0][0])
        return each, averages[1] if len(averages) > 1 else 0, found

    def unfound_words(self, n_most: int) -> list[str]:
        """Of about ``n_most`` words of the full-text index, those that a search does not find as often."""
        self._all(
            "CREATE VIRTUAL TABLE IF NOT EXISTS temp.vocabulary USING fts5vocab(main, documents, 'row')"
        )
        words = self._all("SELECT term, doc FROM temp.vocabulary")
        count = "SELECT count(*) FROM documents WHERE documents MATCH ?"
        sample = words[:: max(1, len(words) // n_most)]
        return [word for word, n in sample if self._all(count, f'"{word}"')[0][0] != n]

    def integrity_problems(self) -> list[str]:
        """What SQLite's own check finds: pages, indexes, the full-text index."""
        found = [str(text) for (text,) in self._all("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found


class WriteTransaction(ReadTransaction):
    """The one open write transaction: nobody else sees its changes before it ``is_committed``."""

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self.is_committed = False

    def insert(self, rows: Iterable[tuple[int, str, int, float, bytes, str | None]]) -> None:
        """Insert rows (slot, id, checksum, norm, metadata JSON, document); ids must be free."""
        self._connection.executemany("INSERT INTO records VALUES(?, ?, ?, ?, ?, ?)", rows)

    def index_documents(self, documents: Iterable[tuple[int, str]]) -> None:
        rows = ((slot, spaced(document)) for slot, document in documents)
        self._connection.executemany("INSERT INTO documents(rowid, document) VALUES(?, ?)", rows)

    def touch(self) -> None:
        """Have something to commit, whose sync covers every commit before it; an equal value would not do."""
        statement = "INSERT INTO meta VALUES('touched', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1"
        self._connection.execute(statement)

    def insert_redo(self, rows: Iterable[tuple[int, Any]]) -> None:
        self._connection.executemany("INSERT INTO redo VALUES(?, ?)", rows)

    def clear_redo(self) -> None:
        self._connection.execute("DELETE FROM redo")

    def bury(self, slots: Sequence[int], next_slot: int) -> None:
        """Delete the rows in ``slots`` and mark the slots dead; ``next_slot`` follows this commit."""
        statement = "DELETE FROM records WHERE slot IN carray(?) RETURNING slot, document NOTNULL"
        buried = self._all(statement, _int64s(slots))
        with_document = [slot for slot, has_document in buried if has_document]
        if with_document:
            self._all("DELETE FROM documents WHERE rowid IN carray(?)", _int64s(with_document))
        tombstones = ((slot, next_slot) for slot in slots)
        self._connection.executemany("INSERT INTO tombstones(slot, next_slot) VALUES(?, ?)", tombstones)

    def n_blocks(self) -> int:
        return int(self._all("SELECT ifnull(max(block) + 1, 0) FROM blocks")[0][0])

    def insert_blocks(self, blocks: Iterable[tuple[int, int]]) -> None:
        self._connection.executemany("INSERT INTO blocks VALUES(?, ?)", blocks)

    def clear_blocks(self) -> None:
        self._all("DELETE FROM blocks")

    def rebury(self, n_slots: int) -> None:
        """Make the tombstones anew: one for every slot below ``n_slots`` that holds no record."""
        held = {slot for (slot,) in self._all("SELECT slot FROM records")}
        self._all("DELETE FROM tombstones")
        empty = ((slot, n_slots) for slot in range(n_slots) if slot not in held)
        self._connection.executemany("INSERT INTO tombstones(slot, next_slot) VALUES(?, ?)", empty)

    def set_progress(self, source: str, rows_done: int) -> None:
        """Remember how far the load of a file has come; 0 forgets it."""
        if rows_done:
            self._all("INSERT OR REPLACE INTO progress VALUES(?, ?)", source, rows_done)
        else:
            self._all("DELETE FROM progress WHERE source = ?", source)

    def set_meta(self, key: str, value: Any) -> None:
        self._all("INSERT OR REPLACE INTO meta VALUES(?, ?)", key, value)

    def replace_segments(self, rows: Sequence[SegmentRow], generation: int) -> None:
        """Make ``rows`` the live segments, all of them; those of other generations go."""
        self._connection.execute(_SEGMENTS_SCHEMA)
        self._all("DELETE FROM segments")
        for row in rows:
            made = (row.name, generation, row.first_slot, row.stop_slot, row.spec)
            self._all(
                "INSERT INTO segments VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                *made,
                row.size_bytes,
                row.checksum,
                row.facts,
            )
        statement = "INSERT INTO meta VALUES('segments', 1) ON CONFLICT(key) DO UPDATE SET value = value + 1"
        self._connection.execute(statement)

    def clear(self) -> None:
        """Remove every row and all that hangs on rows."""
        for table in ("records", "redo", "tombstones", "blocks", "progress"):
            self._all(f"DELETE FROM {table}")
        self._all("INSERT INTO documents(documents) VALUES('delete-all')")

    def renumber(self, slots: Slots) -> None:
        """Move the row in ``slots[i]`` to slot i, for all i; ``slots`` ascends and names every row."""
        moves = ((new, old) for new, old in enumerate(slots.tolist()) if new != old)
        self._connection.executemany("UPDATE records SET slot = ? WHERE slot = ?", moves)
        for table in ("redo", "tombstones", "blocks"):
            self._all(f"DELETE FROM {table}")
        self.reindex_documents()

    def reindex_documents(self) -> None:
        """Make the full-text index anew from the stored documents."""
        self._all("INSERT INTO documents(documents) VALUES('delete-all')")
        self.index_documents(
            _stream(self._connection, "SELECT slot, document FROM records WHERE document NOTNULL")
        )


class Records:
    """The open file. Any number of read transactions at once, one write transaction at a time."""

    def __init__(self, folder: Path, *, synchronous: str) -> None:
        self.path = folder / FILE_NAME
        self._synchronous = synchronous
        self._file = identity(self.path)  # which nobody else gets as long as it is open
        self._watch: apsw.Connection | None = None
        self._n_watches = 0
        self._idle: list[apsw.Connection] = []
        self._is_closed = False
        self._writer: apsw.Connection | None = None
        self._commits = CommitCounter(folder)
        self._log = sqlite.log_room(self.path) if synchronous == "FULL" else None
        self._write_lock = threading.Lock()
        with sqlite_errors(self.path):
            self._watching()
        forks.rest_before(self)

    def rest(self) -> None:
        """Close what is idle; each is opened again when it is needed. See `forks.Resting`."""
        self._close_readers()
        if self._writer is None or self._writer.in_transaction:
            return
        self.end_writer()
        if self._log is not None:
            self._log = sqlite.log_room(self.path)  # the log may go with its last connection

    def _check_open(self) -> None:
        if self._is_closed:
            raise NotReadyError(f"{self.path} is closed: connect() again")

    def is_in_place(self) -> bool:
        """Whether the file is still where it was opened: neither gone nor another one in its place."""
        return identity(self.path) == self._file

    def _check_in_place(self, writer: apsw.Connection | None = None) -> None:
        """Refuse another file in the place of this one, or none, unless the collection is deleted."""
        if not self.is_in_place() and not (writer and _all(writer, _DELETED)):
            raise UnavailableError(
                f"{self.path} is not what was opened any more: its folder was removed, renamed or replaced, "
                "connect() again"
            )

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        self._check_open()
        with sqlite_errors(self.path):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connected(read_only=True)
            try:
                yield connection
            except BaseException:
                # A damaged or refused read, or one that was interrupted and may have its moment still open:
                # the next one starts afresh.
                connection.close(True)
                raise
            self._give_back(connection)

    def _give_back(self, connection: apsw.Connection) -> None:
        if len(self._idle) < _IDLE_READERS and not self._is_closed:
            self._idle.append(connection)
        else:
            connection.close(True)

    def settled(self) -> int | None:
        """A number that differs once somebody has committed, at no cost; None where `version` must tell."""
        self._check_open()
        return self._commits.settled()

    def version(self) -> tuple[int, int]:
        """Differs whenever somebody has committed. Call it under one lock."""
        self._check_open()
        with sqlite_errors(self.path):
            found = int(_all(self._watching(), "PRAGMA data_version")[0][0])
            return self._n_watches, found  # what one connection tells is nothing beside another's

    def _connected(self, **options: Any) -> apsw.Connection:
        try:
            connection = sqlite.connect(self.path, **options)
        except NotFoundError as error:
            raise NotFoundError(
                f"{self.path} is gone: its collection was deleted, or the file was lost"
            ) from error
        try:
            self._check_in_place()
        except BaseException:
            connection.close(True)
            raise
        return connection

    def _watching(self) -> apsw.Connection:
        if self._watch is None:
            self._watch = self._connected(read_only=True)
            self._n_watches += 1
        return self._watch

    def news(self, seq: int) -> tuple[State, Slots]:
        """The newest state, and the slots buried after tombstone ``seq``; one statement sees one moment."""
        with self._reading() as connection:
            found = _all(connection, _NEWS, seq)
        state = next(row for row in found if not row[0])
        return _state_of(*state[1:]), _slots_of([row[1] for row in found if row[0]])

    def rows(self, slots: Sequence[int], generation: int) -> dict[int, Row]:
        """Row by slot, without the cost of a transaction.

        Raises
        ------
        ConflictError
            A slot holds no record any more, or the slots were numbered anew.
        """
        n = len(slots)
        with self._reading() as connection:
            if n <= _FEW_ROWS:  # a list of numbers is bound faster than an array
                few = f"{_ROWS}{_IN_GENERATION} AND slot IN ({', '.join('?' * n)})"
                found = _all(connection, few, generation, *slots)
            else:
                many = f"{_ROWS}{_IN_GENERATION} AND slot IN carray(?)"
                found = _all(connection, many, generation, _int64s(slots))
        if len(found) != len(slots):
            raise ConflictError("records were deleted or moved while they were read")
        return {row[0]: Row(*row[1:]) for row in found}

    @contextmanager
    def read_transaction(self) -> Iterator[ReadTransaction]:
        with self._reading() as connection:
            connection.execute("BEGIN")
            try:
                yield ReadTransaction(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("COMMIT")

    @contextmanager
    def write_transaction(self, *, synchronous: str | None = None) -> Iterator[WriteTransaction]:
        """Hold the folder's write lock: committed at the end, undone on an error.

        Any error of SQLite ends the connection, so that nothing of a failed commit is ever carried over.
        """
        with self._write_lock, sqlite_errors(self.path):
            self._check_open()
            if self._writer is None:
                self._writer = self._connected(synchronous=self._synchronous, log=self._log)
            if synchronous is not None:
                self._writer.execute(f"PRAGMA synchronous={synchronous}")
            started, is_ending = 0, False
            transaction = WriteTransaction(self._writer)
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._check_in_place(self._writer)
                started = self._commits.begin()
                if self._log is not None:
                    self._log.make()
                yield transaction
                is_ending = True
                self._writer.execute("COMMIT")
                transaction.is_committed = True
            except apsw.Error:
                self.end_writer()
                raise
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                else:  # an interrupt came after the commit, or an error of SQLite before this one
                    transaction.is_committed = is_ending
                    self.end_writer()
                raise
            finally:
                self._commits.finish(started)
                if synchronous is not None and self._writer is not None:
                    self._writer.execute(f"PRAGMA synchronous={self._synchronous}")

    def end_writer(self) -> None:
        """Close the write connection, undoing what it had open; the next transaction opens a new one."""
        if self._writer is not None:
            self._writer.close(True)
            self._writer = None

    def copy_to(self, path: Path) -> None:
        """Write one consistent copy to ``path`` while others go on reading and writing."""
        with self._reading() as connection:
            connection.execute("BEGIN")  # pins the moment: the copy is never begun anew
            try:
                sqlite.copy(connection, path)
            finally:
                connection.execute("COMMIT")

    def size_bytes(self) -> int:
        beside = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(path.stat().st_size for path in beside if path.exists())

    def close(self) -> None:
        """Close every connection, the writing one last: if nobody else is left it empties the WAL.

        A write that runs is waited for; reads that run keep their connection to their end. Call it under the
        lock that `version` is called under.
        """
        self._is_closed = True
        with suppress(NotReadyError), sqlite_errors(self.path):  # a fork leaves its parent's alone
            self._close_readers()
        with self._write_lock, suppress(NotReadyError), sqlite_errors(self.path):
            self.end_writer()

    def _close_readers(self) -> None:
        while self._idle:
            self._idle.pop().close(True)
        if self._watch is not None:
            self._watch.close(True)
            self._watch = None
