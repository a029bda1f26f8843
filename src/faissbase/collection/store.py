"""The open files of one collection, and the snapshot that searches run on.

Knows which slots are alive; not filters, not how a search is planned.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faissbase.ann.flat import FlatView
from faissbase.collection.integrity import BlockCheck, check_rows
from faissbase.errors import ConflictError, CorruptionError, NotFoundError, NotReadyError
from faissbase.storage.records import ReadTransaction, Records, State, WriteTransaction
from faissbase.storage.vectors import VectorFile
from faissbase.types import Durability, Mask, Metric, Row

_ROW_CACHE_BYTES = 16 << 20
_ROW_OVERHEAD_BYTES = 250
_LONG_ROW_LENGTH = 900  # in letters of up to four bytes


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
    """One committed moment, for searching. ``alive`` is None while no slot is dead."""

    state: State
    view: FlatView
    alive: Mask | None
    n_alive: int


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
        """The rows that are here, and the slots that are not."""
        young, old = self._young, self._old
        rows = {slot: young[slot] for slot in slots if slot in young}
        missing = [slot for slot in slots if slot not in rows]
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


class Store:
    """Opens what a collection needs when it is first used, and follows what other processes commit."""

    def __init__(self, folder: Path, config: Config, *, read_only: bool, durability: Durability) -> None:
        self.folder = folder
        self.config = config
        self.read_only = read_only
        self.records = Records(folder, synchronous="FULL" if durability == "full" else "NORMAL")
        self._lock = threading.Lock()
        self._files = threading.RLock()
        self._version = -1
        self._snapshot: Snapshot | None = None
        self._vectors: tuple[int, VectorFile] | None = None
        try:
            with self.records.read_transaction() as transaction:
                redo, state = transaction.redo_rows(), transaction.state()
            self.found_redo = bool(redo)
            self._check_redo(redo, state.generation)
            if not read_only:
                self.remove_other_generations()
            self._integrity = BlockCheck(self.records, self.vector_file(state.generation), state)
            self._rows = _RowCache(state.generation)
        except BaseException:
            self.close()
            raise

    # ---- files -----------------------------------------------------------------------------------

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
                path = vectors_path(self.folder, generation)
                if not path.exists():
                    self._explain_missing(path, generation)
                # Whoever still reads the older file keeps it alive; it closes with its last reader.
                opened = VectorFile(path, self.config.dimension, writable=not self.read_only)
                self._vectors = (generation, opened)
            elif self._vectors[0] > generation:
                raise ConflictError(f"generation {generation} of the slots has been replaced")
            return self._vectors[1]

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
        if all(not vectors.is_shorter_than(slot + 1) and _same(vectors, slot, copy) for slot, copy in redo):
            return
        if self.read_only:
            raise NotReadyError(
                f"{self.folder} was not closed cleanly: open it once for writing to recover it"
            )
        self.rewrite_redo()

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
        with self._lock:
            version = self.records.version()
            if self._snapshot is None or version != self._version:
                with self.records.read_transaction() as transaction:
                    self._snapshot = self._advance(transaction, transaction.state())
                self._version = version
            snapshot = self._snapshot
        self._integrity.raise_damage()
        return snapshot

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
        if known is not None and known.state == state:
            return known
        if known is not None and known.state.generation != state.generation:
            known = None
        return self._build(transaction, state, known)

    def _build(self, transaction: ReadTransaction, state: State, known: Snapshot | None) -> Snapshot:
        if state.is_deleted:
            raise NotFoundError(f"collection {self.config.name!r} was deleted")
        n = state.next_slot
        vectors = self.vector_file(state.generation).view(n) if n else self._no_vectors()
        buried = transaction.buried_since(known.state.last_seq if known else 0)
        alive = _alive(known.alive if known else None, n, buried)
        n_alive = n if alive is None else int(np.count_nonzero(alive))
        unchanged = known is not None and known.view.n == n
        view = known.view if known and unchanged else FlatView(vectors, self.config.metric)
        return Snapshot(state, view, alive, n_alive)

    def _no_vectors(self) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.zeros((0, self.config.dimension), np.float32)

    # ---- rows ------------------------------------------------------------------------------------

    def rows(
        self, snapshot: Snapshot, slots: Sequence[int], transaction: ReadTransaction | None = None
    ) -> dict[int, Row]:
        """The rows of slots alive in ``snapshot``, read in ``transaction`` where one is pinned.

        Raises
        ------
        ConflictError
            A row has gone since: take a new snapshot.
        """
        generation = snapshot.state.generation
        cache = self._rows
        if cache.generation != generation:
            cache = self._rows = _RowCache(generation)
        rows, missing = cache.pick(slots)
        if missing:
            fetched = transaction.rows(missing) if transaction else self.records.rows(missing, generation)
            self._check_long(fetched, generation)
            cache.keep(fetched)
            rows.update(fetched)
        return rows

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

    def close(self) -> None:
        with self._lock:
            self.records.close()
        self._vectors = None

    def checkpoint(self, transaction: WriteTransaction) -> None:
        """Make the slots of all redo copies durable, then drop the copies."""
        self.vector_file(transaction.state().generation).sync()
        transaction.clear_redo()

    def remove_other_generations(self) -> None:
        """Remove slot files that no commit names: what a reset or compaction left when it was interrupted."""
        if len(list(self.folder.glob("vectors.*.f32"))) < 2:
            return
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
