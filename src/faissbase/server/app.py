"""The ASGI application: lets requests in, hands each to its route in a thread, answers. Composes the rest.

Who asks is settled before anything of a request but its head is read.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from faissbase.errors import InvalidInputError, NotFoundError, UnavailableError
from faissbase.server import access, indexes, searches, vectors, watching
from faissbase.server.bodies import read_body
from faissbase.server.faults import WrongMethod, as_ours, body_of, status_of
from faissbase.server.gathering import Gatherer
from faissbase.server.keys import Key, Keys, Unauthenticated
from faissbase.server.limits import Answered, Rates, TooMany, checked_key
from faissbase.server.logs import LOGGER
from faissbase.server.metrics import CONTENT_TYPE, Metrics
from faissbase.server.operations import Call, Operation
from faissbase.server.settings import Settings, is_own_name
from faissbase.server.tenants import Tenants

PREFIX = "/v1"
_JSON = "application/json"
_MEDIA: dict[Any, str | None] = {None: None, bytes: CONTENT_TYPE}
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_SHOWN = 200
_LONG_THREADS = 2
_SEARCH_THREADS = 2
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)


class _Rest(Convertor[str]):
    """The rest of a path, whatever is in it: Starlette's own stops at a line break."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("rest", _Rest())
OPEN_PATHS = frozenset(PREFIX + op.path for op in watching.OPEN_OPERATIONS)
# Who may do everything while there are no keys, from this machine alone.
NOBODY = Key("none", "default", "no keys yet", frozenset(("admin",)), None, 0.0)


@dataclass(slots=True)
class _Story:
    """What one request was, for its line in the log."""

    request_id: str
    began_s: float
    route: str = "none"
    key: Key | None = None
    status: int = 0
    bytes_out: int = 0


