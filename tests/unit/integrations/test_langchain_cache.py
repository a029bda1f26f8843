"""SemanticLLMCache under LangChain's own models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faissbase.cache import Scope, SemanticCache
from faissbase.errors import UnavailableError

pytest.importorskip("langchain_core")
from langchain_core.caches import BaseCache
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation

from faissbase.integrations.langchain_cache import SemanticLLMCache


@pytest.fixture(params=["memory", "folder"])
def semantic(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SemanticCache]:
    path = None if request.param == "memory" else tmp_path / "cache"
    with SemanticCache(path=path, threshold=0.6) as made:
        yield made


def test_it_is_a_langchain_cache_that_gives_back_what_it_was_given(semantic: SemanticCache) -> None:
    cache: Any = SemanticLLMCache(semantic)
    assert isinstance(cache, BaseCache)
    message = AIMessage(content="Paris", tool_calls=[{"name": "map", "args": {"zoom": 3}, "id": "1"}])
    generations = [ChatGeneration(message=message), Generation(text="Paris")]
    assert cache.lookup("capital of France?", "llm") is None
    cache.update("capital of France?", "llm", generations)
    assert cache.lookup("capital of France?", "llm") == generations
    assert cache.lookup("the capital of France?", "llm") == generations
    assert cache.lookup("capital of France?", "another llm") is None
    cache.clear()
    assert cache.lookup("capital of France?", "llm") is None


def test_a_chat_model_answers_what_means_the_same_from_the_cache(semantic: SemanticCache) -> None:
    model = FakeListChatModel(responses=["one", "two", "three"], cache=SemanticLLMCache(semantic))
    brief = SystemMessage("Be brief.")
    asked = [
        [brief, HumanMessage("What is the capital of France?")],
        [brief, HumanMessage("what's the capital of France")],
        [SystemMessage("Be long."), HumanMessage("What is the capital of France?")],
        [brief, HumanMessage("What is the capital of France?")],
    ]
    assert [model.invoke(messages).content for messages in asked] == ["one", "one", "two", "one"]
    assert semantic.counters.similar_hits == 1


def test_a_conversation_is_found_again_though_its_messages_have_new_ids(semantic: SemanticCache) -> None:
    model = FakeListChatModel(responses=["one", "two", "three"], cache=SemanticLLMCache(semantic))
    talks = [
        [HumanMessage("Hello"), AIMessage("Hi", id=f"run-{i}"), HumanMessage("How are you?", id=f"h-{i}")]
        for i in range(2)
    ]
    assert [model.invoke(talk).content for talk in talks] == ["one", "one"]


def _picture(asked: str, address: str) -> list[HumanMessage]:
    image = {"type": "image_url", "image_url": {"url": address}}
    return [HumanMessage([{"type": "text", "text": asked}, image])]


def test_pictures_are_told_apart_and_the_question_beside_them_is_not(semantic: SemanticCache) -> None:
    cat, dog = "https://pictures.example/cat/on/the/mat", "https://pictures.example/dog/in/the/house"
    asked = [
        _picture("What is in this picture?", cat),
        _picture("What is in this picture?", dog),
        _picture("what's in this picture", cat),
    ]
    model = FakeListChatModel(responses=["a cat", "a dog", "?"], cache=SemanticLLMCache(semantic))
    assert [model.invoke(messages).content for messages in asked] == ["a cat", "a dog", "a cat"]


def test_after_an_answer_or_a_tool_only_the_same_messages_serve(semantic: SemanticCache) -> None:
    model = FakeListChatModel(responses=["one", "two", "three", "four"], cache=SemanticLLMCache(semantic))
    question = HumanMessage("Translate this into French, please, word for word.")

    def told(ending: str) -> list[list[Any]]:
        return [[question, AIMessage(ending)], [question, ToolMessage(ending, tool_call_id="call")]]

    asked = [*told("the cat sleeps in the sun"), *told("the dog runs in the rain")]
    answers = ["one", "two", "three", "four"]
    assert [model.invoke(messages).content for messages in asked] == answers
    assert [model.invoke(messages).content for messages in asked] == answers


def test_text_models_are_served_as_well(semantic: SemanticCache) -> None:
    model = FakeListLLM(responses=["one", "two"], cache=SemanticLLMCache(semantic))
    assert [model.invoke("Tell a joke"), model.invoke("Tell a joke"), model.invoke("Sing!")] == [
        "one",
        "one",
        "two",
    ]


def test_tenants_do_not_share(semantic: SemanticCache) -> None:
    caches: list[Any] = [SemanticLLMCache(semantic, scope=Scope(tenant=tenant)) for tenant in "ab"]
    caches[0].update("q", "llm", [Generation(text="a's")])
    assert caches[1].lookup("q", "llm") is None
    assert semantic.invalidate(tenant="a") == 1


def test_coroutines_use_it_too(semantic: SemanticCache) -> None:
    model = FakeListChatModel(responses=["one", "two"], cache=SemanticLLMCache(semantic))

    async def ask() -> list[Any]:
        return [(await model.ainvoke("Hello")).content for _ in range(2)]

    assert asyncio.run(ask()) == ["one", "one"]
    asyncio.run(SemanticLLMCache(semantic).aclear())
    assert len(semantic) == 0


def test_coroutines_await_an_asynchronous_embedder_in_their_own_loop() -> None:
    seen = []

    class Remote:
        name, dimension = "remote", 2

        async def embed(self, texts: Any) -> Any:
            seen.append(asyncio.get_running_loop())
            return [[1.0, 0.0]] * len(texts)

    async def ask() -> bool:
        cache: Any = SemanticLLMCache(made)
        await cache.aupdate("one", "llm", [Generation(text="1")])
        assert await cache.alookup("won", "llm") == [Generation(text="1")]
        return set(seen) == {asyncio.get_running_loop()}

    with SemanticCache(Remote(), guard=None) as made:
        assert asyncio.run(ask())


def test_a_cache_out_of_reach_does_not_stop_a_model(semantic: SemanticCache) -> None:
    class Down:
        name, dimension = "hashed-1024", 1024

        def embed(self, texts: Any) -> Any:
            raise UnavailableError("no embedder")

    semantic._matching.embedder = Down()
    model = FakeListChatModel(responses=["one", "two"], cache=SemanticLLMCache(semantic))
    assert [model.invoke("What is the capital of France?").content for _ in range(2)] == ["one", "two"]
    assert len(semantic) == 0
