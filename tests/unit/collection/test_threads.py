"""One collection used by many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase
from faissbase.collection import inputs
from faissbase.collection import writer as module
from faissbase.collection.collection import LocalCollection
from faissbase.collection.writer import Alone, Delete, Put, Writer, _ended, _Ticket
from faissbase.types import Hit, Record

D = 4
N_THREADS = 8


@pytest.fixture
def docs(memory: faissbase.Database) -> LocalCollection:
    return memory.create_collection("docs", D, "l2")


def in_threads(run: Callable[[int], None]) -> None:
    """Run in all threads at once; the first exception comes out."""
    start = threading.Barrier(N_THREADS)

    def one(thread: int) -> None:
        start.wait()
        run(thread)

    with ThreadPoolExecutor(N_THREADS) as pool:
        for future in [pool.submit(one, thread) for thread in range(N_THREADS)]:
            future.result()


def vector(thread: int, step: int) -> list[float]:
    return [thread, step, thread * step % 7, 1]


def put(docs: LocalCollection, id: str, thread: int, step: int) -> None:
    """A record whose parts tell of each other."""
    given = vector(thread, step)
    docs.upsert(id, [given], [{"thread": thread, "vector": given}], [f"thread {thread} step {step}"])


def assert_whole(found: Record | Hit) -> None:
    thread, step = found.metadata["vector"][:2]
    assert found.metadata == {"thread": thread, "vector": vector(thread, step)}
    assert found.document == f"thread {thread} step {step}"
    if isinstance(found, Record) and found.vector is not None:
        assert found.vector.tolist() == found.metadata["vector"]


def test_threads_see_their_own_writes_and_only_whole_records(docs: LocalCollection) -> None:
    def run(thread: int) -> None:
        random = np.random.default_rng(thread)
        for step in range(40):
            put(docs, f"{thread}-{step % 5}", thread, step)
            put(docs, f"shared-{random.integers(3)}", thread, step)
            [nearest] = docs.search(vector(thread, step), 1)
            assert nearest.distance == 0
            for hit in docs.search(vector(thread, step), 5, where={"thread": thread}):
                assert hit.metadata["thread"] == thread
                assert_whole(hit)
            for record in docs.get(where={"thread": int(random.integers(N_THREADS))}, include_vectors=True):
                assert_whole(record)
            for hit in docs.text_search(f"step {step}", 3):
                assert_whole(hit)
            if step % 4 == 0:
                assert docs.delete([f"{thread}-{step % 5}"]) == 1
                assert docs.get([f"{thread}-{step % 5}"]) == []
            if step % 10 == 9:
                mine = {"$and": [{"thread": thread}, {"vector": {"$contains": step}}]}
                assert docs.delete(where=mine) >= 1
                assert docs.count(mine) == 0

    in_threads(run)
    expected = {f"{thread}-{step % 5}" for thread in range(N_THREADS) for step in (37, 38)}
    stored = docs.get(include_vectors=True)
    assert expected <= {record.id for record in stored}
    assert len(stored) == len(docs) == len({record.id for record in stored})
    for record in stored:
        assert_whole(record)


def test_of_many_adds_of_one_id_exactly_one_wins(docs: LocalCollection) -> None:
    """Callers share commits, not errors: who loses is told so, and nothing of that call is stored."""
    n_rounds = 25
    won: list[tuple[int, int]] = []
    lost: list[tuple[str, str]] = []

    def run(thread: int) -> None:
        for turn in range(n_rounds):
            ids = [f"own-{turn}-{thread}", f"contested-{turn}"]
            try:
                assert docs.add(ids, [vector(thread, turn), vector(thread, turn)]) == 2
                won.append((turn, thread))
            except faissbase.AlreadyExistsError as error:
                lost.append((f"contested-{turn}", str(error)))
            assert docs.upsert(f"free-{turn}-{thread}", vector(thread, turn)) == 1

    in_threads(run)
    assert sorted(turn for turn, _ in won) == list(range(n_rounds))
    assert len(lost) == n_rounds * (N_THREADS - 1)
    assert all(message == f"id {id!r} exists already; upsert() replaces it" for id, message in lost)
    expected = {f"own-{turn}-{thread}" for turn, thread in won} | {f"contested-{i}" for i in range(n_rounds)}
    expected |= {f"free-{turn}-{thread}" for turn in range(n_rounds) for thread in range(N_THREADS)}
    assert {record.id for record in docs.get()} == expected
    for turn, thread in won:
        [record] = docs.get(f"contested-{turn}", include_vectors=True)
        assert record.vector is not None
        assert record.vector.tolist() == vector(thread, turn)


def test_changes_that_wait_share_one_commit_and_keep_their_order(docs: LocalCollection) -> None:
    """While one change holds the transaction, the others queue up: then they are applied as they came."""
    docs.add("a", [0, 0, 0, 0])
    started, release = threading.Event(), threading.Event()
    writer = docs._parts().writer

    def wait(*_: object) -> int:
        started.set()
        release.wait(60)
        return 7

    def queued(n: int) -> None:
        """Return once n changes wait; asks again and again, for nobody announces it."""
        pause = threading.Event()
        assert any(len(writer._queue) >= n or pause.wait(0.001) for _ in range(60_000))

    with ThreadPoolExecutor(8) as pool:
        held = pool.submit(writer.run, Alone(wait))
        assert started.wait(60)
        calls: list[Callable[[], int]] = [
            lambda: docs.upsert("a", [1, 1, 1, 1]),
            lambda: docs.delete(["a"]),
            lambda: docs.add(["a", "b"], [[2, 2, 2, 2]] * 2),
            lambda: docs.add(["b", "c"], [[3, 3, 3, 3]] * 2),
            lambda: docs.upsert(["d", "a"], [[4, 4, 4, 4]] * 2),
            lambda: docs.delete(["b", "x"]),
        ]
        waiting = []
        for n, call in enumerate(calls, 1):
            waiting.append(pool.submit(call))
            queued(n)
        release.set()
        assert held.result() == 7
        assert [waiting[i].result() for i in (0, 1, 2, 4, 5)] == [1, 1, 2, 2, 1]
        with pytest.raises(faissbase.AlreadyExistsError, match="'b' exists already"):
            waiting[3].result()
    found = {record.id: record.vector for record in docs.get(include_vectors=True)}
    assert {id: None if v is None else v.tolist() for id, v in found.items()} == {"d": [4] * 4, "a": [4] * 4}


def test_those_who_shared_a_commit_are_waited_for_at_the_next_and_nobody_else_is(
    docs: LocalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[int] = []
    commit = Writer._commit

    def counted(writer: Writer, group: list[_Ticket]) -> None:
        served.append(len(group))
        commit(writer, group)

    monkeypatch.setattr(Writer, "_commit", counted)
    monkeypatch.setattr(module, "_PATIENCE_S", 600.0)  # whoever waited for too many would never return
    docs.add("alone", vector(0, 0))
    docs.add("still alone", vector(0, 0))
    writer = docs._parts().writer
    tickets = [_Ticket(Put(_rows(str(n)))) for n in range(3)]
    for _ in range(2):
        assert [writer._enter(ticket) for ticket in tickets] == [True, False, False]
        writer._lead(tickets[0])
        tickets = [_Ticket(ticket.change) for ticket in tickets]
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(docs.upsert, str(n), vector(n, n)) for n in range(3)]
        assert [call.result(60) for call in calls] == [1, 1, 1]
    assert served == [1, 1, 3, 3, 3]
    monkeypatch.setattr(module, "_PATIENCE_S", 0.001)
    docs.upsert("alone", vector(1, 1))
    monkeypatch.setattr(module, "_PATIENCE_S", 600.0)
    docs.upsert("alone", vector(2, 2))
    assert served == [1, 1, 3, 3, 3, 1, 1]


def test_a_change_that_needs_the_transaction_for_itself_waits_for_nobody(
    docs: LocalCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    docs.add(["a", "b"], [vector(0, 0)] * 2)
    writer = docs._parts().writer
    writer._n_expected = 8
    monkeypatch.setattr(module, "_PATIENCE_S", 600.0)
    assert docs.update("a", [{"n": 1}]) == 1


class _Interrupted:
    """A connection that a Ctrl-C reaches after a statement; once."""

    def __init__(self, connection: Any, statement: str) -> None:
        self._connection = connection
        self._statement = statement

    def execute(self, statement: str, *bindings: Any) -> Any:
        found = self._connection.execute(statement, *bindings)
        if statement == self._statement:
            self._statement = ""
            raise KeyboardInterrupt
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize(("statement", "n_stored"), [("BEGIN IMMEDIATE", 1), ("COMMIT", 3)])
def test_an_interrupt_is_told_as_one_and_the_others_learn_whether_it_came_after_the_commit(
    docs: LocalCollection, statement: str, n_stored: int
) -> None:
    docs.add("first", vector(0, 0))
    parts = docs._parts()
    writer, records = parts.writer, parts.store.records
    leader, other = _Ticket(Put(_rows("leader"))), _Ticket(Put(_rows("other")))
    assert writer._enter(leader)
    assert not writer._enter(other)
    records._writer = _Interrupted(records._writer, statement)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        writer._lead(leader)
    writer._leave(leader)
    other.wait()
    assert (other.error is None) == (n_stored == 3)
    assert docs.ntotal == n_stored
    assert docs.add("last", vector(1, 1)) == 1


def _rows(id: str) -> inputs.Rows:
    return inputs.rows_from_input([id], [vector(1, 2)], None, None, D, "l2")


@pytest.mark.parametrize("place", ["_gather", "_next_group", "_commit", "_wake_group", "_hand_on"])
def test_an_interrupt_anywhere_leaves_a_writer_that_goes_on(
    docs: LocalCollection, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run = getattr(Writer, place)
    has_come: list[str] = []

    def interrupted(*given: Any) -> Any:
        if not has_come:
            has_come.append(place)
            raise KeyboardInterrupt
        return run(*given)

    monkeypatch.setattr(Writer, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        docs.add("a", vector(0, 0))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(docs.upsert, "b", vector(1, 1)).result(60) == 1
    assert docs.get("b")


def test_an_interrupt_waits_for_the_sync_of_vectors() -> None:
    """Otherwise they would still be written when their slots are somebody else's."""

    class Impatient(Future[None]):
        def result(self, timeout: float | None = None) -> None:
            threading.Timer(0.05, self.set_result, [None]).start()
            raise KeyboardInterrupt

    sync = Impatient()
    with pytest.raises(KeyboardInterrupt):
        _ended(sync)
    assert sync.done()


