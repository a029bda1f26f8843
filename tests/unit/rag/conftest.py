"""A database of a folder and one of a server, for tests that hold on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.server.serving import serving

import faissbase
from faissbase.server.keys import Keys


@pytest.fixture(params=["folder", "server"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty database, opened as a folder or over HTTP."""
    folder = tmp_path / "data"
    if request.param == "folder":
        with faissbase.connect(folder) as local:
            yield local
        return
    faissbase.connect(folder).close()
    keys = Keys(folder)
    _, key = keys.create("acme", ["read", "write", "admin"])
    keys.close()
    with serving(folder) as running:
        host, port = running.address
        with faissbase.connect(f"http://{host}:{port}", api_key=key) as remote:
            yield remote
