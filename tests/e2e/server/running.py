"""A real server in a process of its own, what it says on the way, and keys for it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from tests.e2e.server.forked import Forked

import faissbase
from faissbase.server.keys import Key, Keys
from faissbase.server.operations import Operation
from faissbase.storage.sqlite import PAGE_BYTES

PATIENCE_S = 60
_ADDRESS = re.compile(r" on (https?://\S+)")


def environment(**more: str) -> dict[str, str]:
    """The environment without any settings of the server, and with ``more``."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("FAISSBASE_")}
    return {**outside, **more}


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "faissbase", *map(str, words)]


def run(*words: object, cwd: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    """One command of ``faissbase``, to its end; ``more`` is its environment."""
    return subprocess.run(
        command(*words), cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=PATIENCE_S
    )


def made(folder: Path) -> Path:
    """``folder``, an empty database."""
    faissbase.connect(folder).close()
    return folder


def made_damaged(folder: Path) -> Path:
    """A database whose collection ``docs`` cannot be read."""
    with faissbase.connect(folder) as db:
        db.create_collection("docs", 2).add([str(i) for i in range(300)], [[i, 1] for i in range(300)])
    [records] = folder.glob("default/*/records.sqlite")
    content = bytearray(records.read_bytes())
    for at in range(2 * PAGE_BYTES + 900, len(content), PAGE_BYTES):
        content[at] ^= 0x55
    records.write_bytes(content)
    return folder


def new_key(folder: Path, tenant: str, *scopes: str, **more: Any) -> tuple[Key, str]:
    """A key of that folder, as the command line makes it, and its text."""
    keys = Keys(folder)
    try:
        return keys.create(tenant, scopes, **more)
    finally:
        keys.close()


def address_of(url: str) -> tuple[str, int]:
    """Where to connect to."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def path_of(op: Operation, **names: str) -> str:
    """The path of a route with these in the place of its names, all of which must be given."""
    return re.sub(r"{(\w+)(:\w+)?}", lambda found: names[found[1]], op.path)


def refused(response: httpx.Response, status: int, code: str) -> str:
    """The message of an error, once its status, code and shape are what they should be."""
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "request_id", "details"}
    assert (error["code"], error["details"]) == (code, {})
    assert error["request_id"] == response.headers["x-request-id"]
    return str(error["message"])


def done(response: httpx.Response, status: int = 200) -> Any:
    """What a request that went well has brought."""
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def _installed(words: Iterable[object], cwd: Path | None, popen: dict[str, Any]) -> subprocess.Popen[str]:
    """The command as users run it, which takes half a second to import everything."""
    return subprocess.Popen(
        command(*words),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


class Running:
    """A server on a free port of this machine; ``lines`` is what it has written to stderr.

    It is forked from a process that has imported everything, unless that is what a test is about.
    """

    process: subprocess.Popen[str] | Forked

    def __init__(
        self, folder: Path, *options: object, cwd: Path | None = None, is_forked: bool = True, **popen: Any
    ) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._is_up = threading.Event()
        words = ("serve", "--data", folder, "--port", 0, "--log-format", "json", *options)
        if is_forked:
            assert not popen
            self.process = Forked([str(word) for word in words], cwd, environment())
        else:
            self.process = _installed(words, cwd, popen)
        self._drain = threading.Thread(target=self._read, daemon=True)
        self._drain.start()
        assert self._is_up.wait(PATIENCE_S), "the server did not start"
        found = [match[1] for line in self.lines if (match := _ADDRESS.search(line))]
        assert found, self.lines
        self.url = found[0]
        self._wait_until_it_listens()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if _ADDRESS.search(line):
                self._is_up.set()
        self._is_up.set()

    def _wait_until_it_listens(self) -> None:
        """The address is told a moment before: see ``tests/unit/server/test_run.py``."""
        stop = time.monotonic() + PATIENCE_S
        while time.monotonic() < stop:
            with suppress(ConnectionRefusedError), socket.create_connection(address_of(self.url)):
                return
        raise AssertionError("the server does not listen")

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._ended()

    def _ended(self) -> int:
        code = self.process.wait(PATIENCE_S)
        self._drain.join(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._ended()

    def kill(self) -> None:
        self.process.kill()
        self._ended()

    def client(self, key: str | None = None, **more: Any) -> httpx.Client:
        """A client of it, which shows ``key``."""
        headers = {} if key is None else {"X-API-Key": key}
        settings = {"trust_env": False, "timeout": PATIENCE_S, "verify": False, **more}
        return httpx.Client(base_url=f"{self.url}/v1", headers=headers, **settings)

    def logged(self) -> list[dict[str, Any]]:
        """The lines of the log, which come after those for people."""
        return [orjson.loads(line) for line in list(self.lines) if line.startswith("{")]

    def line_of(self, request_id: str, message: str = "request") -> dict[str, Any]:
        """The line about one request, which comes soon after its answer."""
        stop = time.monotonic() + PATIENCE_S
        while time.monotonic() < stop:
            for line in self.logged():
                if line["message"] == message and line["request_id"] == request_id:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line about {request_id}")
