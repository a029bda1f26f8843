"""A server whose FAISS is called from afar."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.server.running import Running, made


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An empty server without keys; it ends as it should."""
    with Running(made(tmp_path_factory.mktemp("server") / "data")) as running:
        yield running
        assert running.stop() == 0
