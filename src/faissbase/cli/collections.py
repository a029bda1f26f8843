"""``faissbase list``, ``stats``, ``optimize`` and ``delete``: what there is, and making it less."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from faissbase.cli import text
from faissbase.cli.arguments import (
    COLLECTION_HELP,
    WHERE_HELP,
    Commands,
    add_command,
    add_data_option,
    add_tenant_option,
    add_yes_option,
    as_filter,
    open_database,
)
from faissbase.cli.console import Answer, Console
from faissbase.collection.collection import LocalCollection
from faissbase.collection.stats import Stats
from faissbase.database.database import Database
from faissbase.errors import CorruptionError, InvalidInputError
from faissbase.sharded.reports import ShardedOptimizeReport, ShardedStats

_DAMAGED = 5


def add(commands: Commands) -> None:
    _add_list(commands)
    _add_stats(commands)
    _add_optimize(commands)
    _add_delete(commands)


def _add_list(commands: Commands) -> None:
    parser = add_command(
        commands,
        "list",
        run_list,
        summary="the names of the collections",
        about="Print the names of the collections, one a line.",
        examples=["faissbase list", "faissbase list --data ./demo-data --json"],
        exit_codes="0 listed; 3 no such database",
    )
    add_data_option(parser)
    add_tenant_option(parser)


def _add_stats(commands: Commands) -> None:
    parser = add_command(
        commands,
        "stats",
        run_stats,
        summary="sizes of one collection, or of all",
        about="Print how many records a collection has, of which kind, and what it takes on\n"
        "disk. Without COLLECTION: a table of all.",
        examples=["faissbase stats", "faissbase stats docs --json"],
        exit_codes="0 fine; 3 no such database or collection; 5 damaged",
    )
    parser.add_argument("collection", metavar="COLLECTION", nargs="?", help="one of them (default: all)")
    add_data_option(parser)
    add_tenant_option(parser)


def _add_optimize(commands: Commands) -> None:
    parser = add_command(
        commands,
        "optimize",
        run_optimize,
        summary="give back the room of dead records, build the index to the end",
        about="Rewrite a collection without its deleted and replaced records, where that is worth\n"
        "it, and build its index to the end. Searches go on meanwhile; writers wait while\n"
        "files are rewritten. Interrupted, the next run goes on where it stopped.",
        examples=["faissbase optimize docs", "faissbase stats docs   # tells whether it is worth it"],
        exit_codes="0 done; 3 no such collection; 4 no room for the new files",
    )
    parser.add_argument("collection", metavar="COLLECTION", help=COLLECTION_HELP)
    add_data_option(parser)
    add_tenant_option(parser)


def _add_delete(commands: Commands) -> None:
    parser = add_command(
        commands,
        "delete",
        run_delete,
        summary="delete records, or a whole collection",
        about="Delete records by id or by filter, or a collection with all its files.\n"
        "Asks first where a filter or --all decides.",
        examples=[
            "faissbase delete docs --id 17 --id 18",
            """faissbase delete docs --where '{"year": {"$lt": 2000}}'""",
            "faissbase delete docs --all --yes",
        ],
        exit_codes="0 deleted, or not there; 2 nobody to ask and no --yes; 3 no such collection",
    )
    parser.add_argument("collection", metavar="COLLECTION", help=COLLECTION_HELP)
    add_data_option(parser)
    add_tenant_option(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--id", action="append", metavar="ID", help="this record; may be given again")
    what.add_argument("--where", type=as_filter, metavar="JSON", help=WHERE_HELP)
    what.add_argument("--all", action="store_true", help="the collection itself")
    add_yes_option(parser)


def run_list(args: argparse.Namespace, console: Console) -> Answer:
    with open_database(args.data, read_only=True, tenant=args.tenant) as db:
        names = db.list_collections()
    if not names:
        console.note(f"{args.data} holds no collection yet; faissbase load FILE COLLECTION makes one")
    return Answer({"collections": names}, names)


def run_stats(args: argparse.Namespace, console: Console) -> Answer:
    with open_database(args.data, read_only=True, tenant=args.tenant) as db:
        if args.collection is not None:
            stats = db.get_collection(args.collection).stats()
            return Answer(stats.as_dict(), _one(stats))
        return _all(db, args, console)


def _one(stats: Stats | ShardedStats) -> list[str]:
    if isinstance(stats, ShardedStats):
        return _one_of_shards(stats)
    dead = f"{stats.tombstones:,}"
    if stats.tombstones:
        room = text.size(stats.tombstones * stats.dimension * 4)
        dead += f"  ({room}: faissbase optimize {stats.name} gives it back)"
    pairs = {
        "records": f"{stats.ntotal:,}",
        "dimension": str(stats.dimension),
        "metric": stats.metric,
        "index type": stats.index_type,
        "index": _index(stats),
        "deleted or replaced": dead,
        "vectors": text.size(stats.vectors_bytes),
        "ids, metadata, text": text.size(stats.records_bytes),
        "folder": text.printable(stats.path),
    }
    return [stats.name, *text.facts(pairs)]


def _one_of_shards(stats: ShardedStats) -> list[str]:
    pairs = {
        "records": f"{stats.ntotal:,}",
        "dimension": str(stats.dimension),
        "metric": stats.metric,
        "index type": stats.index_type,
        "index": f"{stats.index} over {stats.slots_indexed:,} of {stats.slots:,} slots",
        "deleted or replaced": f"{stats.tombstones:,}",
        "shards": f"{len(stats.shards):,}, {text.size(stats.size_bytes)}",
        "version": f"{stats.version:,}",
        "store": text.printable(stats.url),
    }
    return [stats.name, *text.facts(pairs)]


def _index(stats: Stats) -> str:
    if not stats.segments:
        return f"{stats.index} search of {stats.slots:,} slots"
    pieces = text.count(stats.segments, "segment")
    covered = f"{stats.slots_indexed:,} of {stats.slots:,} slots in {pieces}"
    return f"{stats.index} over {covered}, {text.size(stats.index_bytes)}"


def _all(db: Database, args: argparse.Namespace, console: Console) -> Answer:
    rows = [["collection", "records", "d", "metric", "index type", "dead", "on disk"]]
    documents: list[dict[str, Any]] = []
    damage = None
    for name in db.list_collections():
        try:
            stats = db.get_collection(name).stats()
        except CorruptionError as error:
            damage = error
            rows.append([name, "damaged", "", "", "", "", ""])
            documents.append({"name": name, "error": {"code": error.kind, "message": str(error)}})
            continue
        rows.append(_row(stats))
        documents.append(stats.as_dict())
    if damage is not None:
        console.complain(str(damage))
    lines = text.table(rows, "<>>>>>>") if documents else [f"{args.data} holds no collection yet"]
    return Answer({"collections": documents}, lines, _DAMAGED if damage else 0)


def _row(stats: Stats | ShardedStats) -> list[str]:
    on_disk = text.size(_size_bytes(stats))
    kind = [str(stats.dimension), stats.metric, stats.index_type]
    return [stats.name, f"{stats.ntotal:,}", *kind, f"{stats.tombstones:,}", on_disk]


def _size_bytes(stats: Stats | ShardedStats) -> int:
    """What a collection takes in the folder, or in object storage."""
    if isinstance(stats, ShardedStats):
        return stats.size_bytes
    return stats.vectors_bytes + stats.records_bytes


def run_optimize(args: argparse.Namespace, console: Console) -> Answer:
    with open_database(args.data, read_only=False, tenant=args.tenant) as db:
        report = db.get_collection(args.collection).optimize(progress=console.shows_progress)
    document = {"collection": args.collection, **asdict(report)}
    dropped = report.slots_before - report.slots_after
    if isinstance(report, ShardedOptimizeReport):
        shards = f"{report.shards_before:,} shards are {report.shards_after:,} now"
        return Answer(document, [f"dropped {text.count(dropped, 'dead slot')}; {shards}"])
    line = f"dropped {text.count(dropped, 'dead slot')}, gave back {text.size(report.reclaimed_bytes)}"
    line += f"; an index covers {report.slots_indexed:,} of {report.slots_after:,} slots"
    return Answer(document, [line])


def run_delete(args: argparse.Namespace, console: Console) -> Answer:
    with open_database(args.data, read_only=False, tenant=args.tenant) as db:
        collection = db.get_collection(args.collection)
        if args.all:
            return _delete_collection(db, collection, args, console)
        n = _delete_records(collection, args, console)
        left = len(collection)
    document = {"collection": args.collection, "deleted": n, "ntotal": left}
    return Answer(document, [f"deleted {text.count(n, 'record')}, {left:,} are left in {args.collection!r}"])


def _delete_records(collection: LocalCollection, args: argparse.Namespace, console: Console) -> int:
    if args.id is not None:
        return collection.delete(ids=list(dict.fromkeys(args.id)))
    n = collection.count(args.where)
    _ask(f"Delete {text.count(n, 'record')} of {args.collection!r}?", args, console)
    return collection.delete(where=args.where)


def _delete_collection(
    db: Database, collection: LocalCollection, args: argparse.Namespace, console: Console
) -> Answer:
    _ask(f"Delete the collection {args.collection!r} and all its files?", args, console)
    db.delete_collection(collection.name)
    return Answer({"collection": args.collection, "is_deleted": True}, [f"deleted {args.collection!r}"])


def _ask(question: str, args: argparse.Namespace, console: Console) -> None:
    if not args.yes and not console.confirm(question):
        raise InvalidInputError("not confirmed: nothing was changed")
