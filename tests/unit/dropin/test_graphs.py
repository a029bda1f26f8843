"""Who holds FAISS's objects, who may touch them when, and what is done once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from faissbase.dropin.graphs import Graph, Held, Session, Sessions, locked

_PATIENCE_S = 20


def _thread(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_graphs_that_join_share_a_lock_whoever_waits_for_which() -> None:
    first, second = Held("a"), Held("b")
    with locked([first, second], alone=True) as graphs:
        assert len(graphs) == 2
        waits = threading.Event()
        seen: list[int] = []

        def wait() -> None:
            waits.set()
            with locked([second], alone=True) as found:
                seen.append(len(found))

        waiter = _thread(wait)
        waits.wait(_PATIENCE_S)
        first.graph.join(second.graph)
    waiter.join(_PATIENCE_S)
    assert seen == [1]
    with locked([first, second], alone=False) as graphs:
        assert len(graphs) == 1


def test_many_threads_that_lock_graphs_in_any_order_all_go_on() -> None:
    every = [Held(i) for i in range(4)]
    done: list[int] = []

    def work(number: int) -> None:
        for n in range(200):
            pair = [every[(number + n) % 4], every[(number * n + 1) % 4]]
            with locked(pair, alone=n % 3 == 0):
                pass
        done.append(number)

    threads = [_thread(lambda number=number: work(number)) for number in range(6)]  # type: ignore[misc]
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert sorted(done) == list(range(6))


def test_a_change_gives_a_graph_a_version_that_none_had() -> None:
    graph, other = Graph(), Graph()
    seen = {graph.version, other.version}
    graph.change()
    seen.add(graph.version)
    graph.join(other)
    seen.add(other.root().version)
    assert len(seen) == 4


def test_the_way_to_an_object_is_told_from_where_it_began() -> None:
    root = Held("index")
    part = Held("quantizer", root.graph, root, ("get", "quantizer"))
    inner = Held("flat", root.graph, part, ("function", "downcast_index"))
    assert root.steps_from(root) == []
    assert inner.steps_from(root) == [("get", "quantizer"), ("function", "downcast_index")]
    assert inner.steps_from(part) == [("function", "downcast_index")]
    assert Held("other").steps_from(root) is None
    assert Held("at", root.graph, root, None).steps_from(root) is None


def test_a_session_forgets_what_is_dropped() -> None:
    session = Session()
    number = session.hold(Held("a"))
    assert session.find(number).thing == "a"
    session.drop([number, 77])
    with pytest.raises(LookupError):
        session.find(number)
    unknowns: list[object] = [None, "1", [1], {}, 1.5]
    for unknown in unknowns:
        with pytest.raises((LookupError, TypeError)):
            session.find(unknown)


def test_a_call_that_is_sent_twice_is_done_once() -> None:
    session, ran = Session(), list[int]()
    begun, end = threading.Event(), threading.Event()

    def run() -> str:
        ran.append(1)
        begun.set()
        end.wait(_PATIENCE_S)
        return "done"

    found: list[str] = []
    threads = [_thread(lambda: found.append(session.once("7", run))) for _ in range(3)]
    begun.wait(_PATIENCE_S)
    end.set()
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert (found, ran) == (["done"] * 3, [1])
    assert session.once("8", lambda: "other") == "other"


def test_sessions_that_are_silent_lose_what_they_hold() -> None:
    sessions = Sessions(lease_s=0.05)
    sessions.find("a").hold(Held("x"))
    sessions.end_silent()
    assert sessions.n_held() == 1
    until = time.monotonic() + _PATIENCE_S
    while sessions.n_held() and time.monotonic() < until:
        time.sleep(0.01)
        sessions.end_silent()
    assert not sessions.n_held()


def test_a_session_that_begins_anew_gives_no_number_twice() -> None:
    sessions = Sessions(60)
    before = {sessions.find("a").hold(Held("x")) for _ in range(100)}
    sessions.end("a")
    later = {sessions.find("a").hold(Held("y")) for _ in range(100)}
    assert not before & later
