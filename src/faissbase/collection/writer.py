"""Durable writes. Callers that arrive together share one commit, and so one sync.

The order of a write: everything was checked before; take the folder's write lock; put the vectors into the
next slots; insert the rows; commit. Small writes carry redo copies of their vectors inside the commit; large
ones sync the slot file first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from faissbase.collection.inputs import Rows
from faissbase.collection.store import Store
from faissbase.errors import (
    AlreadyExistsError,
    FaissbaseError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.storage.checksums import block_checksums, block_slots
from faissbase.storage.records import State, WriteTransaction
from faissbase.storage.vectors import VectorFile
from faissbase.types import Float32

_REDO_BYTES_A_COMMIT = 256 << 10
_REDO_BYTES_KEPT = 4 << 20
_GROUP_BYTES = 8 << 20
_PATIENCE_S = 150e-6  # several times as long as a caller takes to come back


@dataclass(slots=True)
class Put:
    """Store records under their ids. ``progress`` is how far the load of a file has come with them."""

    rows: Rows
    refuse_existing: bool = False
    progress: tuple[str, int] | None = None

    @property
    def ids(self) -> list[str]:
        return self.rows.ids

    @property
    def n_bytes(self) -> int:
        return self.rows.vectors.nbytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the records with these ids; unknown ids are passed over."""

    ids: list[str]
    n_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Alone:
    """A change that needs the transaction for itself, such as a delete by filter."""

    run: Callable[[WriteTransaction, State, VectorFile], int]
    ids: Sequence[str] = ()
    n_bytes: int = _GROUP_BYTES


Change = Put | Delete | Alone


@dataclass(slots=True, eq=False)
class _Ticket:
    """A caller's change on its way through a commit.

    ``gate`` is a lock that is held while the caller waits: a bare lock is far cheaper than an event.
    """

    change: Change
    result: int = 0
    error: BaseException | None = None
    gate: threading.Lock | None = None

    def wait(self) -> None:
        assert self.gate is not None
        self.gate.acquire()

    def wake(self) -> None:
        """Let the caller go on; once more does no harm."""
        if self.gate is not None and self.gate.locked():
            self.gate.release()


