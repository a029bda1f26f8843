"""``faissbase shards``: datasets of shards in object storage, built, listed and checked."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from faissbase.cli import progress, serve, shards_care, shards_ray, text
from faissbase.cli.arguments import (
    Commands,
    Parser,
    add_command,
    add_data_option,
    amount,
    byte_count,
    fraction,
    open_database,
    whole,
)
from faissbase.cli.console import Answer, Console
from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.connecting import cache_folder
from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.sharded import checking
from faissbase.sharded.bucket import PROBE_FOLDER, Bucket, existing_bucket, is_url, open_bucket
from faissbase.sharded.build import SHARD_BYTES, SHARD_ROWS, BuildReport, Request, build
from faissbase.sharded.codecs import CODECS
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.executors import Executor, InlineExecutor, ProcessesExecutor
from faissbase.sharded.ledger import builds_folder
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.sources import Columns, Source, Stored, find_files
from faissbase.sharded.stages import Settings
from faissbase.types import METRICS, Float32, Metric, is_name

_FOUND = 1
_SHOWN = 20
_EXECUTORS = ("processes", "inline", "ray")

_ABOUT = """\
Datasets too large for one machine: shards in object storage, each a collection
that is never written again. URL is s3://bucket/prefix, gs://..., az://... or a
folder; how to reach a store is in its own variables (AWS_ENDPOINT,
AWS_ACCESS_KEY_ID, ...)."""

_ABOUT_BUILD = """\
Build a dataset from files or from a collection, and publish it: count the rows,
draw a sample, train once, build the shards side by side, measure recall over all
of them on held-out rows, and only then make it visible, in one step.

Memory stays bounded: a worker holds a batch of rows and the index of one shard.
Interrupted or killed, the same command goes on where it stopped: what is done is
kept in the bucket. Below the target recall nothing is published; it says what
would reach it, and what was built is used by the next run.

