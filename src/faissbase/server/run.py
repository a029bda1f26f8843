"""Puts the application on a socket and takes it off again, its requests finished and its files closed."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from faissbase.collection.bounds import Bounds
from faissbase.database.database import connect
from faissbase.errors import (
    AccessError,
    FaissbaseError,
    InvalidInputError,
    NotReadyError,
    UnavailableError,
)
from faissbase.server import logs
from faissbase.server.app import Server
from faissbase.server.cors import with_cors
from faissbase.server.databases import (
    OpenDatabase,
    deployed_databases,
    folder_databases,
    sharded_databases,
)
from faissbase.server.keys import Keys
from faissbase.server.protocol import Protocol
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants
from faissbase.sharded.bucket import existing_bucket, open_bucket
from faissbase.sharded.deployment import is_deployed
from faissbase.storage.files import remove_drafts
from faissbase.storage.malloc import share_freed_memory
from faissbase.types import Durability

_BACKLOG = 2048
_YOUNG, _YOUNGER, _OLD = 700, 10, 1000  # of gc.set_threshold
_IDLE_S = 75  # longer than clients keep a connection, so that no request meets its end
SHARDS_FOLDER = ".shards"
_TICKS_A_LOOK = 20  # of a tenth of a second
_TICKS_A_RENEWAL = 36_000


def _renew_nothing() -> None:
    return None


class _Uvicorn(uvicorn.Server):
    """Tells the application as soon as it is to stop, and takes up TLS files that were renewed.

    ``renew`` is called each hour, in a thread: it renews them where that is for the server to do.
    """

    def __init__(
        self, config: uvicorn.Config, server: Server, renew: Callable[[], None] = _renew_nothing
    ) -> None:
        super().__init__(config)
        self._server = server
        self._renew = renew
        self._tls_marks = self._marks()
        self._tls_trouble = ""

    def _marks(self) -> list[tuple[int, int, int]]:
        """What changes with the TLS files."""
        files = (self.config.ssl_certfile, self.config.ssl_keyfile, self.config.ssl_ca_certs)
        found = [os.stat(file) for file in files if file]
        return [(each.st_mtime_ns, each.st_ino, each.st_size) for each in found]

    async def on_tick(self, counter: int) -> bool:
        if self.config.ssl is not None:
            if counter % _TICKS_A_RENEWAL == 0:
                await asyncio.to_thread(self._renew)
            if counter % _TICKS_A_LOOK == 0:
                await self._look_at_tls()
        return await super().on_tick(counter)

    async def _look_at_tls(self) -> None:
        try:
            marks = self._marks()
            if marks == self._tls_marks:
                return
            context = _config(self._server.settings, self._server).ssl
            await self._take_up(cast("ssl.SSLContext", context))
        except (OSError, InvalidInputError) as error:  # half of it written: the next look sees the rest
            if str(error) != self._tls_trouble:
                logs.LOGGER.warning("the TLS files cannot be used: %s", error)
            self._tls_trouble = str(error)
            return
        self._tls_marks, self._tls_trouble = marks, ""
        logs.LOGGER.info("the TLS files were renewed")

    async def _take_up(self, context: ssl.SSLContext) -> None:
        """Let callers in by ``context`` alone: an old one forgets neither authorities nor sessions."""
        loop = asyncio.get_running_loop()
        protocol = partial(Protocol, self.config, self.server_state, {}, loop)
        before = self.servers
        sockets = [socket.socket(fileno=os.dup(at.fileno())) for each in before for at in each.sockets]
        self.servers = [
            await loop.create_server(protocol, sock=at, ssl=context, backlog=_BACKLOG) for at in sockets
        ]
        self.config.ssl = context
        for each in before:
            each.close()
        if self.config.ssl_ca_certs:  # who has been let in before shows a certificate again
            for connection in list(self.server_state.connections):
                connection.shutdown()

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
    NotReadyError
        ``otel_endpoint`` is set, and the extra for it not installed.
    UnavailableError
        The address cannot be listened on.
    """
    share_freed_memory()
    folder = Path(settings.data).absolute()
    connect(folder).close()  # makes it where there is none, and says now what is wrong with it
    remove_drafts(folder)
    renew = _renew_nothing
    if settings.tls_self_signed:
        settings = _with_certificate(settings, folder)
        renew = partial(_renew_certificate, folder, settings.host)
    with _tracing(settings.otel_endpoint) as traced:
        keys = Keys(folder)
        tenants = Tenants(folder, _databases(settings, folder), _store(settings))
        lines = logs.begin(settings.log_format)
        server = Server(settings, keys, tenants, lines.tell)
        try:
            _check_open(settings, has_keys=keys.are_there)
            config = _config(settings, with_cors(traced(server), settings.origins))
            with closing(_listening(config)) as listening:
                runner = _Uvicorn(config, server, renew)
                with _ended_by_signals(runner):
                    _shorten_pauses()
                    started(_url(settings, listening), not keys.are_there)
                    runner.run(sockets=[listening])
        finally:
            server.close()
            lines.close()


