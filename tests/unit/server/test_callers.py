"""Callers who read slowly, send much at once, or leave: none of them keeps what others need."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.server.serving import PATIENCE_S, serving, wait_until

from faissbase.server import protocol
from faissbase.server.operations import Operation

ASKED = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
STATUS = b"HTTP/1.1 200"
MANY = 400  # answers of which are more than the buffers of two sockets hold


def unreading(address: tuple[str, int]) -> socket.socket:
    """A connection with little room for what it does not read."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
    found.connect(address)
    found.settimeout(PATIENCE_S)
    found.sendall(ASKED * MANY)
    return found


def test_who_does_not_read_an_answer_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_READER_S", 0.3)
    with serving(folder) as at, unreading(at.address):
        wait_until(lambda: at.runner.server_state.connections)
        wait_until(lambda: not at.runner.server_state.connections)


@pytest.mark.slow
def test_who_reads_slowly_gets_it_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_READER_S", 5.0)
    with serving(folder) as at, unreading(at.address) as line:
        n_answered, end, stop = 0, b"", time.monotonic() + 6.0
        while n_answered < MANY:
            is_slow = time.monotonic() < stop
            piece = line.recv(1 << 16 if is_slow else 1 << 20)
            assert piece, "it was left"
            n_answered += (end + piece).count(STATUS)
            end = (end + piece)[1 - len(STATUS) :]
            if is_slow:
                time.sleep(0.002)


def _begun(address: tuple[str, int], n_bytes: int, n_sent: int) -> socket.socket:
    """A request whose body is not all there."""
    found = socket.create_connection(address, PATIENCE_S)
    head = f"POST /v1/index HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n_bytes}\r\n\r\n"
    found.sendall(head.encode() + b" " * n_sent)
    return found


def test_bodies_beyond_what_may_be_held_are_refused_until_there_is_room(folder: Path) -> None:
    with serving(folder, max_held_bytes=100_000) as at:
        url = f"http://{at.address[0]}:{at.address[1]}/v1/index"
        server: Any = at.runner._server
        with _begun(at.address, 90_000, 80_000):
            wait_until(lambda: server._held.n_bytes == 80_000)
            refused = httpx.post(url, content=b" " * 30_000)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert server._held.n_bytes == 80_000
            small = {"name": "small", "dimension": 2, "index_type": "Flat"}
            made = httpx.post(url, json=small)
            assert made.status_code == 201, made.text
        wait_until(lambda: server._held.n_bytes == 0)
        assert httpx.post(url, content=b" " * 30_000).status_code == 400


def test_a_search_whose_caller_has_left_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, ran = threading.Event(), []

    def decode(self: Operation, call: Any) -> None:
        ran.append(call.body[0])
        assert go.wait(PATIENCE_S)

    monkeypatch.setattr(Operation, "decode", decode)
    with serving(folder) as at:
        url = f"http://{at.address[0]}:{at.address[1]}/v1/index/docs/search"
        server: Any = at.runner._server
        n_threads = len(server._searching._threads)

        def ask(i: int) -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, content=b"%d" % i, timeout=0.5)

        asking = [threading.Thread(target=ask, args=(i,)) for i in range(n_threads + 3)]
        for i, thread in enumerate(asking):  # the first hold the threads, the others wait
            thread.start()
            wait_until(lambda i=i: server.metrics.n_waiting == i + 1)
        for thread in asking:
            thread.join()
        wait_until(lambda: not at.runner.server_state.connections)
        go.set()
        wait_until(lambda: server.metrics.n_in_flight == 0)
        assert sorted(ran) == [b"%d" % i for i in range(n_threads)], os.cpu_count()
