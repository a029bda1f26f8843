"""Calls to one server: over a pool of connections, each call once, and what is not used any more let go.

Knows frames and HTTP; not FAISS's classes.
"""

from __future__ import annotations

import atexit
import builtins
import http.client
import json
import math
import os
import queue
import socket
import ssl
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import count
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np

from faiss_proxy import answers
from faiss_proxy.cache import Cache, Kept, key_of
from faissbase import errors
from faissbase.dropin import frames

_PIECE_BYTES = 4 << 20
_JOINED_BYTES = 64 << 10
_READ_BYTES = 64 << 10
_MOST_ANSWER_BYTES = 1 << 42
_MOST_FREE = 32
_TRIES = 4
_MOST_WAIT_S = 5.0
_DROP_DELAY_S = 0.5
_END_S = 2.0
_NO_OBJECT = 0
_AWAY = (ConnectionError, http.client.HTTPException, socket.timeout, OSError)


class RemoteError(RuntimeError):
    """The server cannot or will not do it; says why, and what is possible instead."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """How bytes go and come: ``sent`` is told how many of how many have gone, ``allocate`` makes arrays."""

    sent: Callable[[int, int], None] | None = None
    allocate: frames.Allocate = np.empty


_PLAIN = Transfer()


class _Line:
    """A connection to a server, and what is read from it."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._source: BufferedReader | None = None

    def opened(self) -> tuple[socket.socket, BufferedReader]:
        if self._source is None:
            self._connection.connect()
            self._source = cast("BufferedReader", self._connection.sock.makefile("rb", _READ_BYTES))
        return self._connection.sock, self._source

    def close(self) -> None:
        if self._source is not None:
            self._source.close()
        self._connection.close()


