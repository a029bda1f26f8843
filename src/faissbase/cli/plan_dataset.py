"""``faissbase plan`` for shards over machines: each figure with what it was computed from."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from math import ceil
from typing import Any

from faissbase.ann.advisor import needed_bytes, propose
from faissbase.cli import text
from faissbase.cli.arguments import Parser, amount
from faissbase.cli.console import Answer
from faissbase.cli.costs import KnownCosts, load_costs
from faissbase.errors import InvalidInputError
from faissbase.sharded.forecast import IMBALANCE
from faissbase.sharded.planning import CORES, USABLE_SHARE, DatasetPlan, least_machines, plan_dataset, size
from faissbase.types import Metric

REPLICAS = 2
ONE_MACHINE_BYTES = 512 * 10**9
ASSUMED_RAM_BYTES = 64 * 10**9


def add_options(parser: Parser) -> None:
    group = parser.add_argument_group("shards over machines (any of these asks for them)")
    group.add_argument("--machines", type=amount, metavar="N", help="(default: the fewest that hold it)")
    about = f"machines that hold each shard (default: {REPLICAS}, or 1 for one machine)"
    group.add_argument("--replicas", type=amount, metavar="N", help=about)
    sizes = group.add_mutually_exclusive_group()
    sizes.add_argument("--shards", type=amount, metavar="N", help="how many, instead of as few as is wise")
    sizes.add_argument("--rows-per-shard", type=amount, metavar="N", help="the same, by their size")
    group.add_argument("--cores", type=amount, metavar="N", help=f"of each machine (default: {CORES})")


def asks_for_shards(args: argparse.Namespace) -> bool:
    given = (args.machines, args.replicas, args.shards, args.rows_per_shard, args.cores)
    return any(value is not None for value in given)


def beyond_one_machine(n: int, d: int, metric: Metric, args: argparse.Namespace) -> str | None:
    """Why one machine does not do; None where it does."""
    try:
        proposal = propose(n, d, metric, memory_bytes=args.ram, recall=args.recall)
    except InvalidInputError as error:
        return str(error)
    needed = needed_bytes(proposal, n, d)
    if args.ram is None and proposal.factory != "Flat" and needed > ONE_MACHINE_BYTES:
        return f"{proposal.factory} needs {size(needed)} of memory on one machine"
    return None


def plan_shards(
    n: int, d: int, metric: str, args: argparse.Namespace, *, because: str | None = None
) -> Answer:
    """The plan; ``because`` says why there are shards where nobody asked for them."""
    known, asked = load_costs(), _asked(n, args)
    ram = args.ram if because is None or args.ram is not None else ASSUMED_RAM_BYTES
    wanted = {"ram_bytes": ram, "recall": args.recall, "rows_per_shard": asked["rows_per_shard"]}
    machines, replicas = args.machines, asked["replicas"]
    if machines is None:
        machines = least_machines(n, d, metric, replicas=replicas, **wanted)
    plan = plan_dataset(
        n,
        d,
        metric,
        machines=machines,
        cores=args.cores or CORES,
        replicas=replicas,
        costs=known.costs,
        **wanted,
    )
    notes = _notes(args, ram, because)
    return Answer(_document(plan, known, notes), _lines(plan, known, notes))


def _asked(n: int, args: argparse.Namespace) -> dict[str, Any]:
    rows = args.rows_per_shard if args.shards is None else ceil(n / args.shards)
    replicas = args.replicas or min(REPLICAS, args.machines or REPLICAS)
    return {"rows_per_shard": rows, "replicas": replicas}


def _notes(args: argparse.Namespace, ram: int | None, because: str | None) -> list[str]:
    notes = [] if because is None else [f"one machine does not do ({because}): shards over several"]
    if args.ram is None and ram is not None:
        notes.append(f"machines of {size(ram)} assumed: give --ram")
    return notes


def _document(plan: DatasetPlan, known: KnownCosts, notes: list[str]) -> dict[str, Any]:
    names = (
        "bytes_per_vector",
        "index_bytes",
        "ram_bytes_per_machine",
        "ram_bytes",
        "vectors_bytes",
        "codes_bytes",
        "storage_bytes",
        "disk_bytes_per_machine",
        "build_core_hours",
        "build_hours",
        "cpu_ms_per_query",
        "cpu_ms_per_query_easy",
    )
    spec = {name: getattr(plan.spec, name) for name in ("factory", "nlist", "m", "nbits", "nprobe", "rerank")}
    costs = {
        "is_calibrated": known.is_calibrated,
        "machine": known.costs.machine,
        "measured_on": known.costs.measured_on,
    }
    derived = {name: getattr(plan, name) for name in names}
    return {**asdict(plan), **spec, **derived, "costs": costs, "notes": notes}


def _lines(plan: DatasetPlan, known: KnownCosts, notes: list[str]) -> list[str]:
    rows = [*_placed(plan), *_stored(plan, known), *_built(plan, known), *_asked_for(plan, known)]
    return [
        f"{plan.n:,} vectors of {plan.d} numbers, {plan.metric}, recall@10 {plan.recall:g}",
        *notes,
        *(f"  {line}" for line in text.table(rows, "<<<")),
        *(f"  not {other.factory}: {other.reason}" for other in plan.rejected),
        f"costs: {known.source}",
    ]


def _placed(plan: DatasetPlan) -> list[list[str]]:
    spec = plan.spec
    lists = "" if not spec.nlist else f"nprobe {spec.nprobe:,} to start from, re-rank {spec.rerank}k; "
    return [
        [
            "machines",
            f"{plan.machines}",
            f"of {plan.cores} cores; {text.count(plan.replicas, 'replica')} of each shard",
        ],
        [
            "shards",
            f"{plan.shards:,}",
            f"of {plan.rows_per_shard:,} rows; a machine holds {plan.shards_per_machine}",
        ],
        ["index of each", spec.factory, f"{lists}{plan.reason}"],
    ]


def _stored(plan: DatasetPlan, known: KnownCosts) -> list[list[str]]:
    spec = plan.spec
    formula = f"code {spec.code_bytes} + id 8, and 5 % that lists grow beyond"
    held = f"{plan.shards_per_machine} x ({spec.n:,} x {plan.bytes_per_vector:.1f} bytes"
    held += f" + {size(spec.centroid_bytes)} of centroids)" if spec.nlist else ")"
    if plan.ram_bytes_allowed is not None:
        usable = size(USABLE_SHARE * plan.ram_bytes_allowed)
        held += f"; {usable} usable, {USABLE_SHARE:.0%} of {size(plan.ram_bytes_allowed)}"
    parts = f"vectors {size(plan.vectors_bytes)} (float32), codes {size(plan.codes_bytes)}"
    parts += f", records {size(plan.records_bytes)} (measured {known.costs.record_bytes:.0f} bytes each)"
    return [
        ["bytes a vector", f"{plan.bytes_per_vector:.1f}", formula if spec.nlist else "float32"],
        ["RAM a machine", size(plan.ram_bytes_per_machine), held],
        [
            "RAM in all",
            size(plan.ram_bytes),
            f"{text.count(plan.replicas, 'replica')} of {size(plan.index_bytes)}",
        ],
        ["object storage", size(plan.storage_bytes), parts],
        ["disk a machine", size(plan.disk_bytes_per_machine), "local files of the shards it holds"],
    ]


def _built(plan: DatasetPlan, known: KnownCosts) -> list[list[str]]:
    build, spec, costs = plan.build, plan.spec, known.costs
    parts = [f"records {_hours(build.records_s)} ({costs.record_us:.3g} µs each)"]
    if spec.nlist:
        each = 1e6 * build.assign_s / (plan.shards * spec.n)
        encode = costs.codecs[spec.codec].encode.at(plan.d) / 1e3
        parts = [
            f"train {_hours(build.train_s)} ({spec.train_rows:,} rows a shard)",
            f"assign {_hours(build.assign_s)} ({each:.3g} µs a vector)",
            f"encode {_hours(build.encode_s)} ({encode:.3g} µs)",
            *parts,
        ]
    rate = f"{_hours(plan.build_hours * 3600)} on all cores"
    return [["build", f"{_hours(build.cpu_s)} of a core", f"{', '.join(parts)}; {rate}"]]


def _asked_for(plan: DatasetPlan, known: KnownCosts) -> list[list[str]]:
    query, costs, spec = plan.query, known.costs, plan.spec
    if spec.nlist:
        code_ns = costs.codecs[spec.codec].scan.at(spec.compared_bytes)
        parts = (
            f"each shard: {query.coarse_us / 1e3:.3g} ms for {spec.nprobe:,} lists, "
            f"{query.scan_us / 1e3:.3g} for {query.codes_scanned:,.0f} codes "
            f"({code_ns:.3g} ns each, lists {IMBALANCE:g} x the mean), "
            f"{query.rerank_us / 1e3:.3g} for {query.rows_read} rows; the less for a quarter of the lists"
        )
    else:
        code_ns = costs.codecs["Flat"].scan.at(4 * plan.d)
        parts = f"each shard: {spec.n:,} vectors of {code_ns:.3g} ns"
    waits = f"{costs.network_ms:g} ms of network and {costs.read_us:g} µs a row from disk assumed"
    return [
        [
            "one query",
            f"{_between(plan.cpu_ms_per_query_easy, plan.cpu_ms_per_query)} ms CPU",
            f"data like SIFT to text embeddings; {parts}",
        ],
        ["p50, idle", f"{_between(plan.p50_ms_easy, plan.p50_ms)} ms", f"shards searched at once; {waits}"],
    ]


def _between(low: float, high: float) -> str:
    shown = [f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in (low, high)]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"


def _hours(seconds: float) -> str:
    return text.duration(seconds) if seconds < 3600 else f"{seconds / 3600:,.3g} h"
