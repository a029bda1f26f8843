"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

import faissbase

# A busy machine is no fault of what is tested.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def memory() -> Iterator[faissbase.Database]:
    """An empty database in a temporary folder."""
    with faissbase.connect(":memory:") as db:
        yield db
