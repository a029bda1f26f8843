"""`SemanticCache.cached`: functions of every kind, answered from the cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import pytest
from tests.unit.cache.worlds import Topics

from faissbase.cache import Scope, SemanticCache
from faissbase.cache.identity import identity_of
from faissbase.errors import InvalidInputError


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    with SemanticCache(Topics(), guard=None) as made:
        yield made


def test_a_function_is_called_once_for_what_means_the_same(cache: SemanticCache) -> None:
    calls: list[str] = []

    @cache.cached
    def answer(prompt: str) -> str:
        """Ask the model."""
        calls.append(prompt)
        return prompt.upper()

    assert [answer("a"), answer("a"), answer("a: 0.99"), answer(prompt="b")] == ["A", "A", "A", "B"]
    assert calls == ["a", "b"]
    assert (answer.__name__, answer.__doc__) == ("answer", "Ask the model.")


def test_other_arguments_and_the_function_are_part_of_the_scope(cache: SemanticCache) -> None:
    @cache.cached(tags="t", ttl_s=60)
    def one(prompt: str, temperature: float = 0.0) -> list[Any]:
        return ["one", temperature]

    @cache.cached(tags="t")
    def two(prompt: str, temperature: float = 0.0) -> list[Any]:
        return ["two", temperature]

    assert [one("a"), one("a", 0.5), two("a"), one("a", temperature=0)] == [
        ["one", 0.0],
        ["one", 0.5],
        ["two", 0.0],
        ["one", 0.0],
    ]
    assert cache.invalidate(tags="t") == 3


def test_methods_name_their_prompt_and_what_to_ignore(cache: SemanticCache) -> None:
    class Bot:
        @cache.cached(prompt="question", ignore=["self"], scope=Scope(tenant="acme"))
        def ask(self, style: str, question: str) -> str:
            return f"{style} {question}"

    assert [Bot().ask("short", "a"), Bot().ask("short", "a: 0.99"), Bot().ask("long", "a")] == [
        "short a",
        "short a",
        "long a",
    ]
    assert cache.invalidate(tenant="acme") == 2


def test_lambdas_and_functions_within_functions_do_not_share_answers(cache: SemanticCache) -> None:
    english: Any = cache.cached(lambda q: f"{q} in English")
    german: Any = cache.cached(lambda q: f"{q} in German")
    assert [english("a"), german("a"), english("a")] == ["a in English", "a in German", "a in English"]
    n_calls = 0

    def asking(language: str) -> Any:
        @cache.cached
        def ask(prompt: str) -> str:
            nonlocal n_calls
            n_calls += 1
            return f"{prompt} in {language}"

        return ask

    german = asking("German")
    assert [german("a"), german("a"), asking("Dutch")("a")] == ["a in German", "a in German", "a in Dutch"]
    assert asking("Dutch")("a") == "a in Dutch"
    assert n_calls == 2


def test_what_is_bound_to_a_function_is_part_of_the_scope(cache: SemanticCache) -> None:
    def ask(language: str, prompt: str, style: str = "") -> str:
        return f"{style}{prompt} in {language}"

    asked = [partial(ask, "German"), partial(ask, "Dutch"), partial(ask, "Dutch", style="brief ")]
    assert [cache.cached(each)("a") for each in asked] == ["a in German", "a in Dutch", "brief a in Dutch"]

    class Bot:
        def __init__(self, language: str) -> None:
            self.language = language

        def ask(self, prompt: str) -> str:
            return f"{prompt} in {self.language}"

        __call__ = ask

    for bound in (Bot("German").ask, Bot("German")):
        with pytest.raises(InvalidInputError, match="belongs to an object that its answers may depend on"):
            cache.cached(bound)
        assert cache.cached(ignore="self")(bound)("a") == "a in German"


def test_the_same_function_is_known_in_another_process() -> None:
    made = [eval("lambda q: q + 'x'"), eval("lambda q: q + 'x'"), eval("lambda q: q + 'y'")]
    same, again, other = (identity_of(each)["code"] for each in made)
    assert (same == again, same == other) == (True, False)


def test_arguments_that_cannot_be_compared_are_refused(cache: SemanticCache) -> None:
    @cache.cached
    def ask(prompt: str, client: Any) -> str:
        return prompt

    with pytest.raises(InvalidInputError, match="must be JSON"):
        ask("a", object())
    with pytest.raises(InvalidInputError, match="no parameter 'question'"):
        cache.cached(prompt="question")(lambda text: text)
    with pytest.raises(TypeError, match="missing"):
        ask("a")  # type: ignore[call-arg]


def test_coroutine_functions_stay_coroutine_functions(cache: SemanticCache) -> None:
    calls: list[str] = []

    @cache.cached
    async def answer(prompt: str) -> str:
        calls.append(prompt)
        await asyncio.sleep(0.01)
        return prompt.upper()

    async def ask() -> list[str]:
        return await asyncio.gather(*(answer("a") for _ in range(20)))

    assert asyncio.iscoroutinefunction(answer)
    assert asyncio.run(ask()) == ["A"] * 20
    assert calls == ["a"]


def test_generators_are_streamed_and_replayed(cache: SemanticCache) -> None:
    calls: list[str] = []

    @cache.cached
    def words(prompt: str) -> Iterator[str]:
        calls.append(prompt)
        yield from prompt.split(":")

    assert [list(words("a: 0.99")), list(words("a"))] == [["a", " 0.99"]] * 2
    left: Any = words("b")
    next(left)
    left.close()
    assert list(words("b")) == ["b"]
    assert calls == ["a: 0.99", "b", "b"]


def test_asynchronous_generators_are_streamed_and_replayed(cache: SemanticCache) -> None:
    calls: list[str] = []

    @cache.cached
    async def words(prompt: str) -> AsyncIterator[str]:
        calls.append(prompt)
        for word in prompt.split(":"):
            yield word

    async def ask(prompt: str) -> list[str]:
        return [word async for word in words(prompt)]

    assert [asyncio.run(ask("a: 0.99")), asyncio.run(ask("a"))] == [["a", " 0.99"]] * 2
    assert calls == ["a: 0.99"]


def test_tags_of_an_iterator_hold_for_every_answer(cache: SemanticCache) -> None:
    @cache.cached(tags=iter(["news"]))
    def answer(prompt: str) -> str:
        return prompt

    answer("Who won the match?")
    answer("Will it rain in Rome?")
    assert cache.invalidate(tags="news") == 2
