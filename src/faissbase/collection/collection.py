"""One collection as its users see it: checks what it is given, then reads moments or writes changes.

Thread-safe. Files are opened when the collection is first used.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from faissbase.collection import answers, changes, inputs, planner, repair, transfer, verify
from faissbase.collection.answers import Explanation, Moment
from faissbase.collection.asked import Asked
from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.building import TAIL_NUMBERS
from faissbase.collection.care import Care, OptimizeReport
from faissbase.collection.planner import wanted_from
from faissbase.collection.recall import RecallReport, measured_recall
from faissbase.collection.selection import Selector
from faissbase.collection.stats import Stats, stats_of
from faissbase.collection.store import Config, Snapshot, Store
from faissbase.collection.telling import Told
from faissbase.collection.transfer import LoadReport
from faissbase.collection.writer import Alone, Delete, Put, Writer
from faissbase.errors import (
    AccessError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.filters.tree import Everything, Filter, parse
from faissbase.storage import forks
from faissbase.types import (
    Durability,
    Float32,
    Hit,
    Metric,
    OpenHere,
    Page,
    Record,
    RepairReport,
    VerifyReport,
    Where,
)

T = TypeVar("T")
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Parts:
    """What is open of one collection, and the process that opened it."""

    store: Store
    selector: Selector
    writer: Writer
    care: Care
    process: int


# Collections inherited over a fork, with locks that a thread of the parent may hold.
_left_to_parent: list[Parts] = []


class LocalCollection(OpenHere):
    """A collection in a folder. Made by ``Database.create_collection``, not by hand."""

    def __init__(
        self,
        folder: Path,
        config: Config,
        *,
        read_only: bool,
        durability: Durability,
        memory_budget: int | None,
        on_open: Callable[[LocalCollection], None],
        on_work: Callable[[LocalCollection], None],
        bounds: Bounds = UNBOUNDED,
    ) -> None:
        self._folder = folder
        self._memory_budget = memory_budget
        self._on_open = on_open
        self._on_work = on_work
        self._bounds = bounds
        self._config = config
        self._read_only = read_only
        self._durability: Durability = durability
        self._opening = threading.Lock()
        self._open_parts: Parts | None = None
        self.used_at = 0.0  # by time.monotonic
        self._is_closed = False
        self._is_deleted = False
        self._asked = Asked()
        self._n_unseen = 0
        forks.renew_after(self)

    def __repr__(self) -> str:
        config = self._config
        return f"<collection {config.name!r}: d={config.dimension}, {config.metric}, {config.index_type}>"

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def dimension(self) -> int:
        return self._config.dimension

    @property
    def metric(self) -> Metric:
        return self._config.metric

    @property
    def index_type(self) -> str:
        return self._config.index_type

    @property
    def is_open(self) -> bool:
        """Whether this process has its files open."""
        return self._open_parts is not None

    # ---- opening ---------------------------------------------------------------------------------

    def renew(self) -> None:
        """In a fork: whoever was opening the collection then is not here."""
        self._opening = threading.Lock()

    def _parts(self) -> Parts:
        self.used_at = time.monotonic()
        parts = self._open_parts
        if parts is not None and parts.process == os.getpid():
            return parts
        with self._opening:
            parts = self._open_parts
            if parts is not None and parts.process != os.getpid():
                _left_to_parent.append(parts)
                parts = None
            if parts is None:
                parts = self._open_parts = self._open()
        self._on_open(self)
        return parts

    def _open(self) -> Parts:
        if self._is_deleted:
            raise NotFoundError(f"collection {self.name!r} was deleted")
        if self._is_closed:
            raise NotReadyError(f"collection {self.name!r} is closed: connect() again")
        store = Store(
            self._folder,
            self._config,
            read_only=self._read_only,
            durability=self._durability,
            memory_bytes=self._memory_budget,
            bounds=self._bounds,
        )
        writer = Writer(store)
        care = Care(store, writer, self._memory_budget)
        if not self._read_only:
            store.on_snapshot = self._look_after
        return Parts(store, Selector(store.records, self._memory_budget), writer, care, os.getpid())

    def _look_after(self, snapshot: Snapshot) -> None:
        """Have the background build or compact, where this moment says that it is due."""
        parts = self._open_parts
        if parts is not None and parts.care.is_due(snapshot):
            self._on_work(self)

    def maintain(self, stop: threading.Event) -> bool:
        """Build and compact as far as it is due. Called in the background, not by hand."""
        parts = self._parts()
        try:
            return parts.care.maintain(stop)
        except UnavailableError:
            parts.store.snapshot()  # `NotFoundError` where the files have gone with the collection
            raise

    def _writable(self) -> Parts:
        if self._read_only:
            raise AccessError(f"collection {self.name!r} is open read-only")
        return self._parts()

    def release(self) -> None:
        """Let go of the open files, until the next use; whoever is using them now keeps them to the end."""
        with self._opening:
            if self._open_parts is not None and self._open_parts.process == os.getpid():
                self._open_parts = None

    def close_deleted(self) -> None:
        """Close what is deleted: whoever still holds it is told so."""
        self._is_deleted = True
        self.close()

    def close(self) -> None:
        """Finish writes and close the files. Called by ``Database.close``."""
        with self._opening:
            parts, self._open_parts = self._open_parts, None
            self._is_closed = True
            if parts is not None and parts.process == os.getpid():
                parts.writer.close()
                parts.store.close()

    # ---- reading moments -------------------------------------------------------------------------

    def _pinned(self, read: Callable[[Moment], T]) -> T:
        """Run ``read`` on one moment, rows and all; again where the slots were numbered anew meanwhile."""
        parts = self._parts()
        for attempt in range(_TRIES):
            try:
                with parts.store.pinned() as (snapshot, transaction):
                    return read(Moment(parts.store, parts.selector, snapshot, transaction))
            except ConflictError:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _fresh(self, read: Callable[[Moment], T]) -> T:
        """Run ``read`` on the newest moment; pin it, at some cost, only where a row has gone meanwhile."""
        parts = self._parts()
        try:
            return read(Moment(parts.store, parts.selector, parts.store.snapshot()))
        except ConflictError:
            return self._pinned(read)

    def _newest(self) -> Snapshot:
        return self._fresh(lambda moment: moment.snapshot)

    # ---- writing ---------------------------------------------------------------------------------

    def add(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int:
        """Store new records, all or none, and return how many, once they are durable.

        Parameters
        ----------
        ids : list of str
            1 to 1024 bytes each, none twice.
        vectors : array_like, (n, d)
            Lists, NumPy of any float or int type, Arrow, torch. Never changed.
        metadatas : list of dict, optional
            JSON objects. Dates become ISO strings.
        documents : list of str or None, optional
        progress : bool
            Show a progress bar. It counts what is stored: here all at once, on a server piece by piece.

        Raises
        ------
        AlreadyExistsError
            An id is stored already (named); nothing was stored.
        InvalidInputError
            Anything else that is wrong with the input; nothing was stored.
        """
        return self._put(ids, vectors, metadatas, documents, progress, refuse_existing=True)

    def upsert(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int:
        """Store records, replacing those whose ids exist; otherwise as `add`."""
        return self._put(ids, vectors, metadatas, documents, progress, refuse_existing=False)

    def _put(
        self, ids: Any, vectors: Any, metadatas: Any, documents: Any, progress: bool, *, refuse_existing: bool
    ) -> int:
        parts = self._writable()
        rows = inputs.rows_from_input(ids, vectors, metadatas, documents, self.dimension, self.metric)
        bar = transfer.bar_of(f"store in {self.name}", len(rows), 0, progress) if progress else None
        with bar or nullcontext():
            n_stored = parts.writer.run(Put(rows, refuse_existing)) if len(rows) else 0
            if bar is not None:
                bar.update(n_stored)
        self._note_written(n_stored)
        return n_stored

    def _note_written(self, n: int) -> None:
        """Have the background look whether an index is due, after so many new slots that one may be."""
        self._n_unseen += n  # a lost count between threads does no harm
        if self._n_unseen * self.dimension >= TAIL_NUMBERS:
            self._n_unseen = 0
            self._on_work(self)

    def update(
        self,
        ids: Any,
        metadatas: Any = None,
        documents: Any = None,
        vectors: Any = None,
        *,
        replace: bool = False,
    ) -> int:
        """Change parts of stored records, all or none, and return how many.

        ``metadatas`` are merged into the stored ones field by field, as ``dict.update`` does; with
        ``replace=True`` they take their place. None leaves a part as it is, as does None for one record among
        metadatas or documents.

        Raises
        ------
        NotFoundError
            An id is not stored (named); nothing was changed.
        """
        parts = self._writable()
        update = changes.checked_update(
            ids, metadatas, documents, vectors, replace, self._config, self._bounds
        )
        return parts.writer.run(Alone(lambda *write: update.run(parts.writer, *write)))

    def delete(self, ids: Any = None, *, where: Where | None = None) -> int:
        """Delete records by ids or by filter, and return how many there were.

        Unknown ids are passed over. To remove everything, use `reset`.
        """
        parts = self._writable()
        if (ids is None) == (where is None):
            raise InvalidInputError("delete() needs either ids or where")
        if where is None:
            id_list = inputs.check_ids(ids)
            return parts.writer.run(Delete(id_list)) if id_list else 0
        filter = parse(where)
        if isinstance(filter, Everything):
            raise InvalidInputError("delete(where={}) would remove every record: use reset() for that")
        store, selector = parts.store, parts.selector
        return parts.writer.run(
            Alone(
                lambda transaction, state, _: changes.delete_matching(
                    store, selector, filter, transaction, state
                )
            )
        )

    def reset(self) -> int:
        """Remove every record and return how many there were. Name, dimension and metric stay."""
        parts = self._writable()
        store = parts.store
        n_removed = parts.writer.run(
            Alone(lambda transaction, state, _: changes.reset(store, transaction, state))
        )
        store.remove_other_generations()
        return n_removed

    def train(self, xt: Any = None) -> None:
        """Have an index that was named, as ``"IVF_PQ"``, learn anew and be built over all that is stored.

        Not needed: an index is trained on stored vectors once there are enough, and searches are exact until
        then. ``xt``, ``(m, d)``, is what to learn from, a sample of the stored vectors where it is left out.
        An exact collection, or ``"auto"``, has nothing to learn; ``xt`` is checked all the same.

        Raises
        ------
        NotReadyError
            Too few vectors to train on, in ``xt`` or stored.
        """
        sample = None
        if xt is not None:
            sample = inputs.stored_form(xt, self.dimension, self.metric)[0]
        self._writable().care.train(sample)

    # ---- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._newest().n_alive

    @property
    def ntotal(self) -> int:
        """The number of records, under FAISS's name."""
        return len(self)

    def count(self, where: Where | None = None) -> int:
        """How many records match."""
        filter = parse(where)
        return self._fresh(lambda moment: moment.select(filter).count)

    def get(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        limit: int | None = None,
        include_vectors: bool = False,
    ) -> list[Record]:
        """Records by ids, in their order (unknown ids are left out), or by filter, oldest first.

        Vectors come as they were given: for cosine, the stored unit vector times its length.
        """
        if ids is not None and where is not None:
            raise InvalidInputError("get() takes ids or where, not both")
        stop = None if limit is None else inputs.check_count(limit, "limit")
        if ids is not None:
            id_list = inputs.check_ids(ids)
            return self._pinned(lambda moment: answers.by_ids(moment, id_list, include_vectors)[:stop])
        filter = parse(where)
        return self._pinned(lambda moment: answers.all_by_filter(moment, filter, stop, include_vectors))

    def scroll(
        self,
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        include_vectors: bool = False,
    ) -> Page:
        """One page of matching records, oldest write first; pass ``page.cursor`` on for the next.

        A record written between two pages is met again at the end.

        Raises
        ------
        ConflictError
            The collection was reset or compacted since the cursor was made: start again.
        """
        filter, stop = parse(where), inputs.check_count(limit, "limit")
        generation, first_slot = answers.parse_cursor(cursor)

        def read(moment: Moment) -> Page | None:
            now = moment.snapshot.state.generation
            if generation not in (None, now):
                return None
            records, next_slot = answers.by_filter(moment, filter, first_slot, stop, include_vectors)
            return Page(records, None if next_slot is None else f"{now}-{next_slot}")

        page = self._pinned(read)
        if page is None:
            raise ConflictError(
                "the collection was reset or compacted since this cursor was made: start again"
            )
        return page

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
        """The k nearest records, nearest first, and k of them wherever k match.

        Parameters
        ----------
        xq : array_like, (d,) or (nq, d)
        k : int
        where : dict, optional
            Only records whose metadata match, see the filter language in the README.
        recall : float, optional
            The share of the true k nearest that has to come back, in (0, 1]; 0.95 where nothing is said, and
            1 is an exact search. The cheapest parameters are taken that were measured to reach it, or
            another path where that costs less.
        nprobe, ef_search : int, optional
            Lists to visit (IVF) or candidates to keep (HNSW) instead, whatever recall that has. While no
            index is built the search is exact and has no use for them.
        rerank : int, optional
            Candidates a hit whose distances are computed from the true vectors.

        Returns
        -------
        list of Hit
            for one vector;
        SearchResult
            for a matrix of them.
        """
        queries, is_single, filter = self._query(xq, where)
        n_hits = inputs.check_k(k, len(queries))
        wanted = wanted_from(recall, nprobe, ef_search, rerank)
        answer = answers.nearest_to_one if is_single else answers.nearest
        found: Any = self._fresh(lambda moment: answer(moment, queries, n_hits, filter, wanted))
        self._asked.note(queries, n_hits, filter, wanted)
        parts = self._open_parts
        if parts is not None and parts.store.tuning.wants_filters and not self._read_only:
            self._on_work(self)
        return found

    def is_by_graph(
        self,
        nq: int,
        k: int,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> bool:
        """Whether so many queries without a filter would each walk a graph: together they gain little."""
        snapshot, n_hits = self._newest(), inputs.check_k(k, nq)
        if any(live.index.family != "hnsw" for live in snapshot.segments):
            return False
        wanted = wanted_from(recall, nprobe, ef_search, rerank)
        return planner.choose(snapshot, nq, n_hits, snapshot.everything, wanted).path == "index"

    def range_search(self, xq: Any, radius: float, where: Where | None = None) -> Any:
        """Every matching record nearer than ``radius``: distance below it for l2 (squared), else above it.

        Returns hits or a `SearchResult` as `search` does, padded to the longest answer.
        """
        return self.first_within(xq, radius, where, None)

    def first_within(self, xq: Any, radius: float, where: Where | None, k: int | None) -> Any:
        """`range_search`, of each answer the ``k`` nearest alone."""
        queries, is_single, filter = self._query(xq, where)
        limit = inputs.check_radius(radius)
        result = self._fresh(lambda moment: answers.within(moment, queries, limit, filter, k))
        return result[0] if is_single else result

    def text_search(self, query: str, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k matching records whose documents rank highest for the words of ``query`` (BM25, any word)."""
        text, n_hits, filter = inputs.check_text(query), inputs.check_k(k), parse(where)
        return self._pinned(lambda moment: answers.by_text(moment, text, n_hits, filter))

    def hybrid_search(self, text: str, vector: Any, k: int = 10, where: Where | None = None) -> list[Hit]:
        """The k best by text and vector together, by reciprocal rank fusion of both rankings."""
        queries, _, filter = self._query(vector, where)
        if len(queries) != 1:
            raise InvalidInputError(f"hybrid_search takes one vector, got {len(queries)}")
        words, n_hits = inputs.check_text(text), inputs.check_k(k)
        return self._pinned(lambda moment: answers.by_both(moment, words, queries, n_hits, filter))

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
    ) -> Explanation:
        """Run a search and tell how: the path, its forecast, the time of each step. Prints readably."""
        queries, _, filter = self._query(xq, where)
        n_hits, wanted = inputs.check_k(k), wanted_from(recall, nprobe, ef_search, rerank)
        return self._fresh(lambda moment: answers.explained(moment, queries, n_hits, filter, wanted))

    # ---- files and care --------------------------------------------------------------------------

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
        """Upsert every record of a file, in constant memory; run again after an interruption, it goes on.

        Parameters
        ----------
        path : path
            ``.npy``, ``.npz:key``, ``.fvecs``, ``.bvecs``, ``.parquet``, ``.arrow``, ``.feather``,
            ``.jsonl``, ``.csv``, ``.tsv`` (the text formats also with ``.gz``); ``.faiss`` or ``.index``,
            an index that FAISS has written, which is read whole: its vectors as it gives them back.
        rows : path, optional
            Ids, metadata and documents for the vectors of npy, npz, fvecs, bvecs or an index, row by row; by
            default ``<path>.rows.jsonl`` where that exists. Without ids, an index's own or the row numbers.
        id_column, vector_column, document_column : str
            Where the columns have other names. All other columns become metadata.
        restart : bool
            Load from the first row, also where an earlier load was interrupted.
        progress : bool
            Show a progress bar.
        """
        parts = self._writable()
        rows_path = None if rows is None else Path(rows)
        columns = (id_column, vector_column, document_column)
        source = transfer.Source(Path(path), rows_path, *columns, batch_rows)
        into = (parts.writer, parts.store.records, self.dimension, self.metric)
        report = transfer.load(source, *into, restart=restart, progress=progress)
        self._note_written(report.n_rows)
        return report

    def export(
        self, path: str | os.PathLike[str], where: Where | None = None, *, progress: bool = False
    ) -> int:
        """Write the matching records of this moment to a file that `load_file` reads; how many.

        ``.parquet``, ``.arrow``, ``.feather``, ``.jsonl``, ``.csv`` and ``.tsv`` hold everything; ``.npy``,
        ``.fvecs`` and ``.bvecs`` the vectors, beside ``<path>.rows.jsonl`` with the rest. An older file is
        replaced, once the new one is whole. CSV and TSV have no empty document: it is read as none.
        """
        filter, target = parse(where), Path(path)
        return self._pinned(lambda moment: transfer.export(moment, target, filter, progress=progress))

    def optimize(self, *, wait: bool = True, progress: bool | Told = False) -> OptimizeReport:
        """Drop deleted and replaced records from the files and build the index to the end.

        Searches go on meanwhile; writers wait while files are rewritten, which is done where a tenth of the
        slots are dead, or any where there is no index. Interrupted, the next call goes on where it stopped.

        Parameters
        ----------
        wait : bool
            False leaves it to the background and returns at once.
        progress : bool or callable
            Show a progress bar; or what is called meanwhile with the phase of the work, how much of it is
            done, and of how much.
        """
        parts = self._writable()
        if not wait:
            self._on_work(self)
        return parts.care.optimize(progress=progress) if wait else parts.care.report()

    def recall_report(self, *, budget_s: float = 5.0) -> RecallReport:
        """Ask recent questions of this process again, exactly, and tell what share of the answers was right.

        Parameters
        ----------
        budget_s : float
            Seconds of CPU time to spend.

        Returns
        -------
        RecallReport
            recall@k with a 95 % interval for each band of selectivity. Prints readably.
        """
        budget = inputs.check_positive(budget_s, "budget_s")
        parts, questions = self._parts(), self._asked.questions()
        before = list(parts.store.tuning.factors)
        report = self._fresh(lambda moment: measured_recall(moment, questions, budget))
        if parts.store.tuning.factors != before and not self._read_only:
            parts.care.keep_tuning()
        return report

    def verify(self) -> VerifyReport:
        """Read every byte, check every checksum and that the files agree; tells what is wrong, and where."""
        return verify.verify(self._folder, self._config)

    def repair(self) -> RepairReport:
        """Rebuild what is derived and quarantine records that are damaged; never makes anything up.

        No other process may have the collection open meanwhile.
        """
        if self._read_only:
            raise AccessError(f"collection {self.name!r} is open read-only")
        with self._opening:
            parts, self._open_parts = self._open_parts, None
            if parts is not None and parts.process == os.getpid():
                parts.writer.close()
                parts.store.close()
            return repair.repair(self._folder, self._config)

    def _query(self, xq: Any, where: Where | None) -> tuple[Float32, bool, Filter]:
        queries, is_single = inputs.check_queries(xq, self.dimension, self.metric)
        return queries, is_single, parse(where)

    def stats(self) -> Stats:
        """Sizes and debts of this collection."""
        parts = self._parts()
        return stats_of(parts.store, self._newest(), parts.selector.size_bytes)
