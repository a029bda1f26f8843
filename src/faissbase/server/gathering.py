"""Requests that wait at the same time and ask the same way are answered by one call.

Nobody waits for others to come: a thread that is free takes all that is there. So a lone request is served as
if it were alone, and under load each call answers many.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from faissbase.server.operations import Call, Operation

_MOST = 64


@dataclass(slots=True)
class _Waiting:
    operation: Operation
    call: Call
    future: asyncio.Future[bytes]


class Gatherer:
    """Threads that serve the operations which have `Operation.together`."""

    def __init__(self, n_threads: int) -> None:
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        names = (f"faissbase-search-{i}" for i in range(n_threads))
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    async def serve(self, operation: Operation, call: Call) -> bytes:
        """The encoded answer to a call, or its error."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.put(_Waiting(operation, call, future))
        return await future

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            taken = [first]
            while len(taken) < _MOST:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._queue.put(None)  # for the thread that it was meant for
                    break
                taken.append(more)
            _serve(taken)

    def close(self) -> None:
        """Answer what waits, then end."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()


def _serve(taken: list[_Waiting]) -> None:
    groups: dict[Hashable, list[_Waiting]] = {}
    for each in taken:
        if each.future.cancelled():  # whoever asked has gone
            continue
        try:
            each.operation.decode(each.call)
            likeness = each.operation.likeness(each.call) if len(taken) > 1 else None
        except Exception as error:  # noqa: BLE001  # it is the answer
            _deliver_soon([(each, error)])
            continue
        groups.setdefault(likeness or id(each), []).append(each)
    for group in groups.values():
        _deliver_soon(_answers(group))


def _deliver_soon(answers: list[tuple[_Waiting, bytes | Exception]]) -> None:
    """Hand answers to the event loop that waits for them, unless it has ended."""
    with suppress(RuntimeError):
        answers[0][0].future.get_loop().call_soon_threadsafe(_deliver, answers)


def _answers(group: list[_Waiting]) -> list[tuple[_Waiting, bytes | Exception]]:
    operation = group[0].operation
    if len(group) > 1 and operation.together is not None:
        try:
            found = operation.together([each.call for each in group])
            return [(each, operation.encode(one)) for each, one in zip(group, found, strict=True)]
        except Exception:  # noqa: BLE001  # one of them may be at fault: each is asked alone
            pass
    return [(each, _alone(each)) for each in group]


def _alone(waiting: _Waiting) -> bytes | Exception:
    try:
        found: bytes = waiting.operation.encode(waiting.operation.run(waiting.call))
        return found
    except Exception as error:  # noqa: BLE001  # it is the answer
        return error


def _deliver(answers: list[tuple[_Waiting, Any]]) -> None:
    for waiting, answer in answers:
        if waiting.future.done():
            continue
        if isinstance(answer, Exception):
            waiting.future.set_exception(answer)
        else:
            waiting.future.set_result(answer)
