"""``faissbase bench``: how fast a collection is here, beside raw FAISS on the same vectors."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from faissbase._version import __version__
from faissbase.ann.baseline import FAISS_VERSION, MAX_THREADS
from faissbase.cli import measure, text
from faissbase.cli.arguments import (
    WHERE_HELP,
    Commands,
    add_command,
    add_data_option,
    as_filter,
    open_database,
    whole,
)
from faissbase.cli.calibrate import WORD, run_calibrate
from faissbase.cli.console import Answer, Console
from faissbase.cli.costs import COSTS_VARIABLE, DEFAULT_COSTS_FILE
from faissbase.cli.measure import Sample, Times, Writes
from faissbase.collection.collection import LocalCollection
from faissbase.database.database import connect
from faissbase.demo import run as demo_steps
from faissbase.demo.dataset import load_queries
from faissbase.errors import InvalidInputError
from faissbase.types import Float32

_SINGLES_S = 2.5
_BATCHES_S = 2.5
_FILTERED_S = 1.0
_WRITES_S = 2.0
_RECALL_QUERIES = 256
_QUIET_MACHINE = 0.5

_ABOUT = """\
Measure a collection beside raw FAISS: IndexFlat over the same vectors in
memory, call by call in turn, and recall against it. Then durable upserts of
its records into a temporary collection in a folder beside the data. The
collection itself is only read. About 15 seconds.

Without COLLECTION: the demo's records, in a temporary folder.

faissbase's times include ids, metadata and documents of the hits; raw FAISS
gives row numbers.

`bench calibrate` measures this machine instead: what it costs to train, assign,
encode, scan and re-rank vectors and to store records, on one thread, in about a
minute. `faissbase plan` counts with the result from then on."""


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "bench",
        run,
        summary="measure a collection beside raw FAISS",
        about=_ABOUT,
        examples=[
            "faissbase bench",
            "faissbase bench docs -k 100",
            "faissbase bench calibrate",
            """faissbase bench debian --data ./demo-data --where '{"section": "python"}'""",
        ],
        exit_codes="0 measured; 2 nothing to measure, or a wrong filter; 3 no such collection",
    )
    parser.add_argument(
        "collection",
        metavar="COLLECTION",
        nargs="?",
        help="what to measure (default: demo data), or the word calibrate",
    )
    add_data_option(parser)
    parser.add_argument("-k", type=whole, default=10, metavar="N", help="hits a query (default: 10)")
    parser.add_argument(
        "--where", type=as_filter, metavar="JSON", help=f"measure filtered search too; {WHERE_HELP}"
    )
    group = parser.add_argument_group("calibrate")
    about = f"where to write the costs (default: ${COSTS_VARIABLE}, else {DEFAULT_COSTS_FILE})"
    group.add_argument("--out", type=Path, metavar="FILE", help=about)
    about = "vectors to measure on; fewer are quicker and rougher (default: 10000)"
    group.add_argument("--rows", type=whole, metavar="N", help=about)


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured, with which queries, and where temporary files go."""

    collection: LocalCollection
    queries: Float32 | None
    scratch: Path


