"""What tests of several folders share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

import faissbase

# A busy machine is no fault of what is tested.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of sight of the garbage collector: it stays to the end.

    A million objects are otherwise gone through whenever a test, or Python of itself, collects. What modules
    prepare for their tests is gone through a tenth as often as is usual.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 100)


@pytest.fixture
def memory() -> Iterator[faissbase.Database]:
    """An empty database in a temporary folder."""
    with faissbase.connect(":memory:") as db:
        yield db
