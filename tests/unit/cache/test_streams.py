"""Streamed answers: recorded while they pass, stored when complete, replayed chunk by chunk."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cache.worlds import Clock, Topics

from faissbase.cache import SemanticCache
from faissbase.cache.entries import Entry
from faissbase.cache.streams import SharedStream, Streams

CHUNKS = ["Par", "is", ".", None, ""]


class Source:
    """A stream that counts how often it is begun, and may break."""

    def __init__(self, *, breaks_after: int | None = None) -> None:
        self.breaks_after = breaks_after
        self.n_begun = 0
        self.n_given = 0
        self.is_closed = False

    def __call__(self) -> Iterator[Any]:
        self.n_begun += 1
        return self._chunks()

    def _chunks(self) -> Iterator[Any]:
        try:
            for i, chunk in enumerate(CHUNKS):
                if i == self.breaks_after:
                    raise ConnectionError("cut")
                self.n_given += 1
                yield chunk
        finally:
            self.is_closed = True

    async def awaited(self) -> AsyncIterator[Any]:
        self.n_begun += 1
        return self._achunks()

    async def _achunks(self) -> AsyncIterator[Any]:
        try:
            for i, chunk in enumerate(CHUNKS):
                if i == self.breaks_after:
                    raise ConnectionError("cut")
                self.n_given += 1
                await asyncio.sleep(0)
                yield chunk
        finally:
            self.is_closed = True


@pytest.fixture(params=["memory", "folder"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SemanticCache]:
    path = None if request.param == "memory" else tmp_path / "cache"
    with SemanticCache(Topics(), path=path, guard=None) as made:
        yield made


def test_a_stream_is_passed_on_as_it_comes(cache: SemanticCache) -> None:
    source = Source()
    chunks = cache.stream("a", source)
    assert source.n_given == 0
    assert next(chunks) == "Par"
    assert source.n_given == 1
    assert list(chunks) == CHUNKS[1:]


def test_a_complete_stream_is_replayed_chunk_by_chunk(cache: SemanticCache) -> None:
    source = Source()
    assert list(cache.stream("a", source)) == CHUNKS
    for prompt in ("a", "a: 0.99"):
        replayed = cache.stream(prompt, source)
        assert [next(replayed) for _ in CHUNKS] == CHUNKS
        with pytest.raises(StopIteration):
            next(replayed)
    assert source.n_begun == 1
    assert (cache.counters.exact_hits, cache.counters.similar_hits, cache.counters.misses) == (1, 1, 1)


def test_a_stream_is_stored_only_at_its_end(cache: SemanticCache) -> None:
    chunks = cache.stream("a", Source())
    for _ in CHUNKS:
        next(chunks)
        assert len(cache) == 0
    with pytest.raises(StopIteration):
        next(chunks)
    assert len(cache) == 1


def test_a_broken_stream_raises_to_its_reader_and_is_not_stored(cache: SemanticCache) -> None:
    chunks = cache.stream("a", Source(breaks_after=2))
    assert [next(chunks), next(chunks)] == CHUNKS[:2]
    with pytest.raises(ConnectionError, match="cut"):
        next(chunks)
    assert len(cache) == 0
    assert list(cache.stream("a", Source())) == CHUNKS


def test_a_stream_that_cannot_begin_raises_at_once(cache: SemanticCache) -> None:
    def fail() -> Iterator[Any]:
        raise ConnectionError("refused")

    with pytest.raises(ConnectionError, match="refused"):
        cache.stream("a", fail)
    assert list(cache.stream("a", Source())) == CHUNKS


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_stream_that_its_reader_leaves_is_closed_and_not_stored(cache: SemanticCache, how: str) -> None:
    source = Source()
    chunks: Any = cache.stream("a", source)
    next(chunks)
    if how == "close":
        chunks.close()
        assert list(chunks) == []
    else:
        del chunks
        gc.collect()
    assert source.is_closed
    assert len(cache) == 0


def test_keep_if_sees_all_chunks(cache: SemanticCache) -> None:
    seen: list[Any] = []

    def keep_if(chunks: list[Any]) -> bool:
        seen.extend(chunks)
        return False

    list(cache.stream("a", Source(), keep_if=keep_if))
    assert seen == CHUNKS
    assert (len(cache), cache.counters.not_stored) == (0, 1)


def test_readers_that_come_meanwhile_read_along_from_the_first_chunk(cache: SemanticCache) -> None:
    source = Source()
    first = cache.stream("a", source)
    assert [next(first), next(first)] == CHUNKS[:2]
    second = cache.stream("a", source)
    assert list(second) == CHUNKS
    assert list(first) == CHUNKS[2:]
    assert (source.n_begun, cache.counters.misses, cache.counters.shared) == (1, 1, 1)


def test_the_stream_goes_on_for_the_others_when_its_first_reader_leaves(cache: SemanticCache) -> None:
    source = Source()
    first: Any = cache.stream("a", source)
    next(first)
    second = cache.stream("a", source)
    first.close()
    assert not source.is_closed
    assert list(second) == CHUNKS
    assert len(cache) == 1


def test_a_break_reaches_exactly_those_who_read(cache: SemanticCache) -> None:
    source = Source(breaks_after=1)
    readers = [cache.stream("a", source) for _ in range(3)]
    for reader in readers:
        assert next(reader) == CHUNKS[0]
        with pytest.raises(ConnectionError):
            next(reader)
        if reader is readers[0]:
            assert list(cache.stream("a", Source())) == CHUNKS  # who comes afterwards is not concerned


def test_many_threads_read_one_stream(cache: SemanticCache) -> None:
    source, start = Source(), threading.Barrier(30)

    def read() -> list[Any]:
        start.wait()
        return list(cache.stream("a", source))

    with ThreadPoolExecutor(30) as pool:
        reading = [pool.submit(read) for _ in range(30)]
        assert all(each.result() == CHUNKS for each in reading)
    assert (source.n_begun, len(cache)) == (1, 1)


def test_a_stream_that_is_invalidated_meanwhile_is_not_stored(cache: SemanticCache) -> None:
    source = Source()
    chunks = cache.stream("a", source, tags="x")
    next(chunks)
    cache.invalidate(tags="x")
    fresh = Source()
    assert list(cache.stream("a", fresh, tags="x")) == CHUNKS
    assert list(chunks) == CHUNKS[1:]
    assert (fresh.n_begun, len(cache)) == (1, 1)
    assert cache.invalidate("a") == 1


def test_streamed_and_whole_answers_are_entries_of_their_own(cache: SemanticCache) -> None:
    list(cache.stream("a", Source()))
    assert cache.check("a") is None
    assert cache.explain("a", is_stream=True).outcome == "exact"
    cache.store("a", "whole")
    assert len(cache) == 2
    assert cache.invalidate("a") == 2


def test_replaying_does_not_make_an_entry_younger() -> None:
    clock = Clock()
    with SemanticCache(Topics(), ttl_s=10, clock=clock, guard=None) as cache:
        list(cache.stream("a", Source()))
        clock.now += 9
        list(cache.stream("a", Source()))
        clock.now += 1
        source = Source()
        list(cache.stream("a", source))
        assert source.n_begun == 1


# ---- coroutines ----------------------------------------------------------------------------------


async def _all(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


def test_an_async_stream_is_passed_on_stored_and_replayed(cache: SemanticCache) -> None:
    async def ask() -> None:
        source = Source()
        assert await _all(await cache.astream("a", source.awaited)) == CHUNKS
        assert await _all(await cache.astream("a", source.awaited)) == CHUNKS
        assert await _all(await cache.astream("a: 0.99", source._achunks)) == CHUNKS
        assert source.n_begun == 1

    asyncio.run(ask())
    assert list(cache.stream("a", Source())) == CHUNKS
    assert len(cache) == 1


def test_async_readers_read_along_and_outlive_the_first(cache: SemanticCache) -> None:
    async def ask() -> None:
        source = Source()
        first: Any = await cache.astream("a", source.awaited)
        assert await anext(first) == CHUNKS[0]
        others = [await cache.astream("a", source.awaited) for _ in range(5)]
        await first.aclose()
        assert await asyncio.gather(*map(_all, others)) == [CHUNKS] * 5
        assert source.n_begun == 1

    asyncio.run(ask())
    assert len(cache) == 1


def test_an_async_stream_that_nobody_reads_any_more_is_closed(cache: SemanticCache) -> None:
    class Endless(Source):
        async def _achunks(self) -> AsyncIterator[Any]:
            try:
                while True:
                    yield "more"
                    await asyncio.sleep(0.001)
            finally:
                self.is_closed = True

    async def ask() -> None:
        source = Endless()
        chunks: Any = await cache.astream("a", source.awaited)
        await anext(chunks)
        await chunks.aclose()
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert source.is_closed

    asyncio.run(ask())
    assert len(cache) == 0


def test_a_broken_async_stream_reaches_all_its_readers_and_is_not_stored(cache: SemanticCache) -> None:
    async def ask() -> None:
        source = Source(breaks_after=2)
        readers = [await cache.astream("a", source.awaited) for _ in range(3)]
        ends = await asyncio.gather(*map(_all, readers), return_exceptions=True)
        assert [type(end) for end in ends] == [ConnectionError] * 3
        assert await _all(await cache.astream("a", Source().awaited)) == CHUNKS

    asyncio.run(ask())
    assert len(cache) == 1


def test_a_cancelled_reader_leaves_the_others_reading(cache: SemanticCache) -> None:
    async def ask() -> None:
        source = Source()

        async def read() -> list[Any]:
            return await _all(await cache.astream("a", source.awaited))

        readers = [asyncio.create_task(read()) for _ in range(4)]
        await asyncio.sleep(0)
        readers[0].cancel()
        ends = await asyncio.gather(*readers, return_exceptions=True)
        assert ends[1:] == [CHUNKS] * 3

    asyncio.run(ask())
    assert len(cache) == 1


def test_a_reader_that_is_collected_while_another_joins_does_not_hang() -> None:
    streams: Streams[SharedStream] = Streams()

    def make_stream() -> SharedStream:
        return SharedStream(Entry("k", "s", "p", "", 0.0), lambda: iter([]), lambda stream: None)

    left, _ = streams.join("left", make_stream)

    def make_while_collecting() -> SharedStream:
        streams.leave("left", left)
        return make_stream()

    joining = threading.Thread(target=streams.join, args=("new", make_while_collecting), daemon=True)
    joining.start()
    joining.join(10)
    assert not joining.is_alive()
