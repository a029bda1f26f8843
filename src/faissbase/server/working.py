"""Threads that serve requests: the tenants in turn, and what waits and asks the same way in one call.

Nobody waits for others to come: a thread that is free takes what is there. So a lone request is served as if
it were alone, and under load each call answers many. Where many in one call gain little, few are taken: who
asks, the event loop and the other threads would have nothing to do while all wait for the same call.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from faissbase.errors import FaissbaseError
from faissbase.server.operations import Call, Operation

_MOST_TOGETHER = 64
_FEW = 8  # where more wait it is asked how many are worth one call: asking takes time, too
Answer: TypeAlias = tuple[int, Any]  # the status; bytes, or a `Download`
Answered: TypeAlias = "tuple[Job, Answer | Exception]"
Wake: TypeAlias = "queue.SimpleQueue[bool]"


class Gone(FaissbaseError):
    """Whoever asked has left before it was their turn."""

    kind = "gone"


@dataclass(slots=True)
class Job:
    """A request on its way through a thread.

    Attributes
    ----------
    serve : callable
        Decodes, runs and encodes a call that is run alone.
    is_gone : callable
        Whether whoever asked has left.
    """

    operation: Operation
    call: Call
    serve: Callable[[Operation, Call], Answer]
    is_gone: Callable[[], bool]
    future: asyncio.Future[Answer]
    returns: _Returns
    is_decoded: bool = False
    likeness: Hashable = None


class _Returns:
    """Answers on their way from threads to the event loop that waits for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._answers: deque[Answered] = deque()
        self._is_told = False
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        loop.add_reader(self._fd, self._wake)  # which keeps this as long as it runs

    def __del__(self) -> None:
        os.close(self._fd)

    def put(self, answers: list[Answered], *, goes_on: bool) -> None:
        """Hand answers over; nothing becomes of them where the loop has ended.

        A thread that has nothing more to do lets go of Python's lock as it wakes the loop, which otherwise
        wakes, waits for the lock, and wakes again: 19 µs where this takes 8. One that ``goes_on`` keeps it:
        its next search would wait for the loop otherwise.
        """
        self._answers.extend(answers)
        if self._is_told:
            return
        self._is_told = True
        if goes_on:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._deliver)
        else:
            os.eventfd_write(self._fd, 1)

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        self._deliver()

    def _deliver(self) -> None:
        self._is_told = False  # before the answers are looked at: what comes after is told anew
        while self._answers:
            job, answer = self._answers.popleft()
            if job.future.done():
                continue
            if isinstance(answer, Exception):
                job.future.set_exception(answer)
            else:
                job.future.set_result(answer)


