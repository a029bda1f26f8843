"""The command ``faissbase``: reads the command line, runs a command, turns its end into an exit code."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from faissbase._version import __version__
from faissbase.cli.console import Console
from faissbase.errors import FaissbaseError, InternalError, InvalidInputError, UnavailableError

if TYPE_CHECKING:
    from faissbase.cli.arguments import Parser

EXIT_CODES = {
    "invalid_input": 2,
    "already_exists": 2,
    "conflict": 2,
    "not_found": 3,
    "unavailable": 4,
    "not_ready": 4,
    "access": 4,
    "error": 4,
    "corruption": 5,
    "internal": 6,
}
INTERRUPTED = 130
BROKEN_PIPE = 141
DEBUG_VARIABLE = "FAISSBASE_DEBUG"

_ABOUT = """\
FAISS made into a database: string ids, metadata, filters, durable writes, measured recall, in one folder."""

_EPILOG = """\
examples:
  faissbase demo                                  42,000 real records, searched and measured
  faissbase load vectors.npy docs                 make a collection from a file
  faissbase search docs --id 17 -k 5              what is near record 17
  faissbase search --help                         more about one command

exit codes:
  0    fine
  1    verify or repair found something wrong
  2    the call is wrong: an option, a file, a filter, a name that is taken
  3    no such database, collection, record or file
  4    storage cannot serve now: disk full, not allowed, locked, an extra not installed
  5    data is damaged: see faissbase verify and faissbase repair
  6    a bug in faissbase
  130  interrupted with Ctrl-C
  141  whoever read the output has gone

Errors are one line on stderr; with --json also {"error": {"code", "message"}} on stdout.

environment:
  FAISSBASE_DATA    the database's folder where --data is not given
  FAISSBASE_COSTS   the file of `faissbase bench calibrate` that `faissbase plan` counts with
  FAISSBASE_DEBUG   1 shows the traceback of an error"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _replace_closed_streams()
    console = Console(as_json="--json" in arguments, is_quiet="--quiet" in arguments)
    try:
        return _run(arguments, console)
    except SystemExit as end:  # argparse, after --help and --version
        return int(end.code or 0)
    except KeyboardInterrupt as interrupt:
        console.fail("interrupted", str(interrupt) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:  # the outermost handler: people get a line, not a traceback
        if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0"):
            raise
        ours = _as_ours(error)
        console.fail(ours.kind, str(ours))
        return EXIT_CODES[ours.kind]
    finally:
        _settle_output()


def _replace_closed_streams() -> None:
    """Python has None for a stream that was closed before it started."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # stays open to the end


def _settle_output() -> None:
    """Flush, or let go of what cannot be written: Python flushes once more at its end and would complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str], console: Console) -> int:
    parser = build_parser()
    if not arguments:
        parser.print_help()
        return EXIT_CODES["invalid_input"]
    options = parser.parse_args(arguments, Namespace(words=arguments))
    if options.command is None:
        raise InvalidInputError("give a command; see faissbase --help")
    if options.data is None:
        options.data = options.default_data()
    with console.alone_on_stdout():
        answer = options.run(options, console)
    console.give(answer)
    return int(answer.exit_code)


def build_parser() -> Parser:
    """The parser of all commands; their modules come with it, so that Ctrl-C is told while they load too."""
    from faissbase.cli import (
        bench,
        care,
        collections,
        copies,
        demo,
        keys,
        load,
        plan,
        promote,
        search,
        serve,
        shards,
    )
    from faissbase.cli.arguments import Parser, add_data_option, add_output_options, default_data

    parser = Parser(prog="faissbase", description=_ABOUT, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"faissbase {__version__}")
    add_data_option(parser, default=None)
    parser.set_defaults(default_data=default_data)
    add_output_options(parser, default=False)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", parser_class=Parser)
    for module in (demo, load, search, collections, plan, care, copies, bench, serve, keys, shards, promote):
        module.add(commands)
    return parser


def _as_ours(error: Exception) -> FaissbaseError:
    if isinstance(error, FaissbaseError):
        return error
    if isinstance(error, MemoryError):
        return UnavailableError("not enough memory")
    if isinstance(error, OSError):
        return UnavailableError(f"{error.filename or 'cannot write the output'}: {error.strerror or error}")
    return InternalError(
        f"{type(error).__name__}: {error}; a bug in faissbase, {DEBUG_VARIABLE}=1 shows where"
    )
