"""Bodies that are too long or too slow, and what is not even HTTP: others are served meanwhile."""

from __future__ import annotations

import gzip
import itertools
from contextlib import closing
from typing import Any
from urllib.parse import quote, unquote

import orjson
import pytest
import zstandard
from tests.e2e.server.hostile import GOOD, MOST_BYTES, J, Line, Target, head, ids_of
from tests.e2e.server.running import done, refused

# ---- bodies that are too long or too slow -----------------------------------------------------------


def test_a_body_that_announces_too_much_is_refused_before_it_comes(small: Target) -> None:
    with closing(Line(small.running)) as line:
        line.send(head(small, f"Content-Length: {MOST_BYTES + 1}"))
        status, body = line.answer()
    assert status == 413
    assert orjson.loads(body)["error"]["code"] == "too_large"


def test_who_has_no_key_is_refused_before_the_body_comes(small: Target) -> None:
    with closing(Line(small.running)) as line:
        line.send(head(small, "Content-Length: 100").replace(small.key.encode(), b"fb_0_0"))
        assert line.answer()[0] == 401


def test_a_body_of_no_length_is_refused_where_it_becomes_too_long(small: Target) -> None:
    pieces = itertools.repeat(b" " * 1000, 10)
    answer = small.http.post("/index/docs/search", content=iter(pieces), headers=J)
    refused(answer, 413, "too_large")
    exactly = iter([b" " * (MOST_BYTES - len(GOOD)), GOOD])
    assert len(done(small.http.post("/index/docs/search", content=exactly, headers=J))["results"]) == 1


def test_a_packed_body_may_not_unpack_to_too_much(small: Target) -> None:
    bombs = [
        ("gzip", gzip.compress(b" " * (MOST_BYTES + 1 - len(GOOD)) + GOOD, mtime=0)),
        ("gzip", gzip.compress(b" " * 3_000_000, mtime=0)),
        ("zstd", zstandard.compress(b" " * (MOST_BYTES + 1 - len(GOOD)) + GOOD)),
        ("zstd", zstandard.compress(b" " * 30_000_000)),
        ("zstd", zstandard.ZstdCompressor(write_content_size=False).compress(b" " * 30_000_000)),
    ]
    for encoding, body in bombs:
        assert len(body) < MOST_BYTES
        headers = {**J, "content-encoding": encoding}
        answer = small.http.post("/index/docs/search", content=body, headers=headers)
        refused(answer, 413, "too_large")
    fits = gzip.compress(b" " * (MOST_BYTES - len(GOOD)) + GOOD)
    headers = {**J, "content-encoding": "gzip"}
    assert len(done(small.http.post("/index/docs/search", content=fits, headers=headers))["results"]) == 1


def test_a_bomb_is_refused_with_the_usual_limits_too(target: Target) -> None:
    for encoding, body in (
        ("zstd", zstandard.compress(bytes(1 << 28))),
        ("gzip", gzip.compress(bytes(70 << 20), 1, mtime=0)),
    ):
        headers = {**J, "content-encoding": encoding}
        refused(target.http.post("/index/docs/search", content=body, headers=headers), 413, "too_large")


def test_a_slow_body_is_given_up_while_others_are_served(small: Target) -> None:
    lines = [Line(small.running) for _ in range(20)]
    for line in lines:
        line.send(head(small, "Content-Length: 16") + GOOD[:5])
    assert len(done(small.http.post("/index/docs/search", content=GOOD, headers=J))["results"]) == 1
    for line in lines:
        status, body = line.answer()
        assert (status, orjson.loads(body)["error"]["code"]) == (408, "timeout")
        line.close()


def test_a_connection_whose_body_was_given_up_is_ended(small: Target) -> None:
    with closing(Line(small.running)) as line:
        line.send(head(small, "Content-Length: 16") + GOOD[:5])
        assert line.answer()[0] == 408
        assert b"connection: close" in line.head.lower()
        assert line.has_ended()


def test_a_body_that_ends_before_its_end_hurts_nobody(small: Target) -> None:
    for sent in (b"", GOOD[:5]):
        line = Line(small.running)
        line.send(head(small, "Content-Length: 16") + sent)
        line.close()
    line = Line(small.running)
    line.send(head(small, "Transfer-Encoding: chunked") + b"5\r\nabc")
    line.close()
    done(small.http.get("/health"))


# ---- not even HTTP ----------------------------------------------------------------------------------

