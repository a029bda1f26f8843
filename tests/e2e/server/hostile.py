"""Servers for those who send what nobody should, and connections on which anything can be sent."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

import httpx
from tests.e2e.server.running import PATIENCE_S, Running, address_of, done, refused

MOST_BYTES = 4096
BODY_TIMEOUT_S = 0.5
J = {"content-type": "application/json"}
GOOD = b'{"vector":[0,1]}'


@dataclass(frozen=True)
class Target:
    """A server, a client of it that may do everything, and its key."""

    running: Running
    http: httpx.Client
    key: str


def fill(http: httpx.Client) -> None:
    for name in ("docs", "spare"):
        done(http.post("/index", json={"name": name, "dimension": 2, "metric": "l2"}), 201)
        done(http.post(f"/index/{name}/vectors", json={"vectors": [{"id": "a", "values": [0, 1]}]}))


def holds_its_own(answer: httpx.Response) -> bool:
    """Whether an answer is none of the server's faults, and an error is told as all are."""
    if answer.status_code < 400:
        return True
    assert answer.status_code < 500, (answer.request.url, answer.request.content, answer.text)
    refused(answer, answer.status_code, answer.json()["error"]["code"])
    return True


class Line:
    """A connection on which anything can be sent."""

    def __init__(self, running: Running) -> None:
        self._socket = socket.create_connection(address_of(running.url), timeout=PATIENCE_S)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer, or 0 and what was left where the other side hangs up."""
        received = b""
        while b"\r\n\r\n" not in received:
            more = self._socket.recv(1 << 16)
            if not more:
                return 0, received
            received += more
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        while length is not None and len(body) < int(length[1]):
            body += self._socket.recv(1 << 16)
        self.head = head
        return int(head.split()[1]), body

    def has_ended(self) -> bool:
        """Whether the other side hangs up without another word."""
        return self._socket.recv(1) == b""

    def close(self) -> None:
        self._socket.close()


def head(target: Target, *lines: str, method: str = "POST", path: str = "/v1/index/docs/search") -> bytes:
    all_lines = [
        f"{method} {path} HTTP/1.1",
        "Host: here",
        f"X-API-Key: {target.key}",
        "Content-Type: application/json",
    ]
    return "\r\n".join([*all_lines, *lines, "", ""]).encode("latin-1")


def ids_of(target: Target) -> list[str]:
    return [each["id"] for each in done(target.http.get("/index/docs/vectors"))["vectors"]]
