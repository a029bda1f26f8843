"""The open shards of one version, or some of them: what one worker searches.

Every method takes and returns plain values, so that a group may live in another process. What callers hand
in was checked before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from faissbase.collection.answers import Explanation
from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.inputs import Rows
from faissbase.collection.stats import Stats
from faissbase.collection.store import Config
from faissbase.errors import ConflictError, CorruptionError, FaissbaseError, NotFoundError, UnavailableError
from faissbase.sharded import merging
from faissbase.sharded.cache import Cache
from faissbase.sharded.manifest import Manifest, Shard
from faissbase.types import Float32, Hit, Metric, Page, Record, SearchResult, Slots, VerifyReport, Where

T = TypeVar("T")
Knobs = Mapping[str, Any]
_OPEN_TRIES = 4


class Group(Protocol):
    """What answers for one version of a dataset: `ShardGroup` here, `router.RoutedGroup` in other processes.

    Searches may be answered in part where that was allowed: `merging.missing_in` of an answer tells.
    """

    @property
    def version(self) -> int: ...
    @property
    def missing(self) -> Mapping[str, str]:
        """Shards that are known to be out of reach, and why."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The shards that are asked, in the order of the manifest."""
        ...

    @property
    def ntotal(self) -> int: ...
    def search_one(self, query: Float32, k: int, where: Where | None, knobs: Knobs) -> list[Hit]: ...
    def search_many(self, queries: Float32, k: int, where: Where | None, knobs: Knobs) -> SearchResult: ...
    def within(self, queries: Float32, radius: float, where: Where | None, k: int | None) -> SearchResult: ...
    def text_search(self, text: str, k: int, where: Where | None) -> list[Hit]: ...
    def explain(
        self, queries: Float32, k: int, where: Where | None, knobs: Knobs
    ) -> dict[str, Explanation]: ...
    def get(self, ids: list[str], include_vectors: bool) -> dict[str, Record]: ...
    def count(self, where: Where | None) -> int: ...
    def page(
        self, shard: str, where: Where | None, limit: int, cursor: str | None, vectors: bool
    ) -> Page: ...
    def slots_of(self, ids: list[str]) -> dict[str, dict[str, int]]: ...
    def matching(self, where: Where | None) -> dict[str, Slots]: ...
    def stats(self) -> dict[str, Stats]: ...
    def verify(self) -> dict[str, VerifyReport]: ...
    def close(self) -> None: ...


OpenGroup = Callable[[Manifest, "Group | None"], Group]
"""Opens the shards of a version, given the group that is open: what a collection answers from."""


@dataclass(frozen=True, slots=True)
class OpenShard:
    """A shard and the collection that reads it."""

    shard: Shard
    collection: FrozenCollection