GARBAGE = [
    b"\r\n" * 10 + b"hello\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /v1/health\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET  HTTP/1.1\r\n\r\n",
    b"GET http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/health HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /v1/health HTTP/1.1\r\nHost x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /v1/index HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/index HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
    b"POST /v1/index HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("data", GARBAGE, ids=lambda data: repr(data[:30]))
def test_what_is_no_request_is_answered_400(target: Target, data: bytes) -> None:
    with closing(Line(target.running)) as line:
        line.send(data)
        told = told_by(line, 400)
        assert (told["code"], told["message"][:30]) == ("malformed", "this is no request of HTTP/1.1")
        assert line.has_ended()
    assert target.running.line_of(told["request_id"], told["message"])["status"] == 400
    done(target.http.get("/health"))


def told_by(line: Line, status: int) -> dict[str, Any]:
    """The error of the next answer, once it has the shape, the id and the headers of every other."""
    found, body = line.answer()
    assert found == status, body
    error: dict[str, Any] = orjson.loads(body)["error"]
    assert error.keys() == {"code", "message", "request_id", "details"}
    for part in (f"x-request-id: {error['request_id']}", "content-type: application/json", "nosniff"):
        assert part.encode() in line.head, line.head
    return error


TOO_LONG = [
    b"GET /v1/health HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    b"GET /v1/" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /v1/health HTTP/1.1\r\n" + b"X: " + b"a" * 60_000 + b"\r\nY: " + b"a" * 60_000 + b"\r\n\r\n",
]


@pytest.mark.parametrize("data", TOO_LONG, ids=["line", "path", "lines"])
def test_a_head_that_is_too_long_is_told_so(target: Target, data: bytes) -> None:
    with closing(Line(target.running)) as line:
        line.send(data)
        told = told_by(line, 431)
        assert (told["code"], "65,536 bytes" in told["message"]) == ("too_large", True)
        assert line.has_ended()


def test_garbage_after_a_request_takes_no_answer_from_it(target: Target) -> None:
    with closing(Line(target.running)) as line:
        line.send(head(target, method="GET", path="/v1/index/docs/ntotal") + GARBAGE[0])
        assert line.answer() == (200, b'{"ntotal":1}')
        assert line.has_ended()


def test_requests_that_wear_odd_heads_are_answered(target: Target) -> None:
    odd = [
        (head(target, "Host: [", "Idempotency-Key: a", method="DELETE", path="/v1/index/nosuch"), 404),
        (head(target, "Cookie: " + "x" * 20_000, method="GET", path="/v1/index"), 200),
        (head(target, "Expect: 100-continue", method="GET", path="/v1/index"), 200),
        (head(target, "Content-Encoding: \xff", method="GET", path="/v1/index"), 200),
        (head(target, method="GET", path="/v1/index?%ff=%zz"), 422),
        (head(target, method="GET", path="//v1/index"), 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 401),
        (b"GET /v1/index HTTP/1.1\r\nHost: x\r\nX-API-Key: \xff\x80\r\n\r\n", 401),
    ]
    for data, expected in odd:
        with closing(Line(target.running)) as line:
            line.send(data)
            assert line.answer()[0] == expected, data


def test_a_write_against_repetition_from_an_odd_host_is_answered(target: Target) -> None:
    lines = ("Idempotency-Key: a", "Content-Length: 2")
    data = head(target, *lines, path="/v1/index/spare/reset").replace(b"Host: here", b"Host: [")
    with closing(Line(target.running)) as line:
        line.send(data + b"{}")
        assert line.answer()[0] == 200


@pytest.mark.parametrize("mark", ["%3F", "%23"])
def test_an_answer_is_given_again_for_the_same_path_alone(target: Target, mark: str) -> None:
    ids = [f"b{unquote(mark)}1", f"b{unquote(mark)}2"]
    records = [{"id": id, "values": [0, 1]} for id in ids]
    done(target.http.post("/index/spare/vectors", json={"vectors": records}))
    for id in ids:
        path = f"/index/spare/vectors/{quote(id, safe='')}"
        target.http.delete(path, headers={"idempotency-key": f"only-once-{ord(unquote(mark))}"})
        refused(target.http.get(path), 404, "not_found")


def test_no_web_socket_is_opened(target: Target) -> None:
    upgrade = ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    with closing(Line(target.running)) as line:
        line.send(head(target, *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", method="GET"))
        assert line.answer()[0] == 422  # a search like any other, and without a vector


def test_a_head_without_end_is_refused(frail: Target) -> None:
    with closing(Line(frail.running)) as line:
        line.send(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n")
        filler = "a" * 1000
        lines = b"".join(f"x-{i}: {filler}\r\n".encode() for i in range(5000))
        with pytest.raises(OSError, match=r"reset|pipe"):
            line.send(lines)


def test_after_all_of_it_both_servers_answer(target: Target, small: Target) -> None:
    for each in (target, small):
        assert ids_of(each) == ["a"]
        assert [line for line in each.running.lines if "traceback" in line.lower()] == []
