"""Making a damaged collection whole again out of what is sound.

Rebuilds what is derived (full-text index, block checksums, tombstones), puts slots back that have a redo
copy, and moves records whose checksum fails into a quarantine file. It never makes anything up. Works on the
files, which nobody else may have open.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from faissbase.collection.integrity import fits, is_sound
from faissbase.collection.store import Config, vectors_path
from faissbase.errors import ConflictError, CorruptionError, FaissbaseError
from faissbase.storage.checksums import block_checksums, block_slots
from faissbase.storage.files import FolderLock, os_errors, publish, sync_data
from faissbase.storage.records import FILE_NAME, Records, StoredRow, WriteTransaction
from faissbase.storage.salvage import damaged_meta, finish_salvage, mend_header, readable_rows, salvage
from faissbase.storage.segments import SegmentFolder
from faissbase.storage.vectors import FLOAT_BYTES, VectorFile
from faissbase.types import RepairReport

_SAMPLE_ROWS = 1000


def repair(folder: Path, config: Config) -> RepairReport:
    """Make a damaged collection whole again out of what is sound.

    Raises
    ------
    ConflictError
        Somebody else has it open.
    """
    lock = FolderLock(folder)
    try:
        if not lock.take(shared=False):
            raise ConflictError(
                f"collection {config.name!r} is open in another process, or by another connect() of "
                "this one: close it there first"
            )
        return _repair_alone(folder, config)
    finally:
        lock.release()


def _repair_alone(folder: Path, config: Config) -> RepairReport:
    actions: list[str] = []
    _repair_records_file(folder, config, actions)
    records = Records(folder, synchronous="FULL")
    try:
        with records.write_transaction() as transaction:
            vectors = _slot_file(transaction, folder, config, actions)
            try:
                quarantined = _repair_rows(transaction, vectors, actions)
                quarantine_path = _write_quarantine(folder, quarantined)
                _rebuild_derived(transaction, vectors, actions)
            finally:
                vectors.close()
    finally:
        records.close()
    if quarantined:  # then another slot file may be the right one after all
        _put_aside(folder, [path for path in _slot_files(folder).values() if path != vectors.path], actions)
    return RepairReport(actions, [entry["id"] for entry in quarantined], quarantine_path)


def _repair_records_file(folder: Path, config: Config, actions: list[str]) -> None:
    """Where SQLite finds its file damaged, make a new one of every row that can still be read."""
    finish_salvage(folder)
    path = folder / FILE_NAME
    if path.exists() and mend_header(path):
        actions.append(f"put the header of {FILE_NAME} right")
    if _is_sound_file(folder):
        return
    files = _slot_files(folder)
    n_slots = max((_n_slots(path, config) for path in files.values()), default=0)
    generation = _generation(folder, config, n_slots)
    facts: dict[str, Any] = {"uuid": config.uuid, "tenant": folder.parent.name, "name": config.name}
    facts |= {"dimension": config.dimension, "metric": config.metric, "index_type": config.index_type}
    n_rows = salvage(folder, {**facts, "generation": generation}, n_slots)
    actions.append(
        f"made {FILE_NAME} anew from the {n_rows} rows that could be read; the old one is kept beside it"
    )
    if not n_rows:  # else what is written next would go over vectors that nothing speaks of any more
        _put_aside(folder, list(files.values()), actions)


def _slot_files(folder: Path) -> dict[int, Path]:
    """The slot files by generation; more than one where a compaction or reset was interrupted."""
    paths = folder.glob("vectors.*.f32")
    return {int(path.name.split(".")[1]): path for path in paths if path.name.split(".")[1].isdigit()}


def _n_slots(path: Path, config: Config) -> int:
    return path.stat().st_size // (FLOAT_BYTES * config.dimension)


def _generation(folder: Path, config: Config, n_slots: int) -> int:
    """The generation that a damaged records file speaks of.

    Of several slot files it is the one that fits its rows; where as many fit, the one that the file names.
    """
    named = damaged_meta(folder).get("generation")
    files = _slot_files(folder)
    if len(files) < 2:
        return next(iter(files), named if isinstance(named, int) and named >= 0 else 0)
    rows = _sample(readable_rows(folder, n_slots))
    return max(files, key=lambda number: (_n_sound(rows, files[number], config), number == named, number))


def _sample(rows: Sequence[StoredRow]) -> list[StoredRow]:
    """At most about a thousand rows from all over, the last among them."""
    return list(rows[:: -(max(1, len(rows) // _SAMPLE_ROWS))])


def _n_sound(rows: Sequence[StoredRow], path: Path, config: Config) -> int:
    vectors = VectorFile(path, config.dimension, writable=False)
    try:
        return sum(is_sound(row, vectors) for row in rows)
    finally:
        vectors.close()


def _slot_file(transaction: WriteTransaction, folder: Path, config: Config, actions: list[str]) -> VectorFile:
    """The slot file of the rows; where it is missing, another that fits them, or else a new one."""
    generation = transaction.state().generation
    path = vectors_path(folder, generation)
    others = _slot_files(folder)
    if generation not in others:
        rows = _sample(list(transaction.stored_range(0, transaction.state().next_slot)))
        fits = {number: _n_sound(rows, other, config) for number, other in others.items()}
        best = max(fits, key=lambda number: fits[number], default=None)
        if best is not None and fits[best]:
            actions.append(f"{path.name} is missing: took {others[best].name}, which fits")
            transaction.set_meta("generation", best)
            path = others[best]
        else:
            actions.append(f"made {path.name} anew: it was missing")
    return VectorFile(path, config.dimension, writable=True, create=True)


def _put_aside(folder: Path, paths: Sequence[Path], actions: list[str]) -> None:
    for path in paths:
        with os_errors(f"cannot put {path} aside"):
            os.replace(path, folder / f"{path.name}.damaged")
        actions.append(f"put {path.name} aside as {path.name}.damaged")


def _is_sound_file(folder: Path) -> bool:
    try:
        records = Records(folder, synchronous="FULL")
    except FaissbaseError:
        return False
    try:
        with records.read_transaction() as transaction:
            transaction.state()
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
    _put_back(transaction, vectors, actions)
    if vectors.is_shorter_than(n):
        actions.append(f"{vectors.path.name} was cut short: it holds {vectors.n_slots} of {n} slots")
    unsound = [row for row in transaction.stored_range(0, n) if not is_sound(row, vectors)]
    quarantined = [_quarantine_entry(row, vectors) for row in unsound]
    if unsound:
        transaction.bury([row.slot for row in unsound], n)
        actions.append(f"moved {len(unsound)} damaged records into quarantine")
    return quarantined


def _put_back(transaction: WriteTransaction, vectors: VectorFile, actions: list[str]) -> None:
    """Write redo copies into slots that differ, where they are what the record wants."""
    copies = dict(filter(vectors.may_be_row, transaction.redo_rows()))
    for row in transaction.stored_rows(list(copies)):
        if fits(row, copies[row.slot]) and not is_sound(row, vectors):
            vectors.write(row.slot, np.frombuffer(copies[row.slot], np.float32).reshape(1, -1))
            actions.append(f"slot {row.slot}: put back from its redo copy")


def _quarantine_entry(row: StoredRow, vectors: VectorFile) -> dict[str, Any]:
    is_lost = row.slot < 0 or vectors.is_shorter_than(row.slot + 1)
    return {
        "id": _as_text(row.id),
        "slot": row.slot,
        "metadata_text": _as_text(row.metadata_json),
        "document": _as_text(row.document),
        "vector_as_found": None if is_lost else vectors.read(row.slot, 1)[0].tolist(),
    }


def _as_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


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
    n = min(transaction.state().next_slot, vectors.n_slots)
    transaction.rebury(n)
    stored, indexed = transaction.document_slots()
    if stored != indexed:
        actions.append("made the full-text index anew")
    transaction.reindex_documents()
    vectors.sync()
    transaction.clear_redo()
    transaction.clear_blocks()
    transaction.insert_blocks(block_checksums(vectors, 0, n // block_slots(vectors.row_bytes)))
    _drop_damaged_segments(transaction, vectors.path.parent, actions)


def _drop_damaged_segments(transaction: WriteTransaction, folder: Path, actions: list[str]) -> None:
    state, files = transaction.state(), SegmentFolder(folder)
    listed = transaction.segments(state)
    sound = []
    for row in listed:
        with suppress(CorruptionError):
            files.check(row.name, row.size_bytes, row.checksum)
            sound.append(row)
    if len(sound) < len(listed):
        transaction.replace_segments(sound, state.generation)
        actions.append(f"left out {len(listed) - len(sound)} damaged index files: they will be built anew")
