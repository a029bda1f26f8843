"""A dataset of shards as its users see it: the interface of a collection in a folder.

Reads the version it has open to the end of each call; a newer one is opened beside it and switched to. Writes
make a small shard of what is new, hide what it replaces, and commit both as the next version.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from faissbase.collection import inputs
from faissbase.collection.answers import fusion_depth
from faissbase.collection.planner import wanted_from
from faissbase.errors import AccessError, ConflictError, InvalidInputError, NotReadyError
from faissbase.filters.tree import Everything, parse
from faissbase.sharded import merging
from faissbase.sharded.cache import Cache
from faissbase.sharded.changes import Changes
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import Group, OpenGroup, ShardGroup, open_group
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.merging import ShardHits, ShardResult
from faissbase.sharded.reports import ShardedExplanation, ShardedStats
from faissbase.types import Hit, Metric, Page, Problem, Record, SearchResult, VerifyReport, Where

T = TypeVar("T")
_THREADS = 8


class ShardedCollection:
    """A dataset of shards. Made by `ShardedDatabase`, not by hand. Thread-safe.

    Parameters
    ----------
    dataset : Dataset
    cache : Cache
        Where shards are kept on this machine.
    read_only : bool
    allow_partial : bool
        Answer from the shards that can be had where some cannot; `complete` of the answer tells. Otherwise
        that is an error.
    memory_budget : int, optional
        Bytes that the index of a shard that is made here may take in memory.
    groups : callable, optional
        What opens the shards of a version; in this process where nothing is said.
    """

    def __init__(
        self,
        dataset: Dataset,
        cache: Cache,
        *,
        read_only: bool = False,
        allow_partial: bool = False,
        memory_budget: int | None = None,
        groups: OpenGroup | None = None,
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._read_only = read_only
        self._allow_partial = allow_partial
        self._memory_budget = memory_budget
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="faissbase-shards")
        self._switching = threading.Lock()
        self._is_closed = False
        self._opened = self._opened_here if groups is None else groups
        self._manifest = dataset.newest()
        self._group: Group = self._opened(self._manifest, None)
        self._changes = Changes(dataset, cache, self._at, memory_budget)

    def __repr__(self) -> str:
        return (
            f"<collection {self.name!r}: d={self.dimension}, {self.metric}, "
            f"{len(self._manifest.shards)} shards at {self._dataset.bucket.url}>"
        )

    @property
    def name(self) -> str:
        return self._manifest.name

    @property
    def dimension(self) -> int:
        return self._manifest.dimension

    @property
    def metric(self) -> Metric:
        return self._manifest.metric

    @property
    def index_type(self) -> str:
        return self._manifest.index_type

    @property
    def version(self) -> int:
        """The version of the dataset that is answered from."""
        return self._manifest.version

    @property
    def ntotal(self) -> int:
        """The number of records, under FAISS's name."""
        return self._now()[0].n_alive

    def __len__(self) -> int:
        return self.ntotal

    # ---- versions --------------------------------------------------------------------------------

    def refresh(self) -> int:
        """Switch to the newest version, if there is a newer one; the version that is answered from now on.

        Raises
        ------
        NotFoundError
            The dataset was deleted.
        UnavailableError
            The store or a shard cannot be reached: the version that is open goes on serving.
        """
        newer = self._dataset.latest(after=self._manifest.version)
        if newer is not None:
            self._at(newer if not newer.is_deleted else self._dataset.newest())
        return self._manifest.version

    def _at(self, manifest: Manifest) -> Group:
        """The open shards of a version; the newest seen is what is answered from."""
        with self._switching:
            if manifest.version == self._manifest.version and manifest.uuid == self._manifest.uuid:
                return self._group
            if self._is_closed:
                raise NotReadyError(f"collection {self.name!r} is closed: connect() again")
            group = self._opened(manifest, self._group)
            if manifest.version > self._manifest.version:
                self._group, self._manifest = group, manifest
                self._cache.keep_only(shard.name for shard in manifest.shards)
            return group

    def _opened_here(self, manifest: Manifest, before: Group | None) -> Group:
        assert before is None or isinstance(before, ShardGroup)
        return open_group(
            manifest,
            self._cache,
            self._threads,
            before=before,
            allow_missing=self._allow_partial,
            memory_budget=self._memory_budget,
        )

    def _now(self) -> tuple[Manifest, Group]:
        """What is answered from."""
        if self._is_closed:
            raise NotReadyError(f"collection {self.name!r} is closed: connect() again")
        with self._switching:
            return self._manifest, self._group

    def close(self) -> None:
        """Close the files. Called by ``ShardedDatabase.close``."""
        with self._switching:
            if not self._is_closed:
                self._is_closed = True
                self._group.close()
                self._threads.shutdown()

    # ---- searching -------------------------------------------------------------------------------

    def search(
        self,
        xq: Any,
        k: int = 10,
        where: Where | None = None,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> Any:
        """The k nearest records, nearest first; see `LocalCollection.search`, whose parameters these are.

        Returns
        -------
        ShardHits
            for one vector: a list of `Hit`;
        ShardResult
            for a matrix of them. ``complete`` of both tells whether every shard has answered.
        """
        queries, is_single = self._queries(xq)
        n_hits, knobs = inputs.check_k(k, len(queries)), _knobs(recall, nprobe, ef_search, rerank)
        parse(where)
        group = self._now()[1]
        if is_single:
            return _flagged_hits(group.search_one(queries[0], n_hits, where, knobs), group)
        return _flagged(group.search_many(queries, n_hits, where, knobs), group)

    def range_search(self, xq: Any, radius: float, where: Where | None = None) -> Any:
        """Every matching record nearer than ``radius``; see `LocalCollection.range_search`."""
        return self.first_within(xq, radius, where, None)

    def first_within(self, xq: Any, radius: float, where: Where | None, k: int | None) -> Any:
        """`range_search`, of each answer the ``k`` nearest alone."""
        queries, is_single = self._queries(xq)
        limit = inputs.check_radius(radius)
        parse(where)
        group = self._now()[1]
        result = _flagged(group.within(queries, limit, where, k), group)
        return ShardHits(result[0], result.shards_missing) if is_single else result

    def text_search(self, query: str, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k matching records whose documents rank highest (BM25, any word).

        How rare a word is counts by shard, so that scores of different shards differ a little.
        """
        text, n_hits = inputs.check_text(query), inputs.check_k(k)
        parse(where)
        group = self._now()[1]
        return _flagged_hits(group.text_search(text, n_hits, where), group)

    def hybrid_search(self, text: str, vector: Any, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k best by text and vector together, by reciprocal rank fusion of both rankings."""
        queries, _ = self._queries(vector)
        if len(queries) != 1:
            raise InvalidInputError(f"hybrid_search takes one vector, got {len(queries)}")
        words, n_hits = inputs.check_text(text), inputs.check_k(k)
        parse(where)
        group, depth = self._now()[1], fusion_depth(n_hits)
        by_text = group.text_search(words, depth, where)
        near = group.search_one(queries[0], depth, where, {})
        missing = (*group.missing, *merging.missing_in(by_text), *merging.missing_in(near))
        return ShardHits(merging.fused(by_text, near, n_hits), tuple(dict.fromkeys(missing)))

    def explain(
        self,
        xq: Any,
        k: int = 10,
        where: Where | None = None,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> ShardedExplanation:
        """Run a search and tell how each shard was searched. Prints readably."""
        queries, _ = self._queries(xq)
        n_hits, knobs = inputs.check_k(k), _knobs(recall, nprobe, ef_search, rerank)
        parse(where)
        manifest, group = self._now()
        explained = group.explain(queries, n_hits, where, knobs)
        silent = {name: "it did not answer" for name in group.names if name not in explained}
        return ShardedExplanation(manifest.version, explained, {**silent, **group.missing})

    def _queries(self, xq: Any) -> tuple[Any, bool]:
        return inputs.check_queries(xq, self.dimension, self.metric)

    # ---- records ---------------------------------------------------------------------------------

    def count(self, where: Where | None = None) -> int:
        """How many records match."""
        if isinstance(parse(where), Everything):
            return self.ntotal
        return self._now()[1].count(where)

    def get(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        limit: int | None = None,
        include_vectors: bool = False,
    ) -> list[Record]:
        """Records by ids, in their order (unknown ids are left out), or by filter, oldest shard first."""
        if ids is not None and where is not None:
            raise InvalidInputError("get() takes ids or where, not both")
        stop = None if limit is None else inputs.check_count(limit, "limit")
        if ids is not None:
            id_list = inputs.check_ids(ids)
            found = self._now()[1].get(id_list, include_vectors)
            return [found[id] for id in id_list if id in found][:stop]
        records: list[Record] = []
        cursor: str | None = None
        while stop is None or len(records) < stop:
            page = self.scroll(
                where, limit=_PAGE if stop is None else stop, cursor=cursor, include_vectors=include_vectors
            )
            records += page.records
            cursor = page.cursor
            if cursor is None:
                break
        return records[:stop]

    def scroll(
        self,
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        include_vectors: bool = False,
    ) -> Page:
        """One page of matching records, oldest shard first; pass ``page.cursor`` on for the next.

        Raises
        ------
        ConflictError
            The shard that the cursor points into was compacted away: start again.
        """
        parse(where)
        wanted = inputs.check_count(limit, "limit")
        manifest, group = self._now()
        names = group.names
        shard, inner = _parsed_cursor(cursor)
        if shard is not None and shard not in names:
            raise ConflictError(f"shard {shard} is not part of version {manifest.version}: start again")
        records: list[Record] = []
        for place in range(0 if shard is None else names.index(shard), len(names)):
            page = group.page(names[place], where, wanted - len(records), inner, include_vectors)
            records += page.records
            inner = page.cursor
            if inner is not None:
                return Page(records, f"{names[place]}:{inner}")
            if len(records) == wanted and place + 1 < len(names):
                return Page(records, f"{names[place + 1]}:")
        return Page(records, None)

    # ---- writing ---------------------------------------------------------------------------------

    def add(self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None) -> int:
        """Store new records, all or none. An id that exists or repeats is an error that names it."""
        return self._writable().put(ids, vectors, metadatas, documents, refuse_existing=True)

    def upsert(self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None) -> int:
        """Store records, replacing those whose ids exist, all or none; durable in the bucket on return."""
        return self._writable().put(ids, vectors, metadatas, documents, refuse_existing=False)

    def update(
        self,
        ids: Any,
        metadatas: Any = None,
        documents: Any = None,
        vectors: Any = None,
        *,
        replace: bool = False,
    ) -> int:
        """Change parts of stored records, all or none; see `LocalCollection.update`."""
        return self._writable().update(ids, metadatas, documents, vectors, replace=replace)

    def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete records by ids or by filter, and return how many there were."""
        changes = self._writable()
        if (ids is None) == (where is None):
            raise InvalidInputError("delete() needs either ids or where")
        if where is None:
            id_list = inputs.check_ids(ids)
            return changes.delete(id_list) if id_list else 0
        if isinstance(parse(where), Everything):
            raise InvalidInputError("delete(where={}) would remove every record: use reset() for that")
        return changes.delete_matching(where)

    def reset(self) -> int:
        """Remove every record and return how many there were."""
        return self._writable().reset()

    def _writable(self) -> Changes:
        if self._read_only:
            raise AccessError(f"collection {self.name!r} is open read-only")
        if self._is_closed:
            raise NotReadyError(f"collection {self.name!r} is closed: connect() again")
        return self._changes

    # ---- care ------------------------------------------------------------------------------------

    def stats(self) -> ShardedStats:
        """Versions, shards and their sizes."""
        manifest, group = self._now()
        return ShardedStats.of(manifest, self._dataset.bucket.url, group)

    def verify(self) -> VerifyReport:
        """Read every byte of every shard on this machine and check every checksum."""
        reports = self._now()[1].verify()
        problems = [
            Problem(problem.kind, f"{name}/{problem.where}", problem.message)
            for name, report in reports.items()
            for problem in report.problems
        ]
        return VerifyReport(sum(report.rows_checked for report in reports.values()), problems)


_PAGE = 1000


def _knobs(
    recall: float | None, nprobe: int | None, ef_search: int | None, rerank: int | None
) -> dict[str, Any]:
    """What was asked of the answers, checked."""
    wanted_from(recall, nprobe, ef_search, rerank)
    return {"recall": recall, "nprobe": nprobe, "ef_search": ef_search, "rerank": rerank}


def _flagged(result: SearchResult, group: Group) -> ShardResult:
    missing = (*group.missing, *merging.missing_in(result))
    return ShardResult(result.slots, result.distances, result.metric, dict(result.rows), missing)


def _flagged_hits(hits: list[Hit], group: Group) -> ShardHits:
    return ShardHits(hits, (*group.missing, *merging.missing_in(hits)))


def _parsed_cursor(cursor: str | None) -> tuple[str | None, str | None]:
    """Shard and the cursor within it."""
    if cursor is None:
        return None, None
    shard, found, inner = cursor.partition(":") if isinstance(cursor, str) else ("", "", "")
    if not found or not shard:
        raise InvalidInputError(f"cursor {cursor!r} was not made by scroll()")
    return shard, inner or None
