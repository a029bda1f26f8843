"""Verifiers and embedders that are asynchronous, in calls that wait and in calls that are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from faissbase.cache import CacheHit, SemanticCache
from faissbase.embedding import as_embedder
from faissbase.errors import InvalidInputError


class Loops:
    """An embedder of two topics and a verifier, which note the event loop that they ran in."""

    def __init__(self, verdict: bool = True) -> None:
        self.verdict = verdict
        self.seen: list[asyncio.AbstractEventLoop] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        await self._pause()
        return [[1.0, 0.0] if "egg" in text else [0.0, 1.0] for text in texts]

    async def verify(self, prompt: str, hit: CacheHit) -> bool:
        await self._pause()
        return self.verdict

    async def _pause(self) -> None:
        await asyncio.sleep(0)
        self.seen.append(asyncio.get_running_loop())


def made(parts: Loops, **terms: Any) -> SemanticCache:
    embedder = as_embedder(parts.embed, name="topics", dimension=2)
    cache = SemanticCache(embedder, verifier=parts.verify, guard=None, **terms)
    cache.store("boil an egg", "7 minutes")
    return cache


@pytest.mark.parametrize("verdict", [True, False])
def test_a_look_up_waits_for_both(verdict: bool) -> None:
    with made(Loops(verdict)) as cache:
        assert (cache.check("egg, boiled") is not None) == verdict


@pytest.mark.parametrize("verdict", [True, False])
def test_an_awaited_look_up_runs_both_in_the_loop_of_its_caller(verdict: bool) -> None:
    parts = Loops(verdict)

    async def asked() -> tuple[CacheHit | None, bool]:
        parts.seen.clear()
        hit = await cache.acheck("egg, boiled")
        return hit, {*parts.seen} == {asyncio.get_running_loop()}

    with made(parts) as cache:
        hit, is_mine = asyncio.run(asked())
    assert (hit is not None) == verdict
    assert len(parts.seen) == 2
    assert is_mine


def test_awaited_computing_and_storing_run_the_embedder_in_the_loop_of_their_caller() -> None:
    parts = Loops()

    async def asked() -> bool:
        parts.seen.clear()
        await cache.astore("boil water", "3 minutes")
        assert await cache.aget_or_compute("water, boiled", lambda: "no") == "3 minutes"
        assert await cache.aget_or_compute("fry an egg", lambda: "no") == "7 minutes"
        return {*parts.seen} == {asyncio.get_running_loop()}

    with made(parts) as cache:
        assert asyncio.run(asked())


def test_a_call_that_holds_a_loop_up_runs_them_beside_it() -> None:
    async def asked() -> Any:
        hit = cache.check("egg, boiled")
        return hit and hit.response

    with made(Loops()) as cache:
        assert asyncio.run(asked()) == "7 minutes"


def test_a_verifier_that_raises_later_is_a_miss() -> None:
    async def failing(prompt: str, hit: CacheHit) -> bool:
        await asyncio.sleep(0)
        raise OSError("the model is away")

    with SemanticCache(as_embedder(Loops().embed, name="topics"), verifier=failing, guard=None) as cache:
        cache.store("boil an egg", "7 minutes")
        assert asyncio.run(cache.acheck("egg, boiled")) is None
        assert "the model is away" in cache.explain("egg, boiled").reason


def test_an_embedder_of_its_own_class_may_be_asynchronous() -> None:
    class Model:
        name, dimension = "topics", 2
        embed = Loops().embed

    with SemanticCache(Model()) as cache:
        cache.store("boil an egg", "7 minutes")
        assert cache.threshold == 0.9
        hit = cache.check("boil an egg please")
        assert hit is not None
        assert hit.response == "7 minutes"


async def _later(*_: Any) -> None:
    return None


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"guard": "no"}, "a guard is a function, got 'no'"),
        ({"verifier": "no"}, "a verifier is a function, got 'no'"),
        ({"guard": _later}, "a guard is a plain function"),
        ({"scope": "acme"}, "a scope is a faissbase.cache.Scope, got str"),
    ],
)
def test_a_part_that_cannot_be_called_is_refused_when_the_cache_is_made(
    terms: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SemanticCache(**terms)
