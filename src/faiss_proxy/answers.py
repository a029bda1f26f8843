"""Heads of HTTP answers: the usual one is read in a few steps, any other by `http.client`.

A search of one vector takes as long as the thousand lines of Python around it: those that make a message of
five headers are a third of the client's share. Knows HTTP; not what is in a body.
"""

from __future__ import annotations

import http.client
import io
import re
from io import BufferedReader

_LONGEST_LINE = 64 << 10
_MOST_HEAD_BYTES = 256 << 10
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]{1,18})\r\n")
_UNUSUAL = (b"\r\nconnection:", b"\r\ntransfer-encoding:", b"\r\ncontent-encoding:")


class Body:
    """The body of an answer with status 200 and a length, after which the connection goes on."""

    status = 200
    will_close = False

    def __init__(self, source: BufferedReader, n_bytes: int) -> None:
        self._source, self._left = source, n_bytes

    def readinto(self, target: memoryview) -> int:
        """How many bytes of ``target`` were filled; 0 at the end."""
        n = self._source.readinto(target[: self._left] if target.nbytes > self._left else target)
        self._left -= n
        return n

    def read(self) -> bytes:
        """What is left of it."""
        left, self._left = self._left, 0
        return self._source.read(left) if left else b""


class _Again(io.RawIOBase):
    """What has been read already, and what follows it."""

    def __init__(self, head: bytes, source: BufferedReader) -> None:
        self._head, self._source = head, source

    def makefile(self, mode: str) -> BufferedReader:
        return BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview) -> int:  # type: ignore[override]  # as BufferedReader calls it
        piece = self._head[: len(target)] or self._source.read1(len(target))
        self._head = self._head[len(piece) :]
        target[: len(piece)] = piece
        return len(piece)


def begun(source: BufferedReader) -> Body | http.client.HTTPResponse:
    """The next answer of a connection, its head read.

    Raises
    ------
    HTTPException, ConnectionError
        The connection was closed, or what comes is no HTTP.
    """
    head = line = source.readline(_LONGEST_LINE)
    while len(line) > len(b"\r\n") and len(head) < _MOST_HEAD_BYTES:
        line = source.readline(_LONGEST_LINE)
        head += line
    if head.startswith(b"HTTP/1.1 200 ") and line == b"\r\n":
        lowered = head.lower()
        lengths = _LENGTH.findall(lowered)
        if len(lengths) == 1 and not any(each in lowered for each in _UNUSUAL):
            return Body(source, int(lengths[0]))
    response = http.client.HTTPResponse(_Again(head, source), method="POST")  # type: ignore[arg-type]
    response.begin()
    return response
