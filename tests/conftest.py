"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import faissbase


@pytest.fixture
def memory() -> Iterator[faissbase.Database]:
    """An empty database in a temporary folder."""
    with faissbase.connect(":memory:") as db:
        yield db
