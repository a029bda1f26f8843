"""Connections on which nothing is asked: how long they are kept, and who gives way when there are many."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.serving import PATIENCE_S, serving, wait_until

from faissbase.server import protocol, run

ASKED = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
IDLE_S = 6.0  # longer than clients keep connections, and than servers commonly do
MOST = 3


class Line:
    """One connection."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE_S)

    def ask(self) -> bytes:
        """The head of an answer; empty where the connection has ended."""
        try:
            self.socket.sendall(ASKED)
            return self._received()
        except OSError:
            return b""

    def _received(self) -> bytes:
        received = b""
        while not received.endswith(b"}"):
            piece = self.socket.recv(65_536)
            if not piece:
                return b""
            received += piece
        return received

    def has_ended(self) -> bool:
        """Wait for the end of the connection."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def is_idle(connection: Any) -> bool:
    return connection.timeout_keep_alive_task is not None


def lines_to(stack: ExitStack, address: tuple[str, int], n: int) -> list[Line]:
    lines = [Line(address) for _ in range(n)]
    for line in lines:
        stack.callback(line.socket.close)
    return lines


@pytest.mark.slow
def test_a_connection_that_was_idle_for_seconds_is_still_good(folder: Path) -> None:
    with serving(folder) as at, ExitStack() as stack:
        [line] = lines_to(stack, at.address, 1)
        assert b" 200 " in line.ask()
        time.sleep(IDLE_S)
        assert b" 200 " in line.ask()


def test_an_idle_connection_is_ended_in_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_IDLE_S", 0.2)
    with serving(folder) as at, ExitStack() as stack:
        [line] = lines_to(stack, at.address, 1)
        assert b" 200 " in line.ask()
        assert line.has_ended()


def test_line_breaks_do_not_keep_a_connection(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_HEAD_S", 0.3)
    with serving(folder) as at, ExitStack() as stack:
        [line] = lines_to(stack, at.address, 1)
        assert b" 200 " in line.ask()
        line.socket.sendall(b"\r\n")
        assert line.has_ended()


def test_a_head_that_does_not_come_to_its_end_is_told_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_HEAD_S", 0.2)
    with serving(folder) as at, ExitStack() as stack:
        slow, silent = lines_to(stack, at.address, 2)
        slow.socket.sendall(ASKED[:-2])
        told = slow._received()
        assert told.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"timeout"' in told
        assert slow.has_ended()
        assert silent.has_ended()


def test_the_connection_that_is_idle_longest_gives_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_MOST_CONNECTIONS", MOST)
    with serving(folder) as at, ExitStack() as stack:
        lines = lines_to(stack, at.address, MOST)
        for line in (*lines, lines[0]):
            assert b" 200 " in line.ask()
            time.sleep(0.01)  # the loop counts milliseconds
        [late] = lines_to(stack, at.address, 1)
        assert b" 200 " in late.ask()
        assert lines[1].has_ended()
        assert all(b" 200 " in line.ask() for line in (lines[0], lines[2], late))


def test_a_connection_that_is_asking_gives_way_to_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_MOST_CONNECTIONS", MOST)
    with serving(folder) as at, ExitStack() as stack:
        lines = lines_to(stack, at.address, MOST)
        for line in lines:
            assert b" 200 " in line.ask()
            line.socket.sendall(ASKED[:20])
        wait_until(lambda: not any(map(is_idle, list(at.runner.server_state.connections))))
        [late] = lines_to(stack, at.address, 1)
        assert late.has_ended()
        for line in lines:
            line.socket.sendall(ASKED[20:])
            assert b" 200 " in line._received()
