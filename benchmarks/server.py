"""Servers over real sockets in one run: ``python -m benchmarks.server``.

faissbase with keys and durable data, Chroma's own server, PostgreSQL with pgvector, and the bare stack that
faissbase stands on with a raw FAISS search; each with 1, 8 and 32 connections, in turn, recall beside speed.
Then what it takes in, what a thousand small indexes cost, and a minute of mixed work with a kill at its end.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import datasets, machine, places, report, server_ingest, server_many, server_mixed, servers
from benchmarks.datasets import Dataset
from benchmarks.figures import Figure, at_least, at_most, spread
from benchmarks.http_load import Load
from benchmarks.servers import BARE, Target, recall_of
from benchmarks.timing import ratios

PART = "searches over HTTP, k=10, metadata returned"
WIDE = 1536
CONNECTIONS = (1, 8, 32)
_AT_LEAST = {
    "demo": {BARE: 0.65, "Chroma": 5.0, "pgvector": 2.0},
    "wide": {"Chroma": 3.0, "pgvector": 2.0},
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/server.json"))
    parser.add_argument("--tmp", type=Path, default=Path(tempfile.gettempdir()), metavar="FOLDER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=list(_PARTS), help="these parts alone")
    options = parser.parse_args(arguments)
    dataset = datasets.demo()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"date": now, "seed": 0, **machine.facts(options.tmp)}
    figures: list[Figure] = []
    for name in options.only:
        with places.folder_in(options.tmp) as folder:
            found = list(_PARTS[name](dataset, folder, options))
        print(f"\n{report.table(found)}", flush=True)
        figures += found
        report.write(figures, facts, options.out, "Server benchmarks")
    return 0


def _searches(dataset: Dataset, folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    makers = (servers.faissbase, servers.bare, servers.chroma, servers.pgvector)
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(make(dataset, folder)) for make in makers]
        for connections in CONNECTIONS:
            yield from _compared(targets, dataset, connections, options, _AT_LEAST["demo"])


def _wide(dataset: Dataset, folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """The same vectors turned into a larger space: every angle, and so every answer, stays as it is."""
    rng = np.random.default_rng(0)
    turned, _ = np.linalg.qr(rng.standard_normal((WIDE, dataset.d)))
    xb, xq = ((vectors @ turned.T).astype(np.float32) for vectors in (dataset.xb, dataset.xq))
    wide = replace(dataset, name=f"demo 42k turned to {WIDE}, cosine", xb=xb, xq=xq)
    makers = (servers.faissbase, servers.chroma, servers.pgvector)
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(make(wide, folder)) for make in makers]
        yield from _compared(targets, wide, max(CONNECTIONS), options, _AT_LEAST["wide"])


def _tls(dataset: Dataset, folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """What TLS takes, on connections that are there."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(servers.faissbase(dataset, folder))
        targets = [plain, stack.enter_context(servers.faissbase_tls(dataset, folder))]
        for connections in (1, max(CONNECTIONS)):
            yield from _compared(targets, dataset, connections, options, {})


def _compared(
    targets: list[Target],
    dataset: Dataset,
    connections: int,
    options: argparse.Namespace,
    limits: dict[str, float],
) -> Iterator[Figure]:
    seen: dict[str, list[Load]] = {target.name: [] for target in targets}
    for number in range(options.rounds):
        for target in targets[number % len(targets) :] + targets[: number % len(targets)]:
            target.ask(connections, options.seconds / 4)
            load = target.ask(connections, options.seconds)
            assert set(load.statuses) == {200}, (target.name, load.statuses)
            seen[target.name].append(load)
    of = f"{connections} connection{'s' if connections > 1 else ''}"
    for target in targets:
        loads = seen[target.name]
        recall = recall_of(target, loads[-1], dataset)
        per_s = spread([load.per_s for load in loads])
        yield Figure(
            PART, dataset.name, f"{of}: {target.name}", "queries/s", per_s, None, recall, target.note
        )
        for percent in (50, 99):
            middle = spread([load.ms(percent) for load in loads])
            is_ours = target.name == "faissbase" and connections == 1 and percent == 50 and bool(limits)
            wanted = at_most(0.6, middle.median) if is_ours else None
            yield Figure(PART, dataset.name, f"{of}: {target.name}, p{percent}", "ms", middle, wanted)
    ours = [load.per_s for load in seen["faissbase"]]
    for target in targets[1:]:
        gain = spread(ratios(ours, [load.per_s for load in seen[target.name]]))
        limit = limits.get(target.name) if connections == max(CONNECTIONS) else None
        wanted = None if limit is None else at_least(limit, gain.median)
        yield Figure(PART, dataset.name, f"{of}: faissbase / {target.name}", "x", gain, wanted)


_PARTS: dict[str, Callable[[Dataset, Path, argparse.Namespace], Iterator[Figure]]] = {
    "searches": _searches,
    "wide": _wide,
    "tls": _tls,
    "ingest": lambda dataset, folder, options: server_ingest.run(dataset, folder, options.rounds),
    "many": lambda dataset, folder, _: server_many.run(dataset, folder),
    "mixed": lambda dataset, folder, _: server_mixed.run(dataset, folder),
}


if __name__ == "__main__":
    sys.exit(main())
