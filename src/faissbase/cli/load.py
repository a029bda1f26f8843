"""``faissbase load``: a file into a collection."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import asdict
from pathlib import Path

from faissbase.cli import text
from faissbase.cli.arguments import (
    COLLECTION_HELP,
    Commands,
    add_command,
    add_data_option,
    add_tenant_option,
    whole,
)
from faissbase.cli.console import Answer, Console
from faissbase.collection.collection import LocalCollection
from faissbase.collection.transfer import INDEX_FILES, LoadReport
from faissbase.database.database import Database, connect
from faissbase.errors import FaissbaseError, InvalidInputError, NotFoundError
from faissbase.storage.tables.open import peek_dimension
from faissbase.types import MAX_DIMENSION, METRICS

_ABOUT = """\
Load a file of vectors into a collection, which is made where there is none.

Rows replace stored records of the same id. Memory stays constant however long
the file is. What was loaded stays loaded: interrupted, the same command goes
on where it stopped.

formats:
  .parquet .arrow .ipc .feather
  .jsonl .ndjson .csv .tsv (also with .gz)
       columns id, vector and document; all other columns are metadata; an
       empty document in CSV or TSV is none
  .npy .npz:KEY .fvecs .bvecs
       vectors alone; ids, metadata and documents come from --rows FILE (one
       of the formats above) or FILE.rows.jsonl, else row numbers are the ids
  .faiss .index
       an index that FAISS has written, read whole: its vectors, as exact as it
       keeps them, under its own ids; metadata as above; a new collection needs
       --metric"""

_EXAMPLES = [
    "faissbase load vectors.npy docs",
    "faissbase load papers.parquet papers --metric ip --vector-column embedding --document-column abstract",
    "faissbase load sift.npz:train sift --metric l2 --rows sift.csv --data ./sift-data",
]


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "load",
        run,
        summary="load a file of vectors into a collection",
        about=_ABOUT,
        examples=_EXAMPLES,
        exit_codes="0 loaded; 2 the file does not fit; 3 no such file; 4 storage; 130 interrupted, run again",
    )
    parser.add_argument("file", metavar="FILE", help="what to load")
    parser.add_argument("collection", metavar="COLLECTION", help=COLLECTION_HELP)
    add_data_option(parser)
    add_tenant_option(parser)
    parser.add_argument(
        "--dimension",
        type=whole,
        metavar="D",
        help=f"numbers in a vector, at most {MAX_DIMENSION:,} (default: as in FILE)",
    )
    parser.add_argument("--metric", choices=METRICS, help="of a new collection (default: cosine)")
    about = "of a new collection: auto, Flat, HNSW, IVF_PQ, a FAISS class or factory string (default: auto)"
    parser.add_argument("--index-type", metavar="TYPE", help=about)
    parser.add_argument("--rows", metavar="FILE", help="ids, metadata and documents, row by row")
    for column in ("id", "vector", "document"):
        parser.add_argument(
            f"--{column}-column", metavar="NAME", default=column, help=f"where it is not {column!r}"
        )
    parser.add_argument("--batch-rows", type=whole, metavar="N", help="rows in a commit (default: 16 MiB)")
    parser.add_argument(
        "--restart", action="store_true", help="from the first row, even after an interruption"
    )


def run(args: argparse.Namespace, console: Console) -> Answer:
    dimension = args.dimension or peek_dimension(args.file, args.vector_column, INDEX_FILES)
    with connect(args.data, tenant=args.tenant) as db:
        collection, is_new = _collection(db, args, dimension)
        n_before = len(collection)
        try:
            report = _load(collection, args, console)
        except FaissbaseError:
            if is_new and not len(collection):
                db.delete_collection(collection.name)
            raise
        return _answer(report, collection, is_new, n_before)


def _collection(db: Database, args: argparse.Namespace, dimension: int) -> tuple[LocalCollection, bool]:
    """The collection, and whether it was made just now."""
    try:
        found = db.get_collection(args.collection)
    except NotFoundError:
        if args.metric is None and Path(args.file).suffix.lower() in INDEX_FILES:
            raise InvalidInputError(
                f"{args.file} is an index of FAISS, and {args.collection!r} is new: give --metric l2, ip or "
                "cosine, as the index compares"
            ) from None
        kind = args.index_type or "auto"
        return db.create_collection(args.collection, dimension, args.metric or "cosine", kind), True
    metric, kind = args.metric or found.metric, args.index_type or found.index_type
    return db.get_or_create_collection(args.collection, dimension, metric, kind), False


def _load(collection: LocalCollection, args: argparse.Namespace, console: Console) -> LoadReport:
    try:
        return collection.load_file(
            args.file,
            rows=args.rows,
            id_column=args.id_column,
            vector_column=args.vector_column,
            document_column=args.document_column,
            batch_rows=args.batch_rows,
            restart=args.restart,
            progress=console.shows_progress,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(collection, args.words)) from None


def _how_to_go_on(collection: LocalCollection, words: list[str]) -> str:
    command = shlex.join(["faissbase", *(word for word in words if word != "--restart")])
    stored = text.count(len(collection), "record")
    return f"interrupted; {collection.name!r} holds {stored}, and this goes on where it stopped: {command}"


def _answer(report: LoadReport, collection: LocalCollection, is_new: bool, n_before: int) -> Answer:
    seconds = max(report.seconds, 1e-9)
    n_replaced = max(0, report.n_rows - (len(collection) - n_before))  # others may write beside
    speed = f"{text.rate(report.n_rows / seconds)}, {report.vectors_bytes / seconds / 1e6:.1f} MB/s"
    document = {
        "collection": collection.name,
        "is_new": is_new,
        "dimension": collection.dimension,
        "metric": collection.metric,
        "ntotal": len(collection),
        "n_replaced": n_replaced,
        **asdict(report),
    }
    lines = []
    if report.n_resumed:
        lines.append(f"went on after {text.count(report.n_resumed, 'row')} of an earlier run")
    verb = "new collection" if is_new else "collection"
    lines += [
        f"loaded {text.count(report.n_rows, 'row')} in {text.duration(report.seconds)} ({speed})",
        f"{verb} {collection.name!r} holds {text.count(len(collection), 'record')}, "
        f"d={collection.dimension}, {collection.metric}",
    ]
    if n_replaced:
        lines.append(
            f"{text.count(n_replaced, 'row')} replaced a record of the same id; "
            "a file without ids numbers its rows from 0 on"
        )
    return Answer(document, lines)