SOURCE is one file or more, here or s3://..., also as a pattern in quotes, in any
format of `faissbase load`; or the name of a collection (of --data). Of rows with
one id the last one stays. Rows without ids are numbered through all files."""

_EXAMPLES = [
    "faissbase shards build vectors.npy --metric l2 --out ./bucket --name sift",
    "faissbase shards info ./bucket sift",
    "faissbase shards compact ./bucket sift",
]

_BUILD_EXAMPLES = [
    "faissbase shards build vectors.npy --metric l2 --out ./bucket --name sift",
    "faissbase shards build 's3://raw/docs-*.parquet' --out s3://bucket/prod --name docs --ram 32GB",
    "faissbase shards build --data ./data docs --out s3://bucket/prod --name docs --recall 0.98",
]


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "shards",
        run,
        summary="datasets of shards in object storage",
        about=_ABOUT,
        examples=_EXAMPLES,
        exit_codes="0 done; 1 damage was found; 2 the call is wrong; 3 no such dataset; 4 storage; 5 damaged",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", parser_class=Parser)
    _add_build(actions)
    _add_list(actions)
    _add_info(actions)
    _add_verify(actions)
    shards_care.add(actions)
    serve.add_of_shards(actions)
    shards_ray.add(actions)


def run(args: argparse.Namespace, console: Console) -> Answer:
    """No action was given."""
    raise InvalidInputError("give an action; see faissbase shards --help")


def _add_build(actions: Commands) -> None:
    parser = add_command(
        actions,
        "build",
        run_build,
        summary="build a dataset from files or a collection, and publish it",
        about=_ABOUT_BUILD,
        examples=_BUILD_EXAMPLES,
        exit_codes="0 published; 2 a wrong row or option, a name that is taken, recall below the target;\n"
        "  3 no such file; 4 storage; 130 interrupted, run again",
    )
    parser.add_argument("source", nargs="+", metavar="SOURCE", help="files, or a collection's name")
    parser.add_argument("--out", required=True, metavar="URL", help="the bucket or folder of the dataset")
    parser.add_argument("--name", required=True, metavar="NAME", help="what the dataset is called there")
    add_data_option(parser)
    about = f"(default: cosine, or the collection's): {', '.join(METRICS)}"
    parser.add_argument("--metric", choices=METRICS, metavar="METRIC", help=about)
    _add_index_options(parser)
    _add_work_options(parser)
    parser.add_argument("--replace", action="store_true", help="in place of the records that are there")
    for column in ("id", "vector", "document"):
        about = f"where it is not {column!r}"
        parser.add_argument(f"--{column}-column", metavar="NAME", default=column, help=about)


def _add_index_options(parser: Parser) -> None:
    about = (
        "a file of vectors that were really asked, 100 or more: the effort of searches and the recall are\n"
        "measured with them, not with rows that are held out, and no more effort is spent than they need"
    )
    parser.add_argument("--queries", metavar="FILE", help=about)
    about = f"auto, {', '.join(CODECS)}, or a FAISS factory string (default: auto: 1 bit a number, re-ranked)"
    parser.add_argument("--codec", default="auto", metavar="CODEC", help=about)
    parser.add_argument(
        "--ram",
        type=byte_count,
        metavar="SIZE",
        help="what all indexes may keep in memory, as 32GB: auto takes the finest codes that fit",
    )
    parser.add_argument(
        "--recall",
        type=fraction,
        default=DEFAULT_RECALL,
        metavar="R",
        help=f"recall@10 to reach (default: {DEFAULT_RECALL}); 1 for exact search",
    )
    about = f"at most, all equal (default: {SHARD_ROWS:,}, or {SHARD_BYTES >> 30} GiB of vectors)"
    parser.add_argument("--rows-per-shard", type=amount, metavar="N", help=about)


def _add_work_options(parser: Parser) -> None:
    about = f"where shards are built: {', '.join(_EXECUTORS)} (default: {_EXECUTORS[0]})"
    parser.add_argument("--executor", choices=_EXECUTORS, default=_EXECUTORS[0], metavar="WHERE", help=about)
    parser.add_argument("--workers", type=whole, metavar="N", help="shards at a time (default: one a core)")
    about = "a folder on a disk with room for a shard of each worker (default: below ~/.cache/faissbase)"
    parser.add_argument("--work", type=Path, metavar="FOLDER", help=about)


def _add_list(actions: Commands) -> None:
    parser = add_command(
        actions,
        "list",
        run_list,
        summary="the datasets under a URL",
        about="Print the datasets under a URL, with their records and shards.",
        examples=["faissbase shards list s3://bucket/prod", "faissbase shards list ./bucket --json"],
        exit_codes="0 listed; 3 nothing is there; 4 the store cannot be reached",
    )
    parser.add_argument("url", metavar="URL")


def _add_info(actions: Commands) -> None:
    parser = add_command(
        actions,
        "info",
        run_info,
        summary="version, recall and shards of one dataset",
        about="Print what the newest version of a dataset consists of. Reads its manifest alone:\n"
        "no shard is downloaded.",
        examples=[
            "faissbase shards info s3://bucket/prod docs",
            "faissbase shards info ./out docs --json",
        ],
        exit_codes="0 here it is; 3 no such dataset; 4 the store cannot be reached",
    )
    parser.add_argument("url", metavar="URL")
    parser.add_argument("name", metavar="NAME")


def _add_verify(actions: Commands) -> None:
    parser = add_command(
        actions,
        "verify",
        run_verify,
        summary="read every byte of a dataset and tell what is damaged",
        about="Download one shard after another, compare it with the checksums of the manifest,\n"
        "and check every record in it. Changes nothing.",
        examples=["faissbase shards verify s3://bucket/prod docs"],
        exit_codes="0 all is well; 1 damage was found; 3 no such dataset; 4 the store cannot be reached",
    )
    parser.add_argument("url", metavar="URL")
    parser.add_argument("name", metavar="NAME")
    about = "a folder on a disk with room for a shard (default: below ~/.cache/faissbase)"
    parser.add_argument("--work", type=Path, metavar="FOLDER", help=about)


# ---- building ------------------------------------------------------------------------------------


def run_build(args: argparse.Namespace, console: Console) -> Answer:
    source, metric = _source(args)
    settings = Settings(metric, args.codec, recall=args.recall)
    request = Request(
        args.name,
        settings,
        args.ram,
        args.rows_per_shard,
        is_replacing=args.replace,
        queries=_queries(args, metric),
    )
    executor = _executor(args)
    try:
        with progress.shown(console) as told:
            report = build(request, source, open_bucket(args.out), _work(args), executor, progress=told)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where it stopped") from None
    finally:
        executor.close()
    return _answer(report)


def _queries(args: argparse.Namespace, metric: Metric) -> Float32 | None:
    if args.queries is None:
        return None
    columns = Columns(args.id_column, args.vector_column, args.document_column)
    file = find_files([args.queries], columns).counted(_work(args))
    every = file.rows([(0, file.n_rows)], metric, _work(args))
    return np.concatenate([rows.vectors for rows in every] or [np.empty((0, file.dimension), np.float32)])


def _source(args: argparse.Namespace) -> tuple[Source, Any]:
    """What to build from, and its metric."""
    columns = Columns(args.id_column, args.vector_column, args.document_column)
    if not _names_collection(args):
        return find_files(args.source, columns), args.metric or "cosine"
    try:
        with open_database(args.data, read_only=True) as db:
            collection = db.get_collection(args.source[0])
            folder, metric = Path(collection.stats().path), collection.metric
    except NotFoundError as error:
        raise NotFoundError(f"{args.source[0]!r} is no file, and {error}") from error
    if args.metric not in (None, metric):
        raise InvalidInputError(f"collection {args.source[0]!r} is of metric {metric!r}, not {args.metric!r}")
    return Stored.found(folder), metric


def _names_collection(args: argparse.Namespace) -> bool:
    given = args.source[0]
    is_file = Path(given).exists() or is_url(given)
    return len(args.source) == 1 and is_name(given) and not is_file


def _executor(args: argparse.Namespace) -> Executor:
    if args.executor == "inline":
        return InlineExecutor()
    if args.executor == "ray":
        from faissbase.sharded.ray_executor import RayExecutor

        return RayExecutor(args.workers)
    return ProcessesExecutor(args.workers)


def _work(args: argparse.Namespace) -> Path:
    folder: Path = args.work or cache_folder() / "work"
    return folder


def _answer(report: BuildReport) -> Answer:
    recall = report.recall
    measured = "nothing to measure"
    if recall.mean is not None:
        interval = f"{recall.low:.4f} to {recall.high:.4f}"
        measured = f"{recall.mean:.4f} ({interval}, {recall.n_queries} queries)"
    pairs = {
        "index": report.index,
        f"recall@{recall.k or 10}": f"{measured}, target {report.target:g}",
        "size": text.size(report.size_bytes),
        "memory": f"{text.size(report.peak_bytes)} at most in a worker, mapped files included",
        "took": f"{text.duration(report.seconds)}, {text.duration(sum(report.shard_cpu_s))} of CPU in shards",
    }
    head = f"published {report.name!r} version {report.version}: {text.count(report.n_rows, 'record')} in "
    lines = [head + f"{text.count(report.shards, 'shard')} at {report.url}"]
    if report.n_replaced:
        lines.append(f"  {text.count(report.n_replaced, 'row')} came again later with the same id")
    if report.n_resumed:
        lines.append(f"  {text.count(report.n_resumed, 'shard')} of an earlier run")
    return Answer(asdict(report), [*lines, *text.facts(pairs)])


# ---- looking -------------------------------------------------------------------------------------


def run_list(args: argparse.Namespace, console: Console) -> Answer:
    bucket = existing_bucket(args.url)
    folders = bucket.folders()
    found = [Dataset(bucket, name).latest() for name in folders if is_name(name)]
    manifests = [manifest for manifest in found if manifest is not None and not manifest.is_deleted]
    rows = [
        [each.name, f"{each.n_alive:,}", f"{len(each.shards):,}", f"{each.version:,}"] for each in manifests
    ]
    lines = text.table([["dataset", "records", "shards", "version"], *rows], "<>>>")
    document = {"url": bucket.url, "datasets": [_document(each) for each in manifests]}
    return Answer(document, lines if rows else [_nothing(bucket, folders)])


def _nothing(bucket: Bucket, folders: Sequence[str]) -> str:
    """What is said of a place without a dataset: one may be on its way, or have been meant deeper."""
    others = [name for name in folders if name != PROBE_FOLDER]
    if not others:
        return f"{bucket.url} holds no dataset yet"
    building = [name for name in others[:_SHOWN] if next(bucket.list(builds_folder(name)), None)]
    if building:
        return f"{bucket.url} holds no dataset yet; builds that are not published: {', '.join(building)}"
    return f"{bucket.url} holds no dataset; there are other things in it: {', '.join(others[:_SHOWN])}"


def run_info(args: argparse.Namespace, console: Console) -> Answer:
    bucket = existing_bucket(args.url)
    manifest = Dataset(bucket, args.name).newest()
    shards = [
        {"name": each.name, "rows": each.rows, "hidden": each.n_hidden, "index": each.index}
        | {"recall": each.recall, "size_bytes": each.size_bytes}
        for each in manifest.shards
    ]
    document = {"url": bucket.url, **_document(manifest), "shards": shards}
    return Answer(document, _info_lines(manifest, shards))


def _document(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "dimension": manifest.dimension,
        "metric": manifest.metric,
        "index_type": manifest.index_type,
        "ntotal": manifest.n_alive,
        "n_shards": len(manifest.shards),
        "target_recall": manifest.target_recall,
        "measured_recall": manifest.measured_recall,
        "size_bytes": sum(shard.size_bytes for shard in manifest.shards),
    }


def _info_lines(manifest: Manifest, shards: list[dict[str, Any]]) -> list[str]:
    pairs = {
        "records": f"{manifest.n_alive:,}, d={manifest.dimension}, {manifest.metric}",
        "recall@10": _recall(manifest),
        "size": text.size(sum(shard.size_bytes for shard in manifest.shards)),
    }
    head = ["shard", "rows", "hidden", "index", "recall at least", "size"]
    return [
        f"{manifest.name}, version {manifest.version}",
        *text.facts(pairs),
        *text.table([head, *map(_row, shards)], "<>><>>"),
    ]


def _recall(manifest: Manifest) -> str:
    """A build measures over all shards; what came by a move or by writes was measured shard by shard."""
    if manifest.measured_recall is not None:
        return f"{manifest.measured_recall:.4f} when it was built, target {manifest.target_recall:g}"
    with_index = [shard for shard in manifest.shards if shard.index != "Flat"]
    measured = [shard.recall for shard in with_index if shard.recall is not None]
    if not manifest.shards:
        return "nothing to measure"
    if not with_index:
        return "1, for every search is exact: no shard has an index"
    told = f"{min(measured):.4f} or more in each shard by itself" if measured else ""
    n_unknown = len(with_index) - len(measured)
    if n_unknown:
        told += f"{'; ' if told else ''}not measured in {text.count(n_unknown, 'shard')}"
    return f"{told}, target {manifest.target_recall:g}"


def _row(shard: Mapping[str, Any]) -> list[str]:
    unknown = "exact" if shard["index"] == "Flat" else "not measured"
    recall = unknown if shard["recall"] is None else f"{shard['recall']:.4f}"
    counts = [f"{shard['rows']:,}", f"{shard['hidden']:,}"]
    return [shard["name"][:12], *counts, shard["index"], recall, text.size(shard["size_bytes"])]


def run_verify(args: argparse.Namespace, console: Console) -> Answer:
    bucket = existing_bucket(args.url)
    manifest = Dataset(bucket, args.name).newest()
    n_rows, problems = 0, []
    for shard in manifest.shards:
        if console.shows_progress:
            console.note(f"reading shard {shard.name} ...")
        report = checking.verified(shard, manifest, bucket, _work(args))
        n_rows += report.rows_checked
        problems += report.problems
    rows = text.count(n_rows, "record")
    if not problems:
        lines = [f"{args.name}: ok, {rows} in {text.count(len(manifest.shards), 'shard')} checked"]
    else:
        lines = [f"{args.name}: {text.count(len(problems), 'problem')}, {rows} checked"]
        shown = [f"  {each.kind}: {each.where}: {each.message}" for each in problems[:_SHOWN]]
        lines += map(text.printable, shown)
    document = {"ok": not problems, "name": args.name, "version": manifest.version, "rows_checked": n_rows}
    document["problems"] = [asdict(problem) for problem in problems]
    return Answer(document, lines, _FOUND if problems else 0)
