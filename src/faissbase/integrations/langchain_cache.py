"""LangChain's LLM cache over a `SemanticCache`: ``set_llm_cache(SemanticLLMCache(cache))``.

Needs the package ``langchain-core``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from faissbase.cache import CacheHit, Scope, SemanticCache
from faissbase.errors import FaissbaseError, InvalidInputError, UnavailableError

try:
    from langchain_core.caches import BaseCache
    from langchain_core.load import dumps, loads
    from langchain_core.outputs import Generation
except ImportError as missing:
    raise ImportError("SemanticLLMCache needs LangChain: pip install langchain-core") from missing

_log = logging.getLogger("faissbase.cache")


class SemanticLLMCache(BaseCache):  # type: ignore[misc]  # mypy does not follow LangChain's imports
    """Answers of LangChain's models by what their prompts mean.

    The prompt is the text of the last human message, or the whole prompt of a model that takes text. The
    messages before it, images and files beside it, and what LangChain says of the model and its parameters,
    are part of the scope. Where the last message is of a tool or of the model, only the same messages serve.

    Parameters
    ----------
    cache : SemanticCache
        Not closed with this object.
    scope : Scope, optional
        The tenant, and what else is to be told apart.
    """

    def __init__(self, cache: SemanticCache, *, scope: Scope | None = None) -> None:
        self._cache = cache
        self._scope = scope or Scope()

    def lookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """The generations that serve, or None; a cache out of reach or an embedder that fails is a miss."""
        text, scope = self._asked(prompt, llm_string)
        with _missing_where_it_fails():
            return _generations(self._cache.check(text, scope=scope))
        return None

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep the generations of a prompt; where they cannot be kept, that is logged."""
        text, scope = self._asked(prompt, llm_string)
        with _returned_all_the_same():
            self._cache.store(text, [dumps(each) for each in return_val], scope=scope)

    def clear(self, **kwargs: Any) -> None:
        """Remove every entry of the cache, of all scopes."""
        self._cache.clear()

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """`lookup`, for coroutines."""
        text, scope = self._asked(prompt, llm_string)
        with _missing_where_it_fails():
            return _generations(await self._cache.acheck(text, scope=scope))
        return None

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """`update`, for coroutines."""
        text, scope = self._asked(prompt, llm_string)
        with _returned_all_the_same():
            await self._cache.astore(text, [dumps(each) for each in return_val], scope=scope)

    async def aclear(self, **kwargs: Any) -> None:
        """`clear`, for coroutines."""
        await asyncio.to_thread(self.clear)

    def _asked(self, prompt: str, llm_string: str) -> tuple[str, Scope]:
        text, rest = _split(prompt)
        told = Scope(
            tenant=self._scope.tenant,
            model=self._scope.model,
            system_prompt=json.dumps([self._scope.system_prompt, rest], sort_keys=True),
            parameters={"scope": self._scope.parameters, "llm": llm_string},
            tools=self._scope.tools,
        )
        return text, told


def _split(prompt: str) -> tuple[str, Any]:
    """The text that may be asked in other words, and all that must be the same."""
    try:
        messages = [_without_id(message) for message in json.loads(prompt)]
        last = messages[-1]["kwargs"]
        kind, content = last["type"], last["content"]
    except (ValueError, LookupError, TypeError, AttributeError):
        return prompt, None  # of a model that takes text
    parts = content if isinstance(content, list) else [content]
    texts = [text for text in map(_text_of, parts) if text is not None]
    if kind != "human" or len(texts) != 1:
        return prompt, messages  # an answer, or what a tool has said: no question, so only the same serves
    told = {name: value for name, value in last.items() if name != "content"}
    others = [part for part in parts if _text_of(part) is None]
    return texts[0], [messages[:-1], told, *([others] if others else [])]


def _text_of(part: Any) -> str | None:
    """The text of a part of a message; None where it is an image or the like."""
    text = part["text"] if isinstance(part, dict) and part.get("type") == "text" else part
    return text if isinstance(text, str) else None


@contextmanager
def _missing_where_it_fails() -> Iterator[None]:
    try:
        yield
    except (InvalidInputError, UnavailableError) as error:
        _log.warning("the cache cannot be looked up, which counts as a miss: %s", error)


@contextmanager
def _returned_all_the_same() -> Iterator[None]:
    try:
        yield
    except FaissbaseError as error:
        _log.warning("an answer cannot be kept: %s", error)


def _without_id(message: Any) -> Any:
    """A message without the id that LangChain gives it anew in each run."""
    return {**message, "kwargs": {k: v for k, v in message["kwargs"].items() if k != "id"}}


def _generations(hit: CacheHit | None) -> list[Generation] | None:
    return None if hit is None else [_loaded(each) for each in hit.response]


def _loaded(text: str) -> Any:
    with warnings.catch_warnings():  # `loads` is marked as beta; it is what LangChain's own caches use
        warnings.simplefilter("ignore")
        return loads(text, allowed_objects="core")