class Writer:
    """Runs changes, many callers at once: whoever comes first commits for all who wait."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = threading.Lock()
        self._queue: list[_Ticket] = []
        self._leader: _Ticket | None = None
        self._group: list[_Ticket] = []  # what the leader commits now
        self._transaction: WriteTransaction | None = None
        self._n_expected = 1  # callers at the last commit: those whom it served and those who waited
        self._have_come = threading.Lock()  # held until as many wait again
        self._have_come.acquire()
        self._is_closed = False
        self._redo_bytes = _REDO_BYTES_KEPT  # unknown: the first commit clears what others left
        self._has_redo = False
        # A sync of what an earlier writer left may have failed: then a later one would not save it.
        self._must_recover = store.found_redo
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="faissbase-disk")

    def run(self, change: Change) -> int:
        """Run ``change`` and return its count once it is durable, sharing the commit with others."""
        ticket = _Ticket(change)
        try:
            if not self._enter(ticket):
                ticket.wait()
            if self._leader is ticket:
                self._lead(ticket)
        except BaseException:
            self._leave(ticket)
            raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.result

    def _enter(self, ticket: _Ticket) -> bool:
        """Queue a change; whether its caller leads."""
        with self._mutex:
            if self._is_closed:
                raise NotReadyError("the collection is closed: connect() again")
            self._queue.append(ticket)
            if self._leader is None:
                self._leader = ticket
                return True
            ticket.gate = threading.Lock()
            ticket.gate.acquire()
            if len(self._queue) >= self._n_expected and self._have_come.locked():
                self._have_come.release()
            return False

    def _leave(self, ticket: _Ticket) -> None:
        """Interrupted, wherever that was: take the change back, or let go of the lead and of all who wait."""
        with self._mutex:
            if ticket in self._queue:
                self._queue.remove(ticket)
            if self._leader is ticket:
                if self._transaction is None or not self._transaction.is_committed:
                    told = UnavailableError("the shared commit was interrupted: try again")
                    for other in self._group:
                        other.error = other.error or told
                self._wake_group(ticket)
                self._hand_on()

    def _lead(self, own: _Ticket) -> None:
        """Commit for all who wait, then let the next in the queue lead."""
        self._gather()
        with self._mutex:
            self._next_group()
        self._commit(self._group)
        self._n_expected = len(self._group) + len(self._queue)
        self._wake_group(own)
        with self._mutex:
            self._hand_on()

    def _gather(self) -> None:
        """Wait until as many callers are there as at the last commit, as long as more of them come.

        Those whom a commit lets go come back while others commit already: without a wait each commit would
        serve half of them, and all would wait for Python's lock meanwhile.
        """
        if isinstance(self._queue[0].change, Alone):
            return
        self._have_come.acquire(blocking=False)  # it may tell of those who came for the last commit
        n_waiting = 0
        while n_waiting < len(self._queue) < self._n_expected:
            n_waiting = len(self._queue)
            self._have_come.acquire(timeout=_PATIENCE_S)

    def _wake_group(self, own: _Ticket) -> None:
        for ticket in self._group:
            if ticket is not own:
                ticket.wake()

    def _hand_on(self) -> None:
        self._group = []
        self._leader = self._queue[0] if self._queue else None
        if self._leader is not None:
            self._leader.wake()

    def _next_group(self) -> None:
        n, n_bytes = 0, 0
        for ticket in self._queue:
            n_bytes += ticket.change.n_bytes
            if n and (n_bytes > _GROUP_BYTES or isinstance(ticket.change, Alone)):
                break
            n += 1
            if isinstance(ticket.change, Alone):
                break
        self._transaction = None
        self._group, self._queue = self._queue[:n], self._queue[n:]

    def _commit(self, group: list[_Ticket]) -> None:
        """Run a group's changes; what went wrong goes to each, but an interrupt to the thread that leads."""
        try:
            if self._must_recover:
                self._store.rewrite_redo()
                self._must_recover = False
            with self._store.records.write_transaction() as transaction:
                self._transaction = transaction
                state = transaction.state()
                if state.is_deleted:
                    raise NotFoundError(f"collection {self._store.config.name!r} was deleted")
                vectors = self._store.vector_file(state.generation)
                first = group[0].change
                if isinstance(first, Alone):
                    group[0].result = first.run(transaction, state, vectors)
                else:
                    _Group(self, transaction, vectors, state.next_slot).apply(group)
        except BaseException as error:
            if not isinstance(error, Exception):
                raise
            if isinstance(error, UnavailableError):
                # A sync may have failed: what the kernel still holds cannot be trusted to reach the disk.
                self._must_recover = True
                self._store.records.end_writer()
            for ticket in group:
                ticket.error = ticket.error or error

    def put_within(self, put: Put, transaction: WriteTransaction, state: State, vectors: VectorFile) -> int:
        """Run a put inside a change that already holds the transaction."""
        ticket = _Ticket(put)
        _Group(self, transaction, vectors, state.next_slot).apply([ticket])
        return ticket.result

    def write_vectors(
        self, transaction: WriteTransaction, vectors: VectorFile, first_slot: int, rows: Float32
    ) -> Future[None] | None:
        """Put vectors into slots: with redo copies where small, else begin a sync that the caller awaits."""
        if rows.nbytes > _REDO_BYTES_A_COMMIT:
            # Written here: beside the inserts the other thread would wait for Python's lock at each step.
            vectors.write(first_slot, rows)
            return self._disk.submit(vectors.sync)
        if self._redo_bytes >= _REDO_BYTES_KEPT:
            self._store.checkpoint(transaction)
            self._redo_bytes = 0
        vectors.write(first_slot, rows)
        raw, size = memoryview(rows.data).cast("B"), vectors.row_bytes
        copies = (raw[start : start + size] for start in range(0, len(raw), size))
        transaction.insert_redo(enumerate(copies, first_slot))
        self._redo_bytes += rows.nbytes
        self._has_redo = True
        return None

    def close(self) -> None:
        """Let what is under way finish, and leave no redo copies behind where this writer made some."""
        with suppress(FaissbaseError):  # copies that stay do no harm
            if self._has_redo or self._leader is not None:
                self.run(Alone(self._finish))
        with self._mutex:
            self._is_closed = True
        self._disk.shutdown()

    def _finish(self, transaction: WriteTransaction, *_: object) -> int:
        if self._has_redo:
            self._store.checkpoint(transaction)
            self._has_redo = False
        return 0


