"""Checking a collection's files against one another, and repairing what can be repaired.

Works on the files, not on an open collection, so that it can say what keeps one from opening. Repair rebuilds
what is derived (full-text index, block checksums, tombstones), puts slots back that have a redo copy, and
moves records whose checksum fails into a quarantine file. It never makes anything up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from faissbase.collection.integrity import is_sound
from faissbase.collection.store import Config, vectors_path
from faissbase.errors import CorruptionError, FaissbaseError
from faissbase.storage.checksums import block_checksums, block_slots
from faissbase.storage.files import os_errors, publish, sync_data
from faissbase.storage.records import (
    FILE_NAME,
    ReadTransaction,
    Records,
    StoredRow,
    WriteTransaction,
    salvage,
)
from faissbase.storage.vectors import VectorFile
from faissbase.types import Problem, RepairReport, VerifyReport


def verify(folder: Path, config: Config) -> VerifyReport:
    """Read every byte of a collection and tell what does not agree."""
    report = VerifyReport(0, [])
    try:
        records = Records(folder, synchronous="FULL")
    except FaissbaseError as error:
        return VerifyReport(0, [Problem("records", FILE_NAME, str(error))])
    try:
        with records.read_transaction() as transaction:
            problems = [Problem("records", FILE_NAME, text) for text in transaction.integrity_problems()]
            check = _Check(folder, config, transaction)
            report = VerifyReport(check.run(), problems + check.problems)
    except CorruptionError as error:
        report = VerifyReport(
            report.rows_checked, [*report.problems, Problem("records", FILE_NAME, str(error))]
        )
    finally:
        records.close()
    return report


@dataclass(slots=True)
class _Check:
    """One reading of all rows, slots and derived tables of a moment."""

    folder: Path
    config: Config
    transaction: ReadTransaction
    problems: list[Problem] = field(default_factory=list)

    def run(self) -> int:
        """Check everything; the number of rows checked."""
        state = self.transaction.state()
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
        return n_rows

    def _tell(self, kind: str, where: str, message: str) -> None:
        self.problems.append(Problem(kind, where, message))

    def _check_rows(self, vectors: VectorFile, n: int) -> int:
        if vectors.is_shorter_than(n):
            self._tell("slots", vectors.path.name, f"the file is cut short: it should hold {n} slots")
        seen = np.zeros(n, np.bool_)
        n_rows = 0
        for row in self.transaction.stored_range(0, n):
            n_rows += 1
            seen[row.slot] = True
            if not is_sound(row, vectors):
                where = f"id {row.id!r}, slot {row.slot}"
                self._tell("record", where, "vector, metadata or document do not match the record's checksum")
        buried = self.transaction.buried_since(0)
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
            if vectors.is_shorter_than(slot + 1) or vectors.read(slot, 1).tobytes() != copy:
                self._tell("redo", f"slot {slot}", "the slot differs from its redo copy")

    def _check_documents(self) -> None:
        stored, indexed = self.transaction.document_slots()
        for slot in sorted(stored ^ indexed):
            which = "is not in" if slot in stored else "has no document but is in"
            self._tell("documents", f"slot {slot}", f"{which} the full-text index")


def repair(folder: Path, config: Config) -> RepairReport:
    """Make a damaged collection whole again out of what is sound. Nobody else may have it open."""
    actions: list[str] = []
    generation = _newest_generation(folder)
    _repair_records_file(folder, config, generation, actions)
    records = Records(folder, synchronous="FULL")
    try:
        with records.write_transaction() as transaction:
            path = vectors_path(folder, transaction.state().generation)
            if not path.exists():
                actions.append(f"made {path.name} anew: it was missing")
            vectors = VectorFile(path, config.dimension, writable=True, create=True)
            try:
                quarantined = _repair_rows(transaction, vectors, actions)
                quarantine_path = _write_quarantine(folder, quarantined)
                _rebuild_derived(transaction, vectors, actions)
            finally:
                vectors.close()
    finally:
        records.close()
    return RepairReport(actions, [entry["id"] for entry in quarantined], quarantine_path)


def _newest_generation(folder: Path) -> int:
    numbers = [int(path.name.split(".")[1]) for path in folder.glob("vectors.*.f32")]
    return max(numbers, default=0)


def _repair_records_file(folder: Path, config: Config, generation: int, actions: list[str]) -> None:
    """Where SQLite finds its file damaged, make a new one of every row that can still be read."""
    if _is_sound_file(folder):
        return
    facts: dict[str, Any] = {"uuid": config.uuid, "tenant": folder.parent.name, "name": config.name}
    facts |= {"dimension": config.dimension, "metric": config.metric, "index_type": config.index_type}
    path = vectors_path(folder, generation)
    n_slots = path.stat().st_size // (4 * config.dimension) if path.exists() else 0
    n_rows = salvage(folder, {**facts, "generation": generation}, n_slots)
    actions.append(
        f"made {FILE_NAME} anew from the {n_rows} rows that could be read; the old one is kept beside it"
    )


def _is_sound_file(folder: Path) -> bool:
    try:
        records = Records(folder, synchronous="FULL")
    except FaissbaseError:
        return False
    try:
        with records.read_transaction() as transaction:
            return not transaction.integrity_problems()
    except FaissbaseError:
        return False
    finally:
        records.close()


def _repair_rows(
    transaction: WriteTransaction, vectors: VectorFile, actions: list[str]
) -> list[dict[str, Any]]:
    """Put slots back that have a redo copy, bury records that are not sound; what was buried."""
    n = transaction.state().next_slot
    if vectors.is_shorter_than(n):
        actions.append(f"{vectors.path.name} was cut short: made it {n} slots long again, the new ones empty")
        vectors.extend(n)
    for slot, copy in transaction.redo_rows():
        if vectors.read(slot, 1).tobytes() != copy:
            vectors.write(slot, np.frombuffer(copy, np.float32).reshape(1, -1))
            actions.append(f"slot {slot}: put back from its redo copy")
    unsound = [row for row in transaction.stored_range(0, n) if not is_sound(row, vectors)]
    quarantined = [_quarantine_entry(row, vectors) for row in unsound]
    if unsound:
        transaction.bury([row.slot for row in unsound], n)
        actions.append(f"moved {len(unsound)} damaged records into quarantine")
    return quarantined


def _quarantine_entry(row: StoredRow, vectors: VectorFile) -> dict[str, Any]:
    return {
        "id": row.id,
        "slot": row.slot,
        "metadata_text": row.metadata_json.decode(errors="replace"),
        "document": row.document,
        "vector_as_found": vectors.read(row.slot, 1)[0].tolist(),
    }


def _write_quarantine(folder: Path, entries: list[dict[str, Any]]) -> str | None:
    if not entries:
        return None
    path = next(path for path in _numbered(folder, "quarantine.{}.jsonl") if not path.exists())
    draft = path.with_suffix(".tmp")
    with os_errors(f"cannot write {path}"):
        with open(draft, "wb") as out:
            for entry in entries:
                out.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))
            out.flush()
            sync_data(out.fileno())
        publish(draft, path)
    return str(path)


def _numbered(folder: Path, pattern: str) -> Iterator[Path]:
    number = 0
    while True:
        yield folder / pattern.format(number)
        number += 1


def _rebuild_derived(transaction: WriteTransaction, vectors: VectorFile, actions: list[str]) -> None:
    """Tombstones for slots without a record, block checksums, the full-text index."""
    n = transaction.state().next_slot
    transaction.rebury(n)
    stored, indexed = transaction.document_slots()
    if stored != indexed:
        actions.append("made the full-text index anew")
    transaction.reindex_documents()
    vectors.sync()
    transaction.clear_redo()
    transaction.clear_blocks()
    transaction.insert_blocks(block_checksums(vectors, 0, n // block_slots(vectors.row_bytes)))
