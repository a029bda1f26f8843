"""The course of one call: look up, compute once for all who ask together, keep, count."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from faissbase.cache.counters import Counting
from faissbase.cache.entries import Selection
from faissbase.cache.flights import Flight, Flights, Writes
from faissbase.cache.matching import CacheHit, Found, Matching
from faissbase.cache.shelf import Clock, Order, Shelf
from faissbase.cache.streams import (
    AsyncSharedStream,
    AsyncStreamReader,
    SharedStream,
    StreamReader,
    Streams,
)
from faissbase.embedding.awaiting import awaited_in_this_loop
from faissbase.errors import FaissbaseError, InvalidInputError, UnavailableError
from faissbase.types import Float32

T = TypeVar("T")
_log = logging.getLogger("faissbase.cache")


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    seconds: float


@dataclass(slots=True)
class _Errand:
    """One caller's order, and whether it was this caller who computed."""

    order: Order
    fn: Callable[..., Any]
    vector: Float32 | None
    has_computed: bool = False
    is_replay: bool = False  # of what another has stored since this caller looked

    def call(self) -> Any:
        return self.fn(self.order.facts.prompt) if _wants_prompt(self.fn) else self.fn()


class Asking:
    """What the calls of one cache share while they run."""

    def __init__(self, shelf: Shelf, matching: Matching, counting: Counting, clock: Clock) -> None:
        self._shelf = shelf
        self._matching = matching
        self._counting = counting
        self._clock = clock
        self._flights = Flights()
        self._writes = Writes()
        # Of its own: the event loop's may be full of threads that wait for what needs one of them to end.
        self._threads = ThreadPoolExecutor(thread_name_prefix="faissbase-cache")
        self._streams: Streams[SharedStream] = Streams()
        self._astreams: Streams[AsyncSharedStream] = Streams()

    async def _in_thread(self, call: Callable[..., T], *args: Any) -> T:
        with awaited_in_this_loop():
            in_context = functools.partial(contextvars.copy_context().run, call, *args)
            return await asyncio.get_running_loop().run_in_executor(self._threads, in_context)

    # ---- looking up -------------------------------------------------------------------------------

    def check(self, order: Order) -> CacheHit | None:
        hit = self._find(order).hit
        if hit is None:
            self._counting.add(misses=1)
        return hit

    def _find(self, order: Order) -> Found:
        found = self._matching.find(order.facts.scope, order.facts.prompt, self._clock())
        if found.hit is not None:
            self._note_hit(found.hit)
        return found

    def _find_if_possible(self, order: Order) -> Found:
        """`_find`, where storage out of reach or an embedder that fails are no reason not to compute."""
        try:
            return self._find(order)
        except (InvalidInputError, UnavailableError) as error:
            _log.warning("the cache cannot be looked up, which counts as a miss: %s", error)
            return Found(reason=str(error))

    def _exact(self, order: Order) -> CacheHit | None:
        """Who computed before us may have stored it since we looked."""
        try:
            hit = self._matching.exact(order.facts.scope, order.facts.prompt, self._clock())
        except UnavailableError:
            return None
        if hit is not None:
            self._note_hit(hit)
        return hit

    def _note_hit(self, hit: CacheHit) -> None:
        self._shelf.note_used(hit)
        kind = "exact_hits" if hit.kind == "exact" else "similar_hits"
        self._counting.add(**{kind: 1, "saved_seconds": hit.seconds})

    # ---- computing --------------------------------------------------------------------------------

    def get_or_compute(self, order: Order, fn: Callable[..., Any]) -> Any:
        found = self._find_if_possible(order)
        if found.hit is not None:
            return found.hit.response
        errand = _Errand(order, fn, found.vector)
        answer = self._flights.run(order.facts, lambda flight: self._compute(errand, flight))
        return self._taken(errand, answer)

    async def aget_or_compute(self, order: Order, fn: Callable[..., Any]) -> Any:
        found = await self._in_thread(self._find_if_possible, order)
        if found.hit is not None:
            return found.hit.response
        errand = _Errand(order, fn, found.vector)
        answer = await self._flights.arun(order.facts, lambda flight: self._acompute(errand, flight))
        return self._taken(errand, answer)

    def _taken(self, errand: _Errand, answer: _Answer) -> Any:
        if not errand.has_computed:
            self._counting.add(shared=1, saved_seconds=answer.seconds)
        return answer.value

    def _compute(self, errand: _Errand, flight: Flight) -> _Answer:
        errand.has_computed = True
        hit = self._exact(errand.order)
        if hit is not None:
            return _Answer(hit.response, hit.seconds)
        self._counting.add(misses=1)
        started = self._clock()
        value = errand.call()
        seconds = max(0.0, self._clock() - started)
        self._keep(errand.order, value, errand.vector, seconds, flight)
        return _Answer(value, seconds)

    async def _acompute(self, errand: _Errand, flight: Flight) -> _Answer:
        errand.has_computed = True
        hit = await self._in_thread(self._exact, errand.order)
        if hit is not None:
            return _Answer(hit.response, hit.seconds)
        self._counting.add(misses=1)
        started = self._clock()
        value = errand.call()
        if inspect.isawaitable(value):
            value = await value
        seconds = max(0.0, self._clock() - started)
        await self._in_thread(self._keep, errand.order, value, errand.vector, seconds, flight)
        return _Answer(value, seconds)

    # ---- keeping ----------------------------------------------------------------------------------

    def _keep(
        self,
        order: Order,
        value: Any,
        vector: Float32 | None,
        seconds: float,
        under_way: Flight | SharedStream | AsyncSharedStream,
    ) -> None:
        is_kept = False
        is_wanted = order.keep_if is None or order.keep_if(value)
        try:
            row = self._matching.embed(order.facts.prompt) if vector is None and is_wanted else vector
            with self._writes.one():
                if is_wanted and row is not None and not under_way.is_stale:
                    is_kept = self._shelf.put(order, value, row, seconds)
        except FaissbaseError as error:
            _log.warning("an answer cannot be kept: %s", error)
        if not is_kept:
            self._counting.add(not_stored=1)

    def remove(self, selection: Selection) -> int:
        self._drop(selection)
        return self._shelf.remove_selected(selection)

    def clear(self) -> None:
        self._drop(Selection())
        self._shelf.clear()

    def _drop(self, selection: Selection) -> None:
        """What is being computed must not be stored any more, and what is being stored must be there.

        The removal comes after it, and so finds all that was computed before.
        """
        self._flights.drop(selection)
        self._streams.drop(selection)
        self._astreams.drop(selection)
        self._writes.drain()

    # ---- streams ----------------------------------------------------------------------------------

    def stream(self, order: Order, fn: Callable[..., Iterable[Any]]) -> Iterator[Any]:
        found = self._find_if_possible(order)
        if found.hit is not None:
            return iter(list(found.hit.response))
        errand, key = _Errand(order, fn, found.vector), order.facts.key
        stream, _ = self._streams.join(key, lambda: self._new_stream(errand))
        reader = StreamReader(stream, lambda: self._streams.leave(key, stream))
        try:
            stream.open()
        except BaseException:
            reader.close()
            raise
        self._note_stream(errand)
        return reader

    def _note_stream(self, errand: _Errand) -> None:
        if not errand.is_replay:
            self._counting.add(**{"misses" if errand.has_computed else "shared": 1})

    def _new_stream(self, errand: _Errand) -> SharedStream:
        began = self._clock()

        def open_source() -> Iterator[Any]:
            hit = self._exact(errand.order)
            errand.has_computed, errand.is_replay = hit is None, hit is not None
            chunks: Iterable[Any] = list(hit.response) if hit is not None else errand.call()
            return iter(chunks)

        def keep(stream: SharedStream) -> None:
            if errand.is_replay:
                return
            seconds = max(0.0, self._clock() - began)
            self._keep(errand.order, list(stream.chunks), errand.vector, seconds, stream)

        return SharedStream(errand.order.facts, open_source, keep)

    async def astream(self, order: Order, fn: Callable[..., Any]) -> AsyncIterator[Any]:
        found = await self._in_thread(self._find_if_possible, order)
        if found.hit is not None:
            return _replayed(list(found.hit.response))
        errand = _Errand(order, fn, found.vector)
        key = (order.facts.key, asyncio.get_running_loop())
        stream, _ = self._astreams.join(key, lambda: self._new_astream(errand))
        reader = AsyncStreamReader(stream, lambda: self._astreams.leave(key, stream))
        try:
            await stream.open()
        except BaseException:
            await reader.aclose()
            raise
        self._note_stream(errand)
        return reader

    def _new_astream(self, errand: _Errand) -> AsyncSharedStream:
        began = self._clock()

        async def open_source() -> AsyncIterator[Any]:
            hit = await self._in_thread(self._exact, errand.order)
            errand.has_computed, errand.is_replay = hit is None, hit is not None
            if hit is not None:
                return _replayed(list(hit.response))
            source = errand.call()
            opened: AsyncIterator[Any] = aiter(await source if isinstance(source, Awaitable) else source)
            return opened

        async def keep(stream: AsyncSharedStream) -> None:
            if errand.is_replay:
                return
            seconds = max(0.0, self._clock() - began)
            await self._in_thread(
                self._keep, errand.order, list(stream.chunks), errand.vector, seconds, stream
            )

        return AsyncSharedStream(errand.order.facts, open_source, keep)


async def _replayed(chunks: list[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        yield chunk


def _wants_prompt(fn: Callable[..., Any]) -> bool:
    """Whether the callable requires an argument, which is the prompt then."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some built-ins do not tell
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(each.kind in positional and each.default is each.empty for each in parameters)
