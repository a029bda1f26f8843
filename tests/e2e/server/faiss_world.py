"""A server for clients of the drop-in route that want to do harm, and how to see that none was done."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.server.faiss_calls import Caller, rows, worker_of
from tests.e2e.server.running import Running, made, new_key

_MEMORY_BYTES = 768 << 20
D = 8


class World:
    """A server with two tenants; keys of the first that may write, read, or use one index alone."""

    def __init__(self, running: Running, keys: dict[str, str]) -> None:
        self.running, self.keys = running, keys

    def caller(self, key: str = "write", session: str | None = None) -> Caller:
        return Caller(self.running, self.keys[key], session)

    def worker(self, tenant: str = "acme") -> int:
        return worker_of(self.running, tenant)


def hostile_server(folder: Path) -> tuple[Running, dict[str, str]]:
    """It, and keys: two tenants; of the first some that may write, read, or use one index alone."""
    made(folder)
    keys = {
        "write": new_key(folder, "acme", "write")[1],
        "read": new_key(folder, "acme", "read")[1],
        "some": new_key(folder, "acme", "write", indexes=["allowed"])[1],
        "other": new_key(folder, "other", "write")[1],
    }
    return Running(folder, "--faiss-memory-bytes", _MEMORY_BYTES, "--body-timeout-s", 2), keys


def is_fine(caller: Caller) -> None:
    """The process goes on."""
    index = caller.factory("Flat")
    caller.call(index, "add", rows(3))
    assert caller.get(index, "ntotal") == 3


def saved(caller: Caller, name: str, n: int = 10) -> int:
    """An index with that name."""
    index = caller.factory("Flat")
    caller.call(index, "add", rows(n))
    caller.ask("save", name=name, target=index)
    return index