class Server:
    """The application. ``run.py`` puts it on a socket; `close` ends it."""

    def __init__(self, settings: Settings, keys: Keys, tenants: Tenants) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.is_stopping = False
        self._keys = keys
        self._tenants = tenants
        n_threads = settings.threads or 2 * (os.cpu_count() or 1)
        self._short = ThreadPoolExecutor(n_threads, thread_name_prefix="faissbase-request")
        self._long = ThreadPoolExecutor(_LONG_THREADS, thread_name_prefix="faissbase-long")
        self._rates = Rates(settings.max_requests_per_s)
        self._answered = Answered()
        self._gatherer = Gatherer(max(_SEARCH_THREADS, os.cpu_count() or 1))
        self._router: ASGIApp = Router(self._routes(), redirect_slashes=False, default=_no_such_path)

    def _routes(self) -> list[Route]:
        routes = [self._open_route(op) for op in watching.OPEN_OPERATIONS]
        by_path: dict[str, dict[str, Operation]] = {}
        for op in OPERATIONS:
            for method in op.methods:
                by_path.setdefault(op.path, {})[method] = op
        for path, choices in by_path.items():
            routes.append(Route(PREFIX + path, partial(_endpoint, self, choices), methods=list(choices)))
        return routes

    def _open_route(self, op: Operation) -> Route:
        async def endpoint(request: Request) -> Response:
            request.scope["state"]["story"].route = op.path
            health = op.run(self.is_stopping)
            status = 503 if op.path.endswith("/ready") and not health.ready else 200
            return Response(msgspec.json.encode(health), status, media_type=_JSON)

        return Route(PREFIX + op.path, endpoint, methods=["GET"])

    # ---- letting in ------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:  # a web socket
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        story = _Story(_request_id(scope), time.perf_counter())
        scope["app"], scope["state"] = self, {"story": story}
        told = _telling(send, story)
        with self.metrics.in_flight.track_inprogress():
            try:
                if scope["path"] not in OPEN_PATHS:
                    story.key = self._let_in(scope)
                    self._rates.take(story.key.tenant)
                await self._router(scope, receive, told)
            except asyncio.CancelledError:  # the time for stopping is over
                stopping = UnavailableError("the server is stopping")
                await self._fail(stopping, story, scope, receive, told)
            except Exception as error:  # noqa: BLE001  # the outermost handler
                await self._fail(error, story, scope, receive, told)
        self._tell(story, scope)

    def _let_in(self, scope: Scope) -> Key:
        """Whose request it is.

        Raises
        ------
        Unauthenticated
            Without a key, or with none that is good. Nothing of the request was looked at but its head.
        """
        sent = _sent_key(scope)
        if sent is not None:
            return self._keys.recognise(sent)
        is_shown = self.settings.is_public or self.settings.tls_elsewhere
        if self._keys.are_there or (is_shown and not self.settings.insecure):
            raise Unauthenticated("send your API key as X-API-Key, or as Authorization: Bearer")
        if not self.settings.is_public and _is_from_a_page(scope):
            raise Unauthenticated("while there are no keys, pages in a browser are not served: make a key")
        return NOBODY

    async def _fail(
        self, error: Exception, story: _Story, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if isinstance(error, HTTPException) and error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            error = WrongMethod(f"{scope['method']} is not for this path, it takes {allowed}")
            headers = {"Allow": allowed}
        else:
            headers = {}
        ours = as_ours(error)
        status = status_of(ours)
        if status == 500:
            LOGGER.error("%s", error, exc_info=error, extra={"facts": {"request_id": story.request_id}})
        if story.status:  # its head is out already: all that is left is to end it short
            return
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status == 503:
            headers["Retry-After"] = "1"
        if status in (408, 413):  # what is left of the body is not read
            headers["Connection"] = "close"
        if isinstance(ours, TooMany):
            headers["Retry-After"] = str(math.ceil(ours.retry_after_s))
        body = body_of(ours, story.request_id, str(self._tenants.folder))
        await Response(body, status, headers, _JSON)(scope, receive, send)

    def _tell(self, story: _Story, scope: Scope) -> None:
        seconds = time.perf_counter() - story.began_s
        self.metrics.answered(
            story.route, scope["method"] if story.route != "none" else "any", story.status, seconds
        )
        facts = {
            "request_id": story.request_id,
            "tenant": story.key.tenant if story.key else None,
            "key": story.key.id if story.key else None,
            "method": scope["method"],
            "route": story.route,
            "status": story.status,
            "ms": round(1000 * seconds, 3),
            "bytes": story.bytes_out,
        }
        LOGGER.info("request", extra={"facts": facts})

    # ---- serving ---------------------------------------------------------------------------------

    async def serve(self, op: Operation, request: Request) -> Response:
        """Check what the key may do, read the body, run the operation in a thread."""
        story: _Story = request.scope["state"]["story"]
        story.route, key = op.path.replace(":rest", ""), story.key
        assert key is not None
        key.require(op.scope)
        unknown = [name for name in request.query_params if name not in op.query]
        if unknown:
            there = ", ".join(op.query) or "none"
            raise InvalidInputError(f"unknown parameter {unknown[0][:_SHOWN]!r}; there are: {there}")
        body = None
        if op.body is None and _has_body(request):
            raise InvalidInputError("this route takes no body")
        if op.body is not None:
            raw = await read_body(
                request,
                most_bytes=self.settings.max_body_bytes,
                timeout_s=self.settings.body_timeout_s,
            )
            headers = request.headers
            body = (raw, headers.get("content-encoding", ""), headers.get("content-type", ""))
        if self.is_stopping:
            raise UnavailableError("the server is stopping")
        call = Call(
            key,
            self._tenants,
            self._keys,
            self.settings,
            self.metrics,
            request.path_params,
            request.query_params,
            body,
            request.headers.get("accept", ""),
            _MEDIA.get(op.answer, _JSON),
        )
        with self.metrics.waiting.track_inprogress():
            status, content = await self._answer(op, call, request)
        return Response(content, status, media_type=call.media)

    async def _answer(self, op: Operation, call: Call, request: Request) -> tuple[int, bytes]:
        """What an operation gives, or has given, where it came before with the same ``Idempotency-Key``."""
        if op.together is not None:
            return op.status, await self._gatherer.serve(op, call)
        sent = checked_key(request.headers.get("idempotency-key"))
        what = None if sent is None or op.scope == "read" else (op.path, request.url.path, sent)
        threads = self._long if op.is_long else self._short
        return await asyncio.get_running_loop().run_in_executor(threads, self._run, op, call, what)

    def _run(self, op: Operation, call: Call, what: tuple[str, ...] | None) -> tuple[int, bytes]:
        """Decode, serve, encode: all that takes time, in one thread."""
        if what is not None:
            raw = b"" if call.body is None else call.body[0]
            known = self._answered.begin(call.key.id, what, str(call.query).encode() + b"\n" + raw)
            if known is not None:
                return known
        try:
            op.decode(call)
            content = op.encode(op.run(call))
        except BaseException:
            if what is not None:
                self._answered.fail(call.key.id, what)
            raise
        if what is not None:
            self._answered.end(call.key.id, what, op.status, content)
        return op.status, content

    def close(self) -> None:
        """Wait for what runs, then checkpoint and close all files."""
        self.is_stopping = True
        self._gatherer.close()
        self._short.shutdown(wait=True, cancel_futures=True)
        self._long.shutdown(wait=True, cancel_futures=True)
        self._tenants.close()
        self._keys.close()


async def _endpoint(server: Server, choices: dict[str, Operation], request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    return await server.serve(choices[method], request)


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


async def _no_such_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFoundError(f"no path {scope['path'][:_SHOWN]!r}; see {PREFIX}/openapi.json")


def _sent_key(scope: Scope) -> str | None:
    """The key in the request's head; where two differ, one that nobody has."""
    sent = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            sent.add(value.decode("latin-1").strip())
        elif name == b"authorization":
            kind, _, text = value.decode("latin-1").partition(" ")
            if kind.lower() == "bearer":
                sent.add(text.strip())
    return sent.pop() if len(sent) == 1 else "" if sent else None


def _is_from_a_page(scope: Scope) -> bool:
    """Whether a page in a browser may have sent it, by another name for this machine or from elsewhere."""
    heads = {name: value.decode("latin-1").lower() for name, value in scope["headers"]}
    try:
        host = urlsplit(f"//{heads.get(b'host', '')}").hostname or ""
    except ValueError:
        return True
    return b"origin" in heads or not is_own_name(host)


def _request_id(scope: Scope) -> str:
    """The caller's own id, where it is a short plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.match(value.decode("latin-1")):
            return str(value.decode("latin-1"))
    return uuid.uuid4().hex


def _telling(send: Send, story: _Story) -> Callable[[MutableMapping[str, Any]], Awaitable[None]]:
    """``send``, with the headers that every answer has, noting what goes out."""

    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            story.status = message["status"]
            own = (b"x-request-id", story.request_id.encode())
            message["headers"] = [*message.get("headers", ()), own, *_SECURITY]
        elif message["type"] == "http.response.body":
            story.bytes_out += len(message.get("body", b""))
        await send(message)

    return told


OPERATIONS: tuple[Operation, ...] = (
    *indexes.OPERATIONS,
    *searches.OPERATIONS,
    *vectors.OPERATIONS,
    *access.OPERATIONS,
    *watching.OPERATIONS,
)