def _ended(synced: Future[None]) -> None:
    """Wait for a sync to its very end: left before, it would write into slots that others get next."""
    try:
        synced.result()
    except BaseException:
        while not synced.done():
            with suppress(KeyboardInterrupt):
                wait([synced])
        raise


class _Group:
    """Puts and deletes by id that go into one commit, in the order in which they came."""

    def __init__(
        self, writer: Writer, transaction: WriteTransaction, vectors: VectorFile, first_slot: int
    ) -> None:
        self._writer = writer
        self._transaction = transaction
        self._vectors = vectors
        self._first_slot = first_slot
        self._next_slot = first_slot
        self._puts: list[Put] = []
        self._dead: list[int] = []
        self._slot_of: dict[str, int] = {}

    def apply(self, group: list[_Ticket]) -> None:
        ids = [id for ticket in group for id in ticket.change.ids]
        self._slot_of = self._transaction.slots_of(ids) if ids else {}
        for ticket in group:
            self._take(ticket)
        self._write()

    def _take(self, ticket: _Ticket) -> None:
        change = ticket.change
        if isinstance(change, Put):
            taken = [id for id in change.ids if id in self._slot_of] if self._slot_of else []
            if taken and change.refuse_existing:
                more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
                ticket.error = AlreadyExistsError(
                    f"id {taken[0]!r}{more} exists already; upsert() replaces it"
                )
                return
            self._dead.extend(self._slot_of[id] for id in taken)
            stop = self._next_slot + len(change.rows)
            self._slot_of.update(zip(change.ids, range(self._next_slot, stop), strict=True))
            self._next_slot = stop
            self._puts.append(change)
            ticket.result = len(change.rows)
        elif isinstance(change, Delete):
            slots = [self._slot_of.pop(id) for id in change.ids if id in self._slot_of]
            self._dead.extend(slots)
            ticket.result = len(slots)

    def _write(self) -> None:
        transaction = self._transaction
        synced = self._write_vectors()
        try:
            if self._dead:
                transaction.bury(self._dead, self._next_slot)
            self._insert_rows()
        finally:
            if synced is not None:
                _ended(synced)
        self._add_blocks()

    def _write_vectors(self) -> Future[None] | None:
        matrices = [put.rows.vectors for put in self._puts if len(put.rows)]
        if not matrices:
            return None
        rows = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
        return self._writer.write_vectors(self._transaction, self._vectors, self._first_slot, rows)

    def _add_blocks(self) -> None:
        """Record the checksums of the blocks that this commit has completed."""
        span = block_slots(self._vectors.row_bytes)
        stop = self._next_slot // span
        if stop > self._first_slot // span:
            first = self._transaction.n_blocks()
            self._transaction.insert_blocks(block_checksums(self._vectors, first, stop))

    def _insert_rows(self) -> None:
        slot, replaced = self._first_slot, set(self._dead)
        for put in self._puts:
            rows, stop = put.rows, slot + len(put.rows)
            fields: tuple[Sequence[Any], ...] = (rows.ids, rows.checksums, rows.norms)
            columns = zip(range(slot, stop), *fields, rows.metadata_json, rows.documents, strict=True)
            lasting = (row for row in columns if row[0] not in replaced) if replaced else columns
            self._transaction.insert(lasting)
            if rows.documents.count(None) < len(rows):
                texts = zip(range(slot, stop), rows.documents, strict=True)
                documents = [(at, text) for at, text in texts if text is not None and at not in replaced]
                self._transaction.index_documents(documents)
            if put.progress is not None:
                self._transaction.set_progress(*put.progress)
            slot = stop
