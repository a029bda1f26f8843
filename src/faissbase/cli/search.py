"""``faissbase search``: nearest records by vector, by text, by both, or by a stored record."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from faissbase.cli import text
from faissbase.cli.arguments import (
    COLLECTION_HELP,
    WHERE_HELP,
    Commands,
    add_command,
    add_data_option,
    add_tenant_option,
    as_filter,
    fraction,
    open_database,
    parse_json,
    whole,
)
from faissbase.cli.console import Answer, Console
from faissbase.cli.hits import Found, Mode, Scope
from faissbase.collection.answers import Explanation
from faissbase.collection.collection import LocalCollection
from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.types import Hit, SearchResult

_ABOUT = """\
Search a collection: by a vector, by the vector of a stored record, by words in
the documents (BM25), or by a vector and words together (both rankings fused).

Where an index is built, --recall says how many of the true nearest have to come
back; below that size, and with --recall 1, the search is exact. score: larger is
nearer. distance: exact, as FAISS gives it, squared for l2.

A filter holds fields with a value, or with $eq $ne $gt $gte $lt $lte $in $nin
$exists $contains; $and, $or and $not go around them."""

_EXAMPLES = [
    "faissbase search docs --vector '[0.1, 0.2, 0.3]' -k 5",
    """faissbase search docs --id 17 --where '{"section": "games", "size": {"$lt": 100}}' --explain""",
    "faissbase search docs --text 'screen reader' --fields title,year",
    "faissbase search docs --vector-file queries.npy --json > hits.json",
]


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "search",
        run,
        summary="search by vector, by text, by both, or by a stored record",
        about=_ABOUT,
        examples=_EXAMPLES,
        exit_codes="0 searched, with or without hits; 2 a wrong vector or filter; 3 no such collection or id",
    )
    parser.add_argument("collection", metavar="COLLECTION", help=COLLECTION_HELP)
    add_data_option(parser)
    add_tenant_option(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--vector", metavar="JSON", help="by this vector: [0.1, 0.2, ...], or - for stdin")
    source.add_argument(
        "--vector-file", metavar="FILE", help="by a .npy file: one vector, or one query a row"
    )
    source.add_argument("--id", metavar="ID", help="by the vector of this record, itself among the hits")
    parser.add_argument("--text", metavar="WORDS", help="by words in the documents")
    parser.add_argument("-k", type=whole, default=10, metavar="N", help="hits (default: 10)")
    parser.add_argument("--where", type=as_filter, metavar="JSON", help=WHERE_HELP)
    about = f"share of the true nearest that has to come back, 1 for exact (default: {DEFAULT_RECALL})"
    parser.add_argument("--recall", type=fraction, metavar="R", help=about)
    parser.add_argument("--fields", metavar="A,B", help="metadata to show (default: all)")
    parser.add_argument("--explain", action="store_true", help="show how the search was run")
    parser.add_argument("--include-vectors", action="store_true", help="show the hits' vectors too")


def run(args: argparse.Namespace, console: Console) -> Answer:
    _check(args)
    with open_database(args.data, read_only=True, tenant=args.tenant) as db:
        collection = db.get_collection(args.collection)
        queries = _queries(args, collection, console)
        found = _search(collection, queries, args)
    asked = {"collection": args.collection, "k": args.k, "where": args.where}
    fields = None if args.fields is None else args.fields.split(",")
    return Answer({**asked, **found.document()}, found.lines(fields, console.width))


def _check(args: argparse.Namespace) -> None:
    by_vector = any(option is not None for option in (args.vector, args.vector_file, args.id))
    if not by_vector and args.text is None:
        raise InvalidInputError("search by what? give --vector, --vector-file, --id or --text")
    if args.explain and args.text is not None:
        raise InvalidInputError("--explain shows how vectors are searched: leave --text away")
    if args.recall is not None and args.text is not None:
        raise InvalidInputError("--recall is for searches by a vector alone: leave --text away")


def _queries(args: argparse.Namespace, collection: LocalCollection, console: Console) -> Any:
    """What to search by, as the collection takes it; None for text alone."""
    if args.vector is not None:
        return _from_json(args.vector)
    if args.vector_file is not None:
        return _from_file(Path(args.vector_file))
    if args.id is None:
        return None
    records = collection.get(ids=args.id, include_vectors=True)
    if not records:
        raise NotFoundError(f"no record {args.id!r} in collection {args.collection!r}")
    console.note(
        f"searching by the vector of {text.printable(args.id)!r}, which may be among the hits itself"
    )
    return records[0].vector


def _from_json(text: str) -> list[Any]:
    vector = parse_json(text, "--vector")
    if not isinstance(vector, list):
        raise InvalidInputError(f"--vector is a JSON array of numbers, got {type(vector).__name__}")
    return vector


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise NotFoundError(f"no file {path}")
    try:
        vectors = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InvalidInputError(f"{path} is not a .npy file of numbers") from error
    if not isinstance(vectors, np.ndarray):
        raise InvalidInputError(f"{path} holds several arrays: give a .npy file of one")
    return vectors


def _search(collection: LocalCollection, queries: Any, args: argparse.Namespace) -> Found:
    ntotal = len(collection)
    started = time.perf_counter()
    mode, result, explanation = _ask(collection, queries, args)
    seconds = time.perf_counter() - started
    hits = [result] if isinstance(result, list) else list(result)
    vectors = _vectors(collection, hits) if args.include_vectors else {}
    scope = Scope(collection.metric, ntotal, is_filtered=bool(args.where))
    return Found(mode, scope, hits, seconds, vectors, explanation)


def _ask(
    collection: LocalCollection, queries: Any, args: argparse.Namespace
) -> tuple[Mode, list[Hit] | SearchResult, Explanation | None]:
    if queries is None:
        return "text", collection.text_search(args.text, args.k, args.where), None
    if args.text is not None:
        return "hybrid", collection.hybrid_search(args.text, queries, args.k, args.where), None
    if args.explain:
        explanation = collection.explain(queries, args.k, args.where, recall=args.recall)
        return "vector", explanation.result, explanation
    return "vector", collection.search(queries, args.k, args.where, recall=args.recall), None


def _vectors(collection: LocalCollection, hits: list[list[Hit]]) -> dict[str, list[float]]:
    ids = sorted({hit.id for of_query in hits for hit in of_query})
    records = collection.get(ids=ids, include_vectors=True) if ids else []
    return {record.id: record.vector.tolist() for record in records if record.vector is not None}
