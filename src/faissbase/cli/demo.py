"""``faissbase demo``: shows the steps of `demo.run` as a person can judge them."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from faissbase.cli import text
from faissbase.cli.arguments import Commands, add_command, add_data_option, data_folder
from faissbase.cli.console import Answer, Console
from faissbase.collection.collection import LocalCollection
from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.database.database import Database, connect
from faissbase.demo import run as steps
from faissbase.demo.dataset import DemoQueries, demo_shape, load_queries
from faissbase.types import Hit

DEFAULT_DATA = "./demo-data"

_N_TIMED = 200
_HITS = 5
_HITS_BEFORE_FILTER = 3
_FILTER = {"section": "python"}
_WIDTH = 110
_RECALLS = (0.9, DEFAULT_RECALL, 0.99, 1.0)


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        run,
        summary="load 42,000 real records, search them, measure it",
        about="Load the packaged data set into the collection 'debian': 42,000 Debian packages\n"
        "with text, metadata and embeddings of 384 numbers. Ask it six questions with and\n"
        "without filters, compare with stored exact answers, measure, build the index and\n"
        "measure that. Takes half a minute and 150 MB of disk. The folder stays, for trying\n"
        "more; run again, it is used.",
        examples=[
            "faissbase demo",
            "faissbase demo --data /tmp/demo --fresh",
            "faissbase search debian --data ./demo-data --text sudoku     # afterwards",
        ],
        exit_codes="0 shown; 2 FOLDER holds something else; 4 storage; 130 interrupted, run again",
    )
    add_data_option(parser, shown=DEFAULT_DATA)
    parser.set_defaults(default_data=lambda: data_folder(DEFAULT_DATA))
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--keep", action="store_true", help="use the records that are there (default)")
    kept.add_argument("--fresh", action="store_true", help="delete the collection 'debian' first")


def run(args: argparse.Namespace, console: Console) -> Answer:
    started = time.perf_counter()
    with connect(args.data) as db:
        tour = _Tour(db, args, console)
        tour.load()
        tour.questions()
        tour.explain()
        tour.words()
        tour.recall()
        tour.index()
        tour.speed()
    seconds = time.perf_counter() - started
    document = {"data": str(args.data), "collection": steps.COLLECTION, **tour.document, "seconds": seconds}
    return Answer(document, _what_next(args.data, seconds))


class _Tour:
    """The demo under way: shows each step when it is done and keeps its findings in ``document``."""

    def __init__(self, db: Database, args: argparse.Namespace, console: Console) -> None:
        self.document: dict[str, Any] = {}
        self._db = db
        self._console = console
        n, d = demo_shape()
        console.show(f"{n:,} Debian packages: text, metadata, embeddings of {d} numbers", "")
        self._collection: LocalCollection = steps.open_collection(db, fresh=args.fresh)
        self._queries: DemoQueries = load_queries()
        self._ids: list[str] = []

    def _show(self, *lines: str) -> None:
        self._console.show(*(text.clip(line, self._console.width) for line in lines))

    def load(self) -> None:
        n = demo_shape()[0]
        hidden = not self._console.shows_progress
        with tqdm(total=n, desc="load", unit=" records", unit_scale=True, leave=False, disable=hidden) as bar:
            loaded = steps.load(self._collection, bar.update)
        self._ids = loaded.ids
        where = f"into {self._collection.name!r} in {self._db.path}"
        if loaded.n_new:
            took = f"{text.duration(loaded.seconds)} ({text.rate(loaded.n_new / loaded.seconds)})"
            self._show(f"LOAD  {text.count(loaded.n_new, 'record')} {where} in {took}")
        else:
            self._show(f"LOAD  all records are there already, in {self._db.path} (--fresh loads them anew)")
        self.document["load"] = {
            "n_new": loaded.n_new,
            "seconds": loaded.seconds,
            "size_bytes": loaded.size_bytes,
        }

    def questions(self) -> None:
        answered = steps.answers(self._collection, self._queries, _HITS)
        self._show("", "SEARCH  first sentences of packages that are not there: what is near?")
        for number, answer in enumerate(answered, 1):
            self._show(*_question_lines(number, answer, len(self._ids), self._console.width or _WIDTH))
        self.document["questions"] = [
            {
                "question": answer.text,
                "where": answer.question.where,
                "n_matching": answer.n_matching,
                "hits": _hit_documents(answer.hits),
                "filtered_hits": answer.filtered_hits and _hit_documents(answer.filtered_hits),
            }
            for answer in answered
        ]

    def explain(self) -> None:
        questions = self._queries.questions
        number = next(i for i, question in enumerate(questions) if question.where is not None)
        xq = self._queries.query_vectors[questions[number].query]
        explanation = self._collection.explain(xq, steps.K, questions[number].where)
        title = f"EXPLAIN  question {number + 1} with its filter, k={steps.K}"
        self._show("", title, *_indented(str(explanation).splitlines()))

    def words(self) -> None:
        question = self._queries.questions[steps.HYBRID_QUESTION]
        xq = self._queries.query_vectors[question.query]
        by_text = self._collection.text_search(steps.TEXT, _HITS)
        by_both = self._collection.hybrid_search(steps.HYBRID_TEXT, xq, _HITS)
        title = f"TEXT  {steps.TEXT!r} in the descriptions, ranked by BM25"
        self._show("", title, *_hit_lines(by_text, "  "))
        both = f"the vector of question {steps.HYBRID_QUESTION + 1} and the word {steps.HYBRID_TEXT!r}"
        self._show("", f"HYBRID  {both}, both rankings fused", *_hit_lines(by_both, "  "))
        self.document["text"] = {"text": steps.TEXT, "hits": _hit_documents(by_text)}
        self.document["hybrid"] = {"text": steps.HYBRID_TEXT, "hits": _hit_documents(by_both)}

    def recall(self) -> None:
        found = steps.recalls(self._collection, self._queries, self._ids, wanted=1.0)
        rows = [["recall@10", "filter"]]
        for each in found:
            shown = "none" if each.filter is None else _json(self._queries.filters[each.filter])
            rows.append([f"{each.recall:.4f}", shown])
        n = len(self._queries.query_texts)
        title = f"RECALL  of exact search, against answers computed in float64, {n} questions a line"
        self._show("", title, *_indented(text.table(rows, "><")))
        self.document["recall_at_10"] = {each.filter or "unfiltered": each.recall for each in found}

    def speed(self) -> None:
        xq = self._queries.query_vectors
        speed = {
            "single": steps.time_singles(self._collection, xq[:_N_TIMED]),
            "filtered": steps.time_singles(self._collection, xq[:_N_TIMED], _FILTER),
            "durable_upsert": steps.time_durable_upserts(self._db, xq),
        }
        batch = steps.time_batch(self._collection, xq)
        title = f"SPEED  on this machine, now; exact search, k={steps.K}, with metadata and text"
        self._show("", title, *_speed_lines(speed, batch, len(xq)))
        times = {name: asdict(latency) for name, latency in speed.items()}
        self.document["speed"] = {**times, "batch_queries_per_s": batch}

    def index(self) -> None:
        """Build the index to the end, and show what it gives for what is asked."""
        started = time.perf_counter()
        self._collection.optimize(progress=self._console.shows_progress)
        seconds = time.perf_counter() - started
        asked = [self._asked(wanted) for wanted in _RECALLS]
        xq, section = self._queries.query_vectors, _FILTER
        filtered = steps.recalls(self._collection, self._queries, self._ids, wanted=DEFAULT_RECALL)
        worst = min(filtered, key=lambda each: each.recall)
        rows = [["asked", "recall@10", "one query", "500 at once"], *(row for row, _ in asked)]
        stats = self._collection.stats()
        title = f"INDEX  {stats.index}, built on from the background in {text.duration(seconds)}"
        lines = [
            f"worst recall with a filter, {DEFAULT_RECALL:g} asked: {worst.recall:.4f}",
            f"one query with {_json(section)}: "
            + _latency(steps.time_singles(self._collection, xq[:_N_TIMED], section, DEFAULT_RECALL)),
        ]
        self._show("", title, *_indented(text.table(rows, ">>>>")), *_indented(lines))
        self.document["index"] = {
            "factory": stats.index,
            "seconds": seconds,
            "asked": [document for _, document in asked],
            "filtered_recall_at_10": {each.filter or "unfiltered": each.recall for each in filtered},
        }

    def _asked(self, wanted: float) -> tuple[list[str], dict[str, float]]:
        xq = self._queries.query_vectors
        reached = steps.unfiltered_recall(self._collection, self._queries, self._ids, wanted).recall
        single = steps.time_singles(self._collection, xq[:_N_TIMED], wanted=wanted)
        batch = steps.time_batch(self._collection, xq, wanted)
        row = [f"{wanted:g}", f"{reached:.4f}", text.duration(single.p50_s), text.rate(batch)]
        found = {"wanted": wanted, "recall": reached, "p50_s": single.p50_s, "batch_queries_per_s": batch}
        return row, found


def _speed_lines(speed: dict[str, steps.Latency], batch: float, nq: int) -> list[str]:
    durable = speed["durable_upsert"]
    pairs = {
        "one query": _latency(speed["single"]),
        "one query, filtered": f"{_latency(speed['filtered'])}, {_json(_FILTER)}",
        f"{nq} queries at once": f"{text.rate(batch)}",
        "one durable upsert": f"{_latency(durable)}, {text.rate(durable.n / durable.total_s)}; "
        "on the disk when it returns",
    }
    return text.facts(pairs)


def _question_lines(number: int, answer: steps.Answered, n: int, width: int) -> Iterator[str]:
    yield ""
    yield from textwrap.wrap(answer.text, width, initial_indent=f"  {number}  ", subsequent_indent="     ")
    yield from _wrapped(f"look for: {answer.question.comment}", width)
    if answer.filtered_hits is None:
        yield from _hit_lines(answer.hits, "       ")
        return
    yield f"     all {n:,} records"
    yield from _hit_lines(answer.hits[:_HITS_BEFORE_FILTER], "       ")
    yield from _wrapped(f"the {answer.n_matching:,} records with {_json(answer.question.where)}", width)
    yield from _hit_lines(answer.filtered_hits, "       ")


def _wrapped(line: str, width: int) -> list[str]:
    lines = textwrap.wrap(line, width - 7, break_long_words=False, break_on_hyphens=False)
    return [f"     {lines[0]}", *(f"       {more}" for more in lines[1:])]


def _hit_lines(hits: Sequence[Hit], indent: str) -> list[str]:
    rows = [[text.real(hit.score), hit.id, str(hit.metadata["summary"])] for hit in hits]
    return [indent + line for line in text.table(rows, "><<")]


def _hit_documents(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    return [{"id": hit.id, "score": hit.score, "summary": hit.metadata["summary"]} for hit in hits]


def _latency(latency: steps.Latency) -> str:
    return f"p50 {text.duration(latency.p50_s)}, p95 {text.duration(latency.p95_s)}"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def next_commands(folder: Path) -> list[str]:
    """Commands that work on the demo's folder as it is now."""
    data = f"--data {shlex.quote(str(folder))}"
    return [
        f"faissbase search debian {data} --text 'screen reader' --fields summary -k 5",
        f"""faissbase search debian {data} --id xmahjongg --where '{{"section": "games"}}' --explain""",
        f"faissbase stats debian {data}",
        f"faissbase verify {data}",
        f"faissbase bench debian {data}",
    ]


def next_python(folder: Path) -> str:
    """A program that works on the demo's folder as it is now."""
    return f"""\
import faissbase

db = faissbase.connect({json.dumps(str(folder))})
debian = db.get_collection("debian")
[moon] = debian.get(ids=["pngphoon"], include_vectors=True)
for hit in debian.search(moon.vector, k=5, where={{"installed_size": {{"$lt": 1000}}}}):
    print(f"{{hit.score:.3f}}  {{hit.id:20}} {{hit.metadata['summary']}}")"""


def _activation() -> list[str]:
    """How to put the command on the path, where this environment is not active."""
    if shutil.which("faissbase") is not None or sys.prefix == sys.base_prefix:
        return []
    return [f". {shlex.quote(os.path.relpath(sys.prefix))}/bin/activate"]


def _what_next(folder: Path, seconds: float) -> list[str]:
    return [
        "",
        f"Done in {text.duration(seconds)}. The records stay in {folder}. To go on:",
        "",
        *_indented([*_activation(), *next_commands(folder)]),
        "",
        "from Python:",
        "",
        next_python(folder),
        "",
        "To ask questions of your own, embed them with sentence-transformers/all-MiniLM-L6-v2",
        "and search with --vector '[...]'.",
    ]
