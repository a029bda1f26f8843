"""``faissbase export``, ``backup`` and ``restore``: records and whole databases as files."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from faissbase.cli import text
from faissbase.cli.arguments import (
    COLLECTION_HELP,
    WHERE_HELP,
    Commands,
    add_command,
    add_data_option,
    add_tenant_option,
    as_filter,
    open_database,
)
from faissbase.cli.console import Answer, Console
from faissbase.collection.folder import check_name
from faissbase.database.backup import restore
from faissbase.database.catalog import Catalog
from faissbase.database.database import DEFAULT_TENANT
from faissbase.errors import AlreadyExistsError
from faissbase.storage.tables.open import ROWS_SUFFIX

_VECTORS_ALONE = (".npy", ".fvecs", ".bvecs")


def add(commands: Commands) -> None:
    _add_export(commands)
    _add_backup(commands)
    _add_restore(commands)


def _add_export(commands: Commands) -> None:
    parser = add_command(
        commands,
        "export",
        run_export,
        summary="write records to a file",
        about="Write the records of a collection, as of one moment, to a file that\n"
        "'faissbase load' reads.\n\n"
        "formats:\n"
        "  .jsonl .csv .tsv .parquet .arrow   everything in one file\n"
        "  .npy .fvecs .bvecs                 vectors; the rest goes to FILE.rows.jsonl",
        examples=[
            "faissbase export docs docs.parquet",
            """faissbase export docs games.jsonl --where '{"section": "games"}'""",
            "faissbase export docs docs.npy --overwrite",
        ],
        exit_codes="0 written; 2 unknown format, or FILE exists; 3 no such collection; 4 disk full",
    )
    parser.add_argument("collection", metavar="COLLECTION", help=COLLECTION_HELP)
    parser.add_argument("file", metavar="FILE", type=Path, help="where to")
    add_data_option(parser)
    add_tenant_option(parser)
    parser.add_argument("--where", type=as_filter, metavar="JSON", help=WHERE_HELP)
    parser.add_argument("--overwrite", action="store_true", help="replace FILE where it exists")


def _add_backup(commands: Commands) -> None:
    parser = add_command(
        commands,
        "backup",
        run_backup,
        summary="write the whole database to one file",
        about="Write every collection to one file, each as of one moment, while others go on\n"
        "writing. The file is a plain tar with a SHA-256 of each member. An existing\n"
        "file is never overwritten. Indexes are not in it: whoever restores it builds\n"
        "them anew, in the background or by 'faissbase optimize'.",
        examples=["faissbase backup friday.faissbase", "faissbase backup /mnt/copy.tar --data ./demo-data"],
        exit_codes="0 written; 2 FILE exists; 3 no such database; 4 disk full; 5 the data is damaged",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="where to")
    add_data_option(parser)


def _add_restore(commands: Commands) -> None:
    parser = add_command(
        commands,
        "restore",
        run_restore,
        summary="make a new database folder from a backup",
        about="Make a new database folder from a backup. Every member is checked against its\n"
        "SHA-256; nothing appears in FOLDER unless all of it is right.",
        examples=[
            "faissbase restore friday.faissbase --into ./data-again",
            "faissbase restore /mnt/copy.tar --into ./demo-data && faissbase verify --data ./demo-data",
        ],
        exit_codes="0 restored; 2 FOLDER is not empty; 3 no such file; 4 disk full; 5 the backup is damaged",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="a backup")
    parser.add_argument("--into", metavar="FOLDER", type=Path, required=True, help="new, or empty")
    parser.add_argument(
        "--tenant", metavar="NAME", help="the tenant to have all of it, as 'default', instead of its own"
    )


def run_export(args: argparse.Namespace, console: Console) -> Answer:
    _check_free(args.file, args.overwrite)
    started = time.perf_counter()
    with open_database(args.data, read_only=True, tenant=args.tenant) as db:
        collection = db.get_collection(args.collection)
        n = collection.export(args.file, args.where, progress=console.shows_progress)
    seconds = time.perf_counter() - started
    size_bytes = args.file.stat().st_size
    document = {"collection": args.collection, "path": str(args.file), "n_rows": n}
    document |= {"size_bytes": size_bytes, "seconds": seconds}
    return Answer(document, [_wrote(text.count(n, "record"), args.file, size_bytes, seconds)])


def _check_free(path: Path, overwrite: bool) -> None:
    is_alone = path.suffix.lower() in _VECTORS_ALONE
    for target in (path, path.with_name(path.name + ROWS_SUFFIX)) if is_alone else (path,):
        if target.exists() and not overwrite:
            raise AlreadyExistsError(f"{target} exists already: give --overwrite to replace it")


def run_backup(args: argparse.Namespace, console: Console) -> Answer:
    started = time.perf_counter()
    with open_database(args.data, read_only=True) as db:
        names = _names_in(db.path)
        db.backup(args.file)
    seconds, size_bytes = time.perf_counter() - started, args.file.stat().st_size
    document = {"path": str(args.file), "collections": names, "size_bytes": size_bytes, "seconds": seconds}
    return Answer(document, [_wrote(text.count(len(names), "collection"), args.file, size_bytes, seconds)])


def _wrote(what: str, path: Path, size_bytes: int, seconds: float) -> str:
    return f"wrote {what} to {path} ({text.size(size_bytes)}) in {text.duration(seconds)}"


def _names_in(folder: Path) -> list[str]:
    """The collections of a folder, those of other tenants than the default one under its name."""
    catalog = Catalog(folder, read_only=True)
    try:
        live = catalog.all_live()
    finally:
        catalog.close()
    return [config.name if tenant == DEFAULT_TENANT else f"{tenant}/{config.name}" for tenant, config in live]


def run_restore(args: argparse.Namespace, console: Console) -> Answer:
    started = time.perf_counter()
    tenant = None if args.tenant is None else check_name(args.tenant, "tenant")
    target = restore(args.file, args.into, tenant=tenant)
    seconds = time.perf_counter() - started
    names = _names_in(target)
    document = {"path": str(target), "collections": names, "seconds": seconds}
    n = text.count(len(names), "collection")
    return Answer(document, [f"restored {n} into {target} in {text.duration(seconds)}: {', '.join(names)}"])
