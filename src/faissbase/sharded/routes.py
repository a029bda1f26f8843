"""Which worker has which shards open, as the controller said a moment ago; and a database that asks them.

Knows no transport: what asks the controller and what finds a worker are passed in.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.errors import FaissbaseError
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.database import REFRESH_S, ShardedDatabase
from faissbase.sharded.fanout import Tally
from faissbase.sharded.group import Group, OpenGroup
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.placement import Placement
from faissbase.sharded.router import TIMEOUT_S, RoutedGroup
from faissbase.sharded.worker import Version, Worker

_EVERY_S = 0.5
_PAUSE_S = 0.05

AskController = Callable[[Sequence[Version]], "dict[Version, Placement]"]
"""Opens versions where they are not open yet, and tells who holds their shards."""


class FollowedRoutes:
    """Routes that follow the controller; where it is away, what it said last goes on to count.

    Parameters
    ----------
    ask : callable
    find : callable
        The worker of a name, or `WorkerGoneError`.
    """

    def __init__(self, ask: AskController, find: Callable[[str], Worker]) -> None:
        self._ask = ask
        self._find = find
        self._placements: dict[Version, Placement] = {}
        self._workers: dict[str, Worker] = {}
        self._groups: weakref.WeakSet[RoutedGroup] = weakref.WeakSet()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="faissbase-routes", daemon=True)
        self._follower.start()

    def groups(self, name: str, tally: Tally, *, allow_partial: bool, timeout_s: float) -> OpenGroup:
        """What opens the versions of a dataset."""

        def opened(manifest: Manifest, before: Group | None) -> Group:
            group = RoutedGroup(manifest, self, tally, allow_partial=allow_partial, timeout_s=timeout_s)
            self._groups.add(group)
            self._placements.update(self._ask([(name, manifest.version)]))
            return group

        return opened

    def placement(self, dataset: str, version: int) -> Placement:
        return self._placements[dataset, version]

    def worker(self, name: str) -> Worker:
        found = self._workers.get(name)
        if found is None:
            found = self._workers[name] = self._find(name)
        return found

    def doubt(self, name: str) -> None:
        self._workers.pop(name, None)
        self._changed.set()

    def _follow(self) -> None:
        """Ask again and again about the versions that somebody has open: so they stay open."""
        while not self._closing.wait(_PAUSE_S):
            self._changed.wait(_EVERY_S)
            self._changed.clear()
            keys = sorted(self._wanted())
            with suppress(FaissbaseError):  # what was said last counts; the next round tries again
                if keys and not self._closing.is_set():
                    self._placements.update(self._ask(keys))
            for key in set(self._placements) - self._wanted():
                self._placements.pop(key)

    def _wanted(self) -> set[Version]:
        """The versions that a group answers for, be it one that is just being opened."""
        return {(group.dataset, group.version) for group in list(self._groups)}

    def close(self) -> None:
        self._closing.set()
        self._changed.set()
        self._follower.join()


class RoutedDatabase(ShardedDatabase):
    """The datasets of a deployment: read through its workers, written to its bucket. See `ShardedDatabase`.

    Attributes
    ----------
    tally : Tally
        Calls, hedges and retries so far.
    """

    def __init__(  # noqa: PLR0913  # those of `ShardedDatabase`, and who to ask
        self,
        bucket: Bucket,
        cache: Path,
        routes: FollowedRoutes,
        tally: Tally,
        *,
        read_only: bool = False,
        allow_partial: bool = False,
        memory_budget: int | None = None,
        refresh_s: float = REFRESH_S,
        timeout_s: float = TIMEOUT_S,
        bounds: Bounds = UNBOUNDED,
    ) -> None:
        self.tally = tally
        self._routes = routes
        super().__init__(
            bucket,
            cache,
            read_only=read_only,
            allow_partial=allow_partial,
            memory_budget=memory_budget,
            refresh_s=refresh_s,
            bounds=bounds,
            groups=lambda name: routes.groups(name, tally, allow_partial=allow_partial, timeout_s=timeout_s),
        )

    def __enter__(self) -> RoutedDatabase:
        return self

    def close(self) -> None:
        super().close()
        self._routes.close()
