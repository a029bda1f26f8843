"""Answers of HTTP, as they may come from a server or from what stands before it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from io import BufferedReader

import pytest

from faiss_proxy import answers

_NEXT = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"
_CHUNKS = b"3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n"


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, BufferedReader]]:
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as source:
        yield theirs, source


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 4\r\nserver: y\r\n\r\n",
        b"HTTP/1.1 200 \r\nContent-Length:4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-About: content-length: 9\r\nContent-Length: 4\r\n\r\n",
    ],
)
def test_a_body_of_a_length_is_read_and_the_next_answer_follows(
    line: tuple[socket.socket, BufferedReader], head: bytes
) -> None:
    theirs, source = line
    theirs.sendall(head + b"body")
    answer = answers.begun(source)
    target = bytearray(9)
    assert (answer.readinto(memoryview(target)), bytes(target[:4])) == (4, b"body")
    assert answer.readinto(memoryview(target)) == 0
    assert answer.read() == b""
    assert (answer.status, answer.will_close) == (200, False)
    theirs.sendall(_NEXT)
    assert answers.begun(source).read() == b"next"


def test_chunks_and_faults_are_read_as_ever(line: tuple[socket.socket, BufferedReader]) -> None:
    theirs, source = line
    theirs.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _CHUNKS)
    assert answers.begun(source).read() == b"body"
    theirs.sendall(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy")
    fault = answers.begun(source)
    assert isinstance(fault, http.client.HTTPResponse)
    assert (fault.status, fault.headers["retry-after"], fault.read()) == (429, "7", b"busy")
    theirs.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast")
    last = answers.begun(source)
    assert (last.will_close, last.read()) == (True, b"last")


@pytest.mark.parametrize("start", [b"", b"no HTTP\r\n\r\n"])
def test_what_is_no_answer_is_an_error(line: tuple[socket.socket, BufferedReader], start: bytes) -> None:
    theirs, source = line
    theirs.sendall(start)
    theirs.close()
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        answers.begun(source)


def test_a_body_that_is_cut_short_ends(line: tuple[socket.socket, BufferedReader]) -> None:
    theirs, source = line
    theirs.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbody")
    theirs.close()
    answer, target = answers.begun(source), memoryview(bytearray(9))
    assert answer.readinto(target) == 4
    assert answer.readinto(target[4:]) == 0
