"""Writes to a dataset: each becomes the next version, or nothing.

What is new goes into a small shard of its own; what it replaces, and what is deleted, is hidden where it is.
Both are looked up in the very version that the commit follows, so that no id is ever in two shards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from faissbase.collection import inputs
from faissbase.collection.bounds import UNBOUNDED
from faissbase.collection.changes import checked_update
from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.inputs import Rows
from faissbase.collection.store import Config
from faissbase.errors import AlreadyExistsError, FaissbaseError, NotFoundError, UnavailableError
from faissbase.sharded.cache import Cache
from faissbase.sharded.dataset import Change, Dataset
from faissbase.sharded.group import ShardGroup, open_shard
from faissbase.sharded.making import hiding, shard_of, slots_by_shard, with_hidden
from faissbase.sharded.manifest import Manifest, Shard
from faissbase.types import Slots, Where

At = Callable[[Manifest], ShardGroup]


class Changes:
    """Writes of one open collection, one commit at a time; those of other processes come between.

    Parameters
    ----------
    dataset : Dataset
    cache : Cache
    at : callable
        Opens the shards of a version.
    uuid : str
        Of the dataset that is written to: one that has taken its name is refused.
    memory_budget : int, optional
    """

    def __init__(
        self, dataset: Dataset, cache: Cache, at: At, uuid: str, memory_budget: int | None = None
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._at = at
        self._uuid = uuid
        self._memory_budget = memory_budget
        self._committing = threading.Lock()  # or the threads of one process would make each other try again

    def newest(self) -> Manifest:
        """The newest version of this very dataset."""
        return self._checked(self._dataset.newest())

    def group(self, manifest: Manifest) -> ShardGroup:
        """All shards of a version: a write must know what it replaces, whatever readers may do without."""
        group = self._at(manifest)
        if group.missing:
            name, reason = next(iter(group.missing.items()))
            raise UnavailableError(
                f"{len(group.missing)} shards of {manifest.name!r} cannot be opened, so nothing was written; "
                f"{name}: {reason}"
            )
        return group

    # ---- records ---------------------------------------------------------------------------------

    def put(self, ids: Any, vectors: Any, metadatas: Any, documents: Any, *, refuse_existing: bool) -> int:
        """Store records, all or none; how many."""
        base = self.newest()
        rows = inputs.rows_from_input(ids, vectors, metadatas, documents, base.dimension, base.metric)
        return self._put(rows, base, refuse_existing=refuse_existing)

    def put_stored(self, rows: Rows) -> int:
        """Store records that were checked before, replacing those whose ids exist; how many."""
        return self._put(rows, self.newest(), refuse_existing=False)

    def _put(self, rows: Rows, base: Manifest, *, refuse_existing: bool) -> int:
        if not len(rows):
            return 0
        if refuse_existing:  # before the shard is made, too
            _refuse(self.group(base).slots_of(rows.ids))
        self.put_rows([rows], rows.ids, base, refuse_existing=refuse_existing)
        return len(rows)

    def put_rows(
        self, batches: Iterable[Rows], ids: list[str], base: Manifest, *, refuse_existing: bool = False
    ) -> None:
        """Store checked records as one shard; ``ids`` is filled by the time that ``batches`` end."""
        delta = self.shard(batches, base)

        def change(newest: Manifest) -> Manifest:
            group = self.group(newest)
            taken = group.slots_of(ids)
            if refuse_existing:
                _refuse(taken)
            hidden = self._hidden(newest, slots_by_shard(taken, list(taken)))
            return newest.with_shards((*hidden, delta))

        self.commit(change)

    def update(self, ids: Any, metadatas: Any, documents: Any, vectors: Any, *, replace: bool) -> int:
        """Change parts of records that are there, all or none; how many."""
        base = self.newest()
        config = Config(base.uuid, base.name, base.dimension, base.metric, base.index_type)
        update = checked_update(ids, metadatas, documents, vectors, replace, config, UNBOUNDED)
        if not update.ids:
            return 0

        def change(newest: Manifest) -> Manifest:
            group = self.group(newest)
            rows = update.changed(_found(group.rows(update.ids), update.ids))
            taken = group.slots_of(update.ids)
            hidden = self._hidden(newest, slots_by_shard(taken, list(taken)))
            return newest.with_shards((*hidden, self.shard([rows], newest)))

        self.commit(change)
        return len(update.ids)

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

        self.commit(change)
        return n_removed

    def _hide(self, chosen: Callable[[ShardGroup], dict[str, Slots]]) -> int:
        n_hidden = 0

        def change(newest: Manifest) -> Manifest | None:
            nonlocal n_hidden
            group = self.group(newest)
            slots = chosen(group)
            n_hidden = sum(map(len, slots.values()))
            return newest.with_shards(self._hidden(newest, slots)) if n_hidden else None

        self.commit(change)
        return n_hidden

    # ---- shards ----------------------------------------------------------------------------------

    def commit(self, change: Change) -> Manifest:
        """Make the next version of this very dataset, and answer from it."""
        with self._committing:
            manifest = self._dataset.commit(lambda newest: change(self._checked(newest)))
        try:
            self._at(manifest)
        except FaissbaseError as error:
            made = f"version {manifest.version} of {manifest.name!r} was made, but cannot be opened here"
            raise UnavailableError(f"{made}: {error}") from error
        return manifest

    def shard(self, batches: Iterable[Rows], manifest: Manifest) -> Shard:
        """A new shard of these records, in the bucket and on this machine."""
        bucket, cache = self._dataset.bucket, self._cache
        return shard_of(batches, manifest, bucket, cache.folder, self._memory_budget, adopt=cache.adopt)

    def hiding(self, manifest: Manifest, shard: Shard, slots: Slots) -> Shard:
        """A shard with these slots hidden too."""
        cache = self._cache
        hidden = np.union1d(cache.hidden(shard), slots)
        return hiding(shard, hidden, manifest, self._dataset.bucket, cache.folder, cache.note_hidden)

    def hidden(self, shard: Shard) -> Slots:
        """The slots of a shard that do not count."""
        return self._cache.hidden(shard)

    @contextmanager
    def opened(self, shards: Iterable[Shard], manifest: Manifest) -> Iterator[list[FrozenCollection]]:
        """Shards open on this machine, wherever searches are answered; closed at the end of the block."""
        with ExitStack() as open_files:
            found: list[FrozenCollection] = []
            for shard in shards:
                found.append(open_shard(shard, manifest, self._cache, None, self._memory_budget).collection)
                open_files.callback(found[-1].close)
            yield found

    def _hidden(self, manifest: Manifest, slots: dict[str, Slots]) -> tuple[Shard, ...]:
        bucket, cache = self._dataset.bucket, self._cache
        known = {shard.name: cache.hidden(shard) for shard in manifest.shards if shard.name in slots}
        return with_hidden(manifest, slots, known, bucket, cache.folder, cache.note_hidden)

    def _checked(self, newest: Manifest) -> Manifest:
        if newest.uuid != self._uuid:
            raise NotFoundError(f"collection {newest.name!r} was deleted, and made anew: get it again")
        return newest


def _refuse(taken: dict[str, dict[str, int]]) -> None:
    ids = [id for slots in taken.values() for id in slots]
    if ids:
        more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
        raise AlreadyExistsError(f"id {ids[0]!r}{more} exists already; upsert() replaces it")


def _found(parts: dict[str, Rows], ids: list[str]) -> Rows:
    """The stored records of several shards, in the order of ``ids``."""
    place = {id: (rows, at) for rows in parts.values() for at, id in enumerate(rows.ids)}
    missing = [id for id in ids if id not in place]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotFoundError(f"no record with id {missing[0]!r}{more}; nothing was updated")
    found = [place[id] for id in ids]
    return Rows(
        ids,
        np.stack([rows.vectors[at] for rows, at in found]),
        [rows.norms[at] for rows, at in found],
        [rows.metadata_json[at] for rows, at in found],
        [rows.documents[at] for rows, at in found],
        [rows.checksums[at] for rows, at in found],
    )
