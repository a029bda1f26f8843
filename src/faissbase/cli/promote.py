"""``faissbase promote`` and ``demote``: a collection from its folder to shards, and back."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from faissbase.cli import progress, text
from faissbase.cli.arguments import Commands, add_command, add_data_option, add_tenant_option, open_database
from faissbase.cli.console import Answer, Console
from faissbase.collection.folder import check_name
from faissbase.collection.store import Config
from faissbase.connecting import connect_folder
from faissbase.database.database import Database
from faissbase.errors import ConflictError, InvalidInputError, NotFoundError
from faissbase.sharded.bucket import existing_bucket, is_url, open_bucket
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.promotion import Finish, Move, demote, promote

_WORK = ".moves"


def add(commands: Commands) -> None:
    _add_promote(commands)
    _add_demote(commands)


def _add_promote(commands: Commands) -> None:
    parser = add_command(
        commands,
        "promote",
        run_promote,
        summary="move a collection from its folder to shards in object storage",
        about="Copy a collection to shards in object storage, compare every record with the one\n"
        "it comes from, and have the folder point there: whoever uses the folder, or a\n"
        "server over it, goes on as before. Writers may go on meanwhile. Interrupted, the\n"
        "next run goes on where it stopped. Needs the extra scale.",
        examples=[
            "faissbase promote data/docs s3://bucket/prefix",
            "faissbase promote data/docs file:///mnt/shards --keep   # a copy",
        ],
        exit_codes="0 moved; 2 the name is taken, or writers never pause; 3 no such collection; 4 store",
    )
    parser.add_argument("source", metavar="FOLDER/COLLECTION", help="or COLLECTION, in --data")
    parser.add_argument("url", metavar="URL", help="where to: the dataset is at URL/COLLECTION")
    add_data_option(parser)
    parser.add_argument("--keep", action="store_true", help="copy it: the folder stays what it is")
    add_tenant_option(parser)


def _add_demote(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demote",
        run_demote,
        summary="move a collection from object storage into a folder",
        about="Copy a dataset of shards into a folder as a collection, compare every record with\n"
        "the one it comes from, and end the dataset, or leave it with --keep. Interrupted,\n"
        "the next run goes on where it stopped. Needs the extra scale.",
        examples=[
            "faissbase demote data/docs                      # back from where promote has moved it",
            "faissbase demote s3://bucket/prefix/docs --to data --keep",
        ],
        exit_codes="0 moved; 2 the name is taken, or writers never pause; 3 no such collection; 4 store",
    )
    parser.add_argument("source", metavar="SOURCE", help="FOLDER/COLLECTION, or URL/COLLECTION with --to")
    parser.add_argument("--to", metavar="FOLDER", type=Path, help="the database's folder")
    parser.add_argument("--keep", action="store_true", help="copy it: the dataset stays what it is")
    add_tenant_option(parser)
    add_data_option(parser)


def run_promote(args: argparse.Namespace, console: Console) -> Answer:
    folder, name = _split(args.source, args.data)
    started = time.perf_counter()
    bucket = open_bucket(args.url)
    with open_database(folder, read_only=False, tenant=args.tenant) as db:
        config, url = _found(db, name), f"{bucket.url}/{name}"
        if db.url(config) is not None:
            raise ConflictError(f"collection {name!r} is at {db.url(config)} already")
        len(db.open(config))  # what a crash has left is put right

        def switch(finish: Finish) -> None:
            db.place(config, url, finish)

        with progress.shown(console, f"promote {name}") as note:
            move = promote(
                db.folder(config),
                config,
                bucket,
                _work(db, config),
                switch=None if args.keep else switch,
                note=note,
            )
    return _answer("promoted", name, str(url), move, started, is_copy=args.keep)


def run_demote(args: argparse.Namespace, console: Console) -> Answer:
    started = time.perf_counter()
    folder, name = _target(args)
    if is_url(args.source):
        existing_bucket(args.source.rstrip("/").rpartition("/")[0])
        connect_folder(folder).close()  # makes it where there is none
    with open_database(folder, read_only=False, tenant=args.tenant) as db:
        config, url = _wanted(db, name, args.source)
        base, _, there = url.rpartition("/")
        dataset = Dataset(open_bucket(base), there)

        def bring(finished: Path) -> None:
            db.bring(config, finished)

        with progress.shown(console, f"demote {name}") as note:
            move = demote(dataset, config, _work(db, config), bring=bring, keep=args.keep, note=note)
    return _answer("demoted", name, f"{folder}", move, started, is_copy=args.keep)


def _split(source: str, data: Path) -> tuple[Path, str]:
    """The folder and the name of ``FOLDER/COLLECTION``, or of ``COLLECTION`` in ``data``."""
    if is_url(source):
        raise InvalidInputError(f"{source!r} is in object storage: faissbase demote moves it into a folder")
    path = Path(source)
    return (path.parent if "/" in source.rstrip("/") else data), check_name(path.name)


def _target(args: argparse.Namespace) -> tuple[Path, str]:
    """The folder that a collection is to be in, and its name."""
    if not is_url(args.source):
        folder, name = _split(args.source, args.data)
        if args.to is not None and args.to != folder:
            raise InvalidInputError(f"{args.source!r} goes back to {folder}: --to is for URL/COLLECTION")
        return folder, name
    if args.to is None:
        raise InvalidInputError("where to? give --to FOLDER")
    return args.to, check_name(args.source.rstrip("/").rpartition("/")[2])


def _found(db: Database, name: str) -> Config:
    names = db.list_collections()
    if name not in names:
        raise NotFoundError(f"no collection {name!r}; there are: {', '.join(names[:20]) or 'none'}")
    return db.describe(name)


def _wanted(db: Database, name: str, source: str) -> tuple[Config, str]:
    """What the collection is to be, and the URL of its dataset."""
    if not is_url(source):
        config = _found(db, name)
        url = db.url(config)
        if url is None:
            raise ConflictError(f"collection {name!r} is in {db.path} already")
        return config, url
    base, _, there = source.rstrip("/").rpartition("/")
    url = f"{open_bucket(base).url}/{there}"
    if name in db.list_collections() and db.url(db.describe(name)) == url:
        return db.describe(name), url
    manifest = Dataset(open_bucket(base), there).latest()
    if manifest is None:
        raise NotFoundError(f"no collection {there!r} in {base}")
    return manifest.config, url


def _work(db: Database, config: Config) -> Path:
    """Where a move of this collection keeps what is not finished."""
    return db.path / _WORK / f"{db.tenant}-{config.uuid}"


def _answer(verb: str, name: str, where: str, move: Move, started: float, *, is_copy: bool) -> Answer:
    seconds = time.perf_counter() - started
    document = {"collection": name, "to": where, "is_copy": is_copy, "seconds": seconds, **asdict(move)}
    how = "copied" if is_copy else verb
    lines = [
        f"{how} {name!r} to {where}: {text.count(move.n_records, 'record')}, each compared, "
        f"in {text.duration(seconds)}"
    ]
    return Answer(document, lines)
