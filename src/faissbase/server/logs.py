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
from typing import Any, TextIO

import orjson

LOGGER = logging.getLogger("faissbase.server")
_MOST_LINES = 20_000
_EVERY_S = 0.05
_LAST_S = 2.0


def _as_json(record: logging.LogRecord) -> str:
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
        "level": record.levelname.lower(),
        "message": record.getMessage(),
        **getattr(record, "facts", {}),
    }
    if record.exc_info:
        line["traceback"] = logging.Formatter().formatException(record.exc_info)
    return orjson.dumps(line, default=str).decode()


def _as_text(record: logging.LogRecord) -> str:
    when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
    facts = " ".join(f"{name}={value}" for name, value in getattr(record, "facts", {}).items())
    line = f"{when} {record.levelname.lower():7} {record.getMessage()} {facts}".rstrip()
    return f"{line}\n{logging.Formatter().formatException(record.exc_info)}" if record.exc_info else line


class Lines(logging.Handler):
    """Keeps records until its thread has written them."""

    def __init__(self, stream: TextIO, shape: Callable[[logging.LogRecord], str]) -> None:
        super().__init__()
        self._stream = stream
        self._shape = shape
        self._records: deque[logging.LogRecord | tuple[float, dict[str, Any]]] = deque()
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
        records = [_record(self._records.popleft()) for _ in range(len(self._records))]
        if self._n_lost:
            lost, self._n_lost = self._n_lost, 0
            records.append(logging.makeLogRecord({"levelname": "WARNING", "msg": f"{lost} lines lost"}))
        if records:
            try:
                self._stream.write("".join(f"{self._shaped(record)}\n" for record in records))
                self._stream.flush()
            except (OSError, ValueError):  # nobody reads any more
                self._n_lost += len(records)

    def _shaped(self, record: logging.LogRecord) -> str:
        try:
            return self._shape(record)
        except Exception as error:  # noqa: BLE001  # one line that cannot be written must not end the others
            told = {"levelname": "ERROR", "msg": f"a line of {record.name} cannot be written: {error!r}"}
            return self._shape(logging.makeLogRecord(told))

    def close(self) -> None:
        """Write what is left; not for long, where nobody reads."""
        self._has_ended.set()
        self._thread.join(_LAST_S)
        super().close()


def _record(told: logging.LogRecord | tuple[float, dict[str, Any]]) -> logging.LogRecord:
    if isinstance(told, logging.LogRecord):
        return told
    created, facts = told
    return logging.makeLogRecord({"created": created, "levelname": "INFO", "msg": "request", "facts": facts})


def request(facts: dict[str, Any]) -> None:
    """Tell of a request where `begin` was not called."""
    LOGGER.info("request", extra={"facts": facts})


def begin(log_format: str) -> Lines:
    """Send the server's lines, and those of what it is made of, to stderr; close it at the end."""
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    lines = Lines(sys.stderr, _as_text if is_text else _as_json)
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
