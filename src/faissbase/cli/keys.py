"""``faissbase keys``: API keys made, listed, rotated and revoked, before or while the server runs."""

from __future__ import annotations

import argparse
import re
import time
from datetime import datetime
from typing import Any

from faissbase.cli.arguments import (
    Commands,
    Parser,
    add_command,
    add_data_option,
    add_output_options,
    open_database,
    option_type,
)
from faissbase.cli.console import Answer, Console
from faissbase.database.database import connect
from faissbase.errors import InvalidInputError
from faissbase.server.keys import SCOPES, Key, Keys

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd])\Z")


def add(commands: Commands) -> None:
    command = add_command(
        commands,
        "keys",
        run,
        summary="make, list, rotate and revoke API keys of the server",
        about="API keys of the server. A key belongs to a tenant and has scopes: read, write\n"
        "(includes read), admin (includes both, and manages the tenant's keys). It is\n"
        "shown once, when it is made: only a hash is kept. What is changed here holds\n"
        "from the next request of a running server on.",
        examples=[
            "faissbase keys create --tenant acme --scopes read,write",
            "faissbase keys create --tenant acme --scopes read --index docs --expires 30d --json",
            "faissbase keys list",
            "faissbase keys rotate 1f0c9a2b4d5e --grace 1h",
        ],
        exit_codes="0 done; 2 a wrong scope, tenant or time; 3 no such key",
    )
    add_data_option(command)
    actions = command.add_subparsers(metavar="ACTION", dest="action", parser_class=Parser, required=True)
    create = actions.add_parser("create", help="make a key and show it, this once")
    create.add_argument("--tenant", required=True, help="whose collections the key opens")
    create.add_argument("--scopes", required=True, type=_scopes, help=f"of {', '.join(SCOPES)}, with commas")
    create.add_argument("--name", default="", help="what it is for, to be read in lists")
    create.add_argument("--index", action="append", help="only this index; may be given again (default: all)")
    create.add_argument(
        "--expires", type=_span, metavar="SPAN", help="such as 90s, 15m, 12h, 30d (default: never)"
    )
    shown = actions.add_parser("list", help="every key, without its secret")
    shown.add_argument("--tenant", help="of this tenant alone")
    rotate = actions.add_parser("rotate", help="a new key for an old one")
    rotate.add_argument("key", metavar="ID")
    rotate.add_argument(
        "--grace", type=_span, default=0.0, metavar="SPAN", help="how long the old one is good yet"
    )
    revoke = actions.add_parser("revoke", help="have a key end at once")
    revoke.add_argument("key", metavar="ID")
    for action in (create, shown, rotate, revoke):
        add_data_option(action)
        add_output_options(action, argparse.SUPPRESS)


@option_type
def _scopes(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


@option_type
def _span(text: str) -> float:
    found = _SPAN.match(text)
    if found is None:
        raise InvalidInputError(f"a span is a number with s, m, h or d, such as 12h, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def run(args: argparse.Namespace, console: Console) -> Answer:
    # A folder of keys alone would be no database; only where a key is made is one made too.
    (connect(args.data) if args.action == "create" else open_database(args.data, read_only=True)).close()
    keys = Keys(args.data)
    try:
        return _RUNS[args.action](args, keys)
    finally:
        keys.close()


def _create(args: argparse.Namespace, keys: Keys) -> Answer:
    made = keys.create(
        args.tenant, args.scopes, name=args.name, indexes=args.index, expires_in_s=args.expires
    )
    return _made(*made)


def _made(key: Key, text: str) -> Answer:
    lines = [text, f"key {key.id} of tenant {key.tenant}: this is the only time it is shown"]
    return Answer({**_document(key), "key": text}, lines)


def _list(args: argparse.Namespace, keys: Keys) -> Answer:
    found = keys.all(args.tenant)
    lines = [_line(key) for key in found] or ["no keys yet: faissbase keys create makes one"]
    return Answer({"keys": [_document(key) for key in found]}, lines)


def _line(key: Key) -> str:
    scopes = ",".join(sorted(key.scopes, key=SCOPES.index))
    state = key.state_at(time.time())
    until = f" until {datetime.fromtimestamp(key.expires_s):%Y-%m-%d %H:%M}" if key.expires_s else ""
    only = f" only {','.join(sorted(key.indexes))}" if key.indexes is not None else ""
    return f"{key.id}  {key.tenant}  {scopes}  {state}{until}{only}  {key.name}".rstrip()


def _rotate(args: argparse.Namespace, keys: Keys) -> Answer:
    return _made(*keys.rotate(args.key, grace_s=args.grace))


def _revoke(args: argparse.Namespace, keys: Keys) -> Answer:
    key = keys.revoke(args.key)
    return Answer(_document(key), [f"key {key.id} of tenant {key.tenant} is revoked"])


_RUNS = {"create": _create, "list": _list, "rotate": _rotate, "revoke": _revoke}


def _document(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": sorted(key.scopes, key=SCOPES.index),
        "indexes": None if key.indexes is None else sorted(key.indexes),
        "state": key.state_at(time.time()),
        "created_s": key.created_s,
        "expires_s": key.expires_s,
    }
