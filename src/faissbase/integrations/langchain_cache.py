"""LangChain's LLM cache over a `SemanticCache`: ``set_llm_cache(SemanticLLMCache(cache))``.

Needs the package ``langchain-core``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections.abc import Sequence
from typing import Any

from faissbase.cache import Scope, SemanticCache
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
    messages before it, and what LangChain says of the model and its parameters, are part of the scope.

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
        try:
            hit = self._cache.check(text, scope=scope)
        except (InvalidInputError, UnavailableError) as error:
            _log.warning("the cache cannot be looked up, which counts as a miss: %s", error)
            return None
        return None if hit is None else [_loaded(each) for each in hit.response]

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """Keep the generations of a prompt; where they cannot be kept, that is logged."""
        text, scope = self._asked(prompt, llm_string)
        try:
            self._cache.store(text, [dumps(generation) for generation in return_val], scope=scope)
        except FaissbaseError as error:
            _log.warning("an answer cannot be kept: %s", error)

    def clear(self, **kwargs: Any) -> None:
        """Remove every entry of the cache, of all scopes."""
        self._cache.clear()

    async def alookup(self, prompt: str, llm_string: str) -> Sequence[Generation] | None:
        """`lookup`, for coroutines."""
        return await asyncio.to_thread(self.lookup, prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: Sequence[Generation]) -> None:
        """`update`, for coroutines."""
        await asyncio.to_thread(self.update, prompt, llm_string, return_val)

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
    """The last human message of a chat model's prompt, and all the rest; another prompt whole."""
    try:
        messages = json.loads(prompt)
        last = messages[-1]
        content = last["kwargs"]["content"]
        if last["kwargs"]["type"] != "human" or not isinstance(content, str):
            return prompt, None
        told = {name: value for name, value in last["kwargs"].items() if name not in ("content", "id")}
        return content, [[_without_id(message) for message in messages[:-1]], told]
    except (ValueError, LookupError, TypeError, AttributeError):
        return prompt, None


def _without_id(message: Any) -> Any:
    """A message without the id that LangChain gives it anew in each run."""
    return {**message, "kwargs": {k: v for k, v in message["kwargs"].items() if k != "id"}}


def _loaded(text: str) -> Any:
    with warnings.catch_warnings():  # `loads` is marked as beta; it is what LangChain's own caches use
        warnings.simplefilter("ignore")
        return loads(text, allowed_objects="core")