class Workers:
    """Some threads, and a line of jobs for each tenant.

    Of those that are idle, the one that has worked last is woken: what it needs is in its core's cache yet.
    Each calls ``begin`` first.
    """

    def __init__(self, n_threads: int, name: str, begin: Callable[[], None] = lambda: None) -> None:
        self._begin = begin
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Job]] = {}
        self._turns: deque[str] = deque()  # tenants who have jobs in their lines, each once
        self._most: dict[str, int] = {}  # that were worth one call when a tenant last asked, where few are
        self._idle: list[Wake] = []
        self._is_closed = False
        self._returns: _Returns | None = None
        self._wakes: list[Wake] = [queue.SimpleQueue() for _ in range(n_threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(wake,), name=f"faissbase-{name}-{i}", daemon=True)
            for i, wake in enumerate(self._wakes)
        ]
        for thread in self._threads:
            thread.start()

    async def serve(
        self,
        operation: Operation,
        call: Call,
        serve: Callable[[Operation, Call], Answer],
        is_gone: Callable[[], bool],
    ) -> Answer:
        """The status and the encoded answer of a call, or its error."""
        loop = asyncio.get_running_loop()
        returns = self._returns
        if returns is None or returns.loop is not loop:
            returns = self._returns = _Returns(loop)
        future: asyncio.Future[Answer] = loop.create_future()
        self._put(call.key.tenant, [Job(operation, call, serve, is_gone, future, returns)])
        return await future

    def _put(self, tenant: str, jobs: list[Job], *, first: bool = False) -> None:
        with self._lock:
            line = self._lines.get(tenant)
            if line is None:
                line = self._lines[tenant] = deque()
                self._turns.append(tenant)
            if first:
                line.extendleft(reversed(jobs))
            else:
                line.extend(jobs)
            if self._idle:
                self._idle.pop().put(True)

    def _next(self, wake: Wake) -> tuple[str, list[Job]]:
        """The tenant whose turn it is, and the jobs that may be run together; where nobody waits, none.

        Then ``wake`` is told once somebody does.
        """
        with self._lock:
            if not self._turns:
                self._idle.append(wake)
                return "", []
            tenant = self._turns.popleft()
            line = self._lines[tenant]
            taken = [line.popleft()]
            if taken[0].operation.together is not None:
                most = self._most.get(tenant, _MOST_TOGETHER)  # what is left is another thread's at once
                while line and len(taken) < most and line[0].operation.together is not None:
                    taken.append(line.popleft())
            if line:
                self._turns.append(tenant)
            else:
                del self._lines[tenant]
        return tenant, taken

    def _work(self, wake: Wake) -> None:
        self._begin()
        while True:
            tenant, taken = self._next(wake)
            if not taken:
                if self._is_closed:
                    return
                wake.get()
                continue
            are_many = len(taken) + (tenant in self._lines) > _FEW
            group, others, most = _alike(taken, are_many=are_many)
            if are_many:
                self._remember(tenant, most)
            if others:  # at the head of their line, for the next turn
                self._put(tenant, others, first=True)
            if group:
                group[0].returns.put(_answers(group), goes_on=bool(self._turns))

    def _remember(self, tenant: str, most: int | None) -> None:
        if most is None:
            self._most.pop(tenant, None)
        elif self._most.get(tenant) != most:
            self._most[tenant] = most

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._lock:
            self._is_closed = True
        for wake in self._wakes:
            wake.put(True)
        for thread in self._threads:
            thread.join()


def _alike(taken: list[Job], *, are_many: bool) -> tuple[list[Job], list[Job], int | None]:
    """The jobs that are run now, as one, the others, and how many of their kind are worth one call.

    That is asked where ``are_many``. Those that cannot be run are answered here.
    """
    group: list[Job] = []
    others: list[Job] = []
    is_lone = len(taken) == 1
    most: int | None = None
    for job in taken:
        if most is not None and len(group) >= most:  # not decoded yet: another thread may be free for it
            others.append(job)
            continue
        if job.is_gone() or job.future.cancelled():
            job.returns.put([(job, Gone("the caller has left"))], goes_on=True)
        elif job.operation.together is None:
            group.append(job)
        elif _is_decoded(job, is_lone=is_lone):
            fits = not group or (job.likeness is not None and job.likeness == group[0].likeness)
            (group if fits else others).append(job)
            if fits and len(group) == 1 and are_many:
                most = _most_together(group[0])
    return group, others, most


def _most_together(job: Job) -> int | None:
    try:
        return job.operation.most_together(job.call)
    except Exception:  # noqa: BLE001  # the call itself will tell
        return None


def _is_decoded(job: Job, *, is_lone: bool) -> bool:
    """Decode a job that may be run with others, unless that was done; False where it cannot be.

    What it has in common with others is not looked at where there are none.
    """
    if job.is_decoded:
        return True
    try:
        job.operation.decode(job.call)
        if not is_lone:
            job.likeness = job.operation.likeness(job.call)
    except Exception as error:  # noqa: BLE001  # it is the answer
        job.returns.put([(job, error)], goes_on=True)
        return False
    job.is_decoded = True
    return True


def _answers(group: list[Job]) -> list[Answered]:
    operation = group[0].operation
    if len(group) > 1 and operation.together is not None:
        try:
            found = operation.together([job.call for job in group])
            return [
                (job, (operation.status, operation.encode(one)))
                for job, one in zip(group, found, strict=True)
            ]
        except Exception:  # noqa: BLE001  # one of them may be at fault: each is asked alone
            pass
    return [(job, _alone(job)) for job in group]


def _alone(job: Job) -> Answer | Exception:
    operation = job.operation
    try:
        if job.is_decoded:
            return operation.status, operation.encode(operation.serve(job.call))
        return job.serve(operation, job.call)
    except Exception as error:  # noqa: BLE001  # it is the answer
        return error
