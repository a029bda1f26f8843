"""Answers that tell how far long work is while it goes on: lines of JSON, of which the last is the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec
from starlette.types import Send

from faissbase.wire import Told, ToldLine

LINES = "application/x-ndjson"
_EVERY_S = 0.5


class Telling:
    """Takes what a thread tells, and sends it from the event loop; of what is not sent yet, the newest."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_news = asyncio.Event()
        self._newest: Told | None = None
        self._told, self._told_s = Told("", 0, 0), 0.0
        self.has_begun = False
        self.n_bytes = 0

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Tell how far the work is; in a thread, as often as it likes."""
        told, now_s = Told(phase, done, total), time.monotonic()
        is_soon = now_s < self._told_s + _EVERY_S and phase == self._told.phase and done < total
        if is_soon or told == self._told:
            return
        self._told, self._told_s = told, now_s
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, told)

    def _take(self, told: Told) -> None:
        self._newest = told
        self._has_news.set()

    async def send_until(
        self, work: asyncio.Future[Any], begin: Callable[[], Awaitable[None]], send: Send
    ) -> None:
        """Send what is told until the work is done; ``begin``, the head of the answer, before the first."""
        work.add_done_callback(lambda _: self._has_news.set())
        while not work.done():
            await self._has_news.wait()
            self._has_news.clear()
            if self._newest is not None and not self.has_begun:
                self.has_begun = True
                await begin()
            await self._send_newest(send)
        await asyncio.sleep(0)  # what was told last may come after the answer
        await self._send_newest(send)

    async def _send_newest(self, send: Send) -> None:
        told, self._newest = self._newest, None
        if told is not None and self.has_begun:
            line = msgspec.json.encode(ToldLine(told)) + b"\n"
            self.n_bytes += len(line)
            await send({"type": "http.response.body", "body": line, "more_body": True})


def last_line(status: int, answer: bytes) -> bytes:
    """The line with the answer, which is JSON."""
    return b'{"status":%d,"answer":%b}\n' % (status, answer)


def fault_line(status: int, body: bytes) -> bytes:
    """The line with what went wrong, which is the body of any such answer."""
    return b'{"status":%d,%b\n' % (status, body.removeprefix(b"{"))
