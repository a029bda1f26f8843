"""Calls of FAISS by its drop-in client: handed through, as they come, to a process for each tenant.

What FAISS does for one tenant, crashes included, happens in that process; here bytes are only passed on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
from starlette.types import Receive, Send

from faissbase.collection.bounds import TooLarge
from faissbase.dropin import frames
from faissbase.dropin.facts import FOLDER
from faissbase.errors import InvalidInputError, UnavailableError
from faissbase.server.faults import Malformed, TooSlow
from faissbase.server.keys import Key
from faissbase.server.quotas import QuotaExceeded
from faissbase.server.settings import Settings

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # type: ignore[import-not-found]

_ANSWER = struct.Struct("<QI?")
_LENGTH = struct.Struct("<I")
_NO_ROOM = QuotaExceeded.kind.encode()
_MOST_CONNECTIONS = 32
_LONGEST_NUMBER = 20
_SMALL_BYTES = 8192
_PIECE_BYTES = 1 << 20
_BUFFER_BYTES = 4 << 20
_IDLE_S = 300.0
_END_S = 120.0

Begin = Callable[[int], Awaitable[None]]


class _Line:
    """A connection to a worker. It stays with the loop: to be put there and taken away costs a call as much
    as to be read."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiting: asyncio.Future[None] | None = None
        self._is_watched = False

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._connection, data)

    async def receive(self, n_bytes: int) -> bytes:
        """The next bytes, at most ``n_bytes``; none at the end."""
        while True:
            self._waiting = self._loop.create_future()
            if not self._is_watched:
                self._loop.add_reader(self._connection, self._readable)
                self._is_watched = True
            try:
                await self._waiting
            finally:
                self._waiting = None
            with suppress(BlockingIOError):
                return self._connection.recv(n_bytes)

    async def receive_all(self, n_bytes: int) -> bytes:
        """The next ``n_bytes``."""
        found = b""
        while len(found) < n_bytes:
            piece = await self.receive(n_bytes - len(found))
            if not piece:
                raise EOFError
            found += piece
        return found

    def _readable(self) -> None:
        if self._waiting is None:  # it comes while nobody reads: the loop would ask for ever
            self._loop.remove_reader(self._connection)
            self._is_watched = False
        elif not self._waiting.done():
            self._waiting.set_result(None)

    @property
    def is_open(self) -> bool:
        return self._connection.fileno() >= 0

    def close(self) -> None:
        if self._is_watched and not self._loop.is_closed():
            self._loop.remove_reader(self._connection)
            self._is_watched = False
        self._connection.close()


