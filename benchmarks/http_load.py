"""Requests over some connections at once, from one process: how many a second, and how long each took.

Plain sockets and asyncio, so that the client takes little of what the server could use.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

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


def run(host: str, port: int, requests: Sequence[bytes], connections: int, during_s: float) -> Load:
    """Send the requests round and round for some seconds, on so many connections at once."""
    return asyncio.run(_run(host, port, requests, connections, during_s))


async def _run(host: str, port: int, requests: Sequence[bytes], connections: int, during_s: float) -> Load:
    load = Load()
    numbers = iter(range(1 << 62))
    start = time.perf_counter()
    stop = start + during_s
    await asyncio.gather(*(_one(host, port, requests, numbers, stop, load) for _ in range(connections)))
    load.seconds = time.perf_counter() - start
    return load


async def _one(
    host: str, port: int, requests: Sequence[bytes], numbers: object, stop: float, load: Load
) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
    try:
        while (begin := time.perf_counter()) < stop:
            number = next(numbers)  # type: ignore[call-overload]
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            status, length = int(head[9:12]), _length(head)
            body = await reader.readexactly(length)
            load.calls_s.append(time.perf_counter() - begin)
            load.n += 1
            load.statuses[status] = load.statuses.get(status, 0) + 1
            if number < len(requests):
                load.bodies[number] = body
    finally:
        writer.close()


def _length(head: bytes) -> int:
    at = head.lower().index(b"content-length:")
    return int(head[at + 15 : head.index(b"\r\n", at)])
