"""Compaction: the living slots moved together into a new slot file, the dead ones gone.

Runs in the write transaction: searches go on meanwhile, writers wait. Interrupted at any point, the old
generation is still the true one and what was written of the new one is removed at the next open.
"""

from __future__ import annotations

import numpy as np

from faissbase.collection.changes import start_generation
from faissbase.collection.store import Store
from faissbase.storage.checksums import block_checksums, block_slots
from faissbase.storage.records import State, WriteTransaction
from faissbase.storage.vectors import VectorFile
from faissbase.types import Float32, Slots

_COPY_BYTES = 16 << 20


def compact(store: Store, transaction: WriteTransaction, state: State) -> int:
    """Move every living record to slots 0, 1, 2 ... of a new generation; the number of dead slots dropped."""
    snapshot = store.snapshot_at(transaction)
    if snapshot.alive is None:
        return 0
    slots = np.flatnonzero(snapshot.alive)
    file = start_generation(store, transaction, state)
    try:
        _copy(snapshot.view.vectors, slots, file)
        transaction.renumber(slots)
        n_blocks = len(slots) // block_slots(file.row_bytes)
        transaction.insert_blocks(block_checksums(file, 0, n_blocks))
    except BaseException:  # the disk may be full, and what is in the file is of no use to anybody
        file.path.unlink(missing_ok=True)
        raise
    finally:
        file.close()
    return int(snapshot.view.n - snapshot.n_alive)


def _copy(vectors: Float32, slots: Slots, file: VectorFile) -> None:
    step = max(1, _COPY_BYTES // file.row_bytes)
    for start in range(0, len(slots), step):
        file.write(start, vectors[slots[start : start + step]])
    file.sync()
