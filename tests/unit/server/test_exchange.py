"""Whole answers as they go over the wire, whatever the request says about its connection; nothing stays."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

from tests.unit.server.serving import PATIENCE_S, serving
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

N = 50


def asked(line: socket.socket, method: str, *headers: str, version: str = "1.1") -> tuple[list[str], bytes]:
    """The lines of the head of the next answer, and its body."""
    head = [f"{method} /v1/index HTTP/{version}", "Host: localhost", *headers, "", ""]
    line.sendall("\r\n".join(head).encode())
    received = b""
    while b"\r\n\r\n" not in received:
        received += line.recv(65_536)
    told, _, body = received.partition(b"\r\n\r\n")
    lines = told.decode().lower().split("\r\n")
    [length] = [int(each.split()[1]) for each in lines if each.startswith("content-length:")]
    while method != "HEAD" and len(body) < length:
        body += line.recv(65_536)
    return lines, body


def test_an_answer_has_one_head_with_all_that_belongs_there(folder: Path) -> None:
    with serving(folder) as at, socket.create_connection(at.address, PATIENCE_S) as line:
        lines, body = asked(line, "GET", "X-Request-Id: mine")
    names = [each.partition(":")[0] for each in lines[1:]]
    assert lines[0] == "http/1.1 200 ok"
    assert body == b'{"indexes":[]}'
    assert len(names) == len(set(names))
    assert {"date", "content-type", "x-content-type-options", "cache-control", "referrer-policy"} <= {*names}
    assert "x-request-id: mine" in lines


def test_a_connection_that_is_to_end_ends_after_its_answer(folder: Path) -> None:
    with serving(folder) as at:
        for version, headers in (("1.1", ["Connection: close"]), ("1.0", [])):
            with socket.create_connection(at.address, PATIENCE_S) as line:
                lines, body = asked(line, "GET", *headers, version=version)
                assert "connection: close" in lines
                assert body == b'{"indexes":[]}'
                assert line.recv(1) == b""


def test_who_asks_for_the_head_gets_it_alone(folder: Path) -> None:
    with serving(folder) as at, socket.create_connection(at.address, PATIENCE_S) as line:
        lines, nothing = asked(line, "HEAD")
        again, body = asked(line, "GET")
    assert nothing == b""
    assert "content-length: 14" in lines
    assert (again[0], body) == ("http/1.1 200 ok", b'{"indexes":[]}')


def test_a_request_that_was_answered_leaves_nothing_for_python_to_look_for(folder: Path) -> None:
    with serving(folder) as at, socket.create_connection(at.address, PATIENCE_S) as line:
        asked(line, "GET")
        gc.collect()
        gc.disable()
        try:
            for _ in range(N):
                asked(line, "GET")
            n_left = sum(type(each) is RequestResponseCycle for each in gc.get_objects())
        finally:
            gc.enable()
    assert n_left < N // 10  # what the connection has answered last, and who is just leaving
