"""One line for each request, and what else the server has to say: JSON, or text for a terminal.

A thread writes the lines, so that nobody waits for whoever reads them. Where they are not read, the newest
are dropped, and counted.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TextIO, TypeAlias

import orjson

LOGGER = logging.getLogger("faissbase.server")
_MOST_LINES = 20_000
_EVERY_S = 0.05
_AT_ONCE = 16
_LAST_S = 2.0


_Kept: TypeAlias = "logging.LogRecord | tuple[float, dict[str, Any]]"


def _json_line(created: float, level: str, message: str, facts: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(created, timezone.utc).isoformat(timespec="milliseconds")
    line = {"time": when, "level": level, "message": message, **facts}
    return orjson.dumps(line, default=str).decode()


def _text_line(created: float, level: str, message: str, facts: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(created).strftime("%H:%M:%S")
    shown = " ".join(f"{name}={value}" for name, value in facts.items())
    return f"{when} {level:7} {message} {shown}".rstrip()


def _as_json(record: logging.LogRecord) -> str:
    facts = getattr(record, "facts", {})
    if record.exc_info:
        facts = {**facts, "traceback": logging.Formatter().formatException(record.exc_info)}
    return _json_line(record.created, record.levelname.lower(), record.getMessage(), facts)


def _as_text(record: logging.LogRecord) -> str:
    facts = getattr(record, "facts", {})
    line = _text_line(record.created, record.levelname.lower(), record.getMessage(), facts)
    return f"{line}\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else line


class Lines(logging.Handler):
    """Keeps records until its thread has written them.

    ``shape`` makes a line of a record, ``line`` one of a request: its time, level, message and facts.
    """

    def __init__(
        self,
        stream: TextIO,
        shape: Callable[[logging.LogRecord], str],
        line: Callable[[float, str, str, dict[str, Any]], str] = _json_line,
    ) -> None:
        super().__init__()
        self._stream = stream
        self._shape = shape
        self._line = line
        self._records: deque[_Kept] = deque()
        self._n_lost = 0
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._write_all, name="faissbase-log", daemon=True)
        self._thread.start()

    def handle(self, record: logging.LogRecord) -> bool:
        if len(self._records) < _MOST_LINES:
            self._records.append(record)
        else:
            self._n_lost += 1
        return True

    def tell(self, facts: dict[str, Any]) -> None:
        """Take note of a request, with less ado than a record takes."""
        if len(self._records) < _MOST_LINES:
            self._records.append((time.time(), facts))
        else:
            self._n_lost += 1

    def _write_all(self) -> None:
        while not self._has_ended.wait(_EVERY_S):
            self._write()
        self._write()

    def _write(self) -> None:
        lines: list[str] = []
        for i in range(len(self._records)):
            lines.append(self._shaped(self._records.popleft()))
            if i % _AT_ONCE == _AT_ONCE - 1:
                time.sleep(0)  # requests that wait for Python's lock go first
        if self._n_lost:
            lost, self._n_lost = self._n_lost, 0
            lines.append(self._shaped(_record("WARNING", f"{lost} lines lost")))
        if lines:
            try:
                self._stream.write("\n".join([*lines, ""]))
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads any more
                self._n_lost += len(lines)

    def _shaped(self, kept: _Kept) -> str:
        try:
            if isinstance(kept, logging.LogRecord):
                return self._shape(kept)
            created, facts = kept
            return self._line(created, "info", "request", facts)
        except Exception as error:  # noqa: BLE001  # one line that cannot be written must not end the others
            name = kept.name if isinstance(kept, logging.LogRecord) else LOGGER.name
            return self._shape(_record("ERROR", f"a line of {name} cannot be written: {error!r}"))

    def close(self) -> None:
        """Write what is left; not for long, where nobody reads."""
        self._has_ended.set()
        self._thread.join(_LAST_S)
        super().close()


def _record(level: str, message: str) -> logging.LogRecord:
    return logging.makeLogRecord({"levelname": level, "msg": message})


def request(facts: dict[str, Any]) -> None:
    """Tell of a request where `begin` was not called."""
    LOGGER.info("request", extra={"facts": facts})


def begin(log_format: str) -> Lines:
    """Send the server's lines, and those of what it is made of, to stderr; close it at the end."""
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    lines = Lines(sys.stderr, _as_text, _text_line) if is_text else Lines(sys.stderr, _as_json, _json_line)
    # What every line would find out for nothing: it is not shown.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    for name, level in (
        ("faissbase", logging.INFO),
        ("uvicorn", logging.WARNING),
        ("opentelemetry", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers[:] = [lines]
        logger.setLevel(level)
        logger.propagate = False
    logging.getLogger("uvicorn.error").addFilter(_is_not_told_better)
    return lines


def _is_not_told_better(record: logging.LogRecord) -> bool:
    """Whether a line is none of those that `protocol.Protocol` tells with their reason and request id."""
    return record.msg != "Invalid HTTP request received."
