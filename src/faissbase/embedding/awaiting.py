"""What asynchronous functions give, for code that waits: run in the event loop of whoever asks.

Knows event loops; no embedder and no cache.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_asking: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("faissbase_asking_loop", default=None)


@contextmanager
def awaited_in_this_loop() -> Iterator[None]:
    """What `settled` waits for in threads that this coroutine hands work to runs in this coroutine's loop."""
    token = _asking.set(asyncio.get_running_loop())
    try:
        yield
    finally:
        _asking.reset(token)


def settled(value: Any) -> Any:
    """``value``, or what it gives where it has to be awaited.

    It runs in the loop of the coroutine that waits for this thread, where there is one, so that clients bound
    to a loop find theirs; in a loop of its own otherwise.
    """
    if not inspect.isawaitable(value):
        return value
    if _is_in_a_loop():  # which this call holds up: it cannot run anything meanwhile
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(asyncio.run, _awaited(value)).result()
    loop = _asking.get()
    if loop is None:
        return asyncio.run(_awaited(value))
    return asyncio.run_coroutine_threadsafe(_awaited(value), loop).result()


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
