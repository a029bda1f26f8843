"""Searches in PostgreSQL over some connections at once, by its own protocol and plain sockets.

A statement is parsed once for each connection; a search is one Bind and Execute, its vector in binary.
Source: the PostgreSQL documentation, "Frontend/Backend Protocol".
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from benchmarks.http_load import Load
from faissbase.types import Float32

_READY = b"Z\x00\x00\x00\x05I"


def bind(vector: Float32) -> bytes:
    """The messages that run the statement for one vector."""
    values = struct.pack(f">hh{len(vector)}f", len(vector), 0, *vector.tolist())  # pgvector's binary form
    bound = (
        b"\0\0"
        + struct.pack(">hhh", 1, 1, 1)
        + struct.pack(">i", len(values))
        + values
        + struct.pack(">h", 0)
    )
    return _message(b"B", bound) + _message(b"E", b"\0" + struct.pack(">i", 0)) + _message(b"S", b"")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


def rows_of(answer: bytes) -> list[list[bytes]]:
    """The rows of an answer, their columns as text."""
    rows, at = [], 0
    while at < len(answer):
        kind, (length,) = answer[at : at + 1], struct.unpack_from(">i", answer, at + 1)
        if kind == b"E":
            raise RuntimeError(answer[at + 5 : at + 1 + length].decode(errors="replace"))
        if kind == b"D":
            rows.append(_columns(answer[at + 5 : at + 1 + length]))
        at += 1 + length
    return rows


def _columns(body: bytes) -> list[bytes]:
    (n,), at = struct.unpack_from(">h", body), 2
    columns = []
    for _ in range(n):
        (length,) = struct.unpack_from(">i", body, at)
        columns.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return columns


def run(
    path: Path, statement: str, before: str, requests: Sequence[bytes], connections: int, during_s: float
) -> Load:
    """Send the requests round and round for some seconds, on so many connections at once."""
    return asyncio.run(_run(path, statement, before, requests, connections, during_s))


async def _run(
    path: Path, statement: str, before: str, requests: Sequence[bytes], connections: int, during_s: float
) -> Load:
    load = Load()
    lines = [await _opened(path, statement, before) for _ in range(connections)]
    numbers = count()
    start = time.perf_counter()
    stop = start + during_s
    await asyncio.gather(*(_one(*line, requests, numbers, stop, load) for line in lines))
    load.seconds = time.perf_counter() - start
    return load


async def _opened(
    path: Path, statement: str, before: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 22)
    hello = struct.pack(">i", 196_608) + b"user\0postgres\0database\0postgres\0\0"
    writer.write(struct.pack(">i", len(hello) + 4) + hello)
    await _answer(reader)
    writer.write(_message(b"Q", before.encode() + b"\0"))
    rows_of(await _answer(reader))
    parse = b"\0" + statement.encode() + b"\0" + struct.pack(">h", 0)
    writer.write(_message(b"P", parse) + _message(b"S", b""))
    rows_of(await _answer(reader))
    return reader, writer


async def _answer(reader: asyncio.StreamReader) -> bytes:
    received = await reader.read(1 << 16)
    while not received.endswith(_READY):
        piece = await reader.read(1 << 16)
        if not piece:
            raise RuntimeError(f"the connection has ended after {received[-200:]!r}")
        received += piece
    return received


async def _one(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    requests: Sequence[bytes],
    numbers: count[int],
    stop: float,
    load: Load,
) -> None:
    try:
        while (begin := time.perf_counter()) < stop:
            number = next(numbers)
            writer.write(requests[number % len(requests)])
            answer = await _answer(reader)
            load.calls_s.append(time.perf_counter() - begin)
            load.n += 1
            load.statuses[200] = load.statuses.get(200, 0) + 1
            if number < len(requests):
                load.bodies[number] = answer
    finally:
        writer.close()
