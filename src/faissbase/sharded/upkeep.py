"""When an open collection merges its shards: a little after a write, more in a thread, all when asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from faissbase.collection.telling import Told, told
from faissbase.errors import ConflictError, FaissbaseError, NotReadyError
from faissbase.sharded.changes import Changes
from faissbase.sharded.compaction import ON_DEMAND, ON_WRITE, Merged, Merger, Policy, Stopped, alive_bytes
from faissbase.sharded.manifest import Manifest, Shard

# What a write waits for: so much is read and written in less than the time of a few requests to a store.
_WRITE_BYTES = 16 << 20
_TRIES = 20


class Upkeep:
    """Merges of one open collection."""

    def __init__(self, changes: Changes, name: str) -> None:
        self._changes = changes
        self._merger = Merger(changes)
        self._name = name
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wanted: Policy | None = None

    def after_write(self, manifest: Manifest) -> None:
        """Merge what a write has left too many of: small ones now, so that no writer outruns it.

        A failure is not the write's, which is done; the next write tries again.
        """
        inputs = self._merger.next(manifest, ON_WRITE)
        if not inputs:
            return
        if sum(alive_bytes(shard, manifest.dimension) for shard in inputs) > _WRITE_BYTES:
            self.start(ON_WRITE)
            return
        with suppress(FaissbaseError, Stopped):
            self._merge(manifest, inputs)

    def optimize(self, manifest: Manifest, *, progress: bool | Told) -> list[Merged]:
        """Merge until nothing is left to, by a thread of this process either; what each merge did."""
        done: list[Merged] = []
        n_lost = 0
        with told(progress, "rows") as tell:
            while (inputs := self._merger.next(manifest, ON_DEMAND)) or self._merger.settled():
                if not inputs:
                    manifest = self._changes.newest()
                    continue
                count = _counted(tell, len(done) + 1, sum(shard.n_alive for shard in inputs))
                try:
                    merged = self._merger.merge(manifest, inputs, count, self._stop.is_set)
                except Stopped as error:
                    raise NotReadyError(f"collection {self._name!r} was closed meanwhile") from error
                except ConflictError:  # others were faster: what is left to do now?
                    n_lost += 1
                    if n_lost == _TRIES:
                        raise
                    manifest = self._changes.newest()
                    continue
                done.append(merged)
                manifest = merged.manifest
        return done

    def start(self, policy: Policy) -> None:
        """Have a thread merge until nothing is left to by ``policy``."""
        with self._lock:
            if self._stop.is_set():
                return
            self._wanted = policy
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="faissbase-merge", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            with self._lock:
                policy, self._wanted = self._wanted, None
                if policy is None or self._stop.is_set():
                    self._thread = None
                    return
            with suppress(FaissbaseError, Stopped):  # a later write starts it again
                self._until_done(policy)

    def _until_done(self, policy: Policy) -> None:
        for _ in range(_TRIES):
            manifest = self._changes.newest()
            inputs = self._merger.next(manifest, policy)
            if not inputs:
                return
            with suppress(ConflictError):  # another process was faster: look again
                self._merge(manifest, inputs)

    def _merge(self, manifest: Manifest, inputs: tuple[Shard, ...]) -> None:
        self._merger.merge(manifest, inputs, lambda n: None, self._stop.is_set)

    def close(self) -> None:
        """End what is under way, and start nothing more."""
        with self._lock:
            self._stop.set()
            thread = self._thread
        if thread is not None:
            thread.join()


def _counted(tell: Told, number: int, total: int) -> Callable[[int], None]:
    """What is called with the rows of each piece of a merge."""
    done = 0

    def count(n_rows: int) -> None:
        nonlocal done
        done += n_rows
        tell(f"compacting, merge {number}", done, total)

    return count
