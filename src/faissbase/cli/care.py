"""``faissbase verify`` and ``repair``: finding damage, and making whole what can be made whole."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

from faissbase.cli import text
from faissbase.cli.arguments import (
    COLLECTION_HELP,
    Commands,
    add_command,
    add_data_option,
    add_tenant_option,
    add_yes_option,
    open_database,
)
from faissbase.cli.console import Answer, Console
from faissbase.database.catalog import repair_catalog
from faissbase.database.database import Database
from faissbase.errors import InvalidInputError
from faissbase.types import RepairReport, VerifyReport

_FOUND = 1
_SHOWN = 20


def add(commands: Commands) -> None:
    verify = add_command(
        commands,
        "verify",
        run_verify,
        summary="read every byte and tell what is damaged",
        about="Read every byte of a collection, check every checksum and that its files\n"
        "agree. Changes nothing; others may go on reading and writing meanwhile.\n"
        "Without COLLECTION: all of them, and the catalog.",
        examples=["faissbase verify", "faissbase verify docs --json"],
        exit_codes="0 all is well; 1 damage was found; 3 no such collection; 5 the catalog cannot be read",
    )
    verify.add_argument("collection", metavar="COLLECTION", nargs="?", help="one of them (default: all)")
    add_data_option(verify)
    add_tenant_option(verify)
    repair = add_command(
        commands,
        "repair",
        run_repair,
        summary="rebuild what is derived, put damaged records aside",
        about="Rebuild what can be rebuilt and move damaged records into a quarantine file,\n"
        "one JSON object a line; nothing is made up. Verifies at the end.\n\n"
        "Without COLLECTION: make the catalog again from the collections in the folder.\n\n"
        "No other process may have the collection open meanwhile. Asks first.",
        examples=["faissbase repair docs", "faissbase repair --yes --data /srv/vectors"],
        exit_codes="0 all is well now; 1 damage is left; 2 not confirmed; 3 no such collection",
    )
    repair.add_argument("collection", metavar="COLLECTION", nargs="?", help=COLLECTION_HELP)
    add_data_option(repair)
    add_tenant_option(repair)
    add_yes_option(repair)


def run_verify(args: argparse.Namespace, console: Console) -> Answer:
    with open_database(args.data, read_only=True, tenant=args.tenant) as db:
        names = db.list_collections() if args.collection is None else [args.collection]
        catalog = db.verify_catalog() if args.collection is None else []
        checked = [_verified(db, name, console) for name in names]
    is_ok = all(report.ok for _, report, _ in checked) and not catalog
    lines = [text.printable(f"catalog: {problem.where}: {problem.message}") for problem in catalog]
    lines += [line for found in checked for line in _verify_lines(*found)]
    document = {"ok": is_ok, "collections": [_verify_document(*found) for found in checked]}
    document["catalog"] = [asdict(problem) for problem in catalog]
    return Answer(document, lines or [f"{args.data} holds no collection yet"], 0 if is_ok else _FOUND)


def _verified(db: Database, name: str, console: Console) -> tuple[str, VerifyReport, float]:
    collection = db.get_collection(name)
    if console.shows_progress:
        console.note(f"reading {name} ...")
    started = time.perf_counter()
    report = collection.verify()
    return name, report, time.perf_counter() - started


def _verify_document(name: str, report: VerifyReport, seconds: float) -> dict[str, Any]:
    return {"name": name, "ok": report.ok, "seconds": seconds, **asdict(report)}


def _verify_lines(name: str, report: VerifyReport, seconds: float) -> list[str]:
    rows = text.count(report.rows_checked, "record")
    if report.ok:
        return [f"{name}: ok, {rows} checked in {text.duration(seconds)}"]
    n = len(report.problems)
    lines = [f"{name}: {text.count(n, 'problem')}, {rows} checked in {text.duration(seconds)}"]
    lines += [f"  {problem.kind}: {problem.where}: {problem.message}" for problem in report.problems[:_SHOWN]]
    if n > _SHOWN:
        lines.append(f"  ... and {n - _SHOWN:,} more (--json shows all)")
    return [*map(text.printable, lines), f"  to put it right: faissbase repair {name}"]


def run_repair(args: argparse.Namespace, console: Console) -> Answer:
    if args.collection is None:
        return _repair_catalog(args, console)
    with open_database(args.data, read_only=False, tenant=args.tenant) as db:
        collection = db.get_collection(args.collection)
        if not args.yes and not console.confirm(_question(args.collection)):
            raise InvalidInputError("not confirmed: nothing was changed")
        report = collection.repair()
        checked = _verified(db, args.collection, console)
    is_ok = checked[1].ok
    document = {"ok": is_ok, "collection": args.collection, **asdict(report)}
    document["problems"] = asdict(checked[1])["problems"]
    lines = [*_repair_lines(args.collection, report), *_verify_lines(*checked)]
    return Answer(document, lines, 0 if is_ok else _FOUND)


def _repair_catalog(args: argparse.Namespace, console: Console) -> Answer:
    if not args.yes and not console.confirm(f"Make the catalog of {args.data} again from its collections?"):
        raise InvalidInputError("not confirmed: nothing was changed")
    names = repair_catalog(args.data)
    document = {"ok": True, "collections": names}
    return Answer(document, [f"made the catalog of {args.data} again: {', '.join(names)}"])


def _question(name: str) -> str:
    return f"Repair {name!r}? No other process may have it open meanwhile."


def _repair_lines(name: str, report: RepairReport) -> list[str]:
    lines = [f"{name}: {text.printable(action)}" for action in report.actions]
    if report.quarantine_path is not None:
        shown = ", ".join(text.printable(id) for id in report.quarantined_ids[:_SHOWN])
        more = ", ..." if len(report.quarantined_ids) > _SHOWN else ""
        lines += [f"  quarantined: {shown}{more}", f"  they are kept in {report.quarantine_path}"]
    return lines or [f"{name}: nothing to put right"]