class _Worker:
    """The process of one tenant, and the connections to it that nobody uses just now."""

    def __init__(self, tenant: str, folder: Path, limits: Sequence[float]) -> None:
        """``limits``: what the process takes after the folder, in its order."""
        self.tenant = tenant
        self.used_s = time.monotonic()
        self.n_held = 0
        self.n_busy = 0
        self._turns = asyncio.Semaphore(_MOST_CONNECTIONS)
        self._free: list[_Line] = []
        self._control, other = socket.socketpair()
        with other:
            command = [sys.executable, "-m", "faissbase.dropin.worker", str(other.fileno()), str(folder)]
            self._process = subprocess.Popen(
                [*command, *map(str, limits)],
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[_Line]:
        """A connection for one request, used again if all went well."""
        async with self._turns:
            self.n_busy += 1
            connection = self._free.pop() if self._free else self._new_connection()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            else:
                if connection.is_open:
                    self._free.append(connection)
            finally:
                self.n_busy -= 1
                self.used_s = time.monotonic()

    def _new_connection(self) -> _Line:
        ours, other = socket.socketpair()
        with other:
            try:
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    ours.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
                ours.setblocking(False)
                socket.send_fds(self._control, [b"c"], [other.fileno()])
            except OSError as error:
                ours.close()
                raise self.ended() from error
        return _Line(ours)

    def ended(self) -> UnavailableError:
        """Why there is no answer."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        if code is None:
            return UnavailableError("the process with the FAISS indexes of this tenant has no room for this")
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        return UnavailableError(
            f"the process with the FAISS indexes of this tenant has ended, {how}: "
            "those with a name are there again at the next call, the others are lost"
        )

    def begin_to_end(self) -> None:
        self._control.close()
        free, self._free = self._free, []
        for connection in free:
            connection.close()

    def end(self, patience_s: float) -> None:
        """Have it write what is not written yet; kill it where that takes too long."""
        self.begin_to_end()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class DropIn:
    """A process for each tenant that calls FAISS, begun at the first call and ended once nothing is held."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        claim: Callable[[Key, str], Callable[[], None]] | None = None,
        room: Callable[[Key, int], int | None] | None = None,
    ) -> None:
        """What is asked of the tenants; both may block.

        ``claim`` raises where a tenant may not give an index that name, and gives what ends the claim to it;
        ``room`` is told how large a call is, and how many bytes its named indexes may grow by.
        """
        self._settings = settings
        self._claim = claim or (lambda key, name: lambda: None)
        self._room = room if settings.max_tenant_bytes else None
        self._folder = folder
        self._workers: dict[str, _Worker] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._is_watched = False
        self._loop: asyncio.AbstractEventLoop | None = None
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory_bytes = settings.faiss_memory_bytes or pages // 2
        self._limits = (settings.faiss_lease_s, memory_bytes, settings.faiss_gpu_bytes)

    async def serve(self, key: Key, announced: str, receive: Receive, begin: Begin, send: Send) -> None:
        """Hand a call to the tenant's process, and its answer back; ``begin`` sends the answer's head.

        Raises
        ------
        InvalidInputError, TooLarge, TooSlow
            The body's length is not announced, or too large; it does not come.
        UnavailableError
            The process has ended meanwhile.
        QuotaExceeded
            A named index would be larger than its tenant's may be.
        """
        if not (announced.isascii() and announced.isdigit() and len(announced) < _LONGEST_NUMBER):
            raise InvalidInputError("send the length of the body as content-length")
        n_bytes, most = int(announced), self._settings.max_faiss_bytes
        if n_bytes > most:
            raise TooLarge(f"the body has {n_bytes:,} bytes, at most {most:,} are taken")
        loop, room, saved = asyncio.get_running_loop(), None, None
        if self._room is not None:
            room = await loop.run_in_executor(None, self._room, key, n_bytes)
        if n_bytes <= _SMALL_BYTES:
            content = await self._whole(receive, n_bytes)
            saved, receive = _saved_name(content), _again(content)
        head = _head(key, n_bytes, saved, room)
        if saved is None:
            await self._passed_on(key, head, n_bytes, receive, begin, send)
            return
        end_claim = await loop.run_in_executor(None, self._claim, key, saved)
        try:
            await self._passed_on(key, head, n_bytes, receive, begin, send)
        finally:
            end_claim()

    async def _passed_on(
        self, key: Key, head: bytes, n_bytes: int, receive: Receive, begin: Begin, send: Send
    ) -> None:
        worker = await self._worker(key.tenant)
        async with worker.connection() as connection:
            try:
                await self._hand_on(head, receive, connection, n_bytes)
                first = await connection.receive(_PIECE_BYTES)
                if len(first) < _ANSWER.size:
                    raise EOFError
            except (ConnectionError, EOFError) as error:
                raise worker.ended() from error
            length, worker.n_held, goes_on = _ANSWER.unpack_from(first)
            if len(first) == _ANSWER.size + length:
                _check_quota(first[_ANSWER.size :])
            await begin(length)
            await _hand_back(first[_ANSWER.size :], connection, length, send)
            if not goes_on:
                connection.close()

    def runs_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop serves, so that threads can `ask`."""
        self._loop = loop

    def ask(self, key: Key, body: Any, arrays: Sequence[frames.Array]) -> tuple[Any, list[frames.Array]]:
        """What the tenant's process answers; blocks, and is for threads other than the loop's."""
        assert self._loop is not None
        content = b"".join(frames.pack(body, arrays))
        found = asyncio.run_coroutine_threadsafe(self._exchanged(key, content), self._loop).result()
        return frames.unpack(found)

    async def _exchanged(self, key: Key, content: bytes) -> bytes:
        worker = await self._worker(key.tenant)
        async with worker.connection() as connection:
            try:
                await connection.send(_head(key, len(content)) + content)
                length, worker.n_held, goes_on = _ANSWER.unpack(await connection.receive_all(_ANSWER.size))
                found = await connection.receive_all(length)
            except (ConnectionError, EOFError) as error:
                raise worker.ended() from error
            if not goes_on:
                connection.close()
            return found

    async def _hand_on(self, head: bytes, receive: Receive, connection: _Line, n_bytes: int) -> None:
        """Send the head, and with it the first piece of the body, and the body as it comes."""
        is_taken = True
        async for piece in self._pieces(receive, n_bytes):
            if is_taken:
                try:
                    await connection.send(head + piece if head else piece)
                except ConnectionError:  # it answers before it has all, and says why: the rest is for nobody
                    is_taken = False
            head = b""

    async def _whole(self, receive: Receive, n_bytes: int) -> bytes:
        return b"".join([piece async for piece in self._pieces(receive, n_bytes)])

    async def _pieces(self, receive: Receive, n_bytes: int) -> AsyncIterator[bytes]:
        """What comes of a body of ``n_bytes``."""
        is_more = True
        while is_more:
            try:
                async with timeout(self._settings.body_timeout_s):
                    message = await receive()
            except (TimeoutError, asyncio.TimeoutError):
                raise TooSlow(f"nothing of the body came for {self._settings.body_timeout_s:g} s") from None
            if message["type"] != "http.request":
                raise Malformed("the body ended before its end")
            piece, is_more = message.get("body", b""), message.get("more_body", False)
            n_bytes -= len(piece)
            yield piece
        if n_bytes:
            raise Malformed(f"the body is not as long as was announced, by {n_bytes:,} bytes")

    async def _worker(self, tenant: str) -> _Worker:
        found = self._workers.get(tenant)
        if found is not None and found.is_alive:
            return found
        async with self._starting.setdefault(tenant, asyncio.Lock()):
            found = self._workers.get(tenant)
            if found is None or not found.is_alive:
                if found is not None:
                    found.begin_to_end()
                folder = self._folder / tenant / FOLDER
                found = self._workers[tenant] = _Worker(tenant, folder, self._limits)
        if not self._is_watched:
            self._is_watched = True
            asyncio.get_running_loop().call_later(_IDLE_S / 4, self._end_idle)
        return found

    def _end_idle(self) -> None:
        """End the processes that hold nothing and that nobody has called for a while."""
        until = time.monotonic() - _IDLE_S
        for tenant, worker in list(self._workers.items()):
            if not worker.n_busy and not worker.n_held and worker.used_s < until:
                del self._workers[tenant]
                worker.begin_to_end()  # here: its connections are the loop's
                threading.Thread(target=worker.end, args=(_END_S,), daemon=True).start()
        self._is_watched = bool(self._workers)
        if self._is_watched:
            asyncio.get_running_loop().call_later(_IDLE_S / 4, self._end_idle)

    def close(self) -> None:
        """Have all processes write what is not written yet, and end."""
        workers, self._workers = list(self._workers.values()), {}
        for worker in workers:
            worker.begin_to_end()
        for worker in workers:
            worker.end(_END_S)


def _saved_name(content: bytes) -> str | None:
    """The name that a call wants to give an index; None for every other call."""
    if b'"save"' not in content:
        return None
    try:
        body = frames.unpack(content)[0]
        return str(body["name"]) if body["op"] == "save" else None
    except (frames.FrameError, ValueError, LookupError, TypeError):
        return None  # the process says what is wrong with it


def _check_quota(content: bytes) -> None:
    """Raise it where the process says that there is no room, as for every other write."""
    if _NO_ROOM in content:
        fault = frames.unpack(content)[0].get("error", {})
        if fault.get("ours") == QuotaExceeded.kind:
            raise QuotaExceeded(" ".join(map(str, fault["args"])))


def _again(content: bytes) -> Receive:
    """Gives what has been read already."""

    async def receive() -> Any:
        return {"type": "http.request", "body": content}

    return receive


def _head(key: Key, n_bytes: int, saved: str | None = None, room_bytes: int | None = None) -> bytes:
    """What the process is to know of a caller, and how long the body is that follows."""
    head = orjson.dumps(
        {
            "tenant": key.tenant,
            "key": key.id,
            "may_write": "write" in key.scopes or "admin" in key.scopes,
            "indexes": None if key.indexes is None else sorted(key.indexes),
            "n_bytes": n_bytes,
            "saved": saved,
            "room_bytes": room_bytes,
        }
    )
    return _LENGTH.pack(len(head)) + head


async def _hand_back(piece: bytes, connection: _Line, n_bytes: int, send: Send) -> None:
    """Send an answer on as it comes; the first of it is here."""
    while True:
        n_bytes -= len(piece)
        if piece:
            await send({"type": "http.response.body", "body": piece, "more_body": n_bytes > 0})
        if n_bytes <= 0:
            return
        piece = await connection.receive(min(n_bytes, _PIECE_BYTES))
        if not piece:
            raise UnavailableError("the answer was cut short")
