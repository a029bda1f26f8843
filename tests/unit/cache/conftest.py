"""Caches of steerable prompts, for all tests of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cache.worlds import Make, Topics

from faissbase.cache import SemanticCache


@pytest.fixture(params=["memory", "folder"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes caches of steerable prompts, which guards of words have no say in."""
    made: list[SemanticCache] = []

    def new(**settings: Any) -> SemanticCache:
        path = None if request.param == "memory" else tmp_path / f"cache-{len(made)}"
        cache = SemanticCache(Topics(), **{"path": path, "guard": None, **settings})
        made.append(cache)
        return cache

    yield new
    for cache in made:
        cache.close()