def _store(settings: Settings) -> str | None:
    """The URL that is served, as messages have it; says what is wrong with it."""
    if settings.url is None or is_deployed(settings.url):
        return settings.url
    return (existing_bucket if settings.follow else open_bucket)(settings.url).url


def _databases(settings: Settings, folder: Path) -> OpenDatabase:
    """What opens the database of a tenant."""
    cache = Path(settings.shard_cache).absolute() if settings.shard_cache else folder / SHARDS_FOLDER
    budget = settings.memory_budget or None
    bounds = Bounds(settings.max_metadata_bytes, settings.max_answer_bytes)
    if settings.url is not None and is_deployed(settings.url):
        return deployed_databases(
            settings.url,
            cache,
            read_only=bool(settings.follow),
            bounds=bounds,
            refresh_s=settings.refresh_s,
        )
    if settings.url is not None:
        return sharded_databases(
            settings.url,
            cache,
            read_only=bool(settings.follow),
            memory_budget=budget,
            bounds=bounds,
            refresh_s=settings.refresh_s,
        )
    return folder_databases(
        folder,
        durability=cast("Durability", settings.durability),
        memory_budget=budget,
        bounds=bounds,
        refresh_s=settings.refresh_s,
        cache=cache,
    )


def _shorten_pauses() -> None:
    """Have Python look for cycles in all there is a hundred times as seldom, and never in what is there now.

    With a thousand indexes open it takes 170 ms, in which nobody is served; the young it still looks at.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _YOUNGER, _OLD)


def _url(settings: Settings, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http{'s' if settings.has_tls else ''}://{shown}:{port}"


def _with_certificate(settings: Settings, folder: Path) -> Settings:
    """The settings, with the files of a certificate of the server's own."""
    from faissbase.server.self_signed import self_signed  # costs time, and is seldom wanted

    files = self_signed(folder, settings.host)
    return replace(settings, tls_cert=str(files.cert), tls_key=str(files.key))


def _renew_certificate(folder: Path, host: str, clock: Callable[[], float] = time.time) -> None:
    """Make the server's own certificate anew where it ends soon, and tell: callers trust it by a copy."""
    from faissbase.server.self_signed import files_in, self_signed

    try:
        before = files_in(folder).sha256
        files = self_signed(folder, host, clock=clock)
    except (OSError, ValueError, FaissbaseError) as error:  # of a full disk, say: the next hour tries again
        logs.LOGGER.warning("the certificate cannot be looked at or renewed: %s", error)
        return
    if files.sha256 != before:
        facts = {"path": str(files.cert), "sha256": files.sha256}
        logs.LOGGER.warning(
            "the certificate was made anew: who trusts a copy of it needs this one", extra={"facts": facts}
        )


@contextmanager
def _ended_by_signals(runner: uvicorn.Server) -> Iterator[None]:
    """Stop at a signal that comes before uvicorn looks at them.

    It sends itself again the one that has stopped it: that comes here too, and changes nothing any more.
    """

    def stop(sign: int, frame: FrameType | None) -> None:
        runner.should_exit = True

    before = {sign: signal.signal(sign, stop) for sign in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def _check_open(settings: Settings, *, has_keys: bool) -> None:
    """Refuse to show the data to others by an oversight."""
    if not settings.is_public or settings.insecure:
        return
    advice = "or --insecure, if you know that only friends can reach it"
    where = settings.host or "every address of this machine"
    if not has_keys:
        raise AccessError(
            f"{where} can be reached from elsewhere, and there is no API key yet: make one with "
            f"faissbase keys create --data {settings.data} --tenant NAME --scopes read,write, {advice}"
        )
    if not settings.has_tls and not settings.tls_elsewhere:
        raise AccessError(
            f"{where} can be reached from elsewhere, and keys would travel unencrypted: "
            "give --tls-cert and --tls-key, --tls-self-signed for a first try, or --tls-elsewhere where a "
            f"proxy sees to it, {advice}"
        )


@contextmanager
def _tracing(endpoint: str) -> Iterator[Callable[[ASGIApp], ASGIApp]]:
    """What puts a span around each request, where they have an ``endpoint``; the last are sent at the end."""
    if not endpoint:
        yield lambda app: app
        return
    try:
        from faissbase.server.tracing import Tracing
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise NotReadyError(f'otel_endpoint needs {error.name}: pip install "faissbase[otel]"') from error
    with closing(Tracing(endpoint)) as tracing:
        yield tracing.traced


def _config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    tls: dict[str, object] = {}
    if settings.has_tls:
        tls = {"ssl_certfile": settings.tls_cert, "ssl_keyfile": settings.tls_key}
    if settings.tls_client_ca:
        tls |= {"ssl_ca_certs": settings.tls_client_ca, "ssl_cert_reqs": ssl.CERT_REQUIRED}
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        http=Protocol,
        ws="none",
        timeout_keep_alive=_IDLE_S,
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
