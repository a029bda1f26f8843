"""Writes to a dataset: each becomes the next version, or nothing.

What is new goes into a small shard of its own; what it replaces, and what is deleted, is hidden where it is.
Both are looked up in the very version that the commit follows, so that no id is ever in two shards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from faissbase.collection import inputs
from faissbase.collection.inputs import Rows
from faissbase.errors import AlreadyExistsError, InvalidInputError, NotFoundError
from faissbase.sharded.cache import Cache
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import Group
from faissbase.sharded.making import shard_of, slots_by_shard, with_hidden
from faissbase.sharded.manifest import Manifest, Shard
from faissbase.types import Record, Slots, Where

At = Callable[[Manifest], Group]


class Changes:
    """Writes of one open collection. ``at`` opens the shards of a version."""

    def __init__(self, dataset: Dataset, cache: Cache, at: At, memory_budget: int | None) -> None:
        self._dataset = dataset
        self._cache = cache
        self._at = at
        self._memory_budget = memory_budget

    def put(self, ids: Any, vectors: Any, metadatas: Any, documents: Any, *, refuse_existing: bool) -> int:
        """Store records, all or none; how many."""
        base = self._dataset.newest()
        rows = inputs.rows_from_input(ids, vectors, metadatas, documents, base.dimension, base.metric)
        if not len(rows):
            return 0
        if refuse_existing:  # before the shard is made, too
            _refuse(self._at(base).slots_of(rows.ids))
        delta = self._shard([rows], base)

        def change(newest: Manifest) -> Manifest:
            _check_same(newest, base)
            taken = self._at(newest).slots_of(rows.ids)
            if refuse_existing:
                _refuse(taken)
            hidden = self._hidden(newest, slots_by_shard(taken, list(taken)))
            return newest.with_shards((*hidden, delta))

        self._commit(change)
        return len(rows)

    def update(self, ids: Any, metadatas: Any, documents: Any, vectors: Any, *, replace: bool) -> int:
        """Change parts of records that are there, all or none; how many."""
        id_list = inputs.check_ids(ids)
        if not id_list:
            return 0

        def change(newest: Manifest) -> Manifest:
            group = self._at(newest)
            taken = group.slots_of(id_list)
            found = group.get(id_list, include_vectors=True)
            missing = [id for id in id_list if id not in found]
            if missing:
                raise NotFoundError(f"no record with id {missing[0]!r}; nothing was changed")
            records = [found[id] for id in id_list]
            rows = _updated(newest, records, metadatas, documents, vectors, replace)
            hidden = self._hidden(newest, slots_by_shard(taken, list(taken)))
            return newest.with_shards((*hidden, self._shard([rows], newest)))

        self._commit(change)
        return len(id_list)

    def delete(self, ids: list[str]) -> int:
        """Remove the records with these ids; how many there were."""
        return self._hide(lambda group: slots_by_shard(found := group.slots_of(ids), list(found)))

    def delete_matching(self, where: Where) -> int:
        """Remove the records that match; how many there were."""
        return self._hide(lambda group: group.matching(where))

    def reset(self) -> int:
        """Remove every record; how many there were."""
        n_removed = 0

        def change(newest: Manifest) -> Manifest | None:
            nonlocal n_removed
            n_removed = newest.n_alive
            return newest.with_shards(()) if newest.shards else None

        self._commit(change)
        return n_removed

    def _hide(self, chosen: Callable[[Group], dict[str, Slots]]) -> int:
        n_hidden = 0

        def change(newest: Manifest) -> Manifest | None:
            nonlocal n_hidden
            slots = chosen(self._at(newest))
            n_hidden = sum(map(len, slots.values()))
            return newest.with_shards(self._hidden(newest, slots)) if n_hidden else None

        self._commit(change)
        return n_hidden

    def _commit(self, change: Callable[[Manifest], Manifest | None]) -> None:
        """Make the next version, and answer from it."""
        self._at(self._dataset.commit(change))

    def _shard(self, batches: list[Rows], manifest: Manifest) -> Shard:
        return shard_of(batches, manifest, self._dataset.bucket, self._cache.folder, self._memory_budget)

    def _hidden(self, manifest: Manifest, slots: dict[str, Slots]) -> tuple[Shard, ...]:
        known = {shard.name: self._cache.hidden(shard) for shard in manifest.shards if shard.name in slots}
        return with_hidden(manifest, slots, known, self._dataset.bucket, self._cache.folder)


def _refuse(taken: dict[str, dict[str, int]]) -> None:
    ids = [id for slots in taken.values() for id in slots]
    if ids:
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        raise AlreadyExistsError(f"id {ids[0]!r}{more} exists already; upsert() replaces it")


def _check_same(newest: Manifest, base: Manifest) -> None:
    """Refuse to write into another dataset that has taken the name meanwhile."""
    if newest.uuid != base.uuid:
        raise NotFoundError(f"collection {base.name!r} was deleted, and made anew: get it again")


def _updated(
    manifest: Manifest, records: list[Record], metadatas: Any, documents: Any, vectors: Any, replace: bool
) -> Rows:
    """The records with some of their parts changed, checked."""
    n = len(records)
    parts = {"metadatas": metadatas, "documents": documents, "vectors": vectors}
    if all(part is None for part in parts.values()):
        raise InvalidInputError("update() needs metadatas, documents or vectors")
    given = None if metadatas is None else [metadatas] if isinstance(metadatas, dict) else list(metadatas)
    texts = None if documents is None else inputs.check_documents(documents, n)
    if given is not None and len(given) != n:
        raise InvalidInputError(f"expected {n} metadatas, one for each id, got {len(given)}")
    stored = np.stack([record.vector for record in records]) if vectors is None else vectors  # type: ignore[misc]
    merged = [
        record.metadata
        if given is None or given[i] is None
        else dict(given[i])
        if replace
        else {**record.metadata, **given[i]}
        for i, record in enumerate(records)
    ]
    said = [
        record.document if texts is None or texts[i] is None else texts[i] for i, record in enumerate(records)
    ]
    ids = [record.id for record in records]
    return inputs.rows_from_input(ids, stored, merged, said, manifest.dimension, manifest.metric)
