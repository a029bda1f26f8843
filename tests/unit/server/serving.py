"""A server on a real socket in a thread of the test, whose limits a test can set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faissbase.server.app import Server
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Keys
from faissbase.server.run import _config, _listening, _renew_nothing, _Uvicorn
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants

PATIENCE_S = 30


@dataclass(frozen=True)
class Serving:
    """What runs, and the address it listens on."""

    runner: _Uvicorn
    address: tuple[str, int]


@contextmanager
def serving(folder: Path, renew: Callable[[], None] = _renew_nothing, **more: Any) -> Iterator[Serving]:
    """A server over ``folder`` with these settings; it has stopped when this ends."""
    settings = Settings(port=0, shutdown_timeout_s=1, **more)
    server = Server(settings, Keys(folder), Tenants(folder, folder_databases(folder)))
    runner = _Uvicorn(_config(settings, server), server, renew)
    listening = _listening(runner.config)
    thread = threading.Thread(target=runner.run, kwargs={"sockets": [listening]})
    address = listening.getsockname()[:2]
    thread.start()
    try:
        wait_until(lambda: runner.started)
        yield Serving(runner, address)
    finally:
        runner.should_exit = True
        thread.join(PATIENCE_S)
        server.close()
    assert not thread.is_alive()


def wait_until(is_so: Any) -> None:
    stop = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < stop, "it does not come to be"
        time.sleep(0.005)
