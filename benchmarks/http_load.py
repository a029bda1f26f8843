"""Requests over some connections at once, from one process: how many a second, and how long each took.

Plain sockets and asyncio, so that the client takes little of what the server could use.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np


@dataclass(slots=True)
class Load:
    """What was seen: answers by status, the time of each, and bodies of the first pass over the requests."""

    seconds: float = 0.0
    n: int = 0
    calls_s: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)

    @property
    def per_s(self) -> float:
        return self.n / self.seconds

    def ms(self, percent: float) -> float:
        return 1e3 * float(np.percentile(self.calls_s, percent))


def request(method: str, path: str, host: str, body: bytes, headers: dict[str, str]) -> bytes:
    """One request, ready to be sent."""
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*head, "", ""]).encode() + body


def run(
    host: str,
    port: int,
    requests: Sequence[bytes],
    connections: int,
    during_s: float,
    *,
    tls: ssl.SSLContext | None = None,
    once: bool = False,
) -> Load:
    """Send the requests round and round for some seconds, or once, on so many connections at once."""
    return asyncio.run(_run(host, port, requests, connections, during_s, tls, once))


async def _run(
    host: str,
    port: int,
    requests: Sequence[bytes],
    connections: int,
    during_s: float,
    tls: ssl.SSLContext | None,
    once: bool,
) -> Load:
    load = Load()
    numbers = iter(range(len(requests))) if once else count()
    lines = [await asyncio.open_connection(host, port, limit=1 << 22, ssl=tls) for _ in range(connections)]
    start = time.perf_counter()
    stop = start + during_s
    await asyncio.gather(*(_one(*line, requests, numbers, stop, load) for line in lines))
    load.seconds = time.perf_counter() - start
    return load


async def _one(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    requests: Sequence[bytes],
    numbers: Iterator[int],
    stop: float,
    load: Load,
) -> None:
    try:
        for number in numbers:
            begin = time.perf_counter()
            if begin >= stop:
                break
            writer.write(requests[number % len(requests)])
            status, body = await answer(reader)
            load.calls_s.append(time.perf_counter() - begin)
            load.n += 1
            load.statuses[status] = load.statuses.get(status, 0) + 1
            if number < len(requests):
                load.bodies[number] = body
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    at = head.lower().index(b"content-length:")
    length = int(head[at + 15 : head.index(b"\r\n", at)])
    return int(head[9:12]), await reader.readexactly(length)
