"""`SemanticCache.cached`: functions whose first argument is a prompt, answered from the cache."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from faissbase.cache.identity import identity_of
from faissbase.cache.scope import Scope
from faissbase.errors import InvalidInputError

if TYPE_CHECKING:
    from faissbase.cache.semantic import SemanticCache


class Cached:
    """The decorator, with its terms.

    Parameters
    ----------
    prompt : str, optional
        The name of the parameter that is the prompt; otherwise the first that is not ignored.
    ignore : iterable of str
        Parameters that do not shape the answer, such as ``self`` or a client. All others must be JSON: they
        are part of the scope, as is the function itself (see `identity_of`).
    scope, tags, ttl_s, keep_if
        See `SemanticCache.get_or_compute`.
    """

    def __init__(
        self,
        cache: SemanticCache,
        *,
        prompt: str | None = None,
        ignore: Iterable[str] = (),
        scope: Scope | None = None,
        tags: Iterable[str] = (),
        ttl_s: float | None = None,
        keep_if: Callable[[Any], bool] | None = None,
    ) -> None:
        self._cache = cache
        self._prompt = prompt
        self._ignored = {ignore} if isinstance(ignore, str) else set(ignore)
        self._scope = scope or Scope()
        names = tags if isinstance(tags, str) else tuple(tags)
        self._terms = {"tags": names, "ttl_s": ttl_s, "keep_if": keep_if}

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(fn)
        names = [name for name in signature.parameters if name not in self._ignored]
        prompt = self._prompt or (names[0] if names else "")
        if prompt not in names:
            raise InvalidInputError(
                f"{getattr(fn, '__qualname__', fn)}{signature} has no parameter {prompt!r} to be the prompt"
            )

        identity = identity_of(fn, self._ignored)

        def asked(args: Any, kwargs: Any) -> tuple[str, dict[str, Any]]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            told = {name: value for name, value in bound.arguments.items() if name in names}
            text = told.pop(prompt)
            return text, {"scope": self._scope_of(identity, told), **self._terms}

        return self._wrapped(fn, asked)

    def _scope_of(self, identity: dict[str, Any], arguments: dict[str, Any]) -> Scope:
        given = {**(self._cache.scope.parameters or {}), **(self._scope.parameters or {})}
        return replace(self._scope, parameters={"parameters": given, **identity, "arguments": arguments})

    def _wrapped(self, fn: Callable[..., Any], asked: Callable[..., Any]) -> Callable[..., Any]:
        cache = self._cache

        @functools.wraps(fn)
        def plain(*args: Any, **kwargs: Any) -> Any:
            prompt, terms = asked(args, kwargs)
            return cache.get_or_compute(prompt, lambda: fn(*args, **kwargs), **terms)

        @functools.wraps(fn)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            prompt, terms = asked(args, kwargs)
            return await cache.aget_or_compute(prompt, lambda: fn(*args, **kwargs), **terms)

        @functools.wraps(fn)
        def streamed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            prompt, terms = asked(args, kwargs)
            yield from cache.stream(prompt, lambda: fn(*args, **kwargs), **terms)

        @functools.wraps(fn)
        async def astreamed(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            prompt, terms = asked(args, kwargs)
            chunks = await cache.astream(prompt, lambda: fn(*args, **kwargs), **terms)
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                await chunks.aclose()  # type: ignore[attr-defined]  # readers and generators have it

        if inspect.isasyncgenfunction(fn):
            return astreamed
        if inspect.iscoroutinefunction(fn):
            return awaited
        return streamed if inspect.isgeneratorfunction(fn) else plain
