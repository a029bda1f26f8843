"""An OpenAI client whose chat completions come from the cache where it has them.

Needs the package ``openai`` once a client is wrapped. Works with every server that the client reaches.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import ModuleType, TracebackType
from typing import Any

from faissbase.cache.scope import Scope
from faissbase.cache.semantic import SemanticCache
from faissbase.errors import InvalidInputError, NotReadyError

# What an answer does not depend on; everything else of a request is part of the scope.
_SENT_ONLY = {"messages", "model", "tools", "stream", "timeout", "extra_headers"}
# Not "length" or "content_filter": such an answer was cut.
_COMPLETE = {"stop", "tool_calls", "function_call"}
_log = logging.getLogger("faissbase.cache")


class CachedOpenAI:
    """A client, synchronous or asynchronous, whose ``chat.completions.create`` asks the cache first.

    The prompt is the text of the last message, which must be the user's; all messages before it, the model,
    the tools, the server's address and every other parameter are part of the scope. A request of another
    form goes to the server, uncached; so does everything else that the client can do. Answers that were cut
    (``finish_reason`` "length", a broken stream) are not cached.

    Parameters
    ----------
    client : openai.OpenAI or openai.AsyncOpenAI
    cache : SemanticCache
    scope : Scope, optional
        The tenant, and what else is to be told apart.
    tags, ttl_s
        See `SemanticCache.store`.
    """

    def __init__(
        self,
        client: Any,
        cache: SemanticCache,
        *,
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
    ) -> None:
        self._client = client
        self._cache = cache
        self._scope = scope or Scope()
        self._terms = {"tags": tags if isinstance(tags, str) else tuple(tags), "ttl_s": ttl_s}
        completions = _Completions(client, cache, self._scope, self._terms)
        self.chat = _Through(client.chat, completions=completions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __enter__(self) -> CachedOpenAI:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)

    async def __aenter__(self) -> CachedOpenAI:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    def for_scope(self, scope: Scope) -> CachedOpenAI:
        """The same client for another tenant or scope."""
        return CachedOpenAI(self._client, self._cache, scope=scope, **self._terms)  # type: ignore[arg-type]

    def with_options(self, **options: Any) -> CachedOpenAI:
        """The client's own ``with_options``, cached as well."""
        client = self._client.with_options(**options)
        return CachedOpenAI(client, self._cache, scope=self._scope, **self._terms)  # type: ignore[arg-type]

    copy = with_options  # as the client has it


class _Through:
    """An object with some attributes replaced."""

    def __init__(self, target: Any, **replaced: Any) -> None:
        self._target = target
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


@dataclass(frozen=True, slots=True)
class _Question:
    prompt: str
    scope: Scope
    is_stream: bool


class _Completions:
    """``client.chat.completions``, whose `create` asks the cache first."""

    def __init__(self, client: Any, cache: SemanticCache, scope: Scope, terms: dict[str, Any]) -> None:
        openai = _openai()
        self._target = client.chat.completions
        self._address = str(client.base_url)
        self._is_async = isinstance(client, openai.AsyncOpenAI)
        self._unset = (openai.NotGiven, getattr(openai, "Omit", openai.NotGiven))
        self._cache = cache
        self._scope = scope
        self._terms = terms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def create(self, **request: Any) -> Any:
        """What the client's own ``create`` returns, or its coroutine."""
        if isinstance(messages := request.get("messages"), Iterator):  # they are read twice
            request["messages"] = list(messages)
        question = self._question({k: v for k, v in request.items() if not isinstance(v, self._unset)})
        if question is None:
            return self._target.create(**request)
        if self._is_async:
            ask = self._astream if question.is_stream else self._aask
            return ask(question, request)
        return (self._stream if question.is_stream else self._ask)(question, request)

    def _question(self, request: dict[str, Any]) -> _Question | None:
        try:
            messages = [_plain(message) for message in request["messages"]]
            prompt, rest = _split(messages)
            told = {name: value for name, value in request.items() if name not in _SENT_ONLY}
            given = {"scope": self._scope.parameters, "request": _plain(told), "address": self._address}
            scope = replace(
                self._scope,
                model=request["model"],
                system_prompt=json.dumps([self._scope.system_prompt, rest], sort_keys=True),
                parameters=given,
                tools=_plain(request.get("tools")),
            )
            scope.digest("")  # whether all of it can be compared
        except (AttributeError, KeyError, TypeError, ValueError, InvalidInputError) as error:
            _log.info("a chat completion goes past the cache: %s", error)
            return None
        return _Question(prompt, scope, bool(request.get("stream")))

    # ---- whole answers ----------------------------------------------------------------------------

    def _ask(self, question: _Question, request: dict[str, Any]) -> Any:
        value = self._cache.get_or_compute(
            question.prompt,
            lambda: _dumped(self._target.create(**request)),
            scope=question.scope,
            keep_if=_is_complete,
            **self._terms,
        )
        return _completion(value)

    async def _aask(self, question: _Question, request: dict[str, Any]) -> Any:
        async def compute() -> Any:
            return _dumped(await self._target.create(**request))

        value = await self._cache.aget_or_compute(
            question.prompt, compute, scope=question.scope, keep_if=_is_complete, **self._terms
        )
        return _completion(value)

    # ---- streams ----------------------------------------------------------------------------------

    def _stream(self, question: _Question, request: dict[str, Any]) -> CachedStream:
        chunks = self._cache.stream(
            question.prompt,
            lambda: _Source(self._target.create(**request)),
            scope=question.scope,
            keep_if=_are_complete,
            **self._terms,
        )
        return CachedStream(chunks)

    async def _astream(self, question: _Question, request: dict[str, Any]) -> AsyncCachedStream:
        async def begin() -> AsyncIterator[Any]:
            return _AsyncSource(await self._target.create(**request))

        chunks = await self._cache.astream(
            question.prompt, begin, scope=question.scope, keep_if=_are_complete, **self._terms
        )
        return AsyncCachedStream(chunks)


