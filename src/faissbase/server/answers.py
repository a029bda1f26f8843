"""What every answer has, and the whole of one to what is no request. Knows no routes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from http import HTTPStatus
from itertools import count

from faissbase.errors import FaissbaseError
from faissbase.server.faults import body_of

SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_JSON = b"application/json"
_RUN, _numbers = uuid.uuid4().hex[:16], count()


def new_id() -> str:
    """An id that no other request has."""
    return f"{_RUN}{next(_numbers):016x}"


def head(status: int, media: str | None, n_bytes: int, request_id: str) -> bytes:
    """The head of a whole answer as it goes over the wire, but for what its connection adds and its end."""
    known = _heads.get((status, media))
    if known is None:  # as many as there are routes, at most
        headers = SECURITY if media is None else (*SECURITY, (b"content-type", media.encode()))
        known = _heads[status, media] = _status_line(status) + _lines(headers)
    length = b"" if status == HTTPStatus.NO_CONTENT else b"content-length: %d\r\n" % n_bytes
    return b"%bx-request-id: %b\r\n%b" % (known, request_id.encode(), length)


_heads: dict[tuple[int, str | None], bytes] = {}


def refusal(status: int, error: FaissbaseError, request_id: str) -> bytes:
    """An answer as it goes over the wire, after which the connection ends."""
    body = body_of(error, request_id, lambda text: text)
    headers = (
        (b"x-request-id", request_id.encode()),
        *SECURITY,
        (b"content-type", _JSON),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    )
    return b"%s%s\r\n%s" % (_status_line(status), _lines(headers), body)


def _status_line(status: int) -> bytes:
    return b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%s: %s\r\n" % each for each in headers)
