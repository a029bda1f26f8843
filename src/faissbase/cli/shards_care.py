"""``faissbase shards compact`` and ``collect``: fewer shards, and no more objects than are needed."""

from __future__ import annotations

import argparse
import re
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from faissbase.cli import text
from faissbase.cli.arguments import Commands, Parser, add_command, option_type
from faissbase.cli.console import Answer, Console
from faissbase.collection.folder import check_name
from faissbase.errors import InvalidInputError
from faissbase.sharded.bucket import existing_bucket
from faissbase.sharded.collecting import collect
from faissbase.sharded.database import connect
from faissbase.sharded.dataset import Dataset

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])\Z")
DAY_S = 86_400.0


def add(actions: Commands) -> None:
    _add_compact(actions)
    _add_collect(actions)


def _add_compact(actions: Commands) -> None:
    parser = add_command(
        actions,
        "compact",
        run_compact,
        summary="merge small shards, and those with many deleted rows",
        about="Merge small shards, and those of which a tenth is replaced or deleted, into\n"
        "fewer. Readers and writers go on meanwhile. Interrupted, the dataset is as it\n"
        "was before the merge that was under way, or after it.",
        examples=[
            "faissbase shards compact s3://vectors docs",
            "faissbase shards compact file:///mnt/vectors docs --cache /mnt/nvme",
        ],
        exit_codes="0 done; 2 another process was merging the same; 3 no such dataset; 4 store or disk",
    )
    _add_place(parser)
    parser.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where shards are read and made, with room for both (default: a temporary folder)",
    )


def _add_collect(actions: Commands) -> None:
    parser = add_command(
        actions,
        "collect",
        run_collect,
        summary="remove objects that no version needs",
        about="Remove versions that were followed by another for longer than the grace, and\n"
        "objects that no other version names and that are older than the grace. The\n"
        "grace must outlast every reader that opens a version, and every write.",
        examples=[
            "faissbase shards collect s3://vectors docs --dry-run",
            "faissbase shards collect s3://vectors docs --grace 7d",
        ],
        exit_codes="0 done; 2 a wrong grace; 3 no such dataset; 4 the store cannot be reached; 5 damaged",
    )
    _add_place(parser)
    parser.add_argument(
        "--grace", type=_span, default=DAY_S, metavar="SPAN", help="such as 90m, 24h, 7d (default: 24h)"
    )
    parser.add_argument("--dry-run", action="store_true", help="tell what would be removed")


def _add_place(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", help="s3://bucket/prefix, gs://, az://, file:///folder")
    parser.add_argument("name", metavar="NAME", help="name of the dataset")


@option_type
def _span(text: str) -> float:
    found = _SPAN.match(text)
    if found is None or float(found[1]) == 0:
        raise InvalidInputError(f"a span is a number above 0 with s, m, h or d, such as 12h, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def run_compact(args: argparse.Namespace, console: Console) -> Answer:
    existing_bucket(args.url)
    with (
        tempfile.TemporaryDirectory(prefix="faissbase-") as folder,
        connect(args.url, args.cache or Path(folder), refresh_s=0) as db,
    ):
        report = db.get_collection(args.name).optimize(progress=console.shows_progress)
    done = f"{text.count(report.shards_before, 'shard')} became {report.shards_after}"
    rewritten = f"{text.count(report.rows_rewritten, 'record')} rewritten, {report.hidden_dropped:,} dropped"
    return Answer({"dataset": args.name, **report.as_dict()}, [f"{done}: {rewritten}"])


def run_collect(args: argparse.Namespace, console: Console) -> Answer:
    dataset = Dataset(existing_bucket(args.url), check_name(args.name))
    report = collect(dataset, args.grace, datetime.now(timezone.utc), dry_run=args.dry_run)
    verb = "would remove" if args.dry_run else "removed"
    what = f"{text.count(len(report.manifests), 'version')}, {text.count(len(report.objects), 'object')}"
    lines = [f"{verb} {what} ({text.size(report.size_bytes)}); {report.versions_kept:,} versions stay"]
    return Answer({"dataset": args.name, "dry_run": args.dry_run, **report.as_dict()}, lines)
