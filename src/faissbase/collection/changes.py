"""Changes that look at what is stored before they write: update, delete by filter, reset.

Each runs alone in a write transaction, so what it looked at is what it changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faissbase.collection import inputs
from faissbase.collection.bounds import Bounds
from faissbase.collection.inputs import Rows, merge_metadata
from faissbase.collection.integrity import checked_rows
from faissbase.collection.selection import Selector
from faissbase.collection.store import Config, Store, vectors_path
from faissbase.collection.writer import Put, Writer
from faissbase.errors import CorruptionError, InvalidInputError, NotFoundError
from faissbase.filters.tree import Filter
from faissbase.storage.checksums import row_checksums
from faissbase.storage.files import os_errors, sync_folder
from faissbase.storage.records import State, StoredRow, WriteTransaction
from faissbase.storage.vectors import VectorFile
from faissbase.types import Float32


@dataclass(frozen=True, slots=True)
class Update:
    """New metadata, documents or vectors for records that exist; None leaves a part as it is."""

    ids: list[str]
    metadatas: Sequence[dict[str, Any] | None]
    documents: Sequence[str | None]
    vectors: tuple[Float32, list[float]] | None
    replace: bool
    bounds: Bounds

    def run(self, writer: Writer, transaction: WriteTransaction, state: State, vectors: VectorFile) -> int:
        """Write the changed records into new slots, all or none."""
        slot_of = transaction.slots_of(self.ids) if self.ids else {}
        unknown = [id for id in self.ids if id not in slot_of]
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise NotFoundError(f"no record with id {unknown[0]!r}{more}; nothing was updated")
        stored = {row.id: row for row in checked_rows(transaction, list(slot_of.values()), vectors)}
        if stored.keys() != slot_of.keys():
            raise CorruptionError(f"{vectors.path.parent}: ids lead to records of other ids; run repair()")
        rows = self.changed(_as_rows([stored[id] for id in self.ids], vectors))
        return writer.put_within(Put(rows), transaction, state, vectors)

    def changed(self, stored: Rows) -> Rows:
        """What ``stored``, the records with `ids` in their order, become."""
        metadata_json = [self._metadata(json, at) for at, json in enumerate(stored.metadata_json)]
        given = zip(self.documents, stored.documents, strict=True)
        documents = [was if document is None else document for document, was in given]
        matrix, norms = self.vectors or (stored.vectors, stored.norms)
        checksums = row_checksums(self.ids, metadata_json, documents, norms, matrix)
        return Rows(self.ids, matrix, norms, metadata_json, documents, checksums)

    def _metadata(self, stored: bytes, at: int) -> bytes:
        change = self.metadatas[at]
        if change is None:
            return stored
        merged = merge_metadata(b"{}" if self.replace else stored, list(change.items()), at)
        self.bounds.check_metadata(self.ids[at], merged)
        return merged


def _as_rows(stored: list[StoredRow], vectors: VectorFile) -> Rows:
    kept = [vectors.read(row.slot, 1) for row in stored]
    return Rows(
        [row.id for row in stored],
        np.concatenate(kept) if kept else np.zeros((0, vectors.dimension), np.float32),
        [row.norm for row in stored],
        [row.metadata_json for row in stored],
        [row.document for row in stored],
        [row.checksum for row in stored],
    )


def checked_update(
    ids: Any, metadatas: Any, documents: Any, vectors: Any, replace: bool, config: Config, bounds: Bounds
) -> Update:
    """An update as a caller asks for it, or `InvalidInputError`."""
    id_list = inputs.check_ids(ids)
    n = len(id_list)
    if metadatas is None and documents is None and vectors is None:
        raise InvalidInputError("update() needs metadatas, documents or vectors")
    objects: list[Any] = [None] * n
    if metadatas is not None:
        objects = [metadatas] if isinstance(metadatas, Mapping) else inputs.as_list(metadatas, "metadatas")
    inputs.encode_metadatas(objects, n)
    stored = None
    if vectors is not None:
        stored = inputs.check_vectors(vectors, n, config.dimension, config.metric)
    texts = inputs.check_documents(documents, n)
    return Update(id_list, objects, texts, stored, replace, bounds)


def delete_matching(
    store: Store, selector: Selector, where: Filter, transaction: WriteTransaction, state: State
) -> int:
    """Delete every record that matches; the number of them."""
    selection = selector.select(store.snapshot_at(transaction), where, transaction)
    slots = selection.slots.tolist()
    if slots:
        transaction.bury(slots, state.next_slot)
    return len(slots)


def start_generation(store: Store, transaction: WriteTransaction, state: State) -> VectorFile:
    """Begin an empty slot file under the next number; it counts once the transaction commits."""
    path = vectors_path(store.folder, state.generation + 1)
    with os_errors(f"cannot begin {path}"):
        path.unlink(missing_ok=True)
        file = VectorFile(path, store.config.dimension, writable=True, create=True)
        sync_folder(store.folder)
    transaction.set_meta("generation", state.generation + 1)
    return file


def reset(store: Store, transaction: WriteTransaction, state: State) -> int:
    """Remove every record; the number of them."""
    n_removed = store.snapshot_at(transaction).n_alive
    start_generation(store, transaction, state).close()
    transaction.clear()
    return n_removed
