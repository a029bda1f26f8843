"""Real records, and a server for each module that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.server.faiss_calls import Caller, rows
from tests.e2e.server.faiss_world import World, hostile_server
from tests.e2e.server.hostile import BODY_TIMEOUT_S, MOST_BYTES, Target, fill
from tests.e2e.server.running import Running, made, new_key

from faissbase.demo.dataset import DemoQueries, iter_batches, load_queries
from faissbase.types import Batch

N = 1500


@pytest.fixture(scope="session")
def records() -> Batch:
    """The first packages of the demo data."""
    return next(iter_batches(N))


@pytest.fixture(scope="session")
def queries() -> DemoQueries:
    return load_queries()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of this module, over an empty folder; it ends as it should."""
    with Running(made(tmp_path_factory.mktemp("server") / "data")) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def target(server: Running) -> Iterator[Target]:
    """A server with the usual limits; ``docs`` holds one record, ``spare`` is for those who change it."""
    _, key = new_key(server.folder, "acme", "admin")
    with server.client(key) as http:
        fill(http)
        yield Target(server, http, key)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that takes small bodies, and does not wait long for them."""
    folder = made(tmp_path_factory.mktemp("small") / "data")
    _, key = new_key(folder, "acme", "admin")
    options = ("--max-body-bytes", MOST_BYTES, "--body-timeout-s", BODY_TIMEOUT_S)
    with Running(folder, *options) as running, running.client(key) as http:
        fill(http)
        yield Target(running, http, key)
        assert running.stop() == 0


@pytest.fixture(scope="module")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server for requests that are known to go wrong: its log is nobody's concern."""
    folder = made(tmp_path_factory.mktemp("frail") / "data")
    _, key = new_key(folder, "acme", "admin")
    with Running(folder) as running, running.client(key) as http:
        fill(http)
        yield Target(running, http, key)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server whose drop-in route is called by hostile clients."""
    running, keys = hostile_server(tmp_path_factory.mktemp("hostile") / "db")
    with running:
        yield World(running, keys)


@pytest.fixture
def caller(world: World) -> Caller:
    return world.caller()


@pytest.fixture
def bystander(world: World) -> Iterator[None]:
    """Somebody of another tenant, whose index is as before at the end."""
    other = world.caller("other")
    index = other.factory("Flat")
    other.call(index, "add", rows(5))
    yield
    assert other.get(index, "ntotal") == 5
