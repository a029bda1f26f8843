"""CachedOpenAI over a real HTTP server: whole answers, streams, coroutines, what goes past the cache."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.openai_server import Cut, OpenAIServer, Text

from faissbase.cache import CachedOpenAI, Scope, SemanticCache

openai = pytest.importorskip("openai")

QUESTION = "What is the capital of France?"
SIMILAR = "what's the capital of France"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as running:
        running.reply_always("Paris, of course.")
        yield running


@pytest.fixture(params=["memory", "folder"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SemanticCache]:
    path = None if request.param == "memory" else tmp_path / "cache"
    with SemanticCache(path=path, threshold=0.6) as made:
        yield made


@pytest.fixture
def client(server: OpenAIServer, cache: SemanticCache) -> Any:
    return CachedOpenAI(openai.OpenAI(base_url=server.url, api_key="k", max_retries=0), cache)


@pytest.fixture
def aclient(server: OpenAIServer, cache: SemanticCache) -> Any:
    return CachedOpenAI(openai.AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0), cache)


def _asked(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def _text(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_what_means_the_same_is_asked_once(server: OpenAIServer, client: Any) -> None:
    first = client.chat.completions.create(**_asked(QUESTION))
    again = client.chat.completions.create(**_asked(QUESTION))
    similar = client.chat.completions.create(**_asked(SIMILAR))
    assert type(first) is type(again) is type(similar) is openai.types.chat.ChatCompletion
    assert [each.choices[0].message.content for each in (first, again, similar)] == ["Paris, of course."] * 3
    assert first == again == similar
    assert len(server.paths()) == 1


def test_everything_an_answer_depends_on_is_told_apart(server: OpenAIServer, client: Any) -> None:
    user = {"role": "user", "content": QUESTION}
    requests = [
        _asked(QUESTION),
        {**_asked(QUESTION), "model": "other"},
        _asked(QUESTION, temperature=0.5),
        _asked(QUESTION, tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, user]},
        {"model": "m", "messages": [user, {"role": "assistant", "content": "Hm?"}, user]},
        {"model": "m", "messages": [{**user, "name": "Ann"}]},
        _asked(QUESTION, stream=True),
    ]
    for _ in range(2):
        for request in requests:
            answer = client.chat.completions.create(**request)
            assert "Paris" in (_text(answer) if request.get("stream") else answer.choices[0].message.content)
    assert len(server.paths()) == len(requests)


def test_messages_of_an_iterator_reach_the_server(server: OpenAIServer, client: Any) -> None:
    for _ in range(2):
        client.chat.completions.create(model="m", messages=iter(_asked(QUESTION)["messages"]))
    assert [body["messages"] for body in server.bodies()] == [_asked(QUESTION)["messages"]]


def test_messages_of_another_form_are_the_clients_to_judge(server: OpenAIServer, client: Any) -> None:
    client.chat.completions.create(model="m", messages=["no message"])
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": ["no part"]}])
    assert len(server.paths()) == 2


def test_tags_of_an_iterator_hold_for_every_answer(
    server: OpenAIServer, client: Any, cache: SemanticCache
) -> None:
    tagged = CachedOpenAI(client._client, cache, tags=iter(["news"]))
    tagged.chat.completions.create(**_asked("Who won the match?"))
    tagged.for_scope(Scope(tenant="a")).chat.completions.create(**_asked("Will it rain in Rome?"))
    assert cache.invalidate(tags="news") == 2


def test_options_that_do_not_shape_the_answer_are_not(server: OpenAIServer, client: Any) -> None:
    client.chat.completions.create(**_asked(QUESTION))
    client.chat.completions.create(**_asked(QUESTION), timeout=5.0, temperature=openai.omit)
    client.with_options(max_retries=1).chat.completions.create(**_asked(QUESTION))
    assert len(server.paths()) == 1


def test_tenants_do_not_share(server: OpenAIServer, client: Any, cache: SemanticCache) -> None:
    for _ in range(2):
        for tenant in ("a", "b"):
            client.for_scope(Scope(tenant=tenant)).chat.completions.create(**_asked(QUESTION))
    assert len(server.paths()) == 2
    assert cache.invalidate(tenant="a") == 1


def test_an_answer_given_back_is_part_of_the_next_conversation(server: OpenAIServer, client: Any) -> None:
    answer = client.chat.completions.create(**_asked(QUESTION))
    talk = [
        {"role": "user", "content": QUESTION},
        answer.choices[0].message,
        {"role": "user", "content": "And of Spain?"},
    ]
    for _ in range(2):
        client.chat.completions.create(model="m", messages=talk)
    assert len(server.paths()) == 2


def test_a_stream_is_replayed_chunk_by_chunk(server: OpenAIServer, client: Any) -> None:
    first = list(client.chat.completions.create(**_asked(QUESTION, stream=True)))
    with client.chat.completions.create(**_asked(SIMILAR, stream=True)) as stream:
        again = list(stream)
    assert len(first) > 2
    assert first == again
    assert type(again[0]) is openai.types.chat.ChatCompletionChunk
    assert _text(again) == "Paris, of course."
    assert len(server.paths()) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_answers_that_break_off_are_not_cached(
    server: OpenAIServer, client: Any, cache: SemanticCache, stream: bool
) -> None:
    server.reply_with(Cut("Paris, of course.", after=1))
    with pytest.raises((openai.APIConnectionError, httpx.HTTPError)):
        list(client.chat.completions.create(**_asked(QUESTION, stream=stream)))
    assert len(cache) == 0
    assert list(client.chat.completions.create(**_asked(QUESTION, stream=stream)))
    assert len(cache) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_answers_that_were_cut_to_a_length_are_not_cached(
    server: OpenAIServer, client: Any, cache: SemanticCache, stream: bool
) -> None:
    server.reply_with(Text("Paris, of", "length"))
    assert list(client.chat.completions.create(**_asked(QUESTION, stream=stream)))
    assert (len(cache), cache.counters.not_stored) == (0, 1)


def test_errors_of_the_server_are_raised_and_not_cached(server: OpenAIServer, client: Any) -> None:
    for stream in (False, True):
        server.fail_with(500)
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**_asked(QUESTION, stream=stream))
    client.chat.completions.create(**_asked(QUESTION))
    assert len(server.paths()) == 3


def test_a_stream_that_is_left_is_closed_and_not_cached(
    server: OpenAIServer, client: Any, cache: SemanticCache
) -> None:
    with client.chat.completions.create(**_asked(QUESTION, stream=True)) as stream:
        next(stream)
    assert len(cache) == 0


def test_what_has_no_users_text_at_the_end_goes_past_the_cache(server: OpenAIServer, client: Any) -> None:
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "tool", "content": "sunny", "tool_call_id": "1"},
    ]
    for _ in range(2):
        client.chat.completions.create(model="m", messages=messages)
    assert len(server.paths()) == 2


def test_images_are_part_of_what_is_told_apart(server: OpenAIServer, client: Any) -> None:
    def asked(url: str) -> dict[str, Any]:
        parts = [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        return {"model": "m", "messages": [{"role": "user", "content": parts}]}

    for url in ("http://a/1.png", "http://a/1.png", "http://a/2.png"):
        client.chat.completions.create(**asked(url))
    assert len(server.paths()) == 2


def test_the_rest_of_the_client_is_as_it_was(server: OpenAIServer, client: Any) -> None:
    found = client.embeddings.create(model="e", input=["a"])
    assert len(found.data[0].embedding) == 64
    raw = client.chat.completions.with_raw_response.create(**_asked(QUESTION))
    assert raw.http_response.status_code == 200


def test_it_is_closed_and_copied_as_the_client_is(server: OpenAIServer, client: Any, aclient: Any) -> None:
    with client as entered:
        for copied in (entered, entered.copy(timeout=9), entered.with_options(timeout=9)):
            copied.chat.completions.create(**_asked(QUESTION))
    assert client.is_closed()
    assert len(server.paths()) == 1

    async def ask() -> None:
        async with aclient as entered:
            assert (await entered.chat.completions.create(**_asked(QUESTION))).choices
        assert aclient.is_closed()

    asyncio.run(ask())
    assert len(server.paths()) == 1


def test_an_async_client_asks_once_for_all_and_streams(server: OpenAIServer, aclient: Any) -> None:
    async def ask() -> None:
        calls = (aclient.chat.completions.create(**_asked(QUESTION)) for _ in range(20))
        answers = await asyncio.gather(*calls)
        assert {answer.choices[0].message.content for answer in answers} == {"Paris, of course."}
        assert len(server.paths()) == 1
        streams: list[list[Any]] = [[], []]
        for chunks in streams:
            async for chunk in await aclient.chat.completions.create(**_asked(QUESTION, stream=True)):
                chunks.append(chunk)
        assert streams[0] == streams[1]
        assert _text(streams[1]) == "Paris, of course."
        async with await aclient.chat.completions.create(**_asked(SIMILAR, stream=True)) as stream:
            assert _text([chunk async for chunk in stream]) == "Paris, of course."
        assert len(server.paths()) == 2

    asyncio.run(ask())


def test_without_the_package_the_install_line_is_named() -> None:
    program = """
import sys
sys.modules["openai"] = None
from faissbase.cache import CachedOpenAI, SemanticCache
class Client: chat = None
Client.chat = Client
Client.chat.completions = base_url = None
with SemanticCache() as cache:
    try:
        CachedOpenAI(Client(), cache)
    except Exception as error:
        print(type(error).__name__, error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told == "NotReadyError CachedOpenAI needs the package openai: pip install openai\n"
