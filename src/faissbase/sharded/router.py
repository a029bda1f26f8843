"""The shards of one version in other processes, under the interface of `ShardGroup`.

Merges what workers answer. Knows no transport: `fanout` asks, through routes that are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from faissbase.collection.answers import Explanation
from faissbase.collection.stats import Stats
from faissbase.errors import ConflictError, FaissbaseError
from faissbase.gathering import Gathering
from faissbase.sharded import merging
from faissbase.sharded.fanout import Fanout, Gathered, IsSound, Routes, Tally
from faissbase.sharded.group import Knobs
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.merging import ShardHits
from faissbase.types import Float32, Hit, Page, Record, SearchResult, Slots, VerifyReport, Where

TIMEOUT_S = 30.0
_AT_ONCE = 2  # calls for one vector each, k and knobs alike: one is answered while the next is made ready
_MOST_TOGETHER = 64
_PATIENCE_S = 0.05
_MOST_KINDS = 16
_Kind: TypeAlias = "Gathering[Float32, ShardHits]"


class RoutedGroup:
    """Answers for one version of a dataset by asking workers; never changes, though who is asked may.

    Parameters
    ----------
    manifest : Manifest
    routes : Routes
    tally : Tally
    allow_partial : bool
        Answer searches without the shards that nobody can answer for. Other calls are an error then all the
        same: they have no way to say that something is missing.
    timeout_s : float
    """

    def __init__(
        self,
        manifest: Manifest,
        routes: Routes,
        tally: Tally,
        *,
        allow_partial: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.dataset = manifest.name
        self.version = manifest.version
        self.metric = manifest.metric
        self.names = tuple(shard.name for shard in manifest.shards)
        self.ntotal = manifest.n_alive
        self.missing: Mapping[str, str] = {}
        self._order = {name: i for i, name in enumerate(self.names)}
        self._allow_partial = allow_partial
        self._fanout = Fanout(manifest.name, manifest.version, routes, tally, timeout_s)
        self._kinds: dict[Hashable, _Kind] = {}

    # ---- searching -------------------------------------------------------------------------------

    def search_one(self, query: Float32, k: int, where: Where | None, knobs: Knobs) -> list[Hit]:
        """The k nearest to ``float32[d]``."""
        kind = None if where is not None else self._kind(k, knobs)
        return self._one(query, k, where, knobs) if kind is None else kind.ask(query)

    def _one(self, query: Float32, k: int, where: Where | None, knobs: Knobs) -> ShardHits:
        found = self._search("search_one", (query, k, where, knobs), _is_hits)
        return ShardHits(merging.nearest_hits(_values(found), k, self.metric), tuple(found.failed))

    def _kind(self, k: int, knobs: Knobs) -> _Kind | None:
        """Where searches for k hits with these knobs come together; None where there are many kinds."""
        key = (k, *sorted(knobs.items()))
        kind = self._kinds.get(key)
        if kind is None and len(self._kinds) < _MOST_KINDS:
            kind = self._kinds.setdefault(
                key, Gathering(partial(self._together, k, knobs), _has_room, _AT_ONCE, _PATIENCE_S)
            )
        return kind

    def _together(self, k: int, knobs: Knobs, queries: Sequence[Float32]) -> Sequence[ShardHits]:
        if len(queries) == 1:
            return [self._one(queries[0], k, None, knobs)]
        found = self.search_many(np.stack(queries), k, None, knobs)
        return [ShardHits(hits, merging.missing_in(found)) for hits in found]

    def search_many(self, queries: Float32, k: int, where: Where | None, knobs: Knobs) -> SearchResult:
        """The k nearest to each of ``float32[nq, d]``."""
        nq = len(queries)
        found = self._search("search_many", (queries, k, where, knobs), _is_result(nq), nq)
        return self._nearest(found, nq, k)

    def within(self, queries: Float32, radius: float, where: Where | None, k: int | None) -> SearchResult:
        """Every record nearer than ``radius``, or the first k, for each query."""
        nq = len(queries)
        found = self._search("within", (queries, radius, where, k), _is_result(nq), nq)
        result = self._nearest(found, nq, None)
        return result if k is None else merging.narrowed(result, k)

    def _nearest(self, found: Gathered, nq: int, k: int | None) -> merging.ShardResult:
        missing = tuple(found.failed)
        if not found.parts:
            return merging.nothing(nq, k or 0, self.metric, missing)
        return merging.nearest_results(_values(found), k, self.metric, missing)

    def text_search(self, text: str, k: int, where: Where | None) -> list[Hit]:
        """The k best by BM25, by the statistics of each shard."""
        found = self._search("text_search", (text, k, where), _is_hits)
        return ShardHits(merging.best_scores(_values(found), k), tuple(found.failed))

    def explain(self, queries: Float32, k: int, where: Where | None, knobs: Knobs) -> dict[str, Explanation]:
        """How each shard is searched, by its name."""
        args = (queries, k, where, knobs)
        return self._by_shard(self._search("explain", args, _is_by_shard(Explanation), len(queries)))

    # ---- records ---------------------------------------------------------------------------------

    def get(self, ids: list[str], include_vectors: bool) -> dict[str, Record]:
        """The records with these ids that are here."""
        found = self._ask("get", (ids, include_vectors), _is_by_shard(Record), len(ids))
        return {id: record for records in _values(found) for id, record in records.items()}

    def count(self, where: Where | None) -> int:
        return sum(_values(self._ask("count", (where,), lambda value: isinstance(value, int))))

    def page(self, shard: str, where: Where | None, limit: int, cursor: str | None, vectors: bool) -> Page:
        """One page of a shard's matching records."""
        if shard not in self._order:
            raise ConflictError(f"shard {shard} is not part of version {self.version}: start again")
        args = (shard, where, limit, cursor, vectors)
        found = self._ask("page", args, lambda value: isinstance(value, Page), limit, (shard,))
        page: Page = found.parts[0].value
        return page

    def slots_of(self, ids: list[str]) -> dict[str, dict[str, int]]:
        """By shard, the slots of those ids whose records are there."""
        return self._by_shard(self._ask("slots_of", (ids,), _is_by_shard(dict), len(ids)))

    def matching(self, where: Where | None) -> dict[str, Slots]:
        """By shard, the slots of the records that match."""
        return self._by_shard(self._ask("matching", (where,), _is_by_shard(np.ndarray)))

    # ---- care ------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Stats]:
        return self._by_shard(self._ask("stats", (), _is_by_shard(Stats)))

    def verify(self) -> dict[str, VerifyReport]:
        return self._by_shard(self._ask("verify", (), _is_by_shard(VerifyReport)))

    def close(self) -> None:
        """Nothing is open here."""

    # ---- asking ----------------------------------------------------------------------------------

    def _search(self, method: str, args: tuple[Any, ...], is_sound: IsSound, size: int = 1) -> Gathered:
        """Ask all shards; those that fail are told where that was allowed."""
        found = self._fanout.ask(self.names, method, args, is_sound, size)
        if found.failed and not self._allow_partial:
            raise self._failure(found.failed)
        return found

    def _ask(
        self,
        method: str,
        args: tuple[Any, ...],
        is_sound: IsSound,
        size: int = 1,
        shards: Sequence[str] | None = None,
    ) -> Gathered:
        """Ask all shards, or some; each has to answer."""
        found = self._fanout.ask(self.names if shards is None else shards, method, args, is_sound, size)
        if found.failed:
            raise self._failure(found.failed)
        return found

    def _failure(self, failed: Mapping[str, FaissbaseError]) -> FaissbaseError:
        """The error of the first of these shards."""
        name = min(failed, key=lambda shard: self._order[shard])
        more = f" (nor {len(failed) - 1} more)" if len(failed) > 1 else ""
        error = failed[name]
        told = f"shard {name} of version {self.version} does not answer{more}: {error}"
        raised = type(error)(told)
        raised.__cause__ = error
        return raised

    def _by_shard(self, found: Gathered) -> dict[str, Any]:
        """What shards have told each by name, in the order of the manifest."""
        told = {name: value for part in found.parts for name, value in part.value.items()}
        return {name: told[name] for name in self.names if name in told}


def _has_room(taken: Sequence[Float32], _: Float32) -> bool:
    return len(taken) < _MOST_TOGETHER


def _values(found: Gathered) -> list[Any]:
    return [part.value for part in found.parts]


def _is_hits(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(hit, Hit) for hit in value)


def _is_result(nq: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, SearchResult) and len(value) == nq


def _is_by_shard(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and _are_all(value.values(), kind)


def _are_all(values: Iterable[Any], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)