def test_a_read_that_was_interrupted_keeps_no_moment_open(docs: LocalCollection) -> None:
    docs.add("a", vector(0, 0))
    records = docs._parts().store.records
    connection = records._idle[-1]
    records._idle[-1] = _Interrupted(connection, "BEGIN")  # type: ignore[call-overload]
    with pytest.raises(KeyboardInterrupt):
        docs.get("a")
    assert not any(idle.in_transaction for idle in records._idle)
    docs.upsert("a", vector(1, 1), [{"n": 2}])
    assert docs.get("a")[0].metadata == {"n": 2}


def test_a_collection_is_reset_while_others_write_and_read(docs: LocalCollection) -> None:
    def run(thread: int) -> None:
        for step in range(25):
            if thread == 0 and step % 3 == 0:
                assert docs.reset() >= 0
            put(docs, f"{thread}-{step}", thread, step)
            for hit in docs.search(vector(thread, step), 3, where={"thread": thread}):
                assert_whole(hit)
            for record in docs.get(include_vectors=True):
                assert_whole(record)

    in_threads(run)
    assert len(docs) == len(docs.get())
    assert docs.reset() > 0
    assert docs.get() == []


def test_of_many_creations_of_one_name_exactly_one_wins(memory: faissbase.Database) -> None:
    created: list[LocalCollection] = []

    def run(thread: int) -> None:
        for _ in range(5):
            try:
                created.append(memory.create_collection("contested", 2))
            except faissbase.AlreadyExistsError:
                assert memory.get_or_create_collection("own", 2).upsert(str(thread), [1, thread]) == 1

    in_threads(run)
    assert len(created) == 1
    assert memory.list_collections() == ["contested", "own"]
    assert len(memory.get_collection("own")) == N_THREADS


