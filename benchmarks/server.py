"""Servers over real sockets in one run: ``python -m benchmarks.server``.

faissbase with keys and durable data, Chroma's own server, and the bare stack that faissbase stands on, with a
raw FAISS search; each with 1, 8 and 32 connections, in turn, recall beside speed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import datasets, http_load, machine, places, report
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, at_least, at_most, spread
from benchmarks.http_load import Load
from benchmarks.timing import ratios
from faissbase.server.keys import Keys

PART = "searches over HTTP, k=10, metadata returned"
K = 10
RECALL = 0.95
CONNECTIONS = (1, 8, 32)
_BARE = "the bare stack"
_BARE_EF = 48
_CHROMA_EFS = (20, 32, 48, 64, 96)
_CHROMA = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_STARTS_S = 120.0


@dataclass(frozen=True, slots=True)
class Target:
    """A running server, and the requests that ask it all queries."""

    name: str
    port: int
    requests: list[bytes]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/server.json"))
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options = parser.parse_args(arguments)
    dataset = datasets.demo()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"date": now, "seed": 0, **machine.facts(options.tmp)}
    with places.folder_in(options.tmp) as folder, contextlib.ExitStack() as stack:
        targets = [stack.enter_context(one(dataset, folder)) for one in (_faissbase, _bare, _chroma)]
        figures = list(_measured(targets, dataset, options.rounds, options.seconds))
    print(f"\n{PART}\n{report.table(figures)}")
    report.write(figures, facts, options.out, "Server benchmarks")
    return 0


def _measured(targets: list[Target], dataset: Dataset, rounds: int, during_s: float) -> Iterator[Figure]:
    for connections in CONNECTIONS:
        seen: dict[str, list[Load]] = {target.name: [] for target in targets}
        for number in range(rounds):
            for target in targets[number % len(targets) :] + targets[: number % len(targets)]:
                http_load.run("127.0.0.1", target.port, target.requests, connections, during_s / 4)
                load = http_load.run("127.0.0.1", target.port, target.requests, connections, during_s)
                assert set(load.statuses) == {200}, (target.name, load.statuses)
                seen[target.name].append(load)
        yield from _figures(seen, dataset, connections)


def _figures(seen: dict[str, list[Load]], dataset: Dataset, connections: int) -> Iterator[Figure]:
    of = f"{connections} connection{'s' if connections > 1 else ''}"
    for name, loads in seen.items():
        recall = _recall(loads[-1], dataset, is_bare=name == _BARE)
        per_s = spread([load.per_s for load in loads])
        yield Figure(PART, dataset.name, f"{of}: {name}", "queries/s", per_s, recall=recall)
        for percent in (50, 99):
            middle = spread([load.ms(percent) for load in loads])
            is_ours = name == "faissbase" and connections == 1 and percent == 50
            target = at_most(0.6, middle.median) if is_ours else None
            yield Figure(PART, dataset.name, f"{of}: {name}, p{percent}", "ms", middle, target)
    ours = [load.per_s for load in seen["faissbase"]]
    for name, limit in ((_BARE, 0.65), ("Chroma", 5.0)):
        gain = spread(ratios(ours, [load.per_s for load in seen[name]]))
        target = at_least(limit, gain.median) if connections == max(CONNECTIONS) else None
        yield Figure(PART, dataset.name, f"{of}: faissbase / {name}", "x", gain, target)


def _recall(load: Load, dataset: Dataset, *, is_bare: bool = False) -> float | None:
    found = {number: _ids(json.loads(body)) for number, body in load.bodies.items()}
    if is_bare:  # it knows rows, no ids
        found = {number: [dataset.ids[int(row)] for row in rows] for number, rows in found.items()}
    right = [
        len(set(ids) & {dataset.ids[row] for row in dataset.truth[number][:K]}) / K
        for number, ids in found.items()
    ]
    return float(np.mean(right)) if right else None


def _ids(answer: dict[str, Any]) -> list[str]:
    if "results" in answer:
        return [hit["id"] for hit in answer["results"]]
    ids: list[str] = answer["ids"][0]
    return ids


# ---- the servers ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _STARTS_S
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        else:
            raise RuntimeError(f"{command[:3]} has not started")
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _body(values: Any, extra: dict[str, Any]) -> bytes:
    return json.dumps({"vector": [round(float(value), 7) for value in values], **extra}).encode()


@contextlib.contextmanager
def _faissbase(dataset: Dataset, parent: Path) -> Iterator[Target]:
    from faissbase.database.database import Database

    folder = parent / "faissbase"
    folder.mkdir()
    with Database(folder, read_only=False, durability="full", tenant="acme") as db:
        collection = db.create_collection("docs", dataset.d)
        places.fill(collection, dataset)
        collection.optimize()
    keys = Keys(folder)
    _, key = keys.create("acme", ["read"])
    keys.close()
    port = _free_port()
    headers = {"x-api-key": key, "content-type": "application/json"}
    path = "/v1/index/docs/search"
    requests = [
        http_load.request("POST", path, "localhost", _body(q, {"k": K, "recall": RECALL}), headers)
        for q in dataset.xq
    ]
    command = [sys.executable, "-m", "faissbase", "serve", "--data", str(folder), "--port", str(port)]
    with _running([*command, "--log-format", "json"], port):
        http_load.run("127.0.0.1", port, requests, 4, 3.0)
        yield Target("faissbase", port, requests)


@contextlib.contextmanager
def _bare(dataset: Dataset, parent: Path) -> Iterator[Target]:
    vectors = dataset.xb / np.linalg.norm(dataset.xb, axis=1, keepdims=True)
    np.save(parent / "bare.npy", vectors.astype(np.float32))
    port = _free_port()
    xq = dataset.xq / np.linalg.norm(dataset.xq, axis=1, keepdims=True)
    headers = {"content-type": "application/json"}
    requests = [http_load.request("POST", "/", "localhost", _body(q, {"k": K}), headers) for q in xq]
    command = [
        sys.executable,
        "-m",
        "benchmarks.bare_server",
        str(parent / "bare.npy"),
        str(port),
        str(_BARE_EF),
    ]
    with _running(command, port):
        yield Target(_BARE, port, requests)


@contextlib.contextmanager
def _chroma(dataset: Dataset, parent: Path) -> Iterator[Target]:
    """Its cheapest ``ef_search`` that reaches the recall, as found by asking."""
    import chromadb
    from chromadb.config import Settings

    port = _free_port()
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(parent / "chroma")]
    with _running([*command, "--port", str(port)], port):
        client: Any = chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))
        graph = {"space": "cosine", "max_neighbors": 16, "ef_construction": 100}
        for ef in _CHROMA_EFS:
            rows = client.get_or_create_collection(
                f"bench-{ef}", embedding_function=None, configuration={"hnsw": {**graph, "ef_search": ef}}
            )
            step = client.get_max_batch_size()
            for start in range(0, len(dataset.ids), step):
                piece = slice(start, start + step)
                rows.add(dataset.ids[piece], dataset.xb[piece], dataset.metadatas[piece])
            target = Target("Chroma", port, _chroma_requests(dataset, str(rows.id)))
            load = http_load.run("127.0.0.1", port, target.requests, 8, 10.0)
            recall = _recall(load, dataset)
            print(f"Chroma, ef_search {ef}: recall {recall}", flush=True)
            if recall is not None and recall >= RECALL:
                break
            client.delete_collection(rows.name)
        yield target


def _chroma_requests(dataset: Dataset, id: str) -> list[bytes]:
    path = f"{_CHROMA}/{id}/query"
    headers = {"content-type": "application/json"}
    requests = []
    for q in dataset.xq:
        values = [[round(float(value), 7) for value in q]]
        body = {"query_embeddings": values, "n_results": K, "include": ["metadatas", "distances"]}
        requests.append(http_load.request("POST", path, "localhost", json.dumps(body).encode(), headers))
    return requests


if __name__ == "__main__":
    sys.exit(main())
