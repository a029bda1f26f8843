"""A minute of mixed reads and writes from 64 connections; then the server is killed and looked at again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import http_load, places, servers
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, Target, at_most, spread
from benchmarks.process import memory_kb
from faissbase.database.database import Database
from faissbase.server.keys import Keys

PART = "a minute of mixed work, 64 connections"
_CONNECTIONS, _SECONDS = 64, 60.0
_KINDS = ("search", "search with a filter", "get", "upsert", "delete")
_SHARES = (0.55, 0.1, 0.1, 0.2, 0.05)
_HELD = 20_000


@dataclass(slots=True)
class _Seen:
    """What was answered, and what each connection knows to be stored or gone."""

    calls_s: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _KINDS})
    statuses: Counter[int] = field(default_factory=Counter)
    stored: dict[str, int] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


def run(dataset: Dataset, folder: Path) -> Iterator[Figure]:
    data, port = folder / "mixed", servers.free_port()
    data.mkdir()
    with Database(data, read_only=False, durability="full", tenant="acme") as db:
        docs = db.create_collection("docs", dataset.d)
        places.fill(docs, dataset)
        docs.optimize()
    keys = Keys(data)
    _, key = keys.create("acme", ["write"])
    keys.close()
    seen, resident = _Seen(), []
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(_killed(data, port))
        resident = asyncio.run(_all(dataset, port, key, seen, process))
    for kind, calls in seen.calls_s.items():
        times = spread([1e3 * call for call in calls], "quartiles")
        note = f"p99 {1e3 * float(np.percentile(calls, 99)):.1f} ms, {len(calls) / _SECONDS:.0f} a second"
        yield Figure(PART, dataset.name, kind, "ms", times, note=note)
    n_bad = sum(n for status, n in seen.statuses.items() if status != 200)
    yield Figure(PART, dataset.name, "answers that are errors", "", spread([n_bad]), at_most(0, n_bad))
    half = len(resident) // 2
    growth = float(np.median(resident[half:]) / np.median(resident[len(resident) // 4 : half]))
    note = f"{resident[0] / 1e6:.0f} MB at first, {resident[-1] / 1e6:.0f} at the end"
    flat = at_most(1.1, growth)
    yield Figure(
        PART,
        dataset.name,
        "memory of its own, second half over second quarter",
        "x",
        spread([growth]),
        flat,
        note=note,
    )
    lost = _lost(data, port, key, seen, dataset)
    target = Target("= 0", not lost)
    name = f"acknowledged writes lost by kill -9, of {len(seen.stored) + len(seen.gone):,}"
    yield Figure(PART, dataset.name, name, "", spread([lost]), target)


@contextlib.contextmanager
def _killed(data: Path, port: int) -> Iterator[int]:
    """A server that is killed at the end, if it was not before."""
    with servers.running(servers.serve_command(data, port), port) as process:
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


async def _all(dataset: Dataset, port: int, key: str, seen: _Seen, process: int) -> list[float]:
    stop = time.perf_counter() + _SECONDS
    workers = [
        asyncio.ensure_future(_one(dataset, port, key, seen, number, stop)) for number in range(_CONNECTIONS)
    ]
    resident = []
    while time.perf_counter() < stop:
        resident.append(1e3 * memory_kb(process)["anonymous"])
        await asyncio.sleep(0.5)
    os.kill(process, signal.SIGKILL)  # while they are at it
    await asyncio.gather(*workers)
    return resident


async def _one(dataset: Dataset, port: int, key: str, seen: _Seen, number: int, stop: float) -> None:
    """Each connection writes ids of its own, so that it knows what should be there."""
    rng = np.random.default_rng(number)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    headers = {"x-api-key": key, "content-type": "application/json"}
    n = 0
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):  # it was killed
        while True:
            kind, n = str(rng.choice(_KINDS, p=_SHARES)), n + 1
            id = f"c{number}-{int(rng.integers(_HELD // _CONNECTIONS))}"
            path, body = _asked(kind, id, n, dataset, rng)
            if kind in ("upsert", "delete"):  # until it is acknowledged it may be either way
                seen.stored.pop(id, None)
                seen.gone.discard(id)
            begin = time.perf_counter()
            content = json.dumps(body).encode()
            writer.write(http_load.request("POST", f"/v1/index/docs/{path}", "localhost", content, headers))
            status, _ = await http_load.answer(reader)
            if begin < stop:
                seen.calls_s[kind].append(time.perf_counter() - begin)
            seen.statuses[status] += 1
            if kind == "upsert":
                seen.stored[id] = n
            elif kind == "delete":
                seen.gone.add(id)
    writer.close()


def _asked(
    kind: str, id: str, n: int, dataset: Dataset, rng: np.random.Generator
) -> tuple[str, dict[str, Any]]:
    query = dataset.xq[int(rng.integers(len(dataset.xq)))].tolist()
    if kind.startswith("search"):
        where = {} if kind == "search" else {"filter": {"section": "python"}}
        return "search", {"vector": query, "k": 10, **where}
    if kind == "get":
        return "vectors/get", {"ids": [dataset.ids[int(rng.integers(len(dataset.ids)))]]}
    if kind == "delete":
        return "vectors/delete", {"ids": [id]}
    return "vectors", {"vectors": [{"id": id, "values": query, "metadata": {"n": n}}]}


def _lost(data: Path, port: int, key: str, seen: _Seen, dataset: Dataset) -> int:
    """What a new server has not, or not as it was acknowledged."""
    import faissbase

    with _killed(data, port), faissbase.connect(f"http://127.0.0.1:{port}", api_key=key) as db:
        docs: Any = db.get_collection("docs")
        found = {record.id: record.metadata.get("n") for record in docs.get([*seen.stored, *seen.gone])}
        assert docs.count() >= len(dataset.ids)
    wrong = [id for id, n in seen.stored.items() if found.get(id) != n]
    return len(wrong) + len(seen.gone & found.keys())