@pytest.fixture
def blocked(docs: LocalCollection) -> Iterator[tuple[threading.Event, Callable[[], int]]]:
    """A write that stays within its transaction until the event is set."""
    release = threading.Event()
    started = threading.Event()

    def wait(*_: object) -> int:
        started.set()
        release.wait(60)
        return 1

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(docs._parts().writer.run, Alone(wait))
        assert started.wait(60)
        yield release, held.result
        release.set()


def test_readers_do_not_wait_for_a_writer(
    docs: LocalCollection, blocked: tuple[threading.Event, Callable[[], int]]
) -> None:
    assert docs.search([0, 0, 0, 0]) == docs.get() == []
    release, result = blocked
    release.set()
    assert result() == 1


def test_close_lets_a_write_finish(
    memory: faissbase.Database, blocked: tuple[threading.Event, Callable[[], int]]
) -> None:
    release, result = blocked
    closing = threading.Thread(target=memory.close)
    closing.start()
    closing.join(0.2)
    release.set()
    assert result() == 1
    closing.join(60)
    assert not closing.is_alive()


def test_close_lets_reads_finish_and_later_ones_are_told(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path, durability="relaxed") as db:
        db.create_collection("docs", D, "l2").add(list("abcde"), np.eye(5, D), [{"n": i} for i in range(5)])
    ends: list[type[BaseException]] = []

    def read_until_closed(docs: LocalCollection, started: threading.Barrier, thread: int) -> None:
        reads: list[Callable[[], object]] = [
            lambda: docs.search([0, 0, 0, 1], 3),
            lambda: docs.get(["a", "c"]),
            lambda: docs.count({"n": {"$gt": 2}}),
            lambda: len(docs),
        ]
        reads[thread]()
        started.wait()
        while True:
            try:
                reads[thread]()
            except Exception as error:  # noqa: BLE001  # which one it is is what is asked
                ends.append(type(error))
                return

    for _ in range(25):
        with faissbase.connect(tmp_path) as db, ThreadPoolExecutor(4) as pool:
            started = threading.Barrier(5)
            for thread in range(4):
                pool.submit(read_until_closed, db.get_collection("docs"), started, thread)
            started.wait()
            db.close()
    assert set(ends) == {faissbase.NotReadyError}


def test_a_write_that_comes_after_close_is_told(memory: faissbase.Database, docs: LocalCollection) -> None:
    """As a thread would that had entered its call just before."""
    writer = docs._parts().writer
    memory.close()
    with pytest.raises(faissbase.NotReadyError):
        writer.run(Delete(["a"]))
