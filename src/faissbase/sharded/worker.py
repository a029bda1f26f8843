"""What one worker does: it holds some shards of some versions open, and answers calls about them.

Knows calls and shards; not where it runs, nor who asks. A version that it is asked about and does not have
open it opens then, so that a call never depends on what came before it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from faissbase.ann.cores import threads
from faissbase.errors import FaissbaseError, InternalError, UnavailableError
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.cache import Cache
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import OpenShard, ShardGroup, open_group
from faissbase.sharded.manifest import Manifest

METHODS = frozenset(
    {
        "search_one",
        "search_many",
        "within",
        "text_search",
        "explain",
        "get",
        "count",
        "page",
        "slots_of",
        "matching",
        "stats",
        "verify",
    }
)
_COMPUTING = frozenset({"search_one", "search_many", "within", "text_search", "matching", "count"})
_FORGIVEN_S = 5.0

Version = tuple[str, int]
"""Name of a dataset and number of one of its versions."""


@dataclass(frozen=True, slots=True)
class Call:
    """A method of `ShardGroup`, for some shards of one version."""

    dataset: str
    version: int
    shards: tuple[str, ...]
    method: str
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a call.

    Attributes
    ----------
    version : int
    shards : tuple of str
        Those that ``value`` is about.
    value : object
    refused : dict of str to FaissbaseError
        Shards that the worker cannot open.
    error : FaissbaseError or None
        Why there is no value.
    """

    version: int
    shards: tuple[str, ...]
    value: Any = None
    refused: Mapping[str, FaissbaseError] = field(default_factory=dict)
    error: FaissbaseError | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What a worker tells of itself.

    Attributes
    ----------
    life : str
        Another one after every restart.
    node : str
    pid : int
        Of its process there.
    depth : int
        Questions that wait or are being answered: a call may bring many.
    held : dict
        By dataset and version, the shards that are open.
    """

    life: str
    node: str
    pid: int
    depth: int
    held: Mapping[Version, tuple[str, ...]]


class WorkerGoneError(UnavailableError):
    """A worker ended, or cannot be reached: another replica may answer."""


class Worker(Protocol):
    """A worker as its callers see it, wherever it runs. Futures end with `WorkerGoneError` when it does."""

    @property
    def name(self) -> str: ...
    def call(self, call: Call) -> Future[Reply]: ...


class ShardServer:
    """Shards of any version, open in this process. Thread-safe.

    Parameters
    ----------
    bucket : Bucket
    cache : Path
        A folder that workers of one machine may share.
    life, node : str
        What `health` says.
    now : callable
        Seconds of a clock that never goes back.
    memory_budget : int, optional
    cores : int, optional
        How many calls and shards are searched at once; what comes on top waits, for others may live here.
    """

    def __init__(
        self,
        bucket: Bucket,
        cache: Path,
        *,
        life: str,
        node: str,
        now: Callable[[], float],
        memory_budget: int | None = None,
        cores: int | None = None,
    ) -> None:
        self._bucket = bucket
        self._cache = cache
        self._life = life
        self._node = node
        self._now = now
        self._memory_budget = memory_budget
        n_cores = cores or threads()
        self._computing = threading.BoundedSemaphore(n_cores)
        self._threads = ThreadPoolExecutor(n_cores, thread_name_prefix="faissbase-shards")
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._groups: dict[Version, ShardGroup] = {}
        self._manifests: dict[Version, Manifest] = {}
        self._refused: dict[tuple[Version, str], tuple[float, FaissbaseError]] = {}
        self._depth = 0

    def answer(self, call: Call) -> Reply:
        """What the shards of a call say; errors of this library are part of the reply."""
        n_questions = len(call.args[0]) if call.method == "search_many" else 1
        with self._lock:
            self._depth += n_questions
        try:
            return self._answered(call)
        except FaissbaseError as error:
            return Reply(call.version, call.shards, error=error)
        finally:
            with self._lock:
                self._depth -= n_questions

    def _answered(self, call: Call) -> Reply:
        if call.method not in METHODS:
            raise InternalError(f"a group of shards has no method {call.method!r}")
        refused = self.open(call.dataset, call.version, call.shards)
        here = tuple(name for name in call.shards if name not in refused)
        if not here:
            raise next(iter(refused.values()))
        group = self._groups[call.dataset, call.version].part(here)
        with self._computing if call.method in _COMPUTING else nullcontext():
            return Reply(call.version, here, getattr(group, call.method)(*call.args), refused)

    # ---- versions --------------------------------------------------------------------------------

    def open(self, dataset: str, version: int, shards: Iterable[str]) -> dict[str, FaissbaseError]:
        """Have these shards of a version open; those that cannot be had, and why."""
        key = (dataset, version)
        lacking = self._lacking(key, shards)
        if lacking:
            with self._lock:
                lock = self._opening.setdefault(dataset, threading.Lock())
            with lock:
                self._open(key, self._lacking(key, lacking))
        return {name: self._refused[key, name][1] for name in lacking if (key, name) in self._refused}

    def _lacking(self, key: Version, shards: Iterable[str]) -> list[str]:
        group = self._groups.get(key)
        here = set(group.names) if group is not None else set()
        return [name for name in shards if name not in here]

    def _open(self, key: Version, shards: Sequence[str]) -> None:
        """Open shards one by one, each after the other: what fails is tried again after a while."""
        for name in shards:
            refusal = self._refused.get((key, name))
            if refusal is not None and self._now() - refusal[0] < _FORGIVEN_S:
                continue
            try:
                self._groups[key] = self._with(key, name)
                self._refused.pop((key, name), None)
            except FaissbaseError as error:
                self._refused[key, name] = (self._now(), error)

    def _with(self, key: Version, name: str) -> ShardGroup:
        """The group of a version with one shard more."""
        manifest = self._manifest(key)
        group, known = self._groups.get(key), self._known(key[0])
        names = [*(group.names if group is not None else ()), name]
        if manifest.shard(name) is None:
            raise InternalError(f"shard {name} is not part of version {key[1]} of {key[0]!r}")
        before = ShardGroup(manifest.version, manifest.metric, known, self._threads)
        cache = Cache(self._cache / manifest.uuid, self._bucket)
        return open_group(
            manifest, cache, self._threads, names=names, before=before, memory_budget=self._memory_budget
        )

    def _manifest(self, key: Version) -> Manifest:
        if key not in self._manifests:
            self._manifests[key] = Dataset(self._bucket, key[0]).read(key[1])
        return self._manifests[key]

    def _known(self, dataset: str) -> list[OpenShard]:
        """What is open of any version, the newest last: it counts."""
        versions = sorted(key for key in list(self._groups) if key[0] == dataset)
        return [each for key in versions for each in self._groups[key].shards]

    def keep(self, dataset: str, versions: Iterable[int]) -> None:
        """Let go of all other versions of a dataset, and of the files that only they need.

        A call that still runs on one of them ends on it.
        """
        kept = {(dataset, version) for version in versions}
        with self._lock:
            lock = self._opening.setdefault(dataset, threading.Lock())
        with lock:
            manifests = [self._manifest(key) for key in kept]
            for known in (self._groups, self._manifests):
                for key in [key for key in list(known) if key[0] == dataset and key not in kept]:
                    del known[key]
            for refusal in [each for each in list(self._refused) if each[0][0] == dataset]:
                self._refused.pop(refusal)
            for uuid in {manifest.uuid for manifest in manifests}:
                shards = [shard for each in manifests if each.uuid == uuid for shard in each.shards]
                Cache(self._cache / uuid, self._bucket).keep_only(shards)

    # ---- care ------------------------------------------------------------------------------------

    def health(self) -> Health:
        """What is open, and how much there is to do."""
        held = {key: group.names for key, group in dict(self._groups).items()}
        return Health(self._life, self._node, os.getpid(), self._depth, held)

    def close(self) -> None:
        """Close all that is open."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()
        self._threads.shutdown()
