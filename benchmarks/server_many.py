"""A thousand small indexes of fifty tenants in one server: what they cost, and how soon each answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import http_load, servers
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, at_most, spread
from benchmarks.process import memory_kb
from faissbase.database.database import Database
from faissbase.server.keys import Keys

PART = "many indexes of many tenants"
_TENANTS, _INDEXES, _ROWS = 50, 20, 200
_SEARCHED = 10_000
_IDLE_S = 90.0


def run(dataset: Dataset, folder: Path) -> Iterator[Figure]:
    data, keys = folder / "many", {}
    data.mkdir()
    rng = np.random.default_rng(0)
    for tenant in range(_TENANTS):
        with Database(data, read_only=False, durability="relaxed", tenant=f"t{tenant}") as db:
            for index in range(_INDEXES):
                rows = rng.integers(len(dataset.ids), size=_ROWS)
                ids = [f"r{i}" for i in range(_ROWS)]
                metadatas = [dataset.metadatas[row] for row in rows]
                db.create_collection(f"i{index}", dataset.d).add(ids, dataset.xb[rows], metadatas)
    made = Keys(data)
    for tenant in range(_TENANTS):
        keys[tenant] = made.create(f"t{tenant}", ["read"])[1]
    made.close()
    port = servers.free_port()
    with servers.running(servers.serve_command(data, port), port) as process:
        yield Figure(PART, dataset.name, "resident after the start", "MB", spread([_resident_mb(process)]))
        first = _searched(port, dataset, keys, rng.permutation(_TENANTS * _INDEXES).tolist())
        yield _times("the first search of each index", dataset, first)
        later = rng.integers(_TENANTS * _INDEXES, size=_SEARCHED).tolist()
        yield _times("a search of any index after that", dataset, _searched(port, dataset, keys, later))
        name, own = "resident once all were searched", memory_kb(process)["anonymous"] / 1e3
        note = f"{own:.0f} MB of it its own, the rest files it has mapped"
        yield Figure(PART, dataset.name, name, "MB", spread([_resident_mb(process)]), note=note)
        time.sleep(_IDLE_S)
        megabytes = _resident_mb(process)
        wanted = at_most(500, megabytes)
        yield Figure(PART, dataset.name, "resident once idle", "MB", spread([megabytes]), wanted)


def _times(name: str, dataset: Dataset, load: http_load.Load) -> Figure:
    worst = load.ms(99.9)
    times = spread([1e3 * call for call in load.calls_s], "quartiles")
    note = f"p99 {load.ms(99):.1f} ms, p99.9 {worst:.1f} ms, worst {load.ms(100):.1f} ms"
    return Figure(PART, dataset.name, name, "ms", times, at_most(50, worst), note=note)


def _searched(port: int, dataset: Dataset, keys: dict[int, str], order: list[int]) -> http_load.Load:
    requests = []
    for number, at in enumerate(order):
        tenant, index = divmod(at, _INDEXES)
        headers = {"x-api-key": keys[tenant], "content-type": "application/json"}
        query = dataset.xq[number % len(dataset.xq)].tolist()
        body = json.dumps({"vector": query, "k": 10}).encode()
        requests.append(http_load.request("POST", f"/v1/index/i{index}/search", "localhost", body, headers))
    load = http_load.run("127.0.0.1", port, requests, 1, 600.0, once=True)
    assert load.statuses == {200: len(order)}, load.statuses
    return load


def _resident_mb(process: int) -> float:
    return memory_kb(process)["rss"] / 1e3
