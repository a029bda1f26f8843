"""Checking the slot file against its checksums before its numbers are believed.

Blocks of about 1 MiB have one checksum each, the slots after the last block are checked row by row. A small
file is checked when it is opened; a large one in the background, so that it opens at once: damage found there
ends in `CorruptionError` from the next call on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from faissbase.errors import CorruptionError, FaissbaseError
from faissbase.storage.checksums import block_checksums, block_slots, row_checksum
from faissbase.storage.records import Records, State, StoredRow
from faissbase.storage.vectors import VectorFile

_FOREGROUND_BYTES = 128 << 20


class BlockCheck:
    """The check of one open collection."""

    def __init__(self, records: Records, vectors: VectorFile, state: State) -> None:
        self._damage: FaissbaseError | None = None
        if vectors.is_shorter_than(state.next_slot):
            vectors.view(state.next_slot)
        with records.read_transaction() as transaction:
            if transaction.state().generation != state.generation:
                return
            blocks = transaction.block_checksums()
            tail = list(
                transaction.stored_range(len(blocks) * block_slots(vectors.row_bytes), state.next_slot)
            )
        check_rows(tail, vectors)
        if len(blocks) * block_slots(vectors.row_bytes) * vectors.row_bytes <= _FOREGROUND_BYTES:
            _check_blocks(vectors, blocks)
        else:
            self._start(vectors, blocks)

    def _start(self, vectors: VectorFile, blocks: list[tuple[int, int]]) -> None:
        own = VectorFile(vectors.path, vectors.dimension, writable=False)

        def check() -> None:
            try:
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


def is_sound(row: StoredRow, vectors: VectorFile) -> bool:
    """Whether a row and its vector match the row's checksum."""
    if vectors.is_shorter_than(row.slot + 1):
        return False
    vector = vectors.read(row.slot, 1).tobytes()
    return row_checksum(row.id, row.metadata_json, row.document, row.norm, vector) == row.checksum


def check_rows(rows: Iterable[StoredRow], vectors: VectorFile) -> None:
    """Raise `CorruptionError` for the first row that is not sound."""
    for row in rows:
        if not is_sound(row, vectors):
            raise CorruptionError(
                f"{vectors.path.parent}: record {row.id!r} in slot {row.slot} is damaged; run repair()"
            )


def _check_blocks(vectors: VectorFile, blocks: list[tuple[int, int]]) -> None:
    for block, expected in blocks:
        [(_, found)] = block_checksums(vectors, block, block + 1)
        if found != expected:
            span = block_slots(vectors.row_bytes)
            raise CorruptionError(
                f"{vectors.path}: slots {block * span} to {(block + 1) * span - 1} are damaged; run repair()"
            )
