"""Checking a collection's files against one another.

Works on the files, not on an open collection, so that it can say what keeps one from opening.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faissbase.collection.integrity import is_sound
from faissbase.collection.store import Config, vectors_path
from faissbase.errors import CorruptionError, FaissbaseError
from faissbase.storage.checksums import block_checksums, block_slots
from faissbase.storage.records import FILE_NAME, ReadTransaction, Records, State
from faissbase.storage.segments import SegmentFolder
from faissbase.storage.vectors import VectorFile
from faissbase.types import Problem, VerifyReport

_SAMPLE_WORDS = 500
_ATTEMPTS = 3


def verify(folder: Path, config: Config) -> VerifyReport:
    """Read every byte of a collection and tell what does not agree.

    Files that somebody replaces meanwhile, by a compaction or a new segment, are no damage: then the newer
    ones are read.
    """
    for _ in range(_ATTEMPTS):
        report, files = _verified(folder, config)
        if report.ok or files is None or files == _files_of(folder):
            break
    return report


def _verified(folder: Path, config: Config) -> tuple[VerifyReport, tuple[int, int] | None]:
    """What one moment holds, and which files are its own; None where even that cannot be read."""
    n_rows, files = 0, None
    problems: list[Problem] = []
    try:
        with _reading(folder) as transaction:
            problems += [Problem("records", FILE_NAME, text) for text in transaction.integrity_problems()]
            state = transaction.state()
            files = state.generation, state.segments
            n_rows = _Check(folder, config, transaction, problems).run(state)
    except FaissbaseError as error:
        problems.append(Problem("records", FILE_NAME, str(error)))
    return VerifyReport(n_rows, problems), files


def _files_of(folder: Path) -> tuple[int, int] | None:
    try:
        with _reading(folder) as transaction:
            state = transaction.state()
    except FaissbaseError:
        return None
    return state.generation, state.segments


@contextmanager
def _reading(folder: Path) -> Iterator[ReadTransaction]:
    """A moment seen by a connection of its own: SQLite's check of a text index trusts its memory."""
    records = Records(folder, synchronous="FULL")
    try:
        with records.read_transaction() as transaction:
            yield transaction
    finally:
        records.close()


@dataclass(slots=True)
class _Check:
    """One reading of all rows, slots and derived tables of a moment."""

    folder: Path
    config: Config
    transaction: ReadTransaction
    problems: list[Problem]

    def run(self, state: State) -> int:
        """Check everything; the number of rows checked."""
        path = vectors_path(self.folder, state.generation)
        if not path.exists():
            self._tell("slots", path.name, "the slot file is missing")
            return 0
        vectors = VectorFile(path, self.config.dimension, writable=False)
        try:
            n_rows = self._check_rows(vectors, state.next_slot)
            self._check_blocks(vectors, state.next_slot)
            self._check_redo(vectors)
        finally:
            vectors.close()
        self._check_documents()
        self._check_segments(state)
        return n_rows

    def _tell(self, kind: str, where: str, message: str) -> None:
        self.problems.append(Problem(kind, where, message))

    def _check_rows(self, vectors: VectorFile, n: int) -> int:
        if vectors.is_shorter_than(n):
            self._tell("slots", vectors.path.name, f"the file is cut short: it should hold {n} slots")
        seen = np.zeros(min(n, vectors.n_slots), np.bool_)
        n_rows, last = 0, -1
        for row in self.transaction.stored_range(0, n):
            n_rows += 1
            if not last < row.slot < n:
                self._tell("record", f"id {row.id!r}, slot {row.slot}", "is met out of its order")
                return n_rows
            last = row.slot
            seen[row.slot : row.slot + 1] = True
            if not is_sound(row, vectors):
                where = f"id {row.id!r}, slot {row.slot}"
                self._tell("record", where, "vector, metadata or document do not match the record's checksum")
        buried = self.transaction.buried_since(0)
        if len(buried) and not 0 <= buried.min() <= buried.max() < n:
            self._tell("tombstone", "", f"names none of the {n} slots")
            return n_rows
        buried = buried[buried < len(seen)]
        for slot in buried[seen[buried]]:
            self._tell("tombstone", f"slot {slot}", "holds a record and is marked dead")
        seen[buried] = True
        for slot in np.flatnonzero(~seen):
            self._tell("slots", f"slot {slot}", "holds no record and is not marked dead")
        return n_rows

    def _check_blocks(self, vectors: VectorFile, n: int) -> None:
        span = block_slots(vectors.row_bytes)
        for block, expected in self.transaction.block_checksums():
            if vectors.is_shorter_than((block + 1) * span):
                break  # told already
            [(_, found)] = block_checksums(vectors, block, block + 1)
            if found != expected:
                where = f"slots {block * span} to {(block + 1) * span - 1}"
                self._tell("slots", where, "do not match the checksum of their block")

    def _check_redo(self, vectors: VectorFile) -> None:
        for slot, copy in self.transaction.redo_rows():
            if not vectors.may_be_row((slot, copy)):
                self._tell("redo", f"slot {slot}", "the redo copy is not a row")
            elif vectors.is_shorter_than(slot + 1) or vectors.read(slot, 1).tobytes() != copy:
                self._tell("redo", f"slot {slot}", "the slot differs from its redo copy")

    def _check_segments(self, state: State) -> None:
        files = SegmentFolder(self.folder)
        for row in self.transaction.segments(state):
            try:
                files.check(row.name, row.size_bytes, row.checksum)
            except CorruptionError as error:
                self._tell("segment", row.name, f"{error}; until then searches do without it")

    def _check_documents(self) -> None:
        stored, indexed = self.transaction.document_slots()
        for slot in sorted(stored ^ indexed):
            which = "is not in" if slot in stored else "has no document but is in"
            self._tell("documents", f"slot {slot}", f"{which} the full-text index")
        counts = self.transaction.word_counts()
        if len(set(counts)) > 1:
            words = "{} words in its documents, {} in all, {} to be found".format(*counts)
            self._tell("documents", "full-text index", f"does not agree with itself: {words}")
        for word in self.transaction.unfound_words(_SAMPLE_WORDS):
            self._tell("documents", f"word {word!r}", "is in documents and a search does not find it there")
