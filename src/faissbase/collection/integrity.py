"""Checking the slot file against its checksums, and rows against slots, before they are believed.

Blocks of about 1 MiB have one checksum each, the slots after the last block are checked row by row. A small
file is checked when it is opened; a large one in the background, so that it opens at once: damage found there
ends in `CorruptionError` from the next call on.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Sequence

from faissbase.errors import CorruptionError, FaissbaseError
from faissbase.storage.checksums import block_checksums, block_slots, row_checksum
from faissbase.storage.records import ReadTransaction, Records, State, StoredRow
from faissbase.storage.vectors import VectorFile
from faissbase.types import Slots

_FOREGROUND_BYTES = 128 << 20
_FOREGROUND_SLOTS = 1 << 18  # counted in about five milliseconds


class BlockCheck:
    """The check of one open collection."""

    def __init__(self, records: Records, vectors: VectorFile, state: State) -> None:
        self._damage: FaissbaseError | None = None
        if vectors.is_shorter_than(state.next_slot):
            vectors.view(state.next_slot)
        with records.read_transaction() as transaction:
            if transaction.state().generation != state.generation:
                return
            if state.next_slot <= _FOREGROUND_SLOTS:
                _check_counts(transaction, records)
            if vectors.arrival is not None:  # which compares what it brings
                return
            blocks = transaction.block_checksums()
            tail = list(
                transaction.stored_range(len(blocks) * block_slots(vectors.row_bytes), state.next_slot)
            )
        check_rows(tail, vectors)
        checked_bytes = len(blocks) * block_slots(vectors.row_bytes) * vectors.row_bytes
        if max(checked_bytes / _FOREGROUND_BYTES, state.next_slot / _FOREGROUND_SLOTS) <= 1:
            _check_blocks(vectors, blocks)
        else:
            self._start(records, vectors, blocks)

    def _start(self, records: Records, vectors: VectorFile, blocks: list[tuple[int, int]]) -> None:
        own = VectorFile(vectors.path, vectors.dimension, writable=False)

        def check() -> None:
            try:
                with records.read_transaction() as transaction:
                    _check_counts(transaction, records)
                _check_blocks(own, blocks)
            except FaissbaseError as damage:
                self._damage = damage
            finally:
                own.close()

        threading.Thread(target=check, name="faissbase-integrity", daemon=True).start()

    def raise_damage(self) -> None:
        """Raise what the background check has found, if anything."""
        if self._damage is not None:
            raise self._damage


def _check_counts(transaction: ReadTransaction, records: Records) -> None:
    """Check that each slot holds a record or a dead one: an old page in place of a newer shows in this."""
    n_missing = transaction.n_missing(transaction.state())
    if n_missing:
        raise CorruptionError(
            f"{records.path}: records, dead slots and slots do not add up, by {n_missing}; "
            "run verify() and repair()"
        )


def is_sound(row: StoredRow, vectors: VectorFile) -> bool:
    """Whether a row and its vector match the row's checksum."""
    if row.slot < 0 or vectors.is_shorter_than(row.slot + 1):
        return False
    return fits(row, vectors.read(row.slot, 1).tobytes())


def fits(row: StoredRow, vector: bytes) -> bool:
    """Whether a row and the bytes of a vector match the row's checksum."""
    try:
        return row_checksum(row.id, row.metadata_json, row.document, row.norm, vector) == row.checksum
    except (AttributeError, TypeError, ValueError, struct.error):  # damage leaves any value in any column
        return False


def check_rows(rows: Iterable[StoredRow], vectors: VectorFile) -> None:
    """Raise `CorruptionError` for the first row that is not sound."""
    rows = list(rows)
    vectors.need([row.slot for row in rows])
    for row in rows:
        if not is_sound(row, vectors):
            raise CorruptionError(
                f"{vectors.path.parent}: record {row.id!r} in slot {row.slot} is damaged; run repair()"
            )


def checked_rows(
    transaction: ReadTransaction, slots: Slots | Sequence[int], vectors: VectorFile
) -> list[StoredRow]:
    """The rows in ``slots``, ascending, or `CorruptionError` unless each is there and sound."""
    rows = transaction.stored_rows(slots)
    if len(rows) != len(slots):
        raise CorruptionError(
            f"{vectors.path.parent}: of {len(slots)} records {len(slots) - len(rows)} cannot be found; "
            "run verify() and repair()"
        )
    check_rows(rows, vectors)
    return rows


def _check_blocks(vectors: VectorFile, blocks: list[tuple[int, int]]) -> None:
    for block, expected in blocks:
        [(_, found)] = block_checksums(vectors, block, block + 1)
        if found != expected:
            span = block_slots(vectors.row_bytes)
            raise CorruptionError(
                f"{vectors.path}: slots {block * span} to {(block + 1) * span - 1} are damaged; run repair()"
            )
