"""Several real processes on one folder: what one has acknowledged all others see, and none blocks another."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import faissbase
from faissbase.collection.collection import LocalCollection

PATIENCE_S = 60
REPOSITORY = Path(__file__).parents[2]


# ---- a process that does what it is told ------------------------------------------------------------


def serve(pipe: Connection) -> None:
    """Answer requests (collection or None, method, arguments) until None comes."""
    held = ExitStack()
    db: faissbase.Database | None = None
    while (request := pipe.recv()) is not None:
        name, method, arguments, keywords = request
        try:
            if method == "connect":
                if db is not None:
                    db.close()
                db, result = faissbase.connect(*arguments, **keywords), None
            else:
                assert db is not None
                result = perform(db, held, name, method, arguments, keywords)
        except Exception as error:  # noqa: BLE001  # the parent raises it again
            pipe.send((False, error))
        else:
            pipe.send((True, result))


def perform(
    db: faissbase.Database, held: ExitStack, name: str | None, method: str, arguments: Any, keywords: Any
) -> Any:
    if name is None:
        result = getattr(db, method)(*arguments, **keywords)
        return repr(result) if isinstance(result, LocalCollection) else result
    docs = db.get_collection(name)
    if method == "hold_snapshot":
        snapshot, _ = held.enter_context(docs._parts().store.pinned())
        return snapshot.n_alive
    if method == "hold_write_lock":
        transaction = held.enter_context(docs._parts().store.records.write_transaction())
        transaction.bury([0], 1)
        return None
    if method == "len":
        return len(docs)
    if method in ("write", "check"):
        return {"write": write, "check": check}[method](docs, *arguments)
    return getattr(docs, method)(*arguments, **keywords)


class Peer:
    """Another process, with a database open in it."""

    def __init__(self) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        command = [sys.executable, "-m", "tests.e2e.test_processes", str(theirs.fileno())]
        self._process = subprocess.Popen(command, cwd=REPOSITORY, pass_fds=[theirs.fileno()])
        theirs.close()

    def tell(self, name: str | None, method: str, *arguments: Any, **keywords: Any) -> None:
        self.pipe.send((name, method, arguments, keywords))

    def answer(self) -> Any:
        assert self.pipe.poll(PATIENCE_S), "no answer: the other process waits for something"
        is_fine, result = self.pipe.recv()
        if not is_fine:
            raise result
        return result

    def ask(self, name: str | None, method: str, *arguments: Any, **keywords: Any) -> Any:
        self.tell(name, method, *arguments, **keywords)
        return self.answer()

    def outcome(self) -> str:
        """The name of the error that the answer is, or "done"."""
        try:
            self.answer()
        except faissbase.FaissbaseError as error:
            return type(error).__name__
        return "done"

    def kill(self) -> None:
        self._process.kill()
        assert self._process.wait(PATIENCE_S) == -signal.SIGKILL
        self.pipe.close()

    def end(self) -> None:
        self.pipe.send(None)
        assert self._process.wait(PATIENCE_S) == 0
        self.pipe.close()


def ready(peers: list[Peer]) -> list[Peer]:
    """Those that have answered; waits for one."""
    pipes = multiprocessing.connection.wait([peer.pipe for peer in peers], PATIENCE_S)
    assert pipes, "no answer: the other processes wait for something"
    return [peer for peer in peers if peer.pipe in pipes]


@pytest.fixture(scope="module")
def processes() -> Iterator[tuple[Peer, Peer]]:
    two = Peer(), Peer()
    yield two
    for peer in two:
        peer.end()


@pytest.fixture
def peers(processes: tuple[Peer, Peer], tmp_path: Path) -> tuple[Peer, Peer]:
    """Two processes that have just opened the folder, which both found empty."""
    for peer in processes:
        peer.tell(None, "connect", tmp_path / "db")
    for peer in processes:
        peer.answer()
    return processes


def ids_of(found: list[Any]) -> list[str]:
    return [item.id for item in found]


# ---- writers and readers at once --------------------------------------------------------------------

N_STEPS = 40
N_SHARED = 4


def vector_of(writer: int, step: int) -> list[float]:
    return [writer, step, writer * step % 5]


def write(docs: LocalCollection, writer: int, step: int) -> None:
    """One new id, and one that all writers share."""
    ids = [f"{writer}-{step}", f"shared-{step % N_SHARED}"]
    vector = vector_of(writer, step)
    vectors = [vector, [*vector[:2], 100 + writer]]
    assert docs.upsert(ids, vectors, [{"writer": writer, "step": step}] * 2, ids) == 2


def check(docs: LocalCollection, writer: int, step: int) -> None:
    """What the writer was told is stored is there, and whole."""
    [hit] = docs.search(vector_of(writer, step), 1)
    assert (hit.id, hit.distance) == (f"{writer}-{step}", 0)
    assert hit.metadata == {"writer": writer, "step": step}
    assert docs.count({"$and": [{"writer": writer}, {"step": step}]}) >= 1
    [shared] = docs.get(f"shared-{step % N_SHARED}", include_vectors=True)
    assert shared.vector is not None
    last, at = shared.metadata["writer"], shared.metadata["step"]
    assert shared.vector.tolist() == [last, at, 100 + last]
    assert last != writer or at >= step
    assert len(docs) > step


def test_readers_see_every_acknowledged_write_in_their_next_call(
    peers: tuple[Peer, Peer], tmp_path: Path
) -> None:
    """Three writers without a pause; each acknowledgement goes to one of two readers, who looks at once."""
    writers, readers = [Peer(), Peer(), Peer()], list(peers)
    readers[1].ask(None, "connect", tmp_path / "db", read_only=True)
    for peer in writers:
        peer.ask(None, "connect", tmp_path / "db")
    writers[0].ask(None, "create_collection", "docs", 3, "l2")
    steps = dict.fromkeys(writers, 0)
    unchecked: dict[Peer, list[tuple[int, int]]] = {reader: [] for reader in readers}
    busy: set[Peer] = set()
    n_checked = 0
    for writer, peer in enumerate(writers):
        peer.tell("docs", "write", writer, 0)
    while n_checked < len(writers) * N_STEPS:
        for peer in ready([*writers, *readers]):
            peer.answer()
            if peer in steps:
                writer, step = writers.index(peer), steps[peer]
                unchecked[readers[writer % 2]].append((writer, step))
                steps[peer] = step + 1
                if step + 1 < N_STEPS:
                    peer.tell("docs", "write", writer, step + 1)
            else:
                busy.remove(peer)
                n_checked += 1
        for reader in readers:
            if reader not in busy and unchecked[reader]:
                reader.tell("docs", "check", *unchecked[reader].pop(0))
                busy.add(reader)
    expected = {f"{writer}-{step}" for writer in range(3) for step in range(N_STEPS)}
    expected |= {f"shared-{i}" for i in range(N_SHARED)}
    assert set(ids_of(readers[1].ask("docs", "get"))) == expected
    assert readers[0].ask("docs", "verify").ok
    for peer in writers:
        peer.end()


# ---- killed processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("holding", [None, "hold_snapshot", "hold_write_lock"])
def test_a_killed_process_blocks_nobody(
    peers: tuple[Peer, Peer], tmp_path: Path, holding: str | None
) -> None:
    peer, other = peers
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", 2, "l2")
        docs.add(["a", "b"], [[0, 0], [1, 1]])
        victim = Peer()
        victim.ask(None, "connect", tmp_path / "db")
        victim.ask("docs", "upsert", "c", [2, 2])
        if holding is not None:
            victim.ask("docs", holding)
        if holding == "hold_snapshot":
            assert docs.upsert("before", [3, 3]) == 1
            assert docs.reset() == 4
            assert docs.upsert(["a", "b", "c"], [[0, 0], [1, 1], [2, 2]]) == 3
        assert ids_of(peer.ask("docs", "search", [0, 0], 3)) == ["a", "b", "c"]
        victim.kill()
        assert docs.upsert("d", [3, 3]) == 1
        assert peer.ask("docs", "delete", ["b"]) == 1
        assert ids_of(other.ask("docs", "search", [0, 0], 9)) == ["a", "c", "d"]
        assert docs.verify().ok
    with faissbase.connect(tmp_path / "db") as db:
        assert ids_of(db.get_collection("docs").get()) == ["a", "c", "d"]


# ---- readers that may not write ---------------------------------------------------------------------


def test_read_only_processes_refuse_writes_and_see_those_of_others(
    peers: tuple[Peer, Peer], tmp_path: Path
) -> None:
    peer, writer = peers
    writer.ask(None, "create_collection", "docs", 2, "l2")
    writer.ask("docs", "add", "a", [0, 0], {"n": 1})
    peer.ask(None, "connect", tmp_path / "db", read_only=True)
    refused: list[tuple[str | None, str, Any]] = [
        ("docs", "upsert", ("b", [1, 1])),
        ("docs", "add", ("b", [1, 1])),
        ("docs", "update", ("a", {"n": 2})),
        ("docs", "delete", (["a"],)),
        ("docs", "reset", ()),
        (None, "create_collection", ("new", 2)),
        (None, "delete_collection", ("docs",)),
    ]
    for name, method, arguments in refused:
        with pytest.raises(faissbase.AccessError, match="read-only"):
            peer.ask(name, method, *arguments)
    for step in range(5):
        assert writer.ask("docs", "upsert", f"w{step}", [step, 1], {"n": step}) == 1
        [hit] = peer.ask("docs", "search", [step, 1], 1)
        assert (hit.id, hit.distance) == (f"w{step}", 0)
        assert peer.ask("docs", "count", {"n": step}) == 1 + (step == 1)
        assert writer.ask("docs", "delete", where={"n": step}) == 1 + (step == 1)
        assert peer.ask("docs", "count", {"n": step}) == 0
    writer.ask(None, "create_collection", "later", 3)
    assert peer.ask(None, "list_collections") == ["docs", "later"]


# ---- collections that come and go -------------------------------------------------------------------


def test_of_two_creations_exactly_one_wins(peers: tuple[Peer, Peer]) -> None:
    for turn in range(15):
        for peer in peers:
            peer.tell(None, "create_collection", f"c{turn}", 2)
        assert sorted(peer.outcome() for peer in peers) == ["AlreadyExistsError", "done"]
        for peer in peers:
            assert peer.ask(f"c{turn}", "upsert", ["a"], [[1, turn]]) == 1


def test_processes_that_get_or_create_get_the_same(peers: tuple[Peer, Peer]) -> None:
    for turn in range(10):
        for peer in peers:
            peer.tell(None, "get_or_create_collection", f"c{turn}", 2)
        assert [peer.outcome() for peer in peers] == ["done", "done"]
        for i, peer in enumerate(peers):
            assert peer.ask(f"c{turn}", "upsert", str(i), [1, turn]) == 1
        assert peers[0].ask(f"c{turn}", "len") == 2


def test_deletions_and_creations_at_once_leave_nothing_half(peers: tuple[Peer, Peer], tmp_path: Path) -> None:
    peers[0].ask(None, "create_collection", "docs", 2)
    for turn in range(10):
        for peer in peers:
            peer.tell(None, "delete_collection", "docs")
        outcomes = {peer.outcome() for peer in peers}
        assert "done" in outcomes
        assert outcomes <= {"done", "NotFoundError"}
        for peer in peers:
            assert peer.ask(None, "list_collections") == []
        peers[turn % 2].ask(None, "create_collection", "docs", 2 + turn)
        peers[0].ask("docs", "upsert", "a", [1.0] * (2 + turn))
        assert peers[1].ask("docs", "len") == 1
    assert len(list((tmp_path / "db").glob("*/*"))) == 1


def test_connecting_is_never_in_the_way_of_a_deletion(peers: tuple[Peer, Peer], tmp_path: Path) -> None:
    one, other = peers
    for turn in range(30):
        one.ask(None, "create_collection", "docs", 2)
        one.tell(None, "delete_collection", "docs")
        other.tell(None, "connect", tmp_path / "db")
        assert [one.outcome(), other.outcome()] == ["done", "done"], f"turn {turn}"
        assert list((tmp_path / "db").glob("*/*")) == []


def test_a_collection_deleted_elsewhere_is_not_found(peers: tuple[Peer, Peer]) -> None:
    one, other = peers
    one.ask(None, "create_collection", "docs", 2)
    for peer in peers:
        peer.ask("docs", "upsert", "a", [1, 2])
        peer.ask("docs", "search", [1, 2], 1)
    one.ask(None, "delete_collection", "docs")
    with pytest.raises(faissbase.NotFoundError, match="no collection 'docs'"):
        other.ask("docs", "len")
    one.ask(None, "create_collection", "docs", 3)
    assert other.ask("docs", "len") == 0
    assert other.ask("docs", "upsert", "a", [1, 2, 3]) == 1
    assert one.ask("docs", "len") == 1


def test_a_collection_in_use_that_is_deleted_elsewhere_takes_no_more_writes(
    peers: tuple[Peer, Peer], tmp_path: Path
) -> None:
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", 2)
        docs.add("a", [1, 2], {"n": 1})
        assert docs.search([1, 2])[0].id == "a"
        peers[0].ask(None, "delete_collection", "docs")
        for call in (
            lambda: docs.upsert("b", [1, 2]),
            lambda: docs.delete(["a"]),
            lambda: docs.update("a", {"n": 2}),
            lambda: docs.search([1, 2]),
            lambda: docs.get("a"),
            lambda: docs.count({"n": 1}),
        ):
            with pytest.raises(faissbase.NotFoundError):
                call()


def test_a_reset_is_seen_elsewhere_and_so_is_what_follows(peers: tuple[Peer, Peer], tmp_path: Path) -> None:
    one, other = peers
    one.ask(None, "create_collection", "docs", 2, "l2")
    for turn in range(4):
        ids = [f"{turn}-{i}" for i in range(40)]
        metadatas = [{"turn": turn, "even": i % 2 == 0} for i in range(40)]
        one.ask("docs", "upsert", ids, [[turn, i] for i in range(40)], metadatas, ids)
        assert other.ask("docs", "count", {"even": True}) == 20
        assert other.ask("docs", "count", {"turn": turn}) == 40
        [hit] = other.ask("docs", "search", [turn, 7], 1, {"even": False})
        assert (hit.id, hit.distance, hit.document) == (f"{turn}-7", 0, f"{turn}-7")
        assert one.ask("docs", "reset") == 40
        assert other.ask("docs", "len") == other.ask("docs", "count", {"even": True}) == 0
        assert other.ask("docs", "search", [turn, 7]) == other.ask("docs", "get", ids) == []
        one, other = other, one
    assert len(list((tmp_path / "db").glob("*/*/vectors.*.f32"))) == 1


# ---- forks ------------------------------------------------------------------------------------------

PRELUDE = """
import os, signal, sys
import numpy as np
import faissbase