class CachedStream(Iterator[Any]):
    """A stream of chunks as the client's own: iterate, use it with ``with``, or close it."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self._chunks = chunks

    def __next__(self) -> Any:
        return _chunk(next(self._chunks))

    def __enter__(self) -> CachedStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        close: Callable[[], None] | None = getattr(self._chunks, "close", None)
        if close is not None:
            close()


class AsyncCachedStream(AsyncIterator[Any]):
    """`CachedStream` for coroutines."""

    def __init__(self, chunks: AsyncIterator[Any]) -> None:
        self._chunks = chunks

    async def __anext__(self) -> Any:
        return _chunk(await anext(self._chunks))

    async def __aenter__(self) -> AsyncCachedStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._chunks.aclose()  # type: ignore[attr-defined]  # readers and generators have it


class _Source(Iterator[Any]):
    """The client's stream, as JSON."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._chunks = stream, iter(stream)

    def __next__(self) -> Any:
        return _dumped(next(self._chunks))

    def close(self) -> None:
        self._stream.close()


class _AsyncSource(AsyncIterator[Any]):
    def __init__(self, stream: Any) -> None:
        self._stream, self._chunks = stream, aiter(stream)

    async def __anext__(self) -> Any:
        return _dumped(await anext(self._chunks))

    async def aclose(self) -> None:
        await self._stream.close()


def _split(messages: list[Any]) -> tuple[str, list[Any]]:
    """The text of the last message, and everything else of them all."""
    last = messages[-1] if messages else {}
    if last.get("role") != "user":
        raise ValueError(f"the last message is of the role {last.get('role')!r}, not 'user'")
    content = last.get("content")
    rest: list[Any] = [*messages[:-1], {**last, "content": None}]
    if isinstance(content, str):
        return content, rest
    if not isinstance(content, list):
        raise ValueError(f"the last message holds {type(content).__name__}, not text")
    texts = [part["text"] for part in content if part.get("type") == "text"]
    if len(texts) != 1:
        raise ValueError(f"the last message has {len(texts)} parts of text, not 1")
    return texts[0], [*rest, [part for part in content if part.get("type") != "text"]]


def _plain(value: Any) -> Any:
    """Messages of an earlier answer are objects of the client: as JSON, like the others."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _dumped(answer: Any) -> dict[str, Any]:
    told: dict[str, Any] = answer.model_dump(mode="json", exclude_unset=True, warnings=False)
    return told


def _is_complete(completion: dict[str, Any]) -> bool:
    choices = completion.get("choices") or []
    return bool(choices) and all(choice.get("finish_reason") in _COMPLETE for choice in choices)


def _are_complete(chunks: list[dict[str, Any]]) -> bool:
    """Whether every choice of a stream has come to its end."""
    ends: dict[int, Any] = {}
    for choice in (choice for chunk in chunks for choice in chunk.get("choices") or []):
        index = choice.get("index", 0)
        ends[index] = choice.get("finish_reason") or ends.get(index)
    return bool(ends) and all(end in _COMPLETE for end in ends.values())


def _completion(value: dict[str, Any]) -> Any:
    from openai.types.chat import ChatCompletion

    return ChatCompletion.construct(**value)


def _chunk(value: dict[str, Any]) -> Any:
    from openai.types.chat import ChatCompletionChunk

    return ChatCompletionChunk.construct(**value)


def _openai() -> ModuleType:
    try:
        import openai
    except ImportError as error:
        raise NotReadyError("CachedOpenAI needs the package openai: pip install openai") from error
    return openai
