"""Streams that several readers share while they come in, each reader from the first chunk on.

Knows chunks and readers: no cache. A stream is read to its end as long as anybody reads it, and closed when
the last reader leaves.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Generic, TypeVar

from faissbase.cache.entries import Entry, Selection

Stream = TypeVar("Stream", bound="SharedStream | AsyncSharedStream")


class SharedStream:
    """A stream that threads read. Whoever has read all that is there fetches the next chunk for all.

    Parameters
    ----------
    facts : Entry
        What is to be stored of it, without the value.
    open_source : callable
        Begins the stream; called once.
    on_end : callable
        Given the stream once the source has ended by itself, before any reader sees the end.
    """

    def __init__(
        self,
        facts: Entry,
        open_source: Callable[[], Iterator[Any]],
        on_end: Callable[[SharedStream], None],
    ) -> None:
        self.facts = facts
        self.chunks: list[Any] = []
        self.is_stale = False
        self.n_readers = 0
        self._open_source = open_source
        self._on_end = on_end
        self._fetching = threading.RLock()
        self._source: Iterator[Any] | None = None
        self._has_ended = False
        self._fault: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return self._has_ended or self._fault is not None

    def open(self) -> None:
        """Begin the stream unless it has begun; what beginning raises reaches all of its readers."""
        with self._fetching:
            self._raise_fault()
            if self._source is not None:
                return
            try:
                self._source = iter(self._open_source())
            except BaseException as fault:
                self._fault = fault
                raise

    def chunk(self, position: int) -> Any:
        """That chunk, once it is there; `StopIteration` after the last one."""
        if position < len(self.chunks):
            return self.chunks[position]
        with self._fetching:
            if position == len(self.chunks) and not self.is_over:
                self._fetch()
            if position < len(self.chunks):
                return self.chunks[position]
            self._raise_fault()
            raise StopIteration

    def _fetch(self) -> None:
        assert self._source is not None
        try:
            self.chunks.append(next(self._source))
        except StopIteration:
            self._on_end(self)
            self._has_ended = True
        except BaseException as fault:
            self._fault = fault
            raise

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def close(self) -> None:
        """End the source: nobody reads any more."""
        with self._fetching:
            if not self.is_over:
                self._fault = RuntimeError("the stream was closed by its last reader")
                close = getattr(self._source, "close", None)
                if close is not None:
                    close()


class AsyncSharedStream:
    """A stream that coroutines of one event loop read, fetched by a task of its own; see `SharedStream`."""

    def __init__(
        self,
        facts: Entry,
        open_source: Callable[[], Awaitable[AsyncIterator[Any]]],
        on_end: Callable[[AsyncSharedStream], Awaitable[None]],
    ) -> None:
        self.facts = facts
        self.chunks: list[Any] = []
        self.is_stale = False
        self.n_readers = 0
        self._open_source = open_source
        self._on_end = on_end
        self._is_open = False
        self._has_ended = False
        self._fault: BaseException | None = None
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        return self._has_ended or self._fault is not None

    async def open(self) -> None:
        """Begin the stream unless it has begun."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._pump())
        while not (self._is_open or self.is_over):
            await self._news.wait()
        if self._fault is not None:
            raise self._fault

    async def chunk(self, position: int) -> Any:
        """That chunk, once it is there; `StopAsyncIteration` after the last one."""
        while position >= len(self.chunks):
            if self._fault is not None:
                raise self._fault
            if self._has_ended:
                raise StopAsyncIteration
            await self._news.wait()
        return self.chunks[position]

    async def _pump(self) -> None:
        source = None
        try:
            source = await self._open_source()
            self._is_open = True
            self._tell()
            async for chunk in source:
                self.chunks.append(chunk)
                self._tell()
            await self._on_end(self)
            self._has_ended = True
        except BaseException as fault:
            self._fault = fault
            if not isinstance(fault, Exception):
                raise
        finally:
            self._tell()
            await _aclose(source)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    def close(self) -> None:
        """End the source: nobody reads any more."""
        if self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)


async def _aclose(source: Any) -> None:
    close = getattr(source, "aclose", None) or getattr(source, "close", None)
    closing = close() if close is not None else None
    if closing is not None:
        await closing


class Streams(Generic[Stream]):
    """The streams of one cache that are coming in, by key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a reader may be collected, and leave, wherever Python likes
        self._streams: dict[object, Stream] = {}

    def join(self, key: object, make: Callable[[], Stream]) -> tuple[Stream, bool]:
        """The stream of that key, made where there is none, with one reader more; whether it is new."""
        with self._lock:
            stream = self._streams.get(key)
            is_new = stream is None or stream.is_over
            if stream is None or stream.is_over:
                stream = self._streams[key] = make()
            stream.n_readers += 1
            return stream, is_new

    def leave(self, key: object, stream: Stream) -> None:
        with self._lock:
            stream.n_readers -= 1
            is_last = stream.n_readers == 0
            if is_last or stream.is_over:
                self._forget(key, stream)
        if is_last:
            stream.close()

    def drop(self, selection: Selection) -> None:
        """Leave those streams to their readers: who asks from now on begins a new one."""
        with self._lock:
            for key, stream in list(self._streams.items()):
                if selection.matches(stream.facts):
                    stream.is_stale = True
                    self._streams.pop(key, None)

    def _forget(self, key: object, stream: Stream) -> None:
        if self._streams.get(key) is stream:
            del self._streams[key]


class StreamReader(Iterator[Any]):
    """One reader of a shared stream. Close it, or read it to the end."""

    def __init__(self, stream: SharedStream, leave: Callable[[], None]) -> None:
        self._stream = stream
        self._leave: Callable[[], None] | None = leave
        self._position = 0

    def __next__(self) -> Any:
        if self._leave is None:
            raise StopIteration
        try:
            chunk = self._stream.chunk(self._position)
        except BaseException:
            self.close()
            raise
        self._position += 1
        return chunk

    def close(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    def __del__(self) -> None:
        self.close()


class AsyncStreamReader(AsyncIterator[Any]):
    """`StreamReader` for coroutines."""

    def __init__(self, stream: AsyncSharedStream, leave: Callable[[], None]) -> None:
        self._stream = stream
        self._leave: Callable[[], None] | None = leave
        self._position = 0

    async def __anext__(self) -> Any:
        if self._leave is None:
            raise StopAsyncIteration
        try:
            chunk = await self._stream.chunk(self._position)
        except asyncio.CancelledError:  # of this reader alone: it may be read again, or closed
            raise
        except BaseException:
            self._close()
            raise
        self._position += 1
        return chunk

    def _close(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()

    async def aclose(self) -> None:
        self._close()

    def __del__(self) -> None:
        self._close()
