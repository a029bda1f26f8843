"""A lock of many readers or one writer."""

from __future__ import annotations

import threading

import pytest

from faissbase.sharing import Sharing

_WAIT_S = 10.0


def _started(sharing: Sharing, *, alone: bool) -> tuple[threading.Thread, threading.Event]:
    """A thread that takes the lock and gives it back, and what it sets while it has it."""
    has_it = threading.Event()

    def hold() -> None:
        sharing.take(alone=alone)
        has_it.set()
        sharing.give_back(alone=alone)

    thread = threading.Thread(target=hold)
    thread.start()
    return thread, has_it


def _until_a_writer_waits(sharing: Sharing) -> None:
    for _ in range(1000):
        if sharing._n_waiting:
            return
        threading.Event().wait(0.01)
    pytest.fail("no writer waits")


def test_readers_hold_it_together_and_a_writer_waits_for_all_of_them() -> None:
    sharing = Sharing()
    with sharing.reading():
        thread, has_it = _started(sharing, alone=False)
        assert has_it.wait(_WAIT_S)
        thread.join(_WAIT_S)
        writer, writes = _started(sharing, alone=True)
        _until_a_writer_waits(sharing)
        assert not writes.is_set()
    assert writes.wait(_WAIT_S)
    writer.join(_WAIT_S)


def test_a_writer_that_waits_lets_no_new_reader_in() -> None:
    sharing = Sharing()
    sharing.take(alone=False)
    writer, writes = _started(sharing, alone=True)
    _until_a_writer_waits(sharing)
    reader, reads = _started(sharing, alone=False)
    assert not reads.wait(0.05)
    sharing.give_back(alone=False)
    assert writes.wait(_WAIT_S)
    assert reads.wait(_WAIT_S)
    writer.join(_WAIT_S)
    reader.join(_WAIT_S)


def test_a_writer_that_is_interrupted_while_it_waits_lets_readers_in(monkeypatch: pytest.MonkeyPatch) -> None:
    sharing = Sharing()
    with sharing.reading():
        with monkeypatch.context() as patch:

            def interrupted(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(sharing._changed, "wait_for", interrupted)
            with pytest.raises(KeyboardInterrupt):
                sharing.take(alone=True)
        thread, has_it = _started(sharing, alone=False)
        assert has_it.wait(_WAIT_S)
        thread.join(_WAIT_S)


def test_what_fails_gives_it_back() -> None:
    sharing = Sharing()
    for hold in (sharing.reading, sharing.writing):
        with pytest.raises(ZeroDivisionError), hold():
            raise ZeroDivisionError
    with sharing.writing():
        pass
