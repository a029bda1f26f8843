"""Records stored over HTTP: by our client as JSON and as Arrow, durable, and by Chroma's."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faissbase
from benchmarks import places, servers
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, at_least, spread
from benchmarks.timing import ratios
from faissbase.server.keys import Keys

PART = "records stored over HTTP, with ids and metadata"
_ROWS = 20_000
_CHROMA_ROWS = 4_000  # it takes a second or more for a thousand


def run(dataset: Dataset, folder: Path, rounds: int) -> Iterator[Figure]:
    with contextlib.ExitStack() as stack:
        db = stack.enter_context(_served(folder))
        client = servers.chroma_client(stack.enter_context(servers.chroma_server(folder)))
        arms: dict[str, Callable[[int], float]] = {
            "JSON": lambda number: _ours(db, dataset, number, arrow=False),
            "Arrow": lambda number: _ours(db, dataset, number, arrow=True),
            "Chroma": lambda number: _chroma(client, dataset, number),
        }
        per_s: dict[str, list[float]] = {name: [] for name in arms}
        for store in arms.values():  # imports, first pages
            store(-1)
        for number in range(rounds):
            for name in (*arms, *arms)[number % 3 : number % 3 + 3]:
                places.settle()
                per_s[name].append(arms[name](number))
    for name, values in per_s.items():
        yield Figure(PART, dataset.name, name, "vectors/s", spread(values))
    for name, limit in (("JSON", 2.0), ("Arrow", 10.0)):
        gain = spread(ratios(per_s[name], per_s["Chroma"]))
        yield Figure(PART, dataset.name, f"{name} / Chroma", "x", gain, at_least(limit, gain.median))


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[Any]:
    """A client of a server with durable writes."""
    data = folder / "ingest"
    faissbase.connect(data).close()
    keys = Keys(data)
    _, key = keys.create("acme", ["write"])
    keys.close()
    port = servers.free_port()
    with servers.running(servers.serve_command(data, port), port):
        db: Any = faissbase.connect(f"http://127.0.0.1:{port}", api_key=key)
        with db:
            yield db


def _ours(db: Any, dataset: Dataset, number: int, *, arrow: bool) -> float:
    db._connection.forms.arrow = arrow
    docs = db.create_collection(f"{'arrow' if arrow else 'json'}{number}", dataset.d)
    rows = slice(0, _ROWS)
    start = time.perf_counter()
    docs.upsert(dataset.ids[rows], dataset.xb[rows], dataset.metadatas[rows])
    seconds = time.perf_counter() - start
    assert docs.ntotal == _ROWS
    db.delete_collection(docs.name)
    return _ROWS / seconds


def _chroma(client: Any, dataset: Dataset, number: int) -> float:
    rows = client.create_collection(f"ingest{number}", embedding_function=None)
    step = min(_CHROMA_ROWS, client.get_max_batch_size())
    ids, metadatas = dataset.ids[:_CHROMA_ROWS], servers.for_chroma(dataset.metadatas[:_CHROMA_ROWS])
    start = time.perf_counter()
    for first in range(0, _CHROMA_ROWS, step):
        piece = slice(first, first + step)
        rows.add(ids[piece], dataset.xb[:_CHROMA_ROWS][piece], metadatas[piece])
    seconds = time.perf_counter() - start
    client.delete_collection(rows.name)
    return _CHROMA_ROWS / seconds
