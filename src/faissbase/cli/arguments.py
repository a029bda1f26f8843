"""What commands share on their command lines: the parser, common options, and words turned into values."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, TypeVar

import orjson

from faissbase.cli.console import Answer, Console
from faissbase.collection.folder import check_name
from faissbase.connecting import at_home, connect_folder
from faissbase.database.database import DEFAULT_TENANT, Database
from faissbase.errors import InvalidInputError, NotFoundError

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
Run: TypeAlias = Callable[[argparse.Namespace, Console], Answer]

T = TypeVar("T")

_AMOUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "b": 10**9}
_AMOUNT_MAX = 10**18

DATA_VARIABLE = "FAISSBASE_DATA"
DEFAULT_DATA = "./data"

COLLECTION_HELP = "name of the collection"
WHERE_HELP = """filter on metadata, as JSON: '{"section": "games", "size": {"$lt": 100}}'"""


def option_type(convert: Callable[[str], T]) -> Callable[[str], T]:
    """``convert`` for argparse, which would replace the words of any other error by its own."""

    @wraps(convert)
    def checked(text: str) -> T:
        try:
            return convert(text)
        except InvalidInputError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


class Parser(argparse.ArgumentParser):
    """Complains by raising, so that a wrong option is reported like any other error."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise InvalidInputError(f"{message}; see {self.prog} --help")


def add_command(
    commands: Commands,
    name: str,
    run: Run,
    *,
    summary: str,
    about: str,
    examples: Sequence[str],
    exit_codes: str,
) -> Parser:
    """A command with its help: ``summary`` in the list of commands, the rest in its own."""
    shown = "\n".join(f"  {line}" for line in examples)
    parser = commands.add_parser(
        name,
        help=summary,
        description=about,
        epilog=f"examples:\n{shown}\n\nexit codes:\n  {exit_codes}\n  (all of them: faissbase --help)",
    )
    parser.set_defaults(run=run)
    add_output_options(parser, argparse.SUPPRESS)
    return parser


def add_output_options(parser: argparse.ArgumentParser, default: Any) -> None:
    """``--json`` and ``--quiet``, which may stand before and after the command."""
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON document, for programs"
    )
    parser.add_argument(
        "--quiet", action="store_true", default=default, help="no progress bars and no remarks on stderr"
    )


def add_data_option(
    parser: argparse.ArgumentParser,
    default: Any = argparse.SUPPRESS,
    shown: str = f"${DATA_VARIABLE}, else {DEFAULT_DATA}",
) -> None:
    """``--data``, which may stand before and after the command; ``shown`` is its default in words."""
    about, folder = f"the database's folder (default: {shown})", option_type(data_folder)
    parser.add_argument("--data", metavar="FOLDER", type=folder, default=default, help=about)


def add_tenant_option(parser: argparse.ArgumentParser) -> None:
    about = "whose collections, in a folder that is served (default: those of faissbase.connect)"
    parser.add_argument("--tenant", type=_tenant, default=DEFAULT_TENANT, metavar="NAME", help=about)


@option_type
def _tenant(text: str) -> str:
    return check_name(text, "tenant")


def default_data() -> Path:
    """The folder where no ``--data`` was given."""
    return data_folder(os.environ.get(DATA_VARIABLE) or DEFAULT_DATA)


def data_folder(text: str) -> Path:
    """A database's folder."""
    if not text or text == ":memory:" or "://" in text:
        raise InvalidInputError(f"a database on the command line is a folder, got {text!r}")
    return at_home(text)


def add_yes_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask first")


def open_database(folder: Path, *, read_only: bool, tenant: str = DEFAULT_TENANT) -> Database:
    """The database in ``folder``, which must be there.

    Raises
    ------
    NotFoundError
        No database there; says how to come by one.
    """
    try:
        found = connect_folder(folder, read_only=True, tenant=tenant)
    except NotFoundError as error:
        raise NotFoundError(
            f"{error}: give --data FOLDER or set {DATA_VARIABLE} (faissbase demo makes one to try)"
        ) from error
    if read_only:
        return found
    found.close()
    return connect_folder(folder, tenant=tenant)


@option_type
def as_filter(text: str) -> dict[str, Any]:
    """A filter from the command line."""
    value = parse_json(text, "a filter")
    if not isinstance(value, dict):
        raise InvalidInputError(f"a filter is a JSON object, got {text!r}")
    return value


def parse_json(text: str, what: str) -> Any:
    """The JSON that ``what`` was given as; ``-`` reads it from stdin."""
    source = sys.stdin.read() if text == "-" else text
    try:
        return orjson.loads(source)
    except orjson.JSONDecodeError as error:
        shown = source if len(source) <= 60 else source[:60] + "..."
        raise InvalidInputError(
            f"{what} must be JSON ({error}), got {shown!r}; in a shell, put it in single quotes"
        ) from error


@option_type
def fraction(text: str) -> float:
    """A number above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise InvalidInputError(f"expected a number above 0 and at most 1, got {text!r}")
    return value


@option_type
def whole(text: str) -> int:
    """A whole number of 1 or more."""
    if not (text.isascii() and text.isdigit() and int(text) >= 1):
        raise InvalidInputError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


@option_type
def amount(text: str) -> int:
    """A whole number of 1 or more, also as ``1e9``, ``2.5M``, ``1_000_000`` or ``1,000,000``."""
    words = text.strip().replace("_", "").replace(",", "").lower()
    unit = words[-1:] if words[-1:].isalpha() else ""
    try:
        value = Decimal(words.removesuffix(unit)) * _AMOUNTS[unit]
    except (ArithmeticError, KeyError):
        value = Decimal(0)
    if not (value.is_finite() and 1 <= value < _AMOUNT_MAX and value == value.to_integral_value()):
        raise InvalidInputError(f"expected a whole number such as 1000000, 1e6 or 1M, got {text!r}")
    return int(value)


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@option_type
def byte_count(words: str) -> int:
    """A number of bytes: ``2GB``, ``500MB``, ``1000000``."""
    number = words.strip().lower().removesuffix("b")
    unit = number[-1:] if number[-1:].isalpha() else ""
    try:
        value = float(number.removesuffix(unit)) * _UNITS[unit]
    except (ValueError, KeyError):
        value = 0.0
    if not 1 <= value < 1e18:
        raise InvalidInputError(f"expected a size such as 2GB or 500MB, got {words!r}")
    return int(value)