class Connection:
    """A server as one session of this process: it holds objects there for as long as they are used here."""

    def __init__(
        self,
        url: str,
        key: str | None,
        tenant: str | None,
        *,
        ca_file: str | None,
        timeout_s: float,
        cache_bytes: int = 0,
    ) -> None:
        parts = urlsplit(url if isinstance(url, str) else "")
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or parts.query
        ):
            raise ValueError(f"api_url must be like 'https://host:8000', got {url!r}")
        if not timeout_s > 0:
            raise ValueError(f"timeout_s must be more than 0, got {timeout_s!r}")
        if not cache_bytes >= 0:
            raise ValueError(f"cache_bytes must be 0 or more, got {cache_bytes!r}")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._host, self._port, self._timeout_s = parts.hostname, parts.port, timeout_s
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._head = _head(parts.netloc.rpartition("@")[2], key)
        self._tenant = tenant
        self._cache = Cache(cache_bytes) if cache_bytes else None
        self._session = uuid.uuid4().hex
        self._numbers = count(1)
        self._pool: list[_Line] = []
        self._owner = self._process = os.getpid()
        self._lock = threading.Lock()
        self._hello: dict[str, Any] | None = None
        self._gpus: dict[str, Any] | None = None
        self._dropped: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.n_held = 0
        self.n_threads: int | None = None

    def __repr__(self) -> str:
        return f"<faiss_proxy connection to {self.url}>"

    # ---- calls -----------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """What the server has said of itself, asked once; refuses a key of another tenant than wanted."""
        if self._hello is None:
            with self._lock:
                if self._hello is None:
                    answer, arrays = self._asked({"op": "hello"}, [])
                    found = _plain(answer["result"], arrays)
                    if self._tenant not in (None, found["tenant"]):
                        raise errors.AccessError(
                            f"the key is of tenant {found['tenant']!r}, tenant_id is {self._tenant!r}"
                        )
                    self._hello = found
                    self._look_after(float(found["lease_s"]))
        return self._hello

    def gpus(self) -> dict[str, Any]:
        """What the server's FAISS has for GPUs, asked once: its classes, functions and constants."""
        if self._gpus is None:
            self._gpus = self.call({"op": "gpus"}, [], _plain, is_safe=True)
        return self._gpus

    def call(
        self,
        body: dict[str, Any],
        arrays: list[frames.Array],
        decoded: Callable[[Any, list[frames.Array]], Any],
        *,
        is_safe: bool = False,
        transfer: Transfer = _PLAIN,
    ) -> Any:
        """What the server answers to ``body``.

        A call that is not ``is_safe`` to repeat carries a number, by which the server does it once.
        """
        self.facts()
        if not is_safe:
            body["call"] = f"{os.getpid()}-{next(self._numbers)}"
        body["drop"] = list(self._drops())
        if self.n_threads is not None:
            body["omp"] = self.n_threads
        if is_safe and self._cache is not None and body["op"] == "call":
            return decoded(*self._known_or_asked(self._cache, body, arrays))
        answer, found = self._asked(body, arrays, transfer)
        return decoded(answer.get("result"), found)

    def _known_or_asked(
        self, cache: Cache, body: dict[str, Any], arrays: list[frames.Array]
    ) -> tuple[Any, list[frames.Array]]:
        """What is known here of the index as it is now, by the server's word; else what it answers."""
        asked = {key: body[key] for key in ("name", "target", "args", "kwargs")}
        key = key_of(frames.pack(asked, arrays))
        known = cache.find(key)
        answer, found = self._asked({**body, "known": known.version if known else ""}, arrays)
        if known is None or not answer.get("is_unchanged"):
            known = Kept(answer["version"], answer["result"], found)
            cache.keep(key, known)
        return known.result, [array.copy() for array in known.arrays]

    def _asked(
        self,
        body: dict[str, Any],
        arrays: list[frames.Array],
        transfer: Transfer = _PLAIN,
    ) -> tuple[dict[str, Any], list[frames.Array]]:
        body["session"] = self._session
        try:
            pieces = frames.pack(body, arrays)
        except ValueError as error:
            raise TypeError(str(error)) from error
        answer, found = self._tried(pieces, transfer)
        for fd, text in zip((1, 2), answer.get("said", ()), strict=False):
            _print(fd, text)
        if "error" in answer:
            raise _error_of(answer["error"])
        return answer, found

    def _tried(
        self, pieces: list[memoryview], transfer: Transfer
    ) -> tuple[dict[str, Any], list[frames.Array]]:
        for attempt in range(_TRIES):
            connection, is_new = self._taken()
            try:
                answer = self._exchanged(connection, pieces, transfer)
            except _Busy as busy:
                if attempt == _TRIES - 1:
                    raise busy.error from None
                time.sleep(min(_MOST_WAIT_S, busy.wait_s))
            except _AWAY as error:
                connection.close()
                if isinstance(error, TimeoutError | socket.timeout):
                    raise errors.UnavailableError(
                        f"{self.url} has not answered for {self._timeout_s:g} s"
                    ) from error
                if is_new and attempt:
                    raise errors.UnavailableError(f"{self.url} cannot be reached: {error}") from error
                if is_new:
                    time.sleep(0.05)
            else:
                return answer
        raise errors.UnavailableError(f"{self.url} closes every connection")

    def _exchanged(
        self,
        connection: _Line,
        pieces: list[memoryview],
        transfer: Transfer,
    ) -> tuple[dict[str, Any], list[frames.Array]]:
        n_bytes = sum(piece.nbytes for piece in pieces)
        sock, source = connection.opened()
        head = b"%sContent-Length: %d\r\n\r\n" % (self._head, n_bytes)
        try:
            if n_bytes <= _JOINED_BYTES:
                sock.sendall(b"".join([head, *pieces]))  # one packet wakes the server once
            else:
                sock.sendall(head)
                _send(sock, pieces, n_bytes, transfer.sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was read: the answer says why, if there is one
        response = answers.begun(source)
        if isinstance(response, http.client.HTTPResponse) and response.status != 200:
            content = response.read()
            self._give_back(connection, response)
            raise _fault_of(response, content, self.url)
        answer = frames.read(
            _filler(response, show_progress(f"fetching from {self.url}")),
            _MOST_ANSWER_BYTES,
            transfer.allocate,
        )
        response.read()
        self._give_back(connection, response)
        return answer

    # ---- connections -----------------------------------------------------------------------------

    def _taken(self) -> tuple[_Line, bool]:
        """A connection for one exchange, and whether it is a new one."""
        if self._process != os.getpid():  # a fork shares the sockets: it leaves them to the parent
            self._process, self._pool, self._lock = os.getpid(), [], threading.Lock()
        try:
            return self._pool.pop(), False
        except IndexError:
            pass
        if self._tls is None:
            return _Line(http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)), True
        made = http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        return _Line(made), True

    def _give_back(self, connection: _Line, response: answers.Body | http.client.HTTPResponse) -> None:
        if response.will_close or len(self._pool) >= _MOST_FREE:
            connection.close()
        else:
            self._pool.append(connection)

    # ---- objects that are held -------------------------------------------------------------------

    def drop(self, number: int, process: int) -> None:
        """Let go of an object; called when nobody here can use it any more, from anywhere."""
        self.n_held -= 1
        if process == os.getpid():
            self._dropped.put(number)

    def _drops(self) -> Iterator[int]:
        while True:
            try:
                yield self._dropped.get_nowait()
            except queue.Empty:
                return

    def _look_after(self, lease_s: float) -> None:
        itself = weakref.ref(self)
        thread = threading.Thread(target=_keep, args=(itself, self._dropped, lease_s / 3), daemon=True)
        thread.start()
        weakref.finalize(self, self._dropped.put, _NO_OBJECT).atexit = False  # the thread ends with it
        atexit.register(_end, itself)

    def touch(self, dropped: list[int]) -> dict[str, int]:
        """Tell the server that this process is alive, and what it has no use for any more.

        Its answer: how many objects it holds for this process (``n_held``) and for the tenant
        (``n_held_by_tenant``).
        """
        answer, arrays = self._asked({"op": "touch", "drop": dropped}, [])
        found: dict[str, int] = _plain(answer["result"], arrays)
        return found

    @property
    def is_own(self) -> bool:
        """Whether this process has made it: what it holds is not a fork's to end."""
        return self._owner == os.getpid()

    def end(self) -> None:
        """Have the server forget everything that has no name."""
        self._timeout_s = _END_S
        self._pool = []
        self._asked({"op": "end"}, [])


