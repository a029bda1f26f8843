"""One connection: what it may send before it is known who asks, and which gives way to another."""

from __future__ import annotations

import asyncio
import sys

from httptools import HttpParserCallbackError
from starlette.types import Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from faissbase.collection.bounds import TooLarge
from faissbase.errors import FaissbaseError
from faissbase.server.answers import new_id, refusal
from faissbase.server.faults import Malformed, TooSlow
from faissbase.server.logs import LOGGER

_HEAD_BYTES = 64 << 10
_HEAD_S = 20.0
_READER_S = 60.0  # the kernel's own buffer may hold megabytes: progress is seen seldom
_MOST_CONNECTIONS = 2000
EXCHANGE = "exchange"
"""Where an ASGI scope's state has the `Exchange`, for who takes it out."""


def _too_long() -> TooLarge:
    return TooLarge(f"the head of a request, its path and headers, may have {_HEAD_BYTES:,} bytes")


class _OneWrite:
    """A transport on which the head of an answer waits for its body: a write to a socket is not cheap."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that has no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Exchange:
    """A request and its answer as their connection knows them, which is more than ASGI tells."""

    __slots__ = ("_cycle",)

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def is_whole(self) -> bool:
        """Whether all of the request's body has arrived."""
        return not self._cycle.more_body

    def body(self) -> bytes:
        """All of a body that `is_whole`, once: what a message of ASGI tells, without waiting for it."""
        cycle = self._cycle
        cycle.flow.resume_reading()
        cycle.message_event.clear()
        content, cycle.body = bytes(cycle.body), bytearray()
        return content

    def is_gone(self) -> bool:
        """Whether whoever asked has left."""
        return self._cycle.disconnected

    def may_answer(self, send: Send) -> bool:
        """Whether `answer` does what ``send`` would: it is the connection's own, and need not wait."""
        cycle = self._cycle
        is_asked_whole = cycle.scope["method"] != "HEAD" and not cycle.response_started
        return is_asked_whole and send == cycle.send and not cycle.flow.write_paused

    def answer(self, head: bytes, content: bytes) -> None:
        """Send a whole answer, its head without the end: what two messages to `send` do, with less ado."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.waiting_for_100_continue = False
        lines = [head, *(b"%b: %b\r\n" % each for each in cycle.default_headers)]
        lines.append(b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n")
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(b"".join([*lines, content]))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


class Protocol(HttpToolsProtocol):
    """HTTP whose heads are bounded, in length and time: they are read before it is known who sends them.

    So is all else that is no body: trailers, and what surrounds chunks. Where an answer goes out before the
    body is there, the rest of that has as long as a head. Whoever stops reading an answer is left.
    """

    _other_bytes = 0
    _head_bytes = 0
    _body_bytes = 0
    _is_head_over = False
    _is_in_head = False
    _unread_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self._is_let_in_by_old_files(transport):
            transport.abort()
            return
        if len(self.connections) >= _MOST_CONNECTIONS and not self._ends_an_idle_one():
            transport.abort()
            return
        super().connection_made(transport)
        self._one_write = _OneWrite(transport)
        self._begin_timer()

    def _is_let_in_by_old_files(self, transport: asyncio.Transport) -> bool:
        """Whether authorities that are no longer asked have vouched for the caller."""
        tls = transport.get_extra_info("ssl_object")
        return bool(self.config.ssl_ca_certs) and tls is not None and tls.context is not self.config.ssl

    def _ends_an_idle_one(self) -> bool:
        """End the connection that was idle longest; whether there was one."""
        idle = [
            (other.timeout_keep_alive_task.when(), id(other), other.transport)
            for other in self.connections
            if isinstance(other, Protocol)
            and other.timeout_keep_alive_task is not None
            and not other.transport.is_closing()
        ]
        if idle:
            min(idle)[-1].abort()
        return bool(idle)

    def _begin_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self._give_up)

    def _give_up(self) -> None:
        """End a connection on which the head of a request has not come to its end, or the rest of a body."""
        if self._is_in_head and not self.transport.is_closing():
            self._refuse(408, TooSlow(f"the head of the request had not arrived after {_HEAD_S:g} s"))
        else:
            self.transport.close()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_message_begin(self) -> None:
        self._other_bytes = self._head_bytes = self._body_bytes = 0
        self._is_head_over = False
        self._is_in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > _HEAD_BYTES:
            raise _too_long()  # it ends in `send_400_response`, before anything is run
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_head_over:  # those are trailers, which nobody reads
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _HEAD_BYTES:
            raise _too_long()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head_over = True
        self._is_in_head = False
        self._end_timer()
        super().on_headers_complete()
        self.cycle.transport = self._one_write  # type: ignore[assignment]
        self.scope["state"][EXCHANGE] = Exchange(self.cycle)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._other_bytes -= len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        self._one_write.flush()
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._begin_timer()

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # it was refused
            return
        self._other_bytes += len(data)
        super().data_received(data)
        if self._other_bytes > _HEAD_BYTES + 8 * self._body_bytes and not self.transport.is_closing():
            if self._is_head_over:
                self.transport.close()
            else:
                self._refuse(431, _too_long())
        if not self._is_head_over or self._is_between_requests():
            self._begin_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; called where the parser's error is being dealt with."""
        error = sys.exc_info()[1]
        if self._head_bytes > _HEAD_BYTES:
            self._refuse(431, _too_long())
        elif error is None or isinstance(error, HttpParserCallbackError):
            self._refuse(400, Malformed("this is no request of HTTP/1.1"))
        else:
            self._refuse(400, Malformed(f"this is no request of HTTP/1.1: {error}"))

    def _refuse(self, status: int, error: FaissbaseError) -> None:
        """Say what is wrong and hang up; an answer that is due to a request before it goes out first."""
        request_id = new_id()
        facts = {"request_id": request_id, "status": status}
        LOGGER.warning("%s", error, extra={"facts": facts})
        if self._owes_an_answer():
            self.cycle.keep_alive = False
            self.transport.pause_reading()
            return
        if not self._was_answered_early():
            self.transport.write(refusal(status, error, request_id))
        self.transport.close()

    def _owes_an_answer(self) -> bool:
        """Whether a request came whole, and is being worked on: what was refused came after it."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and not cycle.more_body

    def _was_answered_early(self) -> bool:
        """Whether what was refused belongs to a body that nobody waits for any more."""
        return self.cycle is not None and self.cycle.response_started and self.cycle.more_body

    def _is_between_requests(self) -> bool:
        """Whether all that came were line breaks, which have ended the time for being idle."""
        is_answered = self.cycle is not None and self.cycle.response_complete
        return is_answered and self.timeout_keep_alive_task is None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._reader_timer = self.loop.call_later(_READER_S, self._look_at_reader)

    def _look_at_reader(self) -> None:
        """Go on while the answer is read, however slowly; give up on who has stopped."""
        unread = self.transport.get_write_buffer_size()
        if unread >= self._unread_bytes:
            self.transport.abort()
            return
        self._unread_bytes = unread
        self._reader_timer = self.loop.call_later(_READER_S, self._look_at_reader)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_reader_timer()

    def _end_reader_timer(self) -> None:
        if self._reader_timer is not None:
            self._reader_timer.cancel()
            self._reader_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timer()
        self._end_reader_timer()
        if self.transport is not None:
            super().connection_lost(exc)
