"""One computation for all who ask together: threads, coroutines, errors, cancellation, invalidation."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.unit.cache.worlds import Gate, Topics

from faissbase.cache import SemanticCache

N = 100


@pytest.fixture
def cache() -> Iterator[SemanticCache]:
    with SemanticCache(Topics(), guard=None) as made:
        yield made


def _waiters(cache: SemanticCache) -> int:
    return sum(flight.n_waiters for flight in cache._asking._flights._flights.values())


def _wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


async def _await_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


def test_a_hundred_threads_compute_once(cache: SemanticCache) -> None:
    gate = Gate()
    with ThreadPoolExecutor(N) as pool:
        calls = [pool.submit(cache.get_or_compute, "a", gate) for _ in range(N)]
        _wait_until(lambda: _waiters(cache) == N)
        gate.may_end.set()
        assert [call.result() for call in calls] == ["answer"] * N
    told = cache.counters
    assert (gate.n_calls, told.misses, told.shared, told.stored) == (1, 1, N - 1, 1)
    assert told.hit_rate == pytest.approx(0.99)


def test_threads_that_come_at_any_time_compute_once(cache: SemanticCache) -> None:
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        time.sleep(0.01)
        return len(calls)

    start = threading.Barrier(32)

    def ask(_: int) -> list[Any]:
        start.wait()
        return [cache.get_or_compute(f"topic {i}", compute) for i in range(20)]

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(32)))
    assert len(calls) == 20
    assert all(answer == answers[0] for answer in answers)


def test_an_error_reaches_exactly_those_who_waited_for_it(cache: SemanticCache) -> None:
    gate = Gate(ConnectionError("down"))
    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(cache.get_or_compute, "a", gate) for _ in range(10)]
        _wait_until(lambda: _waiters(cache) == 10)
        gate.may_end.set()
        assert [type(call.exception()) for call in calls] == [ConnectionError] * 10
    assert gate.n_calls == 1
    assert cache.get_or_compute("a", lambda: "fine") == "fine"


def test_an_answer_that_is_not_kept_still_serves_all_who_waited(cache: SemanticCache) -> None:
    gate = Gate()
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(cache.get_or_compute, "a", gate, keep_if=lambda answer: False) for _ in range(5)]
        _wait_until(lambda: _waiters(cache) == 5)
        gate.may_end.set()
        assert [call.result() for call in calls] == ["answer"] * 5
    assert (gate.n_calls, len(cache)) == (1, 0)


def test_an_interrupted_thread_hands_over(cache: SemanticCache) -> None:
    gate = Gate(KeyboardInterrupt())
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get_or_compute, "a", gate)
        gate.has_begun.wait(30)
        others = [pool.submit(cache.get_or_compute, "a", lambda: "second") for _ in range(3)]
        _wait_until(lambda: _waiters(cache) == 4)
        gate.may_end.set()
        assert isinstance(first.exception(), KeyboardInterrupt)
        assert [call.result() for call in others] == ["second"] * 3


def test_a_stop_iteration_does_not_hang_those_who_wait(cache: SemanticCache) -> None:
    def stop() -> None:
        raise StopIteration

    async def ask() -> None:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await cache.aget_or_compute("a", stop)

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_a_computation_may_ask_for_its_own_prompt(cache: SemanticCache) -> None:
    def inner() -> str:
        return str(cache.get_or_compute("a", lambda: "inner"))

    assert cache.get_or_compute("a", inner) == "inner"

    async def ainner() -> Any:
        return await cache.aget_or_compute("b", lambda: "inner")

    assert asyncio.run(asyncio.wait_for(cache.aget_or_compute("b", ainner), 30)) == "inner"


def test_different_prompts_and_scopes_do_not_wait_for_each_other(cache: SemanticCache) -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.get_or_compute, "a", gate)
        gate.has_begun.wait(30)
        assert cache.get_or_compute("b", lambda: 1) == 1
        gate.may_end.set()
        assert waiting.result() == "answer"


# ---- coroutines ----------------------------------------------------------------------------------


class AsyncGate:
    """A coroutine function that waits until it is let go."""

    def __init__(self, value: Any = "answer") -> None:
        self.value = value
        self.n_calls = 0
        self.n_cancelled = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> Any:
        self.n_calls += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def test_a_hundred_coroutines_compute_once(cache: SemanticCache) -> None:
    async def ask() -> None:
        gate = AsyncGate()
        calls = [asyncio.create_task(cache.aget_or_compute("a", gate)) for _ in range(N)]
        await _await_until(lambda: _waiters(cache) == N)
        gate.may_end.set()
        assert await asyncio.gather(*calls) == ["answer"] * N
        assert gate.n_calls == 1

    asyncio.run(ask())
    assert (cache.counters.misses, cache.counters.shared) == (1, N - 1)


def test_a_cancelled_first_caller_leaves_the_computation_to_the_others(cache: SemanticCache) -> None:
    async def ask() -> None:
        gate = AsyncGate()
        calls = [asyncio.create_task(cache.aget_or_compute("a", gate)) for _ in range(3)]
        await _await_until(lambda: _waiters(cache) == 3 and gate.n_calls == 1)
        calls[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[0]
        gate.may_end.set()
        assert await asyncio.gather(*calls[1:]) == ["answer"] * 2
        assert (gate.n_calls, gate.n_cancelled) == (1, 0)

    asyncio.run(ask())
    assert len(cache) == 1


def test_the_computation_ends_when_the_last_caller_is_cancelled(cache: SemanticCache) -> None:
    async def ask() -> None:
        gate = AsyncGate()
        calls = [asyncio.create_task(cache.aget_or_compute("a", gate)) for _ in range(3)]
        await _await_until(lambda: _waiters(cache) == 3 and gate.n_calls == 1)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await _await_until(lambda: gate.n_cancelled == 1)
        assert _waiters(cache) == 0
        assert await cache.aget_or_compute("a", lambda: "anew") == "anew"

    asyncio.run(ask())


def test_an_error_reaches_exactly_the_coroutines_that_waited(cache: SemanticCache) -> None:
    async def ask() -> None:
        gate = AsyncGate(ValueError("bad"))
        calls = [asyncio.create_task(cache.aget_or_compute("a", gate)) for _ in range(5)]
        await _await_until(lambda: _waiters(cache) == 5)
        gate.may_end.set()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [ValueError] * 5
        assert await cache.aget_or_compute("a", lambda: "fine") == "fine"

    asyncio.run(ask())


def test_a_computation_that_cancels_itself_ends_its_caller_and_not_the_others(cache: SemanticCache) -> None:
    async def ask() -> None:
        gate = AsyncGate(asyncio.CancelledError())
        first = asyncio.create_task(cache.aget_or_compute("a", gate))
        await _await_until(lambda: gate.n_calls == 1)
        other = asyncio.create_task(cache.aget_or_compute("a", lambda: "mine"))
        await _await_until(lambda: _waiters(cache) == 2)
        gate.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await other == "mine"

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_threads_and_coroutines_share_one_computation(cache: SemanticCache) -> None:
    gate = Gate()

    async def ask() -> list[Any]:
        calls = [asyncio.create_task(cache.aget_or_compute("a", lambda: "mine")) for _ in range(3)]
        await _await_until(lambda: _waiters(cache) == 4)
        gate.may_end.set()
        return await asyncio.gather(*calls)

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(cache.get_or_compute, "a", gate)
        gate.has_begun.wait(30)
        assert asyncio.run(ask()) == ["answer"] * 3
        assert leading.result() == "answer"


def test_a_thread_takes_over_from_an_event_loop_that_ends(cache: SemanticCache) -> None:
    async def ask() -> Any:
        gate = AsyncGate()
        call = asyncio.create_task(cache.aget_or_compute("a", gate))
        await _await_until(lambda: gate.n_calls == 1)
        waiting = pool.submit(cache.get_or_compute, "a", lambda: "thread's own")
        await _await_until(lambda: _waiters(cache) == 2)
        call.cancel()
        return waiting

    with ThreadPoolExecutor(1) as pool:
        waiting = asyncio.run(ask())  # cancels the computation, which the thread still waits for
        assert waiting.result(30) == "thread's own"


def test_blocking_calls_inside_the_loop_do_not_wait_for_the_loop(cache: SemanticCache) -> None:
    async def ask() -> None:
        gate = AsyncGate()
        call = asyncio.create_task(cache.aget_or_compute("a", gate))
        await _await_until(lambda: gate.n_calls == 1)
        assert cache.get_or_compute("a", lambda: "own") == "own"
        gate.may_end.set()
        assert await call == "answer"

    asyncio.run(asyncio.wait_for(ask(), 30))


def test_async_twins_do_what_their_originals_do(cache: SemanticCache) -> None:
    async def ask() -> None:
        assert await cache.acheck("a") is None
        assert await cache.astore("a", None, tags="x") is True
        hit = await cache.acheck("a: 0.99")
        assert hit is not None
        assert hit.response is None
        assert await cache.aget_or_compute("a", lambda: pytest.fail("computed")) is None
        assert await cache.aget_or_compute("loud", lambda prompt: prompt.upper()) == "LOUD"

    asyncio.run(ask())


# ---- invalidation meanwhile ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "remove",
    [
        lambda cache: cache.invalidate("a"),
        lambda cache: cache.invalidate(tags="x"),
        lambda cache: cache.clear(),
    ],
)
def test_what_was_computed_before_an_invalidation_is_not_stored_after_it(
    cache: SemanticCache, remove: Callable[[SemanticCache], Any]
) -> None:
    gate = Gate("stale")
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(cache.get_or_compute, "a", gate, tags="x")
        gate.has_begun.wait(30)
        remove(cache)
        assert cache.get_or_compute("a", lambda: "fresh", tags="x") == "fresh"
        gate.may_end.set()
        assert before.result() == "stale"
    hit = cache.check("a")
    assert hit is not None
    assert hit.response == "fresh"
    assert cache.counters.not_stored == 1


def test_an_invalidation_of_others_leaves_a_computation_alone(cache: SemanticCache) -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(cache.get_or_compute, "a", gate, tags="x")
        gate.has_begun.wait(30)
        cache.invalidate(tags="y")
        gate.may_end.set()
        call.result()
    assert len(cache) == 1


def test_no_answer_from_before_an_invalidation_is_served_after_it(cache: SemanticCache) -> None:
    """Each answer is the version it was computed from; ``announced`` once the invalidation has returned."""
    version, announced, stop = [0], [0], threading.Event()

    def ask(prompt: str) -> int:
        n_asked = 0
        while not stop.is_set():
            known = announced[0]
            assert cache.get_or_compute(prompt, lambda: version[0], tags="v") >= known
            hit = cache.check("a: 0.98")
            assert hit is None or hit.response >= known
            n_asked += 1
        return n_asked

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, prompt) for prompt in ("a", "a", "a: 0.99", "a: 0.97")]
        for _ in range(100):
            version[0] += 1
            cache.invalidate(tags="v")
            announced[0] = version[0]
            time.sleep(0.002)
        stop.set()
        assert all(each.result() > 10 for each in asking)


def test_threads_of_the_loop_that_all_wait_do_not_keep_a_coroutine_from_ending(cache: SemanticCache) -> None:
    async def ask() -> tuple[Any, Any]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        gate = AsyncGate()
        leading = asyncio.create_task(cache.aget_or_compute("a", gate))
        await _await_until(lambda: gate.n_calls == 1)
        waiting = asyncio.create_task(asyncio.to_thread(cache.get_or_compute, "a", lambda: "another"))
        await _await_until(lambda: _waiters(cache) == 2)
        gate.may_end.set()
        return await asyncio.wait_for(asyncio.gather(leading, waiting), 10)

    first, second = asyncio.run(ask())
    assert first == second
