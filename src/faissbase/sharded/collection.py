"""A dataset of shards as its users see it: the interface of a collection in a folder.

Reads the version it has open to the end of each call; a newer one is opened beside it and switched to. Writes
make a small shard of what is new, hide what it replaces, and commit both as the next version.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from faissbase.collection import inputs
from faissbase.collection.answers import fusion_depth
from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.planner import wanted_from
from faissbase.collection.recall import RecallReport
from faissbase.collection.store import Config
from faissbase.collection.telling import Told
from faissbase.collection.transfer import LoadReport, Source, bar_of
from faissbase.errors import AccessError, InvalidInputError, NotFoundError, NotReadyError
from faissbase.filters.tree import Everything, parse
from faissbase.sharded import merging
from faissbase.sharded.cache import Cache
from faissbase.sharded.changes import Changes
from faissbase.sharded.compaction import ON_DEMAND
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import Group, OpenGroup, ShardGroup, open_group
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.merging import ShardHits, ShardResult
from faissbase.sharded.paging import page_of, pages_of
from faissbase.sharded.recall import Questions, measured_recall
from faissbase.sharded.reports import ShardedExplanation, ShardedOptimizeReport, ShardedStats
from faissbase.sharded.transfer import export, load
from faissbase.sharded.upkeep import Upkeep
from faissbase.sharing import Sharing
from faissbase.types import Hit, Metric, OpenHere, Page, Problem, Record, SearchResult, VerifyReport, Where

T = TypeVar("T")
_THREADS = 8


class ShardedCollection(OpenHere):
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
    bounds : Bounds
        How much one shard may bring to an answer.
    groups : callable, optional
        What opens the shards of a version; in this process where nothing is said.
    manifest : Manifest, optional
        The version to begin with, where it was just read: the newest one otherwise.
    """

    def __init__(
        self,
        dataset: Dataset,
        cache: Cache,
        *,
        read_only: bool = False,
        allow_partial: bool = False,
        memory_budget: int | None = None,
        bounds: Bounds = UNBOUNDED,
        groups: OpenGroup | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self._dataset = dataset
        self._cache = cache
        self._read_only = read_only
        self._allow_partial = allow_partial
        self._memory_budget = memory_budget
        self._bounds = bounds
        self._is_gone = False
        self._questions = Questions()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="faissbase-shards")
        self._opening = threading.Lock()
        self._use = Sharing()
        self._is_closed = False
        self._opened = self._opened_here if groups is None else groups
        manifest = manifest or dataset.newest()
        self._current = (manifest, self._opened(manifest, None))
        self._written: ShardGroup | None = None
        self._changes = Changes(dataset, cache, self._to_write, manifest.uuid, memory_budget)
        self._upkeep = Upkeep(self._changes, manifest.name)

    def __repr__(self) -> str:
        return (
            f"<collection {self.name!r}: d={self.dimension}, {self.metric}, "
            f"{len(self._manifest.shards)} shards at {self._dataset.bucket.url}>"
        )

    @property
    def manifest(self) -> Manifest:
        """What is answered from."""
        with self._now() as (manifest, _):
            return manifest

    @property
    def config(self) -> Config:
        """What the collection is."""
        return self._manifest.config

    @property
    def is_open(self) -> bool:
        """Whether it can be asked."""
        return not self._is_closed

    @property
    def is_gone(self) -> bool:
        """Whether the dataset was found deleted, or another to have taken its name."""
        return self._is_gone

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
        with self._now() as (manifest, _):
            return manifest.n_alive

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
        if newer is not None and (newer.is_deleted or newer.uuid != self._manifest.uuid):
            self._is_gone = True
            anew = "" if newer.is_deleted else ", and made anew: get it again"
            raise NotFoundError(f"collection {self.name!r} was deleted{anew}")
        manifest, group = self._current
        if newer is not None or group.missing:
            self._at(newer or manifest)
        return self._manifest.version

    def _at(self, manifest: Manifest) -> Group:
        """The open shards of a version; the newest seen is what is answered from.

        Who searches does not wait meanwhile: the version that is open answers until the other one is.
        """
        with self._opening:
            current, group = self._current
            if manifest.version == current.version and not group.missing:
                return group
            self._check_open()
            opened = self._opened(manifest, group)
            if manifest.version >= current.version:
                self._current = (manifest, opened)
                self._cache.keep_only(manifest.shards)
            return opened

    def _to_write(self, manifest: Manifest) -> ShardGroup:
        """The open shards of a version in this process: what a write looks up, wherever searches run."""
        group = self._at(manifest)
        if isinstance(group, ShardGroup):
            return group
        with self._opening:
            self._check_open()
            self._written = self._opened_here(manifest, self._written)
            return self._written

    def _opened_here(self, manifest: Manifest, before: Group | None) -> ShardGroup:
        assert before is None or isinstance(before, ShardGroup)
        return open_group(
            manifest,
            self._cache,
            self._threads,
            before=before,
            allow_missing=self._allow_partial,
            memory_budget=self._memory_budget,
            bounds=self._bounds,
        )

    @property
    def _manifest(self) -> Manifest:
        return self._current[0]

    @contextmanager
    def _now(self) -> Iterator[tuple[Manifest, Group]]:
        """What is answered from, open to the end of the block."""
        with self._use.reading():
            self._check_open()
            yield self._current

    def _check_open(self) -> None:
        if self._is_closed and self._is_gone:
            raise NotFoundError(f"collection {self.name!r} was deleted")
        if self._is_closed:
            raise NotReadyError(f"collection {self.name!r} is closed: connect() again")

    def close(self) -> None:
        """Let calls and merges that are under way end, and close the files. By ``ShardedDatabase.close``."""
        self._upkeep.close()
        with self._use.writing(), self._opening:
            if not self._is_closed:
                self._is_closed = True
                self._current[1].close()
                if self._written is not None:
                    self._written.close()
                self._threads.shutdown()

    def frozen_shards(self) -> dict[str, FrozenCollection]:
        """By name, the shards of the version that is answered from, where they are open in this process."""
        group = self._current[1]
        shards = group.shards if isinstance(group, ShardGroup) else ()
        return {each.shard.name: each.collection for each in shards}

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
        self._questions.note(queries, n_hits, where, knobs)
        with self._now() as (_, group):
            if is_single:
                return _flagged_hits(group.search_one(queries[0], n_hits, where, knobs), group)
            return _flagged(group.search_many(queries, n_hits, where, knobs), group)

    def is_by_graph(self, nq: int, k: int, **knobs: Any) -> bool:
        """Never: the shards are asked, at a cost of its own for each call."""
        return False

    def range_search(self, xq: Any, radius: float, where: Where | None = None) -> Any:
        """Every matching record nearer than ``radius``; see `LocalCollection.range_search`."""
        return self.first_within(xq, radius, where, None)

    def first_within(self, xq: Any, radius: float, where: Where | None, k: int | None) -> Any:
        """`range_search`, of each answer the ``k`` nearest alone."""
        queries, is_single = self._queries(xq)
        limit = inputs.check_radius(radius)
        parse(where)
        with self._now() as (_, group):
            result = _flagged(group.within(queries, limit, where, k), group)
            return ShardHits(result[0], result.shards_missing) if is_single else result

    def text_search(self, query: str, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k matching records whose documents rank highest (BM25, any word).

        How rare a word is counts by shard, so that scores of different shards differ a little.
        """
        text, n_hits = inputs.check_text(query), inputs.check_k(k)
        parse(where)
        with self._now() as (_, group):
            return _flagged_hits(group.text_search(text, n_hits, where), group)

    def hybrid_search(self, text: str, vector: Any, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k best by text and vector together, by reciprocal rank fusion of both rankings."""
        queries, _ = self._queries(vector)
        if len(queries) != 1:
            raise InvalidInputError(f"hybrid_search takes one vector, got {len(queries)}")
        words, n_hits = inputs.check_text(text), inputs.check_k(k)
        parse(where)
        depth = fusion_depth(n_hits)
        with self._now() as (_, group):
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
        with self._now() as (manifest, group):
            explained = group.explain(queries, n_hits, where, knobs)
            silent = {name: "it did not answer" for name in group.names if name not in explained}
            missing = {**silent, **group.missing}
        found = [each.result for each in explained.values()]
        merged = merging.nearest_results(found, n_hits, self.metric) if found else None
        result = merged or merging.nothing(len(queries), n_hits, self.metric)
        return ShardedExplanation(manifest.version, explained, missing, result)

    def _queries(self, xq: Any) -> tuple[Any, bool]:
        return inputs.check_queries(xq, self.dimension, self.metric)

    # ---- records ---------------------------------------------------------------------------------

    def count(self, where: Where | None = None) -> int:
        """How many records match."""
        if isinstance(parse(where), Everything):
            return self.ntotal
        with self._now() as (_, group):
            return group.count(where)

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
            with self._now() as (_, group):
                found = group.get(id_list, include_vectors)
            return [found[id] for id in id_list if id in found][:stop]
        parse(where)
        with self._now() as (_, group):  # one version to the end
            pages = pages_of(group, where, _PAGE if stop is None else min(_PAGE, stop), include_vectors)
            return list(islice(chain.from_iterable(page.records for page in pages), stop))

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
        with self._now() as (_, group):
            return page_of(group, where, wanted, cursor, include_vectors)

    # ---- writing ---------------------------------------------------------------------------------

    def add(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int:
        """Store new records, all or none. An id that exists or repeats is an error that names it."""
        return self._put(ids, vectors, metadatas, documents, progress, refuse_existing=True)

    def upsert(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int:
        """Store records, replacing those whose ids exist, all or none; durable in the bucket on return."""
        return self._put(ids, vectors, metadatas, documents, progress, refuse_existing=False)

    def _put(
        self, ids: Any, vectors: Any, metadatas: Any, documents: Any, progress: bool, *, refuse_existing: bool
    ) -> int:
        with bar_of(f"store in {self.name}", None, 0, progress) as bar:
            stored = self._write(
                lambda changes: changes.put(
                    ids, vectors, metadatas, documents, refuse_existing=refuse_existing
                )
            )
            bar.update(stored)
        return stored

    def put_stored(self, rows: inputs.Rows) -> int:
        """Store records as another collection has them stored, replacing those whose ids exist."""
        return self._write(lambda changes: changes.put_stored(rows))

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
        return self._write(
            lambda changes: changes.update(ids, metadatas, documents, vectors, replace=replace)
        )

    def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete records by ids or by filter, and return how many there were."""
        self._writable()
        if (ids is None) == (where is None):
            raise InvalidInputError("delete() needs either ids or where")
        if where is None:
            id_list = inputs.check_ids(ids)
            return self._write(lambda changes: changes.delete(id_list)) if id_list else 0
        if isinstance(parse(where), Everything):
            raise InvalidInputError("delete(where={}) would remove every record: use reset() for that")
        return self._write(lambda changes: changes.delete_matching(where))

    def reset(self) -> int:
        """Remove every record and return how many there were."""
        return self._write(lambda changes: changes.reset())

    def _writable(self) -> Changes:
        if self._read_only:
            raise AccessError(f"collection {self.name!r} is open read-only")
        self._check_open()
        return self._changes

    def _write(self, write: Callable[[Changes], int]) -> int:
        """What ``write`` counts, after merging what it has made too many of."""
        with self._use.reading():
            n = write(self._writable())
            if n:
                self._upkeep.after_write(self._manifest)
        return n

    def train(self, xt: Any = None) -> None:
        """Check ``xt``, and that is all: a shard's index is trained on its own vectors when it is made."""
        self._writable()
        if xt is not None:
            inputs.stored_form(xt, self.dimension, self.metric)

    # ---- care ------------------------------------------------------------------------------------

    def load_file(
        self,
        path: str | os.PathLike[str],
        *,
        rows: str | os.PathLike[str] | None = None,
        id_column: str = "id",
        vector_column: str = "vector",
        document_column: str = "document",
        batch_rows: int | None = None,
        restart: bool = False,
        progress: bool = False,
    ) -> LoadReport:
        """Upsert every record of a file, a shard at a time; see `LocalCollection.load_file`."""
        source = Source(
            Path(path),
            None if rows is None else Path(rows),
            id_column,
            vector_column,
            document_column,
            batch_rows,
        )
        with self._use.reading():
            changes = self._writable()
            report = load(source, changes, self._dataset, restart=restart, progress=progress)
            self._upkeep.after_write(self._manifest)
        return report

    def export(
        self, path: str | os.PathLike[str], where: Where | None = None, *, progress: bool = False
    ) -> int:
        """Write the matching records of this version to a file that `load_file` reads; how many."""
        parse(where)
        with self._now() as (manifest, group):
            return export(group, manifest, Path(path), where, progress=progress)

    def optimize(self, *, wait: bool = True, progress: bool | Told = False) -> ShardedOptimizeReport:
        """Merge small shards, and those of which a tenth is replaced or deleted, into fewer.

        Searches and writes go on meanwhile. Interrupted, the dataset is as it was before the merge that was
        under way, or after it.

        Parameters
        ----------
        wait : bool
            False leaves it to the background and returns at once.
        progress : bool or callable
            Show a progress bar; or what is called meanwhile with the phase of the work, how much of it is
            done, and of how much.

        Raises
        ------
        ConflictError
            Another process was merging the same shards.
        """
        with self._use.reading():
            self._writable()
            self.refresh()
            before = self._manifest
            merged = self._upkeep.optimize(before, progress=progress) if wait else []
            if not wait:
                self._upkeep.start(ON_DEMAND)
            return ShardedOptimizeReport.of(before, self._manifest, merged)

    def stats(self) -> ShardedStats:
        """Versions, shards and their sizes."""
        with self._now() as (manifest, group):
            return ShardedStats.of(manifest, self._dataset.bucket.url, group)

    def recall_report(self, *, budget_s: float = 5.0) -> RecallReport:
        """Ask recent questions of this process again, exactly; see `LocalCollection.recall_report`.

        Tells only: the efforts that shards were measured for stay as they are.
        """
        budget = inputs.check_positive(budget_s, "budget_s")
        with self._now() as (manifest, group):
            is_exact = all(shard.index == "Flat" for shard in manifest.shards)
            return measured_recall(group, self.metric, self._questions.sample(), budget, is_exact=is_exact)

    def verify(self) -> VerifyReport:
        """Read every byte of every shard on this machine and check every checksum."""
        with self._now() as (_, group):
            reports = group.verify()
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
