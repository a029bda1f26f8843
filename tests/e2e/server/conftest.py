"""Real records, and a server for each module that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.server.running import Running, made

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
