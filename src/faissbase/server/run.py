"""Puts the application on a socket and takes it off again, its requests finished and its files closed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from faissbase.collection.bounds import Bounds
from faissbase.database.database import connect
from faissbase.errors import AccessError, InvalidInputError, UnavailableError
from faissbase.server import logs
from faissbase.server.app import Server
from faissbase.server.keys import Keys
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants
from faissbase.storage.files import remove_drafts
from faissbase.types import Durability

_BACKLOG = 2048
_HEAD_BYTES = 64 << 10
_HEAD_S = 20.0
_MOST_CONNECTIONS = 2000
_TICKS_A_LOOK = 20  # of a tenth of a second


class _Protocol(HttpToolsProtocol):
    """HTTP whose heads are bounded, in length and time: they are read before it is known who sends them.

    So is all else that is no body: trailers, and what surrounds chunks. Where an answer goes out before the
    body is there, the rest of that has as long as a head.
    """

    _other_bytes = 0
    _body_bytes = 0
    _is_head_over = False
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= _MOST_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._begin_timer()

    def _begin_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(_HEAD_S, self.transport.close)

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def on_message_begin(self) -> None:
        self._other_bytes = self._body_bytes = 0
        self._is_head_over = False
        self._begin_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_head_over:  # later ones are trailers, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_head_over = True
        self._end_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._other_bytes -= len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._begin_timer()

    def data_received(self, data: bytes) -> None:
        if self.transport is None:  # one connection too many
            return
        self._other_bytes += len(data)
        super().data_received(data)
        if self._other_bytes > _HEAD_BYTES + 8 * self._body_bytes:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timer()
        if self.transport is not None:
            super().connection_lost(exc)


class _Uvicorn(uvicorn.Server):
    """Tells the application as soon as it is to stop, and takes up certificates that were renewed."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self._tls_times = self._times()

    def _times(self) -> list[float]:
        files = (self.config.ssl_certfile, self.config.ssl_keyfile)
        return [os.stat(file).st_mtime for file in files if file]

    async def on_tick(self, counter: int) -> bool:
        if self.config.ssl is not None and counter % _TICKS_A_LOOK == 0:
            self._look_at_tls(self.config.ssl)
        return await super().on_tick(counter)

    def _look_at_tls(self, context: ssl.SSLContext) -> None:
        try:
            times = self._times()
            if times == self._tls_times:
                return
            files = cast("str", self.config.ssl_certfile), self.config.ssl_keyfile
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)  # a wrong pair would stay in use
            context.load_cert_chain(*files)
        except (OSError, ssl.SSLError) as error:  # half of it written: the next look sees the rest
            logs.LOGGER.warning("the certificate cannot be read: %s", error)
            return
        self._tls_times = times
        logs.LOGGER.info("the certificate was renewed")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._server.is_stopping = True
        logs.LOGGER.info("stopping", extra={"facts": {"signal": signal.Signals(sig).name}})
        super().handle_exit(sig, frame)


def serve(settings: Settings, started: Callable[[str, bool], None] = lambda url, is_open: None) -> None:
    """Serve until told to stop; ``started`` is called with the address, and whether no key is needed.

    Raises
    ------
    AccessError
        A public address without keys or without TLS, unless ``insecure``.
    UnavailableError
        The address cannot be listened on.
    """
    folder = Path(settings.data).absolute()
    connect(folder).close()  # makes it where there is none, and says now what is wrong with it
    remove_drafts(folder)
    keys = Keys(folder)
    tenants = Tenants(
        folder,
        durability=cast("Durability", settings.durability),
        memory_budget=settings.memory_budget or None,
        bounds=Bounds(settings.max_metadata_bytes, settings.max_answer_bytes),
    )
    server = Server(settings, keys, tenants)
    try:
        _check_open(settings, has_keys=keys.are_there)
        runner = _Uvicorn(_config(settings, server), server)
        listening = _listening(runner.config)
        try:
            logs.begin(settings.log_format)
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            started(f"http{'s' if settings.has_tls else ''}://{shown}:{port}", not keys.are_there)
            with _own_end():
                runner.run(sockets=[listening])
        finally:
            listening.close()
    finally:
        server.close()


@contextmanager
def _own_end() -> Iterator[None]:
    """uvicorn sends itself again the signal that has stopped it; here it has done its work by then."""
    before = {sign: signal.signal(sign, _do_nothing) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _do_nothing(sign: int, frame: FrameType | None) -> None:
    return None


def _check_open(settings: Settings, *, has_keys: bool) -> None:
    """Refuse to show the data to others by an oversight."""
    if not settings.is_public or settings.insecure:
        return
    advice = "or --insecure, if you know that only friends can reach it"
    if not has_keys:
        raise AccessError(
            f"{settings.host} can be reached from elsewhere, and there is no API key yet: make one with "
            f"faissbase keys create --data {settings.data} --tenant NAME --scopes read,write, {advice}"
        )
    if not settings.has_tls and not settings.tls_elsewhere:
        raise AccessError(
            f"{settings.host} can be reached from elsewhere, and keys would travel unencrypted: "
            f"give --tls-cert and --tls-key, or --tls-elsewhere where a proxy sees to it, {advice}"
        )


def _config(settings: Settings, server: Server) -> uvicorn.Config:
    tls: dict[str, object] = {}
    if settings.has_tls:
        tls = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    if settings.tls_client_ca:
        tls |= {"ssl_ca_certs": settings.tls_client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(
        server,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        http=_Protocol,
        ws="none",
        timeout_graceful_shutdown=max(1, round(settings.shutdown_timeout_s)),
        **tls,  # type: ignore[arg-type]
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"cannot use the TLS files {', '.join(map(str, tls.values()))}: {error}"
        ) from error
    return config


def _listening(config: uvicorn.Config) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((config.host, config.port))
        listening.listen(_BACKLOG)  # whoever reads the address may come at once
    except OSError as error:
        listening.close()
        where = f"{config.host}:{config.port}"
        raise UnavailableError(f"cannot listen on {where}: {error.strerror or error}") from error
    listening.setblocking(False)
    return listening
