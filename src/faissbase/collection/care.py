"""What a collection does for itself: building indexes, compaction, measuring its own recall."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from faissbase.ann.flat import MAX_THREADS
from faissbase.ann.spec import EXACT_TYPES, Spec
from faissbase.collection.building import Building, Measuring, Progress, is_due, never
from faissbase.collection.optimizer import compact
from faissbase.collection.store import Snapshot, Store
from faissbase.collection.telling import Told, told
from faissbase.collection.writer import Alone, Writer
from faissbase.storage.records import WriteTransaction
from faissbase.types import Float32

_LEASE_POLL_S = 0.05
# Compaction has every index built anew, so that some dead slots are borne with where there are indexes.
_DEAD_SHARE_ASKED = 0.1
# Unasked only where more is dead than alive: each death then pays for one rewritten slot.
_DEAD_SHARE_OWN = 0.5
_WORTH_NUMBERS = 1 << 20


@dataclass(frozen=True, slots=True)
class OptimizeReport:
    """What `optimize` did, and how much of the collection an index now covers.

    Attributes
    ----------
    slots_before, slots_after : int
    reclaimed_bytes : int
        0 where compaction was not worth it.
    slots_indexed : int
        Slots that an index covers; the rest is searched exactly.
    segments : int
    """

    slots_before: int
    slots_after: int
    reclaimed_bytes: int
    slots_indexed: int
    segments: int


class Care:
    """The care of one open collection."""

    def __init__(self, store: Store, writer: Writer, memory_bytes: int | None) -> None:
        self._store = store
        self._writer = writer
        self._memory_bytes = memory_bytes
        self._n_built = 0  # how far the builder of the background is, for who waits for it

    def is_due(self, snapshot: Snapshot) -> bool:
        """Whether `maintain` would find something to do."""
        is_long = is_due(snapshot.view.n, snapshot.n_indexed, self._store.config)
        return is_long or snapshot.tuning.wants_filters or _is_mostly_dead(snapshot)

    def maintain(self, stop: threading.Event) -> bool:
        """Build and compact as far as it is due; False where somebody else is building."""
        if _is_mostly_dead(self._store.snapshot()):
            self._compact()
        building = self._building(max(1, MAX_THREADS // 2))
        is_done = building.run(is_final=False, progress=self._note_built, should_stop=stop.is_set)
        if is_done and self._store.tuning.wants_filters:
            is_done = building.measure_filters(stop.is_set)
        return is_done or stop.is_set()

    def optimize(self, *, progress: bool | Told) -> OptimizeReport:
        """Compact where it is worth it and build to the end; interrupted, it goes on where it was."""
        before = self._store.snapshot()
        dead = before.view.n - before.n_alive
        with told(progress, "vectors") as tell:
            if dead and (not before.segments or dead >= _DEAD_SHARE_ASKED * before.view.n):
                tell("compacting", 0, before.n_alive)
                self._compact()
                tell("compacting", before.n_alive, before.n_alive)
            self._build_to_the_end(tell)
        return self.report(before)

    def finish(
        self, spec: Spec, trained: Path | None, *, threads: int, progress: Progress, measuring: Measuring
    ) -> None:
        """Drop what is dead, and build one segment of ``spec`` over the rest; see `Building.whole`."""
        self.drop_dead()
        if spec.family != "flat":
            building = Building(self._store, self._writer, memory_bytes=self._memory_bytes, threads=threads)
            building.whole(spec, trained, progress=progress, should_stop=never, measuring=measuring)
        self._store.settle()

    def drop_dead(self) -> None:
        """Number the slots anew, without the dead ones."""
        snapshot = self._store.snapshot()
        if snapshot.n_alive < snapshot.view.n:
            self._compact()

    def train(self, xt: Float32 | None) -> None:
        """Have an index that was named learn anew; see `Building.train`."""
        config = self._store.config
        if config.index_type in EXACT_TYPES or config.index_type == "auto":
            return
        building = self._building(MAX_THREADS)
        while not building.train(xt):
            time.sleep(_LEASE_POLL_S)
        self._store.settle()

    def report(self, before: Snapshot | None = None) -> OptimizeReport:
        """How things stand, against how they were."""
        after = self._store.snapshot()
        before = before or after
        reclaimed = (before.view.n - after.view.n) * self._store.config.dimension * 4
        return OptimizeReport(
            before.view.n, after.view.n, max(0, reclaimed), after.n_indexed, len(after.segments)
        )

    def keep_tuning(self) -> None:
        """Have later openings begin with what measured recall has taught."""

        def keep(transaction: WriteTransaction, *_: object) -> int:
            self._store.keep_tuning(transaction)
            return 1

        self._writer.run(Alone(keep))

    def _build_to_the_end(self, tell: Told) -> None:
        building = self._building(MAX_THREADS)
        # What is written meanwhile is left to the next time, or a writer could keep this for ever.
        n = self._store.snapshot().view.n

        def moved(n_done: int) -> None:
            tell("building the index", min(n_done, n), n)

        while not building.run(is_final=True, progress=moved, should_stop=never, upto=n):
            moved(max(self._n_built, self._store.snapshot().n_indexed))  # by somebody else
            time.sleep(_LEASE_POLL_S)
        while self._store.tuning.wants_filters and not building.measure_filters(never):
            tell("measuring filters", 0, n)
            time.sleep(_LEASE_POLL_S)
        self._store.settle()
        n_indexed = self._store.snapshot().n_indexed
        if n_indexed:
            moved(n_indexed)

    def _note_built(self, n_done: int) -> None:
        self._n_built = n_done

    def _building(self, threads: int) -> Building:
        return Building(self._store, self._writer, memory_bytes=self._memory_bytes, threads=threads)

    def _compact(self) -> None:
        self._writer.run(Alone(lambda transaction, state, _: compact(self._store, transaction, state)))
        self._n_built = 0
        self._store.remove_other_generations()


def _is_mostly_dead(snapshot: Snapshot) -> bool:
    n = snapshot.view.n
    dead = n - snapshot.n_alive
    return bool(dead > _DEAD_SHARE_OWN * n and dead * snapshot.view.d >= _WORTH_NUMBERS)
