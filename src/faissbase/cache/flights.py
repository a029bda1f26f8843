"""One computation a key, whoever asks meanwhile: threads and coroutines of any event loop wait for the same.

Knows keys and callables: no cache. A flight lasts until its outcome is there or nobody waits for it any more.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from faissbase.cache.entries import Entry, Selection


class _AbandonedError(Exception):
    """Whoever computed has gone, for a reason that is theirs alone: somebody else must."""


@dataclass(slots=True, eq=False)
class Flight:
    """A computation under way. ``facts`` is the entry it is to become, without its value."""

    facts: Entry
    outcome: Future[Any] = field(default_factory=Future)
    n_waiters: int = 0
    is_stale: bool = False  # invalidated since it began: for those who wait, and not to be stored
    thread: int | None = None
    task: asyncio.Task[None] | None = None

    @property
    def is_mine(self) -> bool:
        """Whether the caller is inside of it, so that waiting for it would be for ever."""
        if self.task is not None:
            return _current_task() is self.task
        return self.thread == threading.get_ident()

    @property
    def needs_this_thread(self) -> bool:
        """Whether it runs in the event loop of this thread, which blocking would stop."""
        return self.task is not None and self.task.get_loop() is _running_loop()


class Flights:
    """The flights of one cache."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}

    def run(self, facts: Entry, compute: Callable[[Flight], Any]) -> Any:
        """What ``compute`` returns, run here or by whoever is at it already.

        What it raises reaches exactly those who wait for it. Where the one who computes is interrupted
        (``KeyboardInterrupt`` and the like), the next of the waiters does it.
        """
        while True:
            flight, leads = self._join(facts)
            if not leads and (flight.is_mine or flight.needs_this_thread):
                self._leave(flight)
                return compute(Flight(facts))
            if leads:
                return self._lead(flight, compute)
            try:
                return flight.outcome.result()
            except _AbandonedError:
                continue
            finally:
                self._leave(flight)

    def _lead(self, flight: Flight, compute: Callable[[Flight], Any]) -> Any:
        flight.thread = threading.get_ident()
        try:
            value = compute(flight)
        except Exception as error:
            self._land(flight, error=error)
            raise
        except BaseException:
            self._land(flight, error=_AbandonedError())
            raise
        self._land(flight, value)
        return value

    async def arun(self, facts: Entry, compute: Callable[[Flight], Awaitable[Any]]) -> Any:
        """`run` for coroutines. The computation is a task of its own: it goes on while anybody waits."""
        has_led = False
        while True:
            flight, leads = self._join(facts)
            if flight.is_mine and not leads:
                self._leave(flight)
                return await compute(Flight(facts))
            if leads:
                flight.task = asyncio.ensure_future(self._alead(flight, compute))
            try:
                return await asyncio.wrap_future(flight.outcome)
            except _AbandonedError:
                if leads or has_led:  # it was ours: what ended it ends us
                    raise asyncio.CancelledError from None
                continue
            finally:
                has_led = has_led or leads
                self._leave(flight)

    async def _alead(self, flight: Flight, compute: Callable[[Flight], Awaitable[Any]]) -> None:
        try:
            value = await compute(flight)
        except Exception as error:  # noqa: BLE001  # it is the outcome, of all who wait
            self._land(flight, error=error)
        except BaseException:
            self._land(flight, error=_AbandonedError())
            raise
        else:
            self._land(flight, value)

    def drop(self, selection: Selection) -> None:
        """Leave those flights to their waiters: who asks from now on begins a new one."""
        with self._lock:
            for key, flight in list(self._flights.items()):
                if selection.matches(flight.facts):
                    flight.is_stale = True
                    del self._flights[key]

    def _join(self, facts: Entry) -> tuple[Flight, bool]:
        with self._lock:
            flight = self._flights.get(facts.key)
            leads = flight is None
            if flight is None:
                flight = self._flights[facts.key] = Flight(facts)
                # Running, it cannot be cancelled: one waiter's cancellation must not end the others' wait.
                flight.outcome.set_running_or_notify_cancel()
            flight.n_waiters += 1
            return flight, leads

    def _leave(self, flight: Flight) -> None:
        with self._lock:
            flight.n_waiters -= 1
            if flight.n_waiters or flight.outcome.done():
                return
            self._remove(flight)
        task = flight.task
        if task is not None and not task.get_loop().is_closed():
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _land(self, flight: Flight, value: Any = None, error: BaseException | None = None) -> None:
        with self._lock:
            self._remove(flight)
        if isinstance(error, StopIteration | StopAsyncIteration):  # a future refuses it, and would never end
            replaced = RuntimeError(f"the computation raised {error!r}")
            replaced.__cause__ = error
            error = replaced
        if error is not None:
            flight.outcome.set_exception(error)
        else:
            flight.outcome.set_result(value)

    def _remove(self, flight: Flight) -> None:
        if self._flights.get(flight.facts.key) is flight:
            del self._flights[flight.facts.key]


class Writes:
    """The writes under way, so that somebody can wait for those that have begun."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._under_way: set[object] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """A write, from before it decides to its end."""
        me = object()
        with self._change:
            self._under_way.add(me)
        try:
            yield
        finally:
            with self._change:
                self._under_way.discard(me)
                self._change.notify_all()

    def drain(self) -> None:
        """Wait for the writes that have begun; those that begin meanwhile are not waited for."""
        with self._change:
            begun = set(self._under_way)
            self._change.wait_for(lambda: not begun & self._under_way)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _current_task() -> asyncio.Task[Any] | None:
    return asyncio.current_task() if _running_loop() is not None else None
