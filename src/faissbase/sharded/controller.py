"""Who holds what, kept true while workers come and go. Answers no searches: it may be away for a while.

Knows workers through a `Fleet`; not how they are started, and no network. The clock is passed in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from faissbase.errors import FaissbaseError
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.placement import Placement, held_by, place
from faissbase.sharded.scaling import Bounds, wanted_workers
from faissbase.sharded.worker import Health, Version

_SILENT_S = 3.0
_LOST_AFTER_S = 5.0
_GRACE_S = 30.0
_LEAVING_S = 5.0


class Fleet(Protocol):
    """Workers that can be started and stopped, wherever they run."""

    def names(self) -> list[str]:
        """The workers there are, those that are just being started again included."""
        ...

    def nodes(self) -> set[str]:
        """The machines there are."""
        ...

    def start(self) -> str:
        """Start one more; its name. It need not answer yet."""
        ...

    def stop(self, name: str) -> None: ...
    def health(self, names: Iterable[str]) -> dict[str, Health | None]:
        """What those workers tell that answer at once; None for those that are gone."""
        ...

    def open(
        self, key: Version, shards: Mapping[str, tuple[str, ...]], is_living: Callable[[str], bool]
    ) -> set[str]:
        """Have each worker open its shards of a version; the workers that have done so.

        Waits for those alone that go on living.
        """
        ...

    def keep(self, dataset: str, versions: Iterable[int]) -> None:
        """Have every worker let go of the other versions."""
        ...


@dataclass(frozen=True, slots=True)
class Status:
    """A deployment as it is now.

    Attributes
    ----------
    workers : dict of str to (str or None)
        By name, the node it runs on; None of one that does not answer.
    pids : dict of str to int
        Of those that answer, on their nodes.
    versions : tuple of (str, int)
        That are open.
    short : dict of str to int
        Shards that fewer workers hold than there are to be replicas, and how many do.
    replicas : int
    depth : float
        Questions per worker that wait or are being answered.
    """

    workers: Mapping[str, str | None]
    pids: Mapping[str, int]
    versions: tuple[Version, ...]
    short: Mapping[str, int]
    replicas: int
    depth: float

    @property
    def is_at_full_strength(self) -> bool:
        return not self.short and None not in self.workers.values()


@dataclass(slots=True)
class _Member:
    """A worker as it was last seen."""

    health: Health
    seen_at: float
    lost_at: float | None = None


class Controller:
    """Places the shards of every version that is asked for on the workers there are. Thread-safe.

    Parameters
    ----------
    bucket : Bucket
    fleet : Fleet
    bounds : Bounds
        How many workers there are.
    replicas : int
    now : callable
        Seconds of a clock that never goes back.
    """

    def __init__(
        self, bucket: Bucket, fleet: Fleet, bounds: Bounds, replicas: int, now: Callable[[], float]
    ) -> None:
        self._bucket = bucket
        self._fleet = fleet
        self._bounds = bounds
        self._replicas = replicas
        self._now = now
        self._lock = threading.RLock()
        self._wanted = bounds.least
        self._depths: list[float] = []
        self._members: dict[str, _Member] = {}
        self._leaving: dict[str, float] = {}
        self._nodes: set[str] = set()
        self._manifests: dict[Version, Manifest] = {}
        self._placements: dict[Version, Placement] = {}
        self._placing: dict[Version, threading.Lock] = {}
        self._opened: dict[tuple[Version, str], str] = {}
        self._used_at: dict[Version, float] = {}

    # ---- what clients ask ------------------------------------------------------------------------

    def placement(self, dataset: str, version: int) -> Placement:
        """By shard, the workers that have it open; a version that was not asked for yet is opened first."""
        key = (dataset, version)
        self._used_at[key] = self._now()
        if key not in self._placements:
            if not self._members:
                self.look()
            self._place(key)
        with self._lock:
            placed = self._placements[key]
            return {shard: self._reachable(key, workers) for shard, workers in placed.items()}

    def _reachable(self, key: Version, workers: Iterable[str]) -> tuple[str, ...]:
        """Those that are ready, or else those that live."""
        living = [name for name in workers if self._is_living(name)]
        ready = [name for name in living if self._is_ready(key, name)]
        return tuple(ready or living)

    def _is_living(self, name: str) -> bool:
        member = self._members.get(name)
        return member is not None and member.lost_at is None

    def _is_ready(self, key: Version, name: str) -> bool:
        return self._opened.get((key, name)) == self._members[name].health.life

    def status(self) -> Status:
        """Workers, versions, and what is missing."""
        with self._lock:
            names = self._fleet.names()
            nodes = {
                name: self._members[name].health.node if self._is_living(name) else None for name in names
            }
            missing = {f"worker {i + 1} of {self._wanted}": None for i in range(len(names), self._wanted)}
            depth = self._depths[-1] if self._depths else 0.0
            versions = tuple(sorted(self._placements))
            pids = {name: self._members[name].health.pid for name in names if nodes[name] is not None}
            return Status({**nodes, **missing}, pids, versions, self._short(), self._replicas, depth)

    def _short(self) -> dict[str, int]:
        short: dict[str, int] = {}
        copies = min(self._replicas, self._wanted)  # those beyond are for speed
        for key, placed in self._placements.items():
            for shard, workers in placed.items():
                n = sum(self._is_living(name) and self._is_ready(key, name) for name in workers)
                if n < copies:
                    short[shard] = n
        return short

    # ---- rounds ----------------------------------------------------------------------------------

    def look(self) -> None:
        """See how the workers are, and start those that are missing."""
        names, nodes = self._fleet.names(), self._fleet.nodes()
        now, told = self._now(), self._fleet.health(names)
        with self._lock:
            self._nodes = nodes
            for name in set(self._members) - set(names):
                del self._members[name]
            for name in names:
                self._note(name, told.get(name), name in told, now)
        self._scale(names)

    def _note(self, name: str, health: Health | None, has_answered: bool, now: float) -> None:
        member = self._members.get(name)
        if health is not None:
            self._members[name] = _Member(health, now)
        elif (
            member is not None
            and member.lost_at is None
            and (has_answered or now - member.seen_at > _SILENT_S)
        ):
            member.lost_at = now

    def _scale(self, names: list[str]) -> None:
        """As many workers as are wanted, where that changes."""
        with self._lock:
            staying = [name for name in names if name not in self._leaving]
            living = [member.health.depth for name, member in self._members.items() if self._is_living(name)]
            if living:
                self._depths = [*self._depths[-self._bounds.looks_idle :], sum(living) / len(living)]
            wanted = wanted_workers(self._wanted, self._depths, self._bounds)
            if wanted != self._wanted:
                self._wanted, self._depths = wanted, []
            surplus = sorted(staying, key=self._bytes_of)[: max(0, len(staying) - self._wanted)]
            self._leaving.update(dict.fromkeys(surplus, self._now()))
        for _ in range(len(staying), self._wanted):
            self._fleet.start()

    def _bytes_of(self, name: str) -> int:
        return sum(
            shard.size_bytes
            for key, placed in self._placements.items()
            for shard in self._manifests[key].shards
            if name in placed.get(shard.name, ())
        )

    def mend(self) -> None:
        """Have every shard where it should be, as far as there are workers for it."""
        for key in list(self._placements):
            if self._needs_placing(key):
                self._place(key)
        now = self._now()
        for name, since in list(self._leaving.items()):
            if now - since > _LEAVING_S:
                self._fleet.stop(name)
                self._leaving.pop(name)

    def _needs_placing(self, key: Version) -> bool:
        with self._lock:
            wanted, placed = self._planned(key), self._placements[key]
            is_same = {shard: set(workers) for shard, workers in wanted.items()} == {
                shard: set(workers) for shard, workers in placed.items()
            }
            living = {name for workers in wanted.values() for name in workers if self._is_living(name)}
            return not is_same or not all(self._is_ready(key, name) for name in living)

    def _planned(self, key: Version) -> Placement:
        """Where the shards of a version belong. Who was lost a moment ago may come back to its node."""
        now = self._now()
        nodes = {
            name: member.health.node
            for name, member in self._members.items()
            if name not in self._leaving and self._may_come_back(member, now)
        }
        sizes = {shard.name: shard.size_bytes for shard in self._manifests[key].shards}
        return place(sizes, nodes, self._replicas, self._before(key))

    def _may_come_back(self, member: _Member, now: float) -> bool:
        if member.lost_at is None:
            return True
        return now - member.lost_at < _LOST_AFTER_S and member.health.node in self._nodes

    def _before(self, key: Version) -> Placement:
        """Where the shards of a version are: those of an older version too, and what workers hold."""
        if key in self._placements:
            return self._placements[key]
        found: dict[str, tuple[str, ...]] = {}
        for name, member in self._members.items():
            for (dataset, _), shards in member.health.held.items():
                for shard in shards if dataset == key[0] else ():
                    found[shard] = (*(each for each in found.get(shard, ()) if each != name), name)
        for older in sorted(each for each in self._placements if each[0] == key[0]):
            found.update(self._placements[older])
        return found

    def _place(self, key: Version) -> None:
        """Have a version opened where it belongs, and then say so."""
        with self._lock:
            lock = self._placing.setdefault(key, threading.Lock())
        with lock:
            if key not in self._manifests:
                self._manifests[key] = Dataset(self._bucket, key[0]).read(key[1])
            with self._lock:
                placed = self._planned(key)
                lives = {name: member.health.life for name, member in self._members.items()}
            names = {name for workers in placed.values() for name in workers if self._is_living(name)}
            wanted = {name: held_by(placed, name) for name in sorted(names)}
            done = self._fleet.open(key, wanted, self._is_living)
            with self._lock:
                self._placements[key] = placed
                for name in done:
                    self._opened[key, name] = lives[name]

    # ---- versions --------------------------------------------------------------------------------

    def follow(self) -> None:
        """Open what is new, and let go of what nobody has asked about for a while."""
        for dataset in {key[0] for key in list(self._placements)}:
            with suppress(FaissbaseError):  # the store may be away: the next round tries again
                newest = Dataset(self._bucket, dataset).latest()
                if newest is not None:
                    self._turn_to(newest)

    def open_all(self, names: Iterable[str]) -> None:
        """Open the newest versions of these datasets."""
        for name in names:
            manifest = Dataset(self._bucket, name).newest()
            self.placement(name, manifest.version)

    def _turn_to(self, newest: Manifest) -> None:
        key = (newest.name, newest.version)
        if key not in self._placements and not newest.is_deleted:
            self._manifests[key] = newest
            self.placement(*key)
        now = self._now()
        with self._lock:
            old = [
                each
                for each in self._placements
                if each[0] == newest.name
                and (each[1] < newest.version or newest.is_deleted)
                and now - self._used_at.get(each, 0.0) > _GRACE_S
            ]
            for each in old:
                for known in (self._placements, self._manifests, self._used_at, self._placing):
                    known.pop(each, None)
                for opened in [opened for opened in self._opened if opened[0] == each]:
                    del self._opened[opened]
            kept = [each[1] for each in self._placements if each[0] == newest.name]
        if old:
            self._fleet.keep(newest.name, kept)
