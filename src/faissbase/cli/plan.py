"""``faissbase plan``: which index for how many vectors, what it will cost, and what it does cost.

Shards over machines: `faissbase.cli.plan_dataset`.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from faissbase.ann.advisor import Proposal, needed_bytes, propose
from faissbase.cli import plan_dataset, text
from faissbase.cli.arguments import (
    Commands,
    add_command,
    add_data_option,
    amount,
    byte_count,
    fraction,
    open_database,
)
from faissbase.cli.console import Answer, Console
from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.collection.stats import Stats
from faissbase.errors import InvalidInputError
from faissbase.types import METRICS

_ABOUT = """\
Say which index `auto` would build for so many vectors, and forecast its memory, size,
build time and latency. With COLLECTION: for what that holds, and, once its index is
built, what was measured beside the forecast. Changes nothing.

With --machines, --replicas, --shards, --rows-per-shard or --cores, or where one machine
does not hold it: a plan of shards over machines. A shard is a collection that no longer
changes; its codes are in memory, and the true vectors re-rank what they find. --ram is
then what each machine has, and four fifths of it are planned for. CPU seconds come from
costs that were measured: on this machine if `faissbase bench calibrate` ran on it, else
on ours; the last line says which. A query is forecast for two kinds of data, because
text embeddings want about four times as many lists as SIFT."""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "plan",
        run_plan,
        summary="which index for how many vectors, and what it costs",
        about=_ABOUT,
        examples=[
            "faissbase plan --n 50000000 --d 384 --ram 8GB --recall 0.9",
            "faissbase plan docs --json",
            "faissbase plan --n 1e9 --d 768 --ram 64G --machines 6 --cores 16",
            "faissbase plan --n 1e9 --d 768 --ram 64G --replicas 2       # the fewest machines",
        ],
        exit_codes="0 here it is; 2 nothing fits that memory; 3 no such collection",
    )
    parser.add_argument("collection", metavar="COLLECTION", nargs="?", help="plan for what it holds")
    parser.add_argument("--n", type=amount, metavar="N", help="number of vectors, also as 1e9 or 50M")
    parser.add_argument("--d", type=amount, metavar="D", help="their dimension")
    parser.add_argument("--metric", choices=METRICS, default="cosine", help="(default: cosine)")
    parser.add_argument(
        "--ram",
        type=byte_count,
        metavar="SIZE",
        help="memory that the index, or each machine, may take, as 2GB",
    )
    about = f"share of the true nearest that has to come back (default: {DEFAULT_RECALL})"
    parser.add_argument("--recall", type=fraction, default=DEFAULT_RECALL, metavar="R", help=about)
    plan_dataset.add_options(parser)
    add_data_option(parser)


def run_plan(args: argparse.Namespace, console: Console) -> Answer:
    stats = None
    if args.collection is not None:
        if args.n is not None or args.d is not None:
            raise InvalidInputError("give a collection, or --n and --d")
        with open_database(args.data, read_only=True) as db:
            stats = db.get_collection(args.collection).stats()
        n, d, metric = stats.slots, stats.dimension, stats.metric
    elif args.n is None or args.d is None:
        raise InvalidInputError("give --n and --d, or a collection; see faissbase plan --help")
    else:
        n, d, metric = args.n, args.d, args.metric
    because = plan_dataset.beyond_one_machine(n, d, metric, args)
    if plan_dataset.asks_for_shards(args):
        return plan_dataset.plan_shards(n, d, metric, args)
    if because is not None and stats is None:
        with suppress(InvalidInputError):  # one machine's own refusal says more
            return plan_dataset.plan_shards(n, d, metric, args, because=because)
    proposal = propose(n, d, metric, memory_bytes=args.ram, recall=args.recall)
    measured = {} if stats is None else _measured(stats)
    document = {"n": n, "d": d, "metric": metric, "recall": args.recall, **asdict(proposal)}
    document |= {"ram_bytes": _ram_bytes(proposal, n, d), "measured": measured}
    return Answer(document, _lines(proposal, n, d, measured))


def _ram_bytes(proposal: Proposal, n: int, d: int) -> int:
    return needed_bytes(proposal, n, d)


def _measured(stats: Stats) -> dict[str, Any]:
    """What is known of the index there is; empty where there is none."""
    if not stats.segments:
        return {}
    facts = {"factory": stats.index, "disk_bytes_per_vector": stats.index_bytes / stats.slots_indexed}
    return facts | {key: value for key, value in stats.measured.items() if value is not None}


def _lines(proposal: Proposal, n: int, d: int, measured: dict[str, Any]) -> list[str]:
    parameters = ", ".join(f"{name} {value}" for name, value in proposal.parameters.items())
    per_vector = f"{proposal.ram_bytes_per_vector:.0f} bytes a vector"
    pairs = {
        "index": proposal.factory + (f"  ({parameters})" if parameters else ""),
        "why": proposal.reason,
        "memory": f"{text.size(_ram_bytes(proposal, n, d))}  ({per_vector})",
        "index files": _beside(
            f"{text.size(n * proposal.disk_bytes_per_vector)}, beside {text.size(4.0 * n * d)} of vectors",
            measured,
            "disk_bytes_per_vector",
            lambda value: text.size(value * n),
        ),
        "build": _beside(
            f"{text.duration(proposal.build_cpu_s)} of CPU", measured, "build_cpu_s", text.duration
        ),
        "one query": _beside(
            f"{proposal.us_per_query:,.0f} µs on one thread",
            measured,
            "us_per_query",
            lambda value: f"{value:,.0f} µs",
        ),
    }
    if "recall_low" in measured:
        pairs["recall"] = f"measured: at least {measured['recall_low']:.3f}"
    lines = [f"{n:,} vectors of {d} numbers", *text.facts(pairs)]
    lines += [f"  not {other.factory}: {other.reason}" for other in proposal.alternatives]
    return lines


def _beside(forecast: str, measured: dict[str, Any], name: str, shown: Any) -> str:
    return f"{forecast}; measured {shown(measured[name])}" if name in measured else forecast
