"""The server's lines, where somebody reads them and where nobody does."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

import orjson
import pytest

from faissbase.server import logs

SAYS = """
import logging, sys
from faissbase.server import logs
lines = logs.begin(sys.argv[1])
lines.tell({"n": 0})
for i in (1, 2):
    logs.LOGGER.info("request", extra={"facts": {"n": i}})
try:
    1 / 0
except ZeroDivisionError:
    logs.LOGGER.exception("oh")
lines.close()
"""


def _said(log_format: str) -> list[str]:
    command = [sys.executable, "-c", SAYS, log_format]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_lines_are_json_in_their_order_and_all_are_there_at_the_end() -> None:
    lines = [orjson.loads(line) for line in _said("json")]
    assert [line.get("n") for line in lines] == [0, 1, 2, None]
    assert lines[3]["level"] == "error"
    assert "ZeroDivisionError" in lines[3]["traceback"]


def test_a_line_that_cannot_be_written_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    lines = logs.Lines(sys.stderr, logs._as_json)
    for message, given in (("\ud800", ()), ("%d", ("no number",)), ("fine", ())):
        lines.handle(logging.makeLogRecord({"msg": message, "args": given, "levelname": "INFO"}))
    lines.tell({"route": "\ud800"})
    lines.tell({"route": "/"})
    lines.close()
    told = [orjson.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["level"] for line in told] == ["error", "error", "info", "error", "info"]
    assert told[2]["message"] == "fine"


def test_a_request_and_a_record_are_told_alike() -> None:
    told, record = (orjson.loads(line) for line in _said("json")[:2])
    assert list(told) == list(record)
    assert (told["level"], told["message"]) == (record["level"], record["message"])


def test_lines_are_text_for_a_terminal() -> None:
    lines = _said("text")
    assert lines[0].endswith("info    request n=0")
    assert lines[1].endswith("info    request n=1")
    assert lines[-1].startswith("ZeroDivisionError")


def test_who_is_not_read_goes_on_and_tells_what_was_lost() -> None:
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "w") as stream, os.fdopen(read_fd) as reader:
        lines = logs.Lines(stream, logs._as_json)
        started = time.monotonic()
        n = 2 * logs._MOST_LINES
        for i in range(n):
            record = logging.makeLogRecord({"msg": "m" * 50, "facts": {"n": i}, "levelname": "INFO"})
            lines.handle(record)
        took_s = time.monotonic() - started
        read: list[str] = []
        reading = threading.Thread(target=lambda: read.extend(reader))
        reading.start()
        lines.close()
        stream.close()
        reading.join(30)
    assert took_s < 20  # it would be for ever
    found = [orjson.loads(line) for line in read]
    numbers = [line["n"] for line in found if "n" in line]
    lost = [line["message"] for line in found if "n" not in line]
    assert numbers == sorted(numbers)
    assert sum(int(text.split()[0]) for text in lost) == n - len(numbers) > 0
