"""Rows with one id in several shards: found by hashes, told apart by the ids themselves; the newest stays.

Every shard leaves the hashes of its ids, sorted, with their slots. They are merged a range of hashes at a
time, so that it takes no more memory than that range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from faissbase.errors import CorruptionError
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.manifest import Shard
from faissbase.storage.records import Records
from faissbase.types import Slots

RANGE_HASHES = 4 << 20
_IDS_AT_ONCE = 65_536
_HASH_BYTES, _SLOT_BYTES = 8, 4

Hashes = npt.NDArray[np.uint64]


def hashes_of(ids: Sequence[str]) -> Hashes:
    """``uint64[n]``. **Source**: XXH3, 64 bits (xxhash.com)."""
    return np.fromiter((xxh3_64_intdigest(id.encode()) for id in ids), np.uint64, len(ids))


def write_hashes(hashes: Hashes, path: Path) -> None:
    """The hashes of slots 0 to n, ascending, and after them the slots, ``uint32``."""
    order = np.argsort(hashes, kind="stable")
    with open(path, "wb") as file:
        hashes[order].tofile(file)
        order.astype(np.uint32).tofile(file)


@dataclass(frozen=True)
class Listed:
    """A shard with its hashes on this machine."""

    shard: Shard
    path: Path

    @property
    def n(self) -> int:
        return self.path.stat().st_size // (_HASH_BYTES + _SLOT_BYTES)

    def within(self, first: int, last: int) -> tuple[Hashes, npt.NDArray[np.uint32]]:
        """Hashes from ``first`` to ``last``, both included, and their slots."""
        n = self.n
        if not n:
            return np.empty(0, np.uint64), np.empty(0, np.uint32)
        hashes = np.memmap(self.path, np.uint64, "r", 0, (n,))
        start = int(hashes.searchsorted(np.uint64(first)))
        stop = int(hashes.searchsorted(np.uint64(last), side="right"))
        slots = np.memmap(self.path, np.uint32, "r", n * _HASH_BYTES, (n,))
        return np.array(hashes[start:stop]), np.array(slots[start:stop])


def replaced(listed: Sequence[Listed], bucket: Bucket, folder: Path) -> dict[str, Slots]:
    """By shard, the slots whose ids come again in a later one, ascending.

    Parameters
    ----------
    listed : sequence of Listed
        Oldest first; no id twice in one.
    folder : Path
        For the records of those shards whose ids have to be read.
    """
    ids = _Ids(listed, bucket, folder)
    hidden: dict[str, list[Slots]] = {}
    try:
        for shards, slots in _alike(listed):
            for shard, old in _older(shards, slots, ids):
                hidden.setdefault(listed[shard].shard.name, []).append(old)
    finally:
        ids.close()
    return {name: np.unique(np.concatenate(parts)) for name, parts in hidden.items()}


def _alike(listed: Sequence[Listed]) -> Iterator[tuple[Slots, Slots]]:
    """Shards and slots of rows that share their hash with another one, range by range."""
    n_ranges = max(1, -(-sum(each.n for each in listed) // RANGE_HASHES))
    edges = [i * (1 << 64) // n_ranges for i in range(n_ranges + 1)]
    for i in range(n_ranges):
        parts = [each.within(edges[i], edges[i + 1] - 1) for each in listed]
        hashes = np.concatenate([part[0] for part in parts])
        shards = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        slots = np.concatenate([part[1] for part in parts]).astype(np.int64)
        order = np.argsort(hashes, kind="stable")
        ordered = hashes[order]
        is_same = ordered[1:] == ordered[:-1]
        is_alike = np.concatenate([is_same, [False]]) | np.concatenate([[False], is_same])
        if is_alike.any():
            chosen = order[is_alike]
            yield shards[chosen], slots[chosen]


def _older(shards: Slots, slots: Slots, ids: _Ids) -> Iterator[tuple[int, Slots]]:
    """By shard, newest first, the slots whose ids a newer one has."""
    newer: set[str] = set()
    for shard in sorted(set(shards.tolist()), reverse=True):
        own = np.sort(slots[shards == shard])
        names = ids.of(shard, own)
        is_old = np.fromiter((name in newer for name in names), np.bool_, len(names))
        newer.update(names)
        if is_old.any():
            yield shard, own[is_old]


class _Ids:
    """The ids of shards by their slots; brings here what it is asked for."""

    def __init__(self, listed: Sequence[Listed], bucket: Bucket, folder: Path) -> None:
        self._listed = listed
        self._bucket = bucket
        self._folder = folder
        self._open: dict[int, Records] = {}

    def of(self, shard: int, slots: Slots) -> list[str]:
        found: dict[int, str] = {}
        with self._records(shard).read_transaction() as transaction:
            for start in range(0, len(slots), _IDS_AT_ONCE):
                rows = transaction.rows(slots[start : start + _IDS_AT_ONCE])
                found.update((slot, row.id) for slot, row in rows.items())
        if len(found) != len(slots):
            raise CorruptionError(
                f"shard {self._listed[shard].shard.name} lacks rows that it had when it was built"
            )
        return [found[slot] for slot in slots.tolist()]

    def _records(self, shard: int) -> Records:
        if shard not in self._open:
            owner = self._listed[shard].shard
            folder = self._folder / owner.name
            folder.mkdir()
            file = next(file for file in owner.files if file.path == "records.sqlite")
            self._bucket.download(file, folder / file.path)
            self._open[shard] = Records(folder, synchronous="NORMAL")
        return self._open[shard]

    def close(self) -> None:
        for records in self._open.values():
            records.close()
