"""The open files of one collection, and the snapshot that searches run on.

Knows which slots are alive; not filters, not how a search is planned.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import orjson

from faissbase.ann.flat import FlatView, half_codes
from faissbase.ann.gathered import Codes
from faissbase.ann.half import HalfCodes
from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.collection.integrity import BlockCheck, check_rows, fits
from faissbase.collection.segments import LiveSegment, Segments
from faissbase.collection.selected import Selection
from faissbase.collection.tuning import Tuning
from faissbase.errors import ConflictError, CorruptionError, NotFoundError, NotReadyError, UnavailableError
from faissbase.storage import forks
from faissbase.storage.arrival import Arrival
from faissbase.storage.files import FolderLock
from faissbase.storage.records import ReadTransaction, Records, State, WriteTransaction
from faissbase.storage.vectors import VectorFile
from faissbase.types import Durability, Float32, Mask, Metric, Row, Slots

_TUNING = "tuning"
_HALF_BYTES = 512 << 20
_ROW_CACHE_BYTES = 16 << 20
_ROW_OVERHEAD_BYTES = 250
_LONG_ROW_LENGTH = 900  # in letters of up to four bytes
NOTHING: Slots = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Config:
    """What a collection is; never changes after it was made."""

    uuid: str
    name: str
    dimension: int
    metric: Metric
    index_type: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One committed moment, for searching.

    Attributes
    ----------
    view : FlatView
        Every slot, searched exactly.
    segments : tuple of LiveSegment
        The indexes over the first slots.
    tail : FlatView or None
        The slots after them.
    alive : bool[n] or None
        None while no slot is dead.
    everything : Selection
        What a search without a filter may return.
    tuning : Tuning
        What measured recall has taught; shared by all moments.
    hidden : int64[h]
        Slots whose records are there and count as dead: see `Store`. Ascending.
    plans : dict
        How searches without a filter were run: the same question is not thought over twice.
    """

    state: State
    view: FlatView
    segments: tuple[LiveSegment, ...]
    tail: FlatView | None
    alive: Mask | None
    n_alive: int
    everything: Selection
    tuning: Tuning
    hidden: Slots
    plans: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def codes(self) -> tuple[Codes, ...] | None:
        """What is in memory of the segments' codes; None while any has none."""
        codes = tuple(live.index.codes for live in self.segments if live.index.codes is not None)
        return codes if len(codes) == len(self.segments) else None

    @property
    def n_indexed(self) -> int:
        """How many slots the segments cover, from the first on."""
        return self.segments[-1].stop if self.segments else 0


def vectors_path(folder: Path, generation: int) -> Path:
    """The slot file of a generation; compaction and reset begin a new one."""
    return folder / f"vectors.{generation}.f32"


class _RowCache:
    """Rows by slot: what a slot holds never changes within a generation, so nothing here grows stale.

    Two halves: when the young one is full it becomes the old one, and what is used again moves over.
    """

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self._young: dict[int, Row] = {}
        self._old: dict[int, Row] = {}
        self._young_bytes = 0

    def pick(self, slots: Sequence[int]) -> tuple[dict[int, Row], list[int]]:
        """The rows that are here, and the slots that are not, each once."""
        young, old = self._young, self._old
        try:
            return {slot: young[slot] for slot in slots}, []
        except KeyError:
            pass
        rows = {slot: young[slot] for slot in slots if slot in young}
        missing = [slot for slot in dict.fromkeys(slots) if slot not in rows]
        if missing and old:
            again = {slot: old[slot] for slot in missing if slot in old}
            self.keep(again)
            rows.update(again)
            missing = [slot for slot in missing if slot not in again]
        return rows, missing

    def keep(self, rows: dict[int, Row]) -> None:
        self._young_bytes += sum(
            len(row.metadata_json) + len(row.document or "") + _ROW_OVERHEAD_BYTES for row in rows.values()
        )
        self._young.update(rows)
        if self._young_bytes > _ROW_CACHE_BYTES // 2:
            self._old, self._young, self._young_bytes = self._young, {}, 0