@dataclass(frozen=True, slots=True)
class Filtered:
    """Searches with a filter."""

    n_matching: int
    times: Times
    recall: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that was measured."""

    n: int
    n_compared: int
    singles: Times
    batches: Times
    recall: float | None
    filtered: Filtered | None
    writes: Writes


def run(args: argparse.Namespace, console: Console) -> Answer:
    if args.collection == WORD:
        return run_calibrate(args, console)
    if args.out is not None or args.rows is not None:
        raise InvalidInputError("--out and --rows are for faissbase bench calibrate")
    load_before = os.getloadavg()[0]
    with _subject(args, console) as subject:
        report = _measure(subject, args, console)
        facts = _circumstances(subject.collection, report, args, load_before)
    _warn(load_before, report, console)
    return Answer({**facts, **_document(report)}, [*_title(facts), "", *_lines(report, args)])


@contextmanager
def _subject(args: argparse.Namespace, console: Console) -> Iterator[Subject]:
    if args.collection is not None:
        with open_database(args.data, read_only=True) as db:
            collection = db.get_collection(args.collection)
            with measure.scratch_folder(args.data) as scratch:
                yield Subject(collection, None, scratch)
        return
    with measure.scratch_folder(args.data) as scratch, connect(scratch / "demo") as db:
        collection = demo_steps.open_collection(db, fresh=False)
        with _bar(console, "load the demo's records", None) as bar:
            demo_steps.load(collection, bar.update)
        yield Subject(collection, load_queries().query_vectors, scratch)


def _bar(console: Console, title: str, total: int | None) -> Any:
    hidden = not console.shows_progress
    return tqdm(total=total, desc=title, unit=" records", unit_scale=True, leave=False, disable=hidden)


def _measure(subject: Subject, args: argparse.Namespace, console: Console) -> Report:
    collection, k = subject.collection, args.k
    sample = _sample(collection, None, console)
    xq = measure.queries_near(sample.records) if subject.queries is None else subject.queries
    if console.shows_progress:
        console.note("measuring ...")
    singles = measure.time_singles(collection, sample.raw, xq, k, _SINGLES_S)
    batches = measure.time_batches(collection, sample.raw, xq, k, _BATCHES_S)
    recall = measure.recall(collection, sample, xq[-_RECALL_QUERIES:], k)
    filtered = None if args.where is None else _filtered(collection, xq, args, console)
    writes = measure.time_writes(collection, sample.records, subject.scratch / "writes", _WRITES_S)
    n_compared = 0 if sample.raw is None else sample.raw.n
    return Report(len(sample.ids), n_compared, singles, batches, recall, filtered, writes)


def _sample(collection: LocalCollection, where: dict[str, Any] | None, console: Console) -> Sample:
    with _bar(console, "read vectors for raw FAISS", collection.count(where)) as bar:
        return measure.read_sample(collection, where, bar.update)


def _filtered(
    collection: LocalCollection, xq: Float32, args: argparse.Namespace, console: Console
) -> Filtered:
    n_matching = collection.count(args.where)
    times = measure.time_singles(collection, None, xq, args.k, _FILTERED_S, args.where)
    if not n_matching:
        return Filtered(0, times, None)
    subset = _sample(collection, args.where, console)
    recall = measure.recall(collection, subset, xq[-_RECALL_QUERIES:], args.k, args.where)
    return Filtered(n_matching, times, recall)


def _circumstances(
    collection: LocalCollection, report: Report, args: argparse.Namespace, load_before: float
) -> dict[str, Any]:
    return {
        "collection": collection.name,
        "ntotal": report.n,
        "dimension": collection.dimension,
        "metric": collection.metric,
        "k": args.k,
        "where": args.where,
        "seed": measure.SEED,
        "faissbase": __version__,
        "faiss": FAISS_VERSION,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": MAX_THREADS,
        "load_before": load_before,
    }


def _title(facts: dict[str, Any]) -> list[str]:
    return [
        f"{facts['collection']}: {text.count(facts['ntotal'], 'record')}, d={facts['dimension']}, "
        f"{facts['metric']}, k={facts['k']}, seed {facts['seed']}",
        f"faissbase {facts['faissbase']}, FAISS {facts['faiss']}, Python {facts['python']}, "
        f"{facts['machine']}, {text.count(facts['cores'], 'core')}, load {facts['load_before']:.1f} before",
    ]


def _warn(load_before: float, report: Report, console: Console) -> None:
    if load_before > _QUIET_MACHINE * MAX_THREADS:
        console.note("note: this machine is busy with other things; the ratios hold better than the times")
    if not report.n_compared:
        console.note("note: not compared with raw FAISS: a copy of the vectors would take too much memory")


def _lines(report: Report, args: argparse.Namespace) -> list[str]:
    rows = [["", "faissbase", "raw FAISS", "ratio"], *_search_rows(report, args.k)]
    if report.filtered is not None:
        rows += _filtered_rows(report.filtered, args.k)
    rows += _write_rows(report.writes)
    return [
        *text.table(rows, "<>>>", gap="   "),
        "",
        "ratio: median time of faissbase over that of raw FAISS",
    ]


def _search_rows(report: Report, k: int) -> list[list[str]]:
    singles, batches = report.singles, report.batches
    ratio = [_shown(times.ratio, "{:.2f}") for times in (singles, batches)]
    speeds = (_throughput(batches.ours), _throughput(batches.raw))
    return [
        ["one query, p50", _percentile(singles.ours, 50), _percentile(singles.raw, 50), ratio[0]],
        ["one query, p99", _percentile(singles.ours, 99), _percentile(singles.raw, 99), ""],
        [f"queries/s, {measure.BATCH} at once", *(_shown(speed, "{:,.0f}") for speed in speeds), ratio[1]],
        [f"recall@{k} against raw FAISS", _shown(report.recall, "{:.4f}"), "", ""],
    ]


def _filtered_rows(filtered: Filtered, k: int) -> list[list[str]]:
    ours, which = filtered.times.ours, f"filtered ({filtered.n_matching:,} match)"
    return [
        [f"{which}, p50", _percentile(ours, 50), "", ""],
        [f"{which}, p99", _percentile(ours, 99), "", ""],
        [f"recall@{k} against raw FAISS of these", _shown(filtered.recall, "{:.4f}"), "", ""],
    ]


def _write_rows(writes: Writes) -> list[list[str]]:
    return [
        ["durable upserts/s, one by one", f"{len(writes.singles) / sum(writes.singles):,.0f}", "", ""],
        [f"durable upserts/s, {writes.n_batch:,} at once", f"{_batch_rate(writes):,.0f}", "", ""],
    ]


def _batch_rate(writes: Writes) -> float:
    return len(writes.batches) * writes.n_batch / sum(writes.batches)


def _percentile(seconds: list[float], percent: float) -> str:
    return text.duration(float(np.percentile(seconds, percent))) if seconds else "-"


def _throughput(seconds: list[float]) -> float | None:
    return float(measure.BATCH / np.median(seconds)) if seconds else None


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _document(report: Report) -> dict[str, Any]:
    document: dict[str, Any] = {
        "n_compared": report.n_compared,
        "single": _times_document(report.singles),
        "batch": {
            "size": measure.BATCH,
            "queries_per_s": _throughput(report.batches.ours),
            "raw_queries_per_s": _throughput(report.batches.raw),
            "ratio": report.batches.ratio,
        },
        "recall": report.recall,
        "durable_upserts": {
            "single_per_s": len(report.writes.singles) / sum(report.writes.singles),
            "batch_size": report.writes.n_batch,
            "batch_per_s": _batch_rate(report.writes),
        },
    }
    if report.filtered is not None:
        found = report.filtered
        times = _times_document(found.times)
        document["filtered"] = {"n_matching": found.n_matching, **times, "recall": found.recall}
    return document


def _times_document(times: Times) -> dict[str, Any]:
    document: dict[str, Any] = {"n": len(times.ours)}
    for name, seconds in (("", times.ours), ("raw_", times.raw)):
        for percent in (50, 99):
            value = float(np.percentile(seconds, percent)) if seconds else None
            document[f"{name}p{percent}_s"] = value
    return {**document, "ratio": times.ratio}
