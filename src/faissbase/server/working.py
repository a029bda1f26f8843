"""Threads that serve requests: the tenants in turn, and what waits and asks the same way in one call.

Nobody waits for others to come: a thread that is free takes what is there. So a lone request is served as if
it were alone, and under load each call answers many.
"""

from __future__ import annotations

import asyncio
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
Answer: TypeAlias = tuple[int, Any]  # the status; bytes, or a `Download`


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
    is_decoded: bool = False
    likeness: Hashable = None


class Workers:
    """Some threads, and a line of jobs for each tenant."""

    def __init__(self, n_threads: int, name: str) -> None:
        self._lock = threading.Lock()
        self._lines: dict[str, deque[Job]] = {}
        self._turns: deque[str] = deque()  # tenants who have jobs in their lines, each once
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._n_idle = 0
        self._is_closed = False
        names = (f"faissbase-{name}-{i}" for i in range(n_threads))
        self._threads = [threading.Thread(target=self._work, name=each, daemon=True) for each in names]
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
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._put(call.key.tenant, [Job(operation, call, serve, is_gone, future)])
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
            if self._n_idle:
                self._n_idle -= 1
                self._wake.put(True)

    def _next(self) -> tuple[str, list[Job]]:
        """The tenant whose turn it is, and the jobs that may be run together; none where nobody waits."""
        with self._lock:
            if not self._turns:
                self._n_idle += 1
                return "", []
            tenant = self._turns.popleft()
            line = self._lines[tenant]
            taken = [line.popleft()]
            if taken[0].operation.together is not None:
                while line and len(taken) < _MOST_TOGETHER and line[0].operation.together is not None:
                    taken.append(line.popleft())
            if line:
                self._turns.append(tenant)
            else:
                del self._lines[tenant]
        return tenant, taken

    def _work(self) -> None:
        while True:
            tenant, taken = self._next()
            if not taken:
                if self._is_closed or not self._wake.get():
                    return
                continue
            group, others = _alike(taken)
            if others:  # at the head of their line, for the next turn
                self._put(tenant, others, first=True)
            if group:
                _deliver_soon(_answers(group))

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._lock:
            self._is_closed = True
        for _ in self._threads:
            self._wake.put(False)
        for thread in self._threads:
            thread.join()


def _alike(taken: list[Job]) -> tuple[list[Job], list[Job]]:
    """The jobs that are run now, as one, and the others. Those that cannot be run are answered here."""
    group: list[Job] = []
    others: list[Job] = []
    for job in taken:
        if job.is_gone() or job.future.cancelled():
            _deliver_soon([(job, Gone("the caller has left"))])
        elif job.operation.together is None:
            group.append(job)
        elif _is_decoded(job):
            fits = not group or (job.likeness is not None and job.likeness == group[0].likeness)
            (group if fits else others).append(job)
    return group, others


def _is_decoded(job: Job) -> bool:
    """Decode a job that may be run with others, unless that was done; False where it cannot be."""
    if job.is_decoded:
        return True
    try:
        job.operation.decode(job.call)
        job.likeness = job.operation.likeness(job.call)
    except Exception as error:  # noqa: BLE001  # it is the answer
        _deliver_soon([(job, error)])
        return False
    job.is_decoded = True
    return True


def _answers(group: list[Job]) -> list[tuple[Job, Answer | Exception]]:
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


def _deliver_soon(answers: list[tuple[Job, Answer | Exception]]) -> None:
    """Hand answers to the event loop that waits for them, unless it has ended."""
    with suppress(RuntimeError):
        answers[0][0].future.get_loop().call_soon_threadsafe(_deliver, answers)


def _deliver(answers: list[tuple[Job, Answer | Exception]]) -> None:
    for job, answer in answers:
        if job.future.done():
            continue
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)
