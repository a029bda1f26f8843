"""Which collections keep their files open, and which let go of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import faissbase
from faissbase.database.opened import Opened

_IDLE_S = 0.4


class _Thing:
    """Open until it is told to let go."""

    def __init__(self) -> None:
        self.is_open = True
        self.used_at = time.monotonic()

    def release(self) -> None:
        self.is_open = False


def _soon(is_so: Callable[[], bool]) -> bool:
    until = time.monotonic() + 20
    while not is_so() and time.monotonic() < until:
        time.sleep(0.01)
    return is_so()


def _watches() -> bool:
    return any(thread.name == "faissbase-idle" for thread in threading.enumerate())


def test_who_was_used_longest_ago_lets_go_where_there_are_too_many() -> None:
    opened, things = Opened(max_open=3, kept=9), [_Thing() for _ in range(5)]
    for thing in things[:3]:
        opened.note(thing)
    things[0].used_at = time.monotonic()
    for thing in things[3:]:
        thing.used_at = time.monotonic()
        opened.note(thing)
    assert [thing.is_open for thing in things] == [True, False, False, True, True]


def test_the_idle_ones_let_go_but_for_the_last_used() -> None:
    opened, things = Opened(max_open=100, kept=2, idle_s=_IDLE_S), [_Thing() for _ in range(6)]
    for thing in things:
        opened.note(thing)
    things[0].used_at = time.monotonic() + 1000  # used all the time
    assert _soon(lambda: not any(thing.is_open for thing in things[1:-1]))
    assert [things[0].is_open, things[-1].is_open] == [True, True]
    assert _soon(lambda: not _watches()), "nobody is left to look at"
    again = [_Thing() for _ in range(3)]
    for thing in again:
        opened.note(thing)
    assert _soon(lambda: not again[0].is_open), "it looks again"


def test_who_is_gone_or_closed_does_not_count() -> None:
    opened, kept = Opened(max_open=2, kept=1), _Thing()
    opened.note(kept)
    for _ in range(5):
        opened.note(_Thing())  # gone at once
    closed = _Thing()
    opened.note(closed)
    closed.is_open = False
    opened.note(_Thing())
    assert kept.is_open


def test_idle_collections_have_no_files_open_and_answer_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.database.database._opened", Opened(kept=1, idle_s=_IDLE_S))
    xb = np.random.default_rng(0).standard_normal((20, 8), dtype=np.float32)
    with faissbase.connect(tmp_path) as db:
        every = [db.create_collection(f"c{i}", 8) for i in range(6)]
        for i, docs in enumerate(every):
            docs.add([f"{i}-{row}" for row in range(20)], xb, documents=[f"word {i}"] * 20)
        before = [docs.search(xb[3], k=2) for docs in every]
        assert _soon(lambda: sum(docs.is_open for docs in every) == 1)
        assert _soon(lambda: len(_held(tmp_path / "default")) == 1), "files are closed, too"
        assert [docs.search(xb[3], k=2) for docs in every] == before
        for i, docs in enumerate(every):
            docs.upsert("new", xb[5])
            assert docs.count() == 21
            assert docs.text_search(f"{i}", k=1)


def test_writers_and_searchers_go_on_while_collections_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.database.database._opened", Opened(kept=0, idle_s=0.002))
    xb = np.random.default_rng(0).standard_normal((200, 8), dtype=np.float32)
    failed: list[BaseException] = []
    with faissbase.connect(tmp_path, durability="relaxed") as db:
        every = [db.create_collection(f"c{i}", 8) for i in range(3)]
        stop = time.monotonic() + 2

        def work(number: int) -> None:
            n = 0
            try:
                while time.monotonic() < stop:
                    docs, id = every[n % 3], f"{number}-{n % 200}"
                    docs.upsert(id, xb[n % 200])
                    assert docs.search(xb[n % 200], k=1)[0].score > 0.9999
                    time.sleep(0.003 * (n % 3))
                    n += 1
            except BaseException as error:  # noqa: BLE001  # told by the test
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert all(docs.verify() for docs in every)


def test_more_collections_than_may_be_open_still_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.database.database._opened", Opened(max_open=3))
    with faissbase.connect(tmp_path / "data", durability="relaxed") as db:
        collections = [db.create_collection(f"c{i}", 2) for i in range(8)]
        for i, collection in enumerate(collections):
            collection.add([str(i)], [[1, i]])
        for i, collection in enumerate(collections):
            assert [hit.id for hit in collection.search([1, i])] == [str(i)]
        assert sum(collection.is_open for collection in collections) == 3


def _held(folder: Path) -> set[str]:
    """The collections' folders in which this process has files open."""
    files = [Path("/proc/self/fd", fd).resolve() for fd in os.listdir("/proc/self/fd")]
    return {file.parent.name for file in files if file.parent.parent == folder}