class ShardGroup:
    """Searches some shards of one version of a dataset; never changes.

    Attributes
    ----------
    version : int
    shards : tuple of OpenShard
        In the order of the manifest.
    missing : dict of str to str
        Shards that could not be opened, and why; empty unless that was allowed.
    """

    def __init__(
        self,
        version: int,
        metric: Metric,
        shards: Sequence[OpenShard],
        threads: ThreadPoolExecutor,
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self.version = version
        self.metric: Metric = metric
        self.shards = tuple(shards)
        self.missing = dict(missing or {})
        self._threads = threads

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(each.shard.name for each in self.shards)

    def part(self, names: Sequence[str]) -> ShardGroup:
        """Some of the shards, or `NotFoundError` where one is not open here."""
        known = {each.shard.name: each for each in self.shards}
        for name in names:
            if name not in known:
                reason = self.missing.get(name, "it was not opened")
                raise NotFoundError(f"shard {name} of version {self.version} is not here: {reason}")
        return ShardGroup(self.version, self.metric, [known[name] for name in names], self._threads)

    @property
    def ntotal(self) -> int:
        return sum(each.shard.n_alive for each in self.shards)

    # ---- searching -------------------------------------------------------------------------------

    def search_one(self, query: Float32, k: int, where: Where | None, knobs: Knobs) -> list[Hit]:
        """The k nearest to ``float32[d]``."""
        parts = self._each_at_once(lambda each: each.search(query, k, where, **knobs))
        return parts[0] if len(parts) == 1 else merging.nearest_hits(parts, k, self.metric)

    def search_many(self, queries: Float32, k: int, where: Where | None, knobs: Knobs) -> SearchResult:
        """The k nearest to each of ``float32[nq, d]``."""
        return self._merged(lambda each: each.search(queries, k, where, **knobs), k, len(queries))

    def within(self, queries: Float32, radius: float, where: Where | None, k: int | None) -> SearchResult:
        """Every record nearer than ``radius``, or the first k, for each query."""
        return self._merged(lambda each: each.first_within(queries, radius, where, k), None, len(queries), k)

    def text_search(self, text: str, k: int, where: Where | None) -> list[Hit]:
        """The k best by BM25, by the statistics of each shard."""
        parts = self._each_at_once(lambda each: each.text_search(text, k, where))
        return merging.best_scores(parts, k)

    def explain(self, queries: Float32, k: int, where: Where | None, knobs: Knobs) -> dict[str, Explanation]:
        """How each shard is searched, by its name."""
        return {each.shard.name: each.collection.explain(queries, k, where, **knobs) for each in self.shards}

    # ---- records ---------------------------------------------------------------------------------

    def get(self, ids: list[str], include_vectors: bool) -> dict[str, Record]:
        """The records with these ids that are here."""
        self._require_all()
        found = self._each_at_once(lambda each: each.get(ids, include_vectors=include_vectors))
        return {record.id: record for records in found for record in records}

    def count(self, where: Where | None) -> int:
        self._require_all()
        return sum(self._each_at_once(lambda each: each.count(where)))

    def page(self, shard: str, where: Where | None, limit: int, cursor: str | None, vectors: bool) -> Page:
        """One page of a shard's matching records."""
        self._require_all()
        found = next((each for each in self.shards if each.shard.name == shard), None)
        if found is None:
            raise ConflictError(f"shard {shard} is not part of version {self.version}: start again")
        return found.collection.scroll(where, limit=limit, cursor=cursor, include_vectors=vectors)

    def slots_of(self, ids: list[str]) -> dict[str, dict[str, int]]:
        """By shard, the slots of those ids whose records are there."""
        found = self._each_at_once(lambda each: each.slots_of(ids))
        return {each.shard.name: slots for each, slots in zip(self.shards, found, strict=True) if slots}

    def matching(self, where: Where | None) -> dict[str, Slots]:
        """By shard, the slots of the records that match."""
        found = self._each_at_once(lambda each: each.matching(where))
        return {each.shard.name: slots for each, slots in zip(self.shards, found, strict=True) if len(slots)}

    def rows(self, ids: list[str]) -> dict[str, Rows]:
        """By shard, the records with these ids in stored form."""
        found = self._each_at_once(lambda each: each.rows_of(ids))
        return {each.shard.name: rows for each, rows in zip(self.shards, found, strict=True) if len(rows)}

    # ---- care ------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Stats]:
        return {each.shard.name: each.collection.stats() for each in self.shards}

    def verify(self) -> dict[str, VerifyReport]:
        self._require_all()
        return {each.shard.name: each.collection.verify() for each in self.shards}

    def close(self) -> None:
        for each in self.shards:
            each.collection.close()

    def _require_all(self) -> None:
        """Refuse what has no way to say that something is missing."""
        for name, reason in self.missing.items():
            raise UnavailableError(f"shard {name} of version {self.version} is missing: {reason}")

    def _merged(
        self, search: Callable[[FrozenCollection], Any], k: int | None, nq: int, most: int | None = None
    ) -> SearchResult:
        """The answers of all shards to many queries. One after another: each uses all threads itself."""
        parts = [search(each.collection) for each in self.shards]
        if len(parts) == 1:
            found: SearchResult = parts[0]
            return found
        if not parts:
            return merging.nothing(nq, k or 0, self.metric)
        merged = merging.nearest_results(parts, k, self.metric)
        return merged if most is None else merging.narrowed(merged, most)

    def _each_at_once(self, call: Callable[[FrozenCollection], T]) -> list[T]:
        """What every shard answers, asked at the same time."""
        if len(self.shards) < 2:
            return [call(each.collection) for each in self.shards]
        return list(self._threads.map(lambda each: call(each.collection), self.shards))


def open_group(
    manifest: Manifest,
    cache: Cache,
    threads: ThreadPoolExecutor,
    *,
    names: Sequence[str] | None = None,
    before: ShardGroup | None = None,
    allow_missing: bool = False,
    memory_budget: int | None = None,
    bounds: Bounds = UNBOUNDED,
) -> ShardGroup:
    """Open the shards of a version, or those of ``names``, taking over what ``before`` has open.

    Raises
    ------
    FaissbaseError
        A shard cannot be had, unless ``allow_missing``.
    """
    known = {each.shard.name: each for each in before.shards} if before else {}
    wanted = [shard for shard in manifest.shards if names is None or shard.name in names]
    opened: list[OpenShard] = []
    missing: dict[str, str] = {}
    for shard in wanted:
        try:
            opened.append(open_shard(shard, manifest, cache, known.get(shard.name), memory_budget, bounds))
        except FaissbaseError as error:
            if not allow_missing:
                raise
            missing[shard.name] = str(error)
    for each in opened:  # after all are open: what the first answer needs comes first
        each.collection.begin_arrival()
    return ShardGroup(manifest.version, manifest.metric, opened, threads, missing)


def open_shard(
    shard: Shard,
    manifest: Manifest,
    cache: Cache,
    known: OpenShard | None,
    memory_budget: int | None,
    bounds: Bounds = UNBOUNDED,
) -> OpenShard:
    """A shard, ready to be searched; its files are shared with ``known``, the same in another version."""
    if known is not None and known.shard == shard:
        return known
    hidden = cache.hidden(shard)
    if known is not None:
        collection = known.collection.hiding(hidden)
        collection.count()  # opened now, or many versions that nobody asks would hang on one another
        return OpenShard(shard, collection)
    config = Config(shard.name, manifest.name, manifest.dimension, manifest.metric, manifest.index_type)
    for _ in range(_OPEN_TRIES):
        try:
            return OpenShard(shard, _opened(shard, cache, config, hidden, memory_budget, bounds))
        except FaissbaseError as error:
            if not _is_worth_trying(error, shard, cache):
                raise
    return OpenShard(shard, _opened(shard, cache, config, hidden, memory_budget, bounds))


def _opened(
    shard: Shard, cache: Cache, config: Config, hidden: Slots, memory_budget: int | None, bounds: Bounds
) -> FrozenCollection:
    collection = FrozenCollection(
        cache.ready(shard),
        config,
        hidden,
        memory_budget=memory_budget,
        bounds=bounds,
        arriving=lambda: cache.arrival(shard, config.dimension),
    )
    try:
        collection.count()  # opened now, so that what is wrong is told now
    except BaseException:
        collection.close()
        raise
    return collection


def _is_worth_trying(error: FaissbaseError, shard: Shard, cache: Cache) -> bool:
    """Whether a shard may open at the next try: another process removed it, or this copy alone is damaged."""
    folder = cache.folder / shard.name
    if isinstance(error, (CorruptionError, NotFoundError)) and folder.exists() and not cache.is_sound(shard):
        cache.drop(shard)
        return not folder.exists()
    if isinstance(error, (NotFoundError, UnavailableError)):
        cache.wait_for(shard)
        return True
    return False