def _keep(itself: weakref.ref[Connection], dropped: queue.SimpleQueue[int], period_s: float) -> None:
    """Tell the server from time to time that its objects are in use, and soon which are not."""
    while itself() is not None:
        try:
            numbers = [dropped.get(timeout=period_s)]
            time.sleep(_DROP_DELAY_S)
            while not dropped.empty():
                numbers.append(dropped.get_nowait())
        except queue.Empty:
            numbers = []
        connection = itself()
        if connection is None:
            return
        if numbers or connection.n_held:
            with suppress(errors.FaissbaseError, RuntimeError):  # whoever calls next is told
                connection.touch(numbers)
        del connection


def _plain(tree: Any, arrays: list[frames.Array]) -> Any:
    return frames.decode(tree, arrays, lambda *it: it)


def _end(itself: weakref.ref[Connection]) -> None:
    connection = itself()
    if connection is not None and connection.is_own and connection.n_held:
        try:
            connection.end()
        except (errors.FaissbaseError, RuntimeError):
            return  # the lease ends it


def _head(host: str, key: str | None) -> bytes:
    """The head of every request, but for the length of its body."""
    lines = [f"POST {frames.PATH} HTTP/1.1", f"Host: {host}", f"Content-Type: {frames.MEDIA}"]
    if key is not None:
        if not key.isascii() or not key.isprintable():
            raise ValueError("api_key must be the text that faissbase keys create has printed")
        lines.append(f"X-API-Key: {key}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _send(
    connection: socket.socket,
    pieces: list[memoryview],
    n_bytes: int,
    sent: Callable[[int, int], None] | None,
) -> None:
    done = 0
    for piece in pieces:
        for start in range(0, piece.nbytes, _PIECE_BYTES):
            part = piece[start : start + _PIECE_BYTES]
            connection.sendall(part)
            done += part.nbytes
            if sent is not None:
                sent(done, n_bytes)


def _filler(
    response: answers.Body | http.client.HTTPResponse, came: Callable[[int, int], None]
) -> frames.Fill:
    """Fills arrays from an answer; of long ones ``came`` is told how many of how many bytes are there."""

    def fill(target: memoryview) -> None:
        done = 0
        while done < target.nbytes:
            n = response.readinto(target[done : done + _PIECE_BYTES])
            if not n:
                raise ConnectionError("the answer was cut short")
            done += n
            if target.nbytes > _PIECE_BYTES:
                came(done, target.nbytes)

    return fill


def _print(fd: int, text: str) -> None:
    """What FAISS has printed on the server, as if it had printed it here."""
    if text:
        sys.stdout.flush()
        os.write(fd, text.encode())


class _Busy(Exception):
    """The server wants to be asked again later; it has done nothing."""

    def __init__(self, error: Exception, wait_s: float) -> None:
        super().__init__(str(error))
        self.error, self.wait_s = error, wait_s


def _kinds(of: type[errors.FaissbaseError]) -> dict[str, type[errors.FaissbaseError]]:
    found = {of.kind: of}
    for kind in of.__subclasses__():
        found |= _kinds(kind)
    return found


def _fault_of(response: http.client.HTTPResponse, content: bytes, url: str) -> Exception:
    """The error in an answer that is none of FAISS's."""
    try:
        fault = json.loads(content)["error"]
        text = f"{fault['message']} (request {fault['request_id']})"
        error: Exception = _kinds(errors.FaissbaseError).get(fault["code"], errors.InvalidInputError)(text)
    except (ValueError, KeyError, TypeError):
        return errors.UnavailableError(
            f"{url} is no faissbase server: it answers with status {response.status}"
        )
    if response.status == 401 or fault["code"] == "quota_exceeded":
        error = errors.AccessError(text)
    if response.status == 429 and fault["code"] != "quota_exceeded":
        return _Busy(error, float(response.headers.get("retry-after", "1")))
    return error


def _error_of(fault: dict[str, Any]) -> Exception:
    """The exception that the server's FAISS has raised."""
    args = fault.get("args", [])
    if "ours" in fault:
        return _kinds(errors.FaissbaseError).get(fault["ours"], errors.InternalError)(*args)
    found = getattr(builtins, str(fault.get("type")), None)
    if isinstance(found, type) and issubclass(found, Exception):
        return found(*args)
    return RemoteError(*args)


def show_progress(what: str, clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Tells on a terminal how far a large transfer is."""
    began, told = clock(), [0.0]

    def moved(done: int, n_bytes: int) -> None:
        now = clock()
        if not sys.stderr.isatty() or now - began < 1.0 or (now - told[0] < 0.2 and done < n_bytes):
            return
        told[0] = now
        share = done / max(1, n_bytes)
        end = "\n" if done == n_bytes else ""
        print(
            f"\r{what}: {math.floor(100 * share)} % of {n_bytes / 1e6:,.0f} MB",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    return moved
