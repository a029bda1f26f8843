"""Where a command's words go: results to stdout, everything else to stderr, JSON where it was asked for.

Knows streams and terminals; not commands.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from faissbase.cli.text import printable
from faissbase.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: ``document`` for programs, ``lines`` for people, and the exit code."""

    document: dict[str, Any]
    lines: Iterable[str] = field(default_factory=list)
    exit_code: int = 0


class Console:
    """The streams of one run.

    Parameters
    ----------
    as_json : bool
        One JSON document on stdout, and nothing else there.
    is_quiet : bool
        No progress and no notes on stderr; errors still.
    """

    def __init__(self, *, as_json: bool, is_quiet: bool) -> None:
        self.as_json = as_json
        self.is_quiet = is_quiet
        self._out = sys.stdout
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # a terminal may know fewer letters than the data

    @property
    def shows_progress(self) -> bool:
        """Whether somebody watches who wants a progress bar."""
        return sys.stderr.isatty() and not self.as_json and not self.is_quiet

    @property
    def logs_progress(self) -> bool:
        """Whether lines on how far it is go where somebody may read them later: into the log of a job."""
        return not (sys.stderr.isatty() or self.as_json or self.is_quiet)

    @contextmanager
    def alone_on_stdout(self) -> Iterator[None]:
        """Have what a library prints by itself, as Ray does of workers that died, go to stderr."""
        with redirect_stdout(sys.stderr):
            yield

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where output goes elsewhere and lines stay whole."""
        if self._out.isatty() or os.environ.get("COLUMNS", "").isdigit():
            return max(40, shutil.get_terminal_size((80, 24)).columns)
        return None

    def show(self, *lines: str) -> None:
        """Lines of a result for people, at once."""
        if not self.as_json:
            print(*lines, sep="\n", file=self._out, flush=True)

    def give(self, answer: Answer) -> None:
        """The result: as one JSON document or as lines."""
        if self.as_json:
            self._write_json(answer.document)
            return
        for line in answer.lines:
            print(line, file=self._out)
        self._out.flush()

    def note(self, text: str) -> None:
        """Something worth knowing that is no result."""
        if not self.is_quiet:
            print(text, file=sys.stderr, flush=True)

    def complain(self, message: str) -> str:
        """One line on stderr, also where it is to be quiet; the line."""
        line = printable(" ".join(message.split()))
        print(f"error: {line}", file=sys.stderr, flush=True)
        return line

    def fail(self, code: str, message: str) -> None:
        """An error on stderr, and on stdout where JSON was asked for."""
        line = self.complain(message)
        if self.as_json:
            with suppress(OSError):  # stdout itself may be what failed
                self._write_json({"error": {"code": code, "message": line}})

    def _write_json(self, document: dict[str, Any]) -> None:
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        if self._out.isatty():
            options |= orjson.OPT_INDENT_2
        self._out.flush()
        left = memoryview(orjson.dumps(document, option=options))
        while left:  # an unbuffered stream may take a part
            left = left[self._out.buffer.write(left) :]
        self._out.flush()

    def confirm(self, question: str) -> bool:
        """Ask on the terminal.

        Raises
        ------
        InvalidInputError
            There is nobody to ask.
        """
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise InvalidInputError(f"{question} Nobody is there to answer: give --yes")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