def _in_use(folder: Path) -> FolderLock:
    """A lock on a folder, held by all who use it: who repairs or removes it wants to be alone."""
    lock = FolderLock(folder)
    if not lock.take(shared=True):
        raise UnavailableError(f"{folder} is being repaired by another process: try again later")
    if not lock.is_in_place():
        raise NotFoundError(f"{folder} was removed while it was being opened")
    return lock


class Store:
    """Opens what a collection needs when it is first used, and follows what other processes commit.

    ``hidden`` are slots that count as dead whatever the files say, ascending: of a collection that is never
    written again, where it is told elsewhere which of its records have been replaced or deleted since.
    ``arrival`` brings the vectors of such a one, where they are not in the folder yet; it is closed too.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        *,
        read_only: bool,
        durability: Durability,
        memory_bytes: int | None = None,
        bounds: Bounds = UNBOUNDED,
        hidden: Slots = NOTHING,
        arrival: Arrival | None = None,
    ) -> None:
        self._hidden = hidden
        self._arrival = arrival
        self.folder = folder
        self.config = config
        self.read_only = read_only
        self.bounds = bounds
        self._use = _in_use(folder)
        try:
            self.records = Records(folder, synchronous="FULL" if durability == "full" else "NORMAL")
        except BaseException:
            self._use.release()
            raise
        self.renew()
        forks.renew_after(self)
        self._version: tuple[int, int] | None = None
        self._snapshot: Snapshot | None = None
        self._latest: tuple[int, Snapshot] | None = None
        self._vectors: tuple[int, VectorFile] | None = None
        self._half: tuple[int, HalfCodes] | None = None
        self._half_bytes = _HALF_BYTES if memory_bytes is None else min(_HALF_BYTES, memory_bytes)
        self._segments = Segments(folder, config.metric, arrival)
        self.tuning = Tuning()
        self.on_snapshot: Callable[[Snapshot], None] | None = None
        try:
            with self.records.read_transaction() as transaction:
                redo, state = transaction.redo_rows(), transaction.state()
                self.tuning = Tuning(orjson.loads(transaction.meta(_TUNING) or b"[]"))
            self.found_redo = bool(redo)
            self._check_redo(redo, state.generation)
            if not read_only:
                self.remove_other_generations()
            self._integrity = BlockCheck(self.records, self.vector_file(state.generation), state)
            if arrival is not None:
                arrival.check_with(self._check_arrived)
            self._rows = _RowCache(state.generation)
        except BaseException:
            self.close()
            raise

    # ---- files -----------------------------------------------------------------------------------

    def renew(self) -> None:
        self._lock = threading.Lock()
        self._files = threading.RLock()

    def vector_file(self, generation: int) -> VectorFile:
        """The slot file of ``generation``, opened once.

        Raises
        ------
        ConflictError
            Another process has begun a newer generation meanwhile.
        CorruptionError
            The file is missing.
        """
        with self._files:
            if self._vectors is None or self._vectors[0] < generation:
                # Whoever still reads the older file keeps it alive; it closes with its last reader.
                self._vectors = (generation, self._opened_vectors(generation))
            elif self._vectors[0] > generation:
                raise ConflictError(f"generation {generation} of the slots has been replaced")
            return self._vectors[1]

    def _opened_vectors(self, generation: int) -> VectorFile:
        path = vectors_path(self.folder, generation) if self._arrival is None else self._arrival.path
        if not path.exists():
            self._explain_missing(path, generation)
        is_writable = not self.read_only
        return VectorFile(path, self.config.dimension, writable=is_writable, arrival=self._arrival)

    def _check_arrived(self, slots: Slots, vectors: Float32) -> None:
        """Compare vectors that came from elsewhere with the checksums of their records, where these live."""
        with self.records.read_transaction() as transaction:
            rows = transaction.stored_rows(slots)
        vector_of = dict(zip(slots.tolist(), vectors, strict=True))
        for row in rows:
            if row.slot not in vector_of or not fits(row, vector_of[row.slot].tobytes()):
                raise CorruptionError(f"{self.folder}: record {row.id!r} in slot {row.slot} is damaged")

    def _explain_missing(self, path: Path, generation: int) -> None:
        with self.records.read_transaction() as transaction:
            if transaction.state().generation != generation:
                raise ConflictError(f"{path} was replaced by a newer generation")
        raise CorruptionError(f"{path} is missing; run repair()")

    def _check_redo(self, redo: list[tuple[int, bytes]], generation: int) -> None:
        """After a crash of the machine, put the vectors back that had only reached the redo copies."""
        if not redo:
            return
        vectors = self.vector_file(generation)
        if not all(map(vectors.may_be_row, redo)):
            raise CorruptionError(f"{self.folder}: a redo copy is damaged; run repair()")
        if all(not vectors.is_shorter_than(slot + 1) and _same(vectors, slot, copy) for slot, copy in redo):
            return
        if self.read_only:
            raise NotReadyError(
                f"{self.folder} was not closed cleanly: open it once for writing to recover it"
            )
        self._check_redo_fits(dict(redo))
        self.rewrite_redo()

    def _check_redo_fits(self, copies: dict[int, bytes]) -> None:
        """Refuse copies that are not of the records in their slots, for they would go over sound vectors."""
        with self.records.read_transaction() as transaction:
            rows = transaction.stored_rows(list(copies))
        if not all(fits(row, copies[row.slot]) for row in rows if row.slot in copies):
            raise CorruptionError(f"{self.folder}: a redo copy does not fit its record; run repair()")

    def rewrite_redo(self) -> None:
        """Write every redo copy into its slot again and make the slots durable.

        What is committed takes the place, in the WAL, of a commit whose sync has failed: a crash would bring
        that one back, and by then its slots may have been written over.
        """
        with self.records.write_transaction() as transaction:
            transaction.touch()
            vectors = self.vector_file(transaction.state().generation)
            for slot, copy in transaction.redo_rows():
                vectors.write(slot, np.frombuffer(copy, np.float32).reshape(1, -1))
            vectors.sync()

    # ---- snapshots -------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The newest committed moment, whoever committed it."""
        latest, news = self._latest, self._segments.has_news
        if latest is not None and latest[0] == self.records.settled() and not news:
            self._integrity.raise_damage()
            return latest[1]
        with forks.holding_off(self.records.path), self._lock:
            settled = self.records.settled()  # asked first: what is committed after it counts as new
            # Where the counter has moved, somebody has committed: SQLite need not be asked.
            version = self.records.version() if settled is None else None
            snapshot = self._snapshot
            if snapshot is None or version is None or version != self._version or self._segments.has_news:
                snapshot = self._snapshot = self._newest()
                self._version = version
                if self.on_snapshot is not None:
                    self.on_snapshot(snapshot)
            self._latest = None if settled is None else (settled, snapshot)
        self._integrity.raise_damage()
        return snapshot

    def _newest(self) -> Snapshot:
        """The moment of the last commit: by one statement where records alone have come and gone."""
        known = self._snapshot
        if known is not None and not self._segments.has_news:
            state, buried = self.records.news(known.state.last_seq)
            if state == known.state:
                return known
            if (state.generation, state.segments) == (known.state.generation, known.state.segments):
                return self._made(state, self._vectors_at(state), known, buried, known.segments)
        with self.records.read_transaction() as transaction:
            return self._advance(transaction, transaction.state())

    @contextmanager
    def pinned(self) -> Iterator[tuple[Snapshot, ReadTransaction]]:
        """A snapshot together with reads of the very same moment."""
        with self.records.read_transaction() as transaction:
            yield self.snapshot_at(transaction), transaction

    def snapshot_at(self, transaction: ReadTransaction) -> Snapshot:
        """The moment that an open transaction sees."""
        state = transaction.state()
        self._integrity.raise_damage()
        with self._lock:
            known = self._snapshot
            if known is None or _is_older(known.state, state):
                self._snapshot = known = self._advance(transaction, state)
        # Another thread may have gone on meanwhile: then this moment is made from the start.
        return known if known.state == state else self._build(transaction, state, None)

    def _advance(self, transaction: ReadTransaction, state: State) -> Snapshot:
        known = self._snapshot
        if known is not None and known.state == state and not self._segments.has_news:
            return known
        if known is not None and known.state.generation != state.generation:
            known = None
        return self._build(transaction, state, known)

    def _build(self, transaction: ReadTransaction, state: State, known: Snapshot | None) -> Snapshot:
        vectors = self._vectors_at(state)
        buried = transaction.buried_since(known.state.last_seq if known else 0)
        if known is None and len(self._hidden):
            buried = np.union1d(buried, self._hidden)
        segments = self._live_segments(transaction, state, vectors, known)
        return self._made(state, vectors, known, buried, segments)

    def _vectors_at(self, state: State) -> Float32:
        """All slots of a moment, mapped."""
        if state.is_deleted:
            raise NotFoundError(f"collection {self.config.name!r} was deleted")
        if not state.next_slot:
            return np.zeros((0, self.config.dimension), np.float32)
        return self.vector_file(state.generation).view(state.next_slot)

    def _made(
        self,
        state: State,
        vectors: Float32,
        known: Snapshot | None,
        buried: Slots,
        segments: tuple[LiveSegment, ...],
    ) -> Snapshot:
        """A moment, from an older one of the same generation and the slots buried since."""
        n = state.next_slot
        if len(buried) and not 0 <= buried.min() <= buried.max() < n:
            raise CorruptionError(f"{self.folder}: a tombstone names none of the {n} slots; run repair()")
        alive = _alive(known.alive if known else None, n, buried)
        n_alive = n if alive is None else int(np.count_nonzero(alive))
        unchanged = known is not None and known.view.n == n
        view = known.view if known and unchanged else self._view(vectors, state.generation)
        n_indexed = segments[-1].stop if segments else 0
        has_tail = 0 < n_indexed < n
        tail = FlatView(view.vectors[n_indexed:], self.config.metric) if has_tail else None
        everything = Selection(alive, n, n_alive)
        return Snapshot(state, view, segments, tail, alive, n_alive, everything, self.tuning, self._hidden)

    def _live_segments(
        self, transaction: ReadTransaction, state: State, vectors: Float32, known: Snapshot | None
    ) -> tuple[LiveSegment, ...]:
        if known is not None and known.state.segments == state.segments and not self._segments.has_news:
            return known.segments
        return self._segments.current(transaction.segments(state), vectors, state.generation)

    def _view(self, vectors: Float32, generation: int) -> FlatView:
        if self._half is None or self._half[0] != generation:
            config = self.config
            self._half = generation, half_codes(config.dimension, config.metric, self._half_bytes)
        return FlatView(vectors, self.config.metric, self._half[1], self._arrival)

    # ---- rows ------------------------------------------------------------------------------------

    def rows(
        self, snapshot: Snapshot, slots: Sequence[int], transaction: ReadTransaction | None = None
    ) -> dict[int, Row]:
        """The rows of slots alive in ``snapshot``, read in ``transaction`` where one is pinned.

        Raises
        ------
        ConflictError
            A row has gone since: take a new snapshot.
        TooLarge
            They pass the bound of an answer; none was read.
        """
        generation = snapshot.state.generation
        cache = self._rows
        if cache.generation != generation:
            cache = self._rows = _RowCache(generation)
        rows, missing = cache.pick(slots)
        if missing:
            if self.bounds.answer_bytes:
                self._check_bound(missing, transaction)
            fetched = transaction.rows(missing) if transaction else self.records.rows(missing, generation)
            self._check_fetched(fetched, missing)
            self._check_long(fetched, generation)
            cache.keep(fetched)
            rows.update(fetched)
        return rows

    def _check_bound(self, slots: Sequence[int], transaction: ReadTransaction | None) -> None:
        if transaction is not None:
            n_bytes = sum(transaction.sizes(slots))
        else:
            with self.records.read_transaction() as own:
                n_bytes = sum(own.sizes(slots))
        self.bounds.check_answer(n_bytes)

    def _check_fetched(self, rows: dict[int, Row], wanted: Sequence[int]) -> None:
        """Check that every row is there and holds what a row holds: a whole page may be in a wrong place."""
        is_whole = len(rows) == len(wanted) and all(
            type(row.id) is str and type(row.metadata_json) is bytes and type(row.document) in (str, NoneType)
            for row in rows.values()
        )
        if not is_whole:
            raise CorruptionError(f"{self.folder}: records of hits are damaged; run verify() and repair()")

    def _check_long(self, rows: dict[int, Row], generation: int) -> None:
        """Check the rows that fill pages of their own: a page of zeros has the page checksum zero."""
        long = [
            slot
            for slot, row in rows.items()
            if len(row.metadata_json) + len(row.document or "") > _LONG_ROW_LENGTH
        ]
        if long:
            with self.records.read_transaction() as transaction:
                stored = transaction.stored_rows(long)
                if transaction.state().generation == generation:
                    check_rows(stored, self.vector_file(generation))

    def settle(self) -> None:
        """Wait until segments that have been built are in use, and their codes in memory."""
        self.snapshot()
        self._segments.settle()

    def keep_tuning(self, transaction: WriteTransaction) -> None:
        """Have later openings begin with what was learnt."""
        transaction.set_meta(_TUNING, orjson.dumps(self.tuning.factors))

    @property
    def damaged_segments(self) -> dict[str, str]:
        """Index files that could not be opened, and why."""
        return self._segments.damaged

    def twin(self, hidden: Slots) -> Store:
        """The same open files with other hidden slots; for a collection that is never written again.

        Both are used and closed by whoever has them; closing one closes the files of both.
        """
        other = copy.copy(self)
        other._lock, other._hidden = threading.Lock(), hidden
        other._version = other._snapshot = other._latest = None
        forks.renew_after(other)
        return other

    def close(self) -> None:
        if self._arrival is not None:
            self._arrival.close()
        self._segments.close()
        with self._lock:
            self.records.close()
        self._vectors = None
        self._use.release()

    def begin_arrival(self) -> None:
        """Bring the vectors that are not here yet, in the background."""
        if self._arrival is not None:
            self._arrival.begin()

    def checkpoint(self, transaction: WriteTransaction) -> None:
        """Make the slots of all redo copies durable, then drop the copies."""
        self.vector_file(transaction.state().generation).sync()
        transaction.clear_redo()

    def remove_other_generations(self) -> None:
        """Remove slot files that no commit names: what a reset or compaction left when it was interrupted.

        On a disk that is full they may stay until the next time: nothing that is stored hangs on it.
        """
        if len(list(self.folder.glob("vectors.*.f32"))) > 1:
            with suppress(UnavailableError):
                self._remove_other_generations()

    def _remove_other_generations(self) -> None:
        with self.records.write_transaction(synchronous="FULL") as transaction:
            transaction.touch()  # with relaxed durability the commit that names the new file may be lost yet
        with self.records.write_transaction() as transaction:
            current = vectors_path(self.folder, transaction.state().generation)
            for path in self.folder.glob("vectors.*.f32"):
                if path != current:
                    with suppress(OSError):  # the next open tries again
                        path.unlink(missing_ok=True)


def _same(vectors: VectorFile, slot: int, copy: bytes) -> bool:
    return vectors.read(slot, 1).tobytes() == copy


def _is_older(known: State, state: State) -> bool:
    return (known.generation, known.next_slot, known.last_seq) < (
        state.generation,
        state.next_slot,
        state.last_seq,
    )


def _alive(known: Mask | None, n: int, buried: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Mask | None:
    if known is None and not len(buried):
        return None
    alive = np.ones(n, np.bool_)
    if known is not None:
        alive[: len(known)] = known
    alive[buried] = False
    return alive