def forked(work):
    '''Run ``work`` in a fork; its exit status, or minus the signal that ended it.'''
    process = os.fork()
    if process == 0:
        signal.alarm(6)
        work()
        os._exit(0)
    return process

def status_of(process):
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

rng = np.random.default_rng(0)
xb = rng.normal(size=(4000, 32)).astype(np.float32)
db = faissbase.connect(sys.argv[1])
docs = db.create_collection("docs", 32, "l2")
docs.add([str(i) for i in range(4000)], xb)
assert docs.search(xb[7], 1)[0].id == "7"
"""


def run_script(root: Path | str, script: str) -> None:
    """Run a script of its own, for a fork of the test runner would take all of it along."""
    program = PRELUDE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_fork_searches_and_writes_while_its_parent_goes_on(tmp_path: Path) -> None:
    run_script(
        tmp_path / "db",
        """
        def work():
            for i in range(50):
                docs.upsert(f"child{i}", xb[i] + 1)
                assert docs.search(xb[i] + 1, 1)[0].id == f"child{i}"
                assert docs.get(str(i))[0].id == str(i)
            db.create_collection("made by the child".replace(" ", "-"), 2).add("a", [1, 2])

        process = forked(work)
        for i in range(50):
            docs.upsert(f"parent{i}", xb[i] - 1)
            assert docs.search(xb[i] - 1, 1)[0].id == f"parent{i}"
        assert status_of(process) == 0
        assert len(docs) == 4100
        assert db.list_collections() == ["docs", "made-by-the-child"]
        assert docs.search(xb[3] + 1, 1)[0].id == "child3"
        """,
    )
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.get_collection("docs")
        assert len(docs) == 4100
        assert docs.verify().ok


def test_a_fork_that_ends_by_itself_leaves_its_parent_at_work(tmp_path: Path) -> None:
    run_script(
        tmp_path / "db",
        """
        def work():
            docs.upsert("child", xb[0])
            db.close()
            sys.exit(0)

        for turn in range(3):
            assert status_of(forked(work)) == 0
            assert docs.upsert(f"parent{turn}", xb[1] + turn + 1) == 1
            assert docs.search(xb[1] + turn + 1, 1)[0].id == f"parent{turn}"
        assert len(docs) == 4004
        """,
    )
    with faissbase.connect(tmp_path / "db") as db:
        assert db.get_collection("docs").verify().ok


def test_a_fork_searches_batches(tmp_path: Path) -> None:
    if (os.cpu_count() or 1) == 1:
        pytest.xfail("one processor has no threads to lose")
    run_script(
        tmp_path / "db",
        """
        assert len(docs.search(xb[:200], 3)) == 200
        assert status_of(forked(lambda: docs.search(xb[:200], 3))) == 0
        """,
    )


@pytest.mark.parametrize("ending", ["sys.exit(0)", "db.close()"])
def test_a_memory_database_outlives_the_forks_of_its_process(ending: str) -> None:
    run_script(
        ":memory:",
        f"""
        assert status_of(forked(lambda: {ending})) == 0
        assert db.path.exists()
        assert docs.upsert("parent", xb[0]) == 1
        """,
    )


@pytest.mark.parametrize("own", ["db", "faissbase.connect(db.path)"])
def test_what_a_fork_has_stored_outlives_the_closing_of_its_parent(tmp_path: Path, own: str) -> None:
    """SQLite would take the parent's locks for the child's, and let the log be removed under it."""
    run_script(
        tmp_path / "db",
        f"""
        go_on, told = os.pipe()

        def work():
            mine = {own}
            inherited = mine.get_collection("docs")
            inherited.upsert("before", xb[0])
            os.read(go_on, 1)
            inherited.upsert("after", xb[0])
            mine.create_collection("late", 2).add("a", [1, 2])
            assert len(inherited) == 4002

        process = forked(work)
        while not docs.get("before"):
            pass
        db.close()
        os.write(told, b"x")
        assert status_of(process) == 0
        """,
    )
    with faissbase.connect(tmp_path / "db") as db:
        assert db.list_collections() == ["docs", "late"]
        assert [record.id for record in db.get_collection("docs").get(["before", "after"])] == [
            "before",
            "after",
        ]
        assert all(db.get_collection(name).verify().ok for name in db.list_collections())


@pytest.mark.parametrize("own", ["memory", "ContextMemory(path)"])
def test_what_a_fork_has_remembered_outlives_the_closing_of_its_parent(tmp_path: Path, own: str) -> None:
    run_script(
        tmp_path / "db",
        f"""
        from faissbase.memory import ContextMemory

        def said(text):
            return [{{"role": "user", "content": text}}]

        path = sys.argv[1] + ".memory"
        memory = ContextMemory(path)
        memory.add(said("My dog is called Rex."), "c")
        go_on, told = os.pipe()
        done, tell = os.pipe()

        def work():
            mine = {own}
            mine.add(said("My cat is called Tom."), "c")
            os.write(tell, b"x")
            os.read(go_on, 1)
            mine.add(said("My bird is called Zoe."), "c")

        process = forked(work)
        os.read(done, 1)
        memory.close()
        os.write(told, b"x")
        assert status_of(process) == 0
        with ContextMemory(path) as memory:
            found = [hit["memory"] for hit in memory.search("Who is called Zoe?", "c")["results"]]
        assert "My bird is called Zoe." in found, found
        """,
    )


def test_forks_are_made_while_threads_write_and_search(tmp_path: Path) -> None:
    run_script(
        tmp_path / "db",
        """
        import threading
        stop, failed = threading.Event(), []

        def work():
            docs.upsert(f"child{turn}", xb[turn] + 1)
            assert docs.get(f"child{turn}")[0].id == f"child{turn}"
            assert docs.count({"n": {"$exists": True}}) > 0

        def write(thread):
            n = 0
            while not stop.is_set():
                docs.upsert(f"{thread}-{n % 9}", xb[n % 100], {"n": n})
                n += 1

        def read():
            while not stop.is_set():
                docs.count({"n": {"$gte": 3}})
                docs.get("1", include_vectors=True)

        def watched(target, *args):
            try:
                target(*args)
            except BaseException as error:
                failed.append(error)

        docs.upsert("0-0", xb[0], {"n": 0})
        jobs = [(write, 0), (write, 1), (read,)]
        threads = [threading.Thread(target=watched, args=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        for turn in range(10):
            assert status_of(forked(work)) == 0
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed, failed
        assert len(docs.get([f"child{turn}" for turn in range(10)])) == 10
        """,
    )
    with faissbase.connect(tmp_path / "db") as db:
        assert db.get_collection("docs").verify().ok


def test_a_fork_from_within_a_call_is_told_that_it_cannot_use_the_collection(tmp_path: Path) -> None:
    run_script(
        tmp_path / "db",
        """
        from faissbase.errors import NotReadyError

        def work():
            for use in (docs.count, lambda: faissbase.connect(db.path).get_collection("docs").count()):
                try:
                    use()
                except NotReadyError as error:
                    assert "when this process was forked" in str(error)
                else:
                    sys.exit(1)
            docs.close()
            db.close()
            os._exit(0)

        others = db.create_collection("others", 32)
        others.upsert("parent", xb[0])
        for transaction in ("read_transaction", "write_transaction"):
            with getattr(docs._parts().store.records, transaction)():
                assert status_of(forked(work)) == 0
                assert status_of(forked(lambda: others.upsert(transaction, xb[1]))) == 0
        assert docs.upsert("parent", xb[0]) == 1
        assert (len(docs), len(others)) == (4001, 3)
        """,
    )


@pytest.mark.parametrize("own", ["lake", "faissbase.connect(url, cache=sys.argv[1] + '.cache')"])
def test_a_fork_is_told_that_it_cannot_use_object_storage(tmp_path: Path, own: str) -> None:
    """The threads of obstore do not come along: a fork waited for them for ever."""
    pytest.importorskip("obstore")
    run_script(
        tmp_path / "db",
        f"""
        from faissbase.errors import NotReadyError

        url = "file://" + sys.argv[1] + ".bucket"
        lake = faissbase.connect(url, cache=sys.argv[1] + ".cache")
        photos = lake.create_collection("photos", 32, "l2")
        photos.upsert("a", xb[0])

        def work():
            try:
                ({own}).get_collection("photos").upsert("b", xb[1])
            except NotReadyError as error:
                assert "start it by spawn" in str(error)
            else:
                sys.exit(1)

        assert status_of(forked(work)) == 0
        photos.upsert("c", xb[1])
        assert len(photos) == 2
        """,
    )


def test_a_thread_that_stays_in_a_call_holds_a_fork_up_for_a_while_only(tmp_path: Path) -> None:
    run_script(
        tmp_path / "db",
        """
        import threading
        from faissbase.errors import NotReadyError
        from faissbase.storage import forks

        forks._PATIENCE_S = 0.1
        inside, leave = threading.Event(), threading.Event()

        def stay():
            with docs._parts().store.records.read_transaction():
                inside.set()
                leave.wait()

        def work():
            try:
                docs.upsert("child", xb[0])
            except NotReadyError:
                sys.exit(0)
            sys.exit(1)

        thread = threading.Thread(target=stay)
        thread.start()
        inside.wait()
        assert status_of(forked(work)) == 0
        assert docs.upsert("parent", xb[0]) == 1
        leave.set()
        thread.join()
        assert status_of(forked(lambda: docs.upsert("child", xb[0]))) == 0
        assert len(docs) == 4002
        """,
    )


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
