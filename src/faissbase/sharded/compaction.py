"""Many small shards, and those with many hidden rows, merged into fewer: what is planned, and doing it.

A merge reads the records that count as they are stored, bit for bit, and makes a shard of them. What is
replaced or deleted meanwhile is hidden in the new shard by the very commit that puts it in place.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import numpy as np

from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.inputs import Rows
from faissbase.errors import ConflictError
from faissbase.sharded.changes import Changes
from faissbase.sharded.manifest import Manifest, Shard
from faissbase.types import Slots

Progress = Callable[[int], object]
Input = tuple[Shard, FrozenCollection]


@dataclass(frozen=True, slots=True)
class Policy:
    """When shards are merged.

    Shards are of a *tier* by the bytes of their vectors that count: below ``tier_bytes``, below ``growth``
    times that, and so on. Where a tier has ``fan_in`` of them, they and all that is smaller become one. So
    there are fewer than ``fan_in`` a tier, and a record is rewritten at most ``growth`` times a tier: both
    grow with the logarithm of the dataset.

    Attributes
    ----------
    fan_in : int
    hidden_share : float
        A shard of which more rows are hidden is rewritten,
    hidden_bytes : int
        where their vectors take so much: smaller ones are soon merged anyway.
    tier_bytes : int
        Below, a shard costs what any costs: opening, and a request for each of its files.
    growth : int
    largest_bytes : int
        No merge makes a larger shard, nor takes one of half of it or more.
    """

    fan_in: int
    hidden_share: float
    hidden_bytes: int = 0
    tier_bytes: int = 1 << 20
    growth: int = 8
    largest_bytes: int = 1 << 30

    def tier(self, size_bytes: int) -> int:
        """The tier of a shard with so many bytes."""
        if size_bytes < self.tier_bytes:
            return 0
        return 1 + int(math.log(size_bytes / self.tier_bytes, self.growth))


ON_WRITE = Policy(fan_in=16, hidden_share=0.5, hidden_bytes=1 << 20)
ON_DEMAND = Policy(fan_in=2, hidden_share=0.1)


def alive_bytes(shard: Shard, dimension: int) -> int:
    """Bytes of the vectors of a shard that count."""
    return 4 * dimension * shard.n_alive


def plan(manifest: Manifest, policy: Policy, busy: Collection[str] = ()) -> tuple[Shard, ...]:
    """The shards to merge next, oldest first; none where all is well. ``busy`` are left alone."""
    free = [shard for shard in manifest.shards if shard.name not in busy]
    size = {shard.name: alive_bytes(shard, manifest.dimension) for shard in free}
    small = [shard for shard in free if 2 * size[shard.name] < policy.largest_bytes]
    tiers = [policy.tier(size[shard.name]) for shard in small]
    for tier in sorted(set(tiers)):
        if tiers.count(tier) >= policy.fan_in:
            within = [shard for shard, its in zip(small, tiers, strict=True) if its <= tier]
            return _fitting(within, size, policy)
    d = manifest.dimension
    return next(((shard,) for shard in free if _is_hidden_enough(shard, policy, d)), ())


def _fitting(shards: list[Shard], size: dict[str, int], policy: Policy) -> tuple[Shard, ...]:
    """As many of the shards, the oldest first, as make one that is not too large; two at least."""
    totals = np.cumsum([size[shard.name] for shard in shards])
    return tuple(shards[: max(2, int(np.searchsorted(totals, policy.largest_bytes, side="right")))])


def _is_hidden_enough(shard: Shard, policy: Policy, dimension: int) -> bool:
    is_much = 4 * dimension * shard.n_hidden >= policy.hidden_bytes
    return is_much and shard.n_hidden > policy.hidden_share * shard.rows


@dataclass(frozen=True, slots=True)
class Merged:
    """What one merge did."""

    manifest: Manifest
    n_inputs: int
    rows: int
    hidden_dropped: int


class Stopped(Exception):
    """The merge was asked to end. What it had made is garbage, for `collecting.collect`."""


class Merger:
    """Merges shards of one open collection; several threads may, each other shards."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._lock = threading.Condition()
        self._busy: set[str] = set()

    def settled(self) -> bool:
        """Wait for the merges that other threads of this process are at; whether there were any."""
        with self._lock:
            were_any = bool(self._busy)
            self._lock.wait_for(lambda: not self._busy)
            return were_any

    def next(self, manifest: Manifest, policy: Policy) -> tuple[Shard, ...]:
        """What `plan` says of the shards that no merge of this process is at."""
        with self._lock:
            return plan(manifest, policy, self._busy)

    def merge(
        self, base: Manifest, inputs: tuple[Shard, ...], progress: Progress, should_stop: Callable[[], bool]
    ) -> Merged:
        """Replace ``inputs``, shards of ``base``, by one shard of their records.

        Raises
        ------
        ConflictError
            Others have merged or removed all of them first.
        Stopped
            ``should_stop`` said so.
        """
        n_alive = sum(shard.n_alive for shard in inputs)
        with self._claimed(inputs), self._changes.opened(inputs, base) as opened:
            made = self._changes.shard(_batches(opened, progress, should_stop), base)
            pairs = list(zip(inputs, opened, strict=True))
            manifest = self._changes.commit(lambda newest: self._replaced(newest, pairs, made))
        return Merged(manifest, len(inputs), n_alive, sum(shard.n_hidden for shard in inputs))

    @contextmanager
    def _claimed(self, inputs: tuple[Shard, ...]) -> Iterator[None]:
        names = {shard.name for shard in inputs}
        with self._lock:
            if names & self._busy:
                raise ConflictError("another thread is merging one of these shards")
            self._busy |= names
        try:
            yield
        finally:
            with self._lock:
                self._busy -= names
                self._lock.notify_all()

    def _replaced(self, newest: Manifest, inputs: list[Input], made: Shard) -> Manifest:
        """``newest`` with the new shard in the place of the inputs, and hidden in it what is now in them.

        What was in an input that is there no more is now in another shard, or deleted.
        """
        places = {shard.name for shard, _ in inputs}
        if places.isdisjoint(shard.name for shard in newest.shards):
            raise ConflictError(
                f"{len(inputs)} shards of {newest.name!r} were merged or removed by others first"
            )
        lost = self._lost(newest, inputs)
        shard = self._hiding(newest, made, lost) if lost else made
        first = next(i for i, each in enumerate(newest.shards) if each.name in places)
        kept = [each for each in newest.shards if each.name not in places]
        return newest.with_shards((*kept[:first], shard, *kept[first:]))

    def _lost(self, newest: Manifest, inputs: list[Input]) -> list[str]:
        """The ids of the records of the inputs that do not count there any more, since they were opened."""
        ids: list[str] = []
        for shard, opened in inputs:
            current = newest.shard(shard.name)
            if current is None:
                ids += chain.from_iterable(rows.ids for rows in opened.batches())
            else:
                slots: Slots = np.setdiff1d(self._changes.hidden(current), opened.hidden)
                ids += opened.rows_at(slots).ids
        return ids

    def _hiding(self, manifest: Manifest, made: Shard, ids: list[str]) -> Shard:
        """The new shard without these ids; some are left, as some of a shard that is still there are."""
        with self._changes.opened([made], manifest) as [opened]:
            found = opened.slots_of(ids)
        return self._changes.hiding(manifest, made, np.fromiter(found.values(), np.int64))


def _batches(
    opened: list[FrozenCollection], progress: Progress, should_stop: Callable[[], bool]
) -> Iterator[Rows]:
    for collection in opened:
        for rows in collection.batches():
            if should_stop():
                raise Stopped
            yield rows
            progress(len(rows))
