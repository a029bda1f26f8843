"""The ASGI application: lets requests in, hands each to its route in a thread, answers. Composes the rest.

Who asks is settled before anything of a request but its head is read.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.types import Receive, Scope, Send

from faissbase.ann.cores import cores
from faissbase.ann.flat import own_thread
from faissbase.dropin.frames import MEDIA, PATH
from faissbase.errors import AlreadyExistsError, InvalidInputError, UnavailableError
from faissbase.server import access, backups, dropin, indexes, logs, pages, searches, vectors, watching
from faissbase.server.answers import SECURITY, head, new_id
from faissbase.server.bodies import JSON, Held, media_of, read_body, whole_body
from faissbase.server.downloads import CONTENT_TYPE as TAR
from faissbase.server.downloads import Download
from faissbase.server.faults import WrongMedia, WrongMethod, as_ours, body_of, status_of
from faissbase.server.keys import Key, Keys, Unauthenticated
from faissbase.server.limits import Answered, Rates, TooMany, checked_key
from faissbase.server.logs import LOGGER
from faissbase.server.metrics import CONTENT_TYPE, Metrics
from faissbase.server.operations import Call, Operation
from faissbase.server.protocol import EXCHANGE, Exchange
from faissbase.server.quotas import QuotaExceeded
from faissbase.server.routing import PREFIX, Router, query_of
from faissbase.server.settings import Settings, is_own_name
from faissbase.server.telling import LINES, Telling, fault_line, last_line
from faissbase.server.tenants import Tenants
from faissbase.server.working import Answer, Gone, Workers

# In the scope, for who traces: what the request was, and the other way round its trace.
STORY, TRACE_ID = "faissbase.story", "faissbase.trace_id"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_LONG_THREADS = 2
_SEARCH_THREADS = 2
_GONE = 499  # as nginx logs it; nobody is there to read it
OPEN_PATHS = {PREFIX + op.path: op for op in watching.OPEN_OPERATIONS}
# Who may do everything while there are no keys, from this machine alone.
NOBODY = Key("none", "default", "no keys yet", frozenset(("admin",)), None, 0.0)
Heads = dict[bytes, bytes]


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

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        tenants: Tenants,
        tell: Callable[[dict[str, Any]], None] = logs.request,
    ) -> None:
        self.settings = settings
        self._is_public = settings.is_public
        self.metrics = Metrics()
        self.is_stopping = False
        self._tell_line = tell
        self._keys = keys
        self._tenants = tenants
        self._searching = Workers(max(_SEARCH_THREADS, cores()), "search", own_thread)
        self._short = Workers(settings.threads, "request")
        self._long = Workers(_LONG_THREADS, "long")
        self._rates = Rates(settings.max_requests_per_s)
        self._answered = Answered()
        self._held = Held(settings.max_held_bytes)
        self._router = Router(OPERATIONS)
        self._pages = pages.pages() if settings.console else {}
        self._dropin = dropin.DropIn(settings, tenants.folder, self._claimed, self._room)

    # ---- letting in ------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:  # a web socket
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        heads: Heads = dict(scope["headers"])
        story = _Story(_request_id(heads), time.perf_counter())
        scope[STORY] = story
        exchange = scope.get("state", {}).pop(EXCHANGE, None)  # it leads to the scope: none is to lead to it
        self._dropin.runs_in(asyncio.get_running_loop())
        self.metrics.n_in_flight += 1
        try:
            op, page = OPEN_PATHS.get(scope["path"]), self._pages.get(scope["path"])
            if op is not None:
                await self._serve_open(op, scope, send, story)
            elif page is not None:
                await _send_page(page, scope["method"], heads, send, story)
            else:
                story.key = self._let_in(scope, heads)
                self._rates.take(story.key.tenant)
                if scope["path"] == PATH:
                    await self._serve_faiss(scope, heads, receive, send, story)
                else:
                    await self._serve(scope, heads, receive, send, story, exchange)
        except asyncio.CancelledError:  # the time for stopping is over
            await self._fail(UnavailableError("the server is stopping"), send, story)
        except Gone:
            story.status = _GONE
        except Exception as error:  # noqa: BLE001  # the outermost handler
            await self._fail(error, send, story)
        finally:
            self.metrics.n_in_flight -= 1
        self._tell(story, scope)

    def _let_in(self, scope: Scope, heads: Heads) -> Key:
        """Whose request it is.

        Raises
        ------
        Unauthenticated
            Without a key, or with none that is good. Nothing of the request was looked at but its head.
        """
        sent = _sent_key(scope)
        if sent is not None:
            return self._keys.recognise(sent)
        is_shown = self._is_public or self.settings.tls_elsewhere
        if self._keys.are_there or (is_shown and not self.settings.insecure):
            raise Unauthenticated("send your API key as X-API-Key, or as Authorization: Bearer")
        if not self._is_public and self._is_from_elsewhere(scope["scheme"], heads):
            raise Unauthenticated("while there are no keys, pages in a browser are not served: make a key")
        return NOBODY

    def _is_from_elsewhere(self, scheme: str, heads: Heads) -> bool:
        """Whether a page in a browser may have sent it that is not the console."""
        host = heads.get(b"host", b"").lower()
        origin, own = heads.get(b"origin"), b"%s://%s" % (scheme.encode(), host)
        is_ours = origin is None or (bool(self._pages) and origin == own)
        return not is_ours or not _is_of_this_machine(host)

    async def _fail(self, error: Exception, send: Send, story: _Story) -> None:
        ours = as_ours(error)
        status = status_of(ours)
        facts = {"facts": {"request_id": story.request_id}}
        if story.status:  # its head is out already: all that is left is to end it short
            LOGGER.warning("an answer was cut short: %s", error, extra=facts)
            return
        if status == 500:
            LOGGER.error("%s", error, exc_info=error, extra=facts)
        more: list[tuple[bytes, bytes]] = []
        if isinstance(ours, WrongMethod):
            more.append((b"allow", ours.allowed.encode()))
        if status == 401:
            more.append((b"www-authenticate", b"Bearer"))
        if status == 503:
            more.append((b"retry-after", b"1"))
        if status in (408, 413):  # what is left of the body is not read
            more.append((b"connection", b"close"))
        if isinstance(ours, TooMany | QuotaExceeded):
            more.append((b"retry-after", str(math.ceil(ours.retry_after_s)).encode()))
        body = body_of(ours, story.request_id, self._tenants.tidy)
        await _send(send, story, status, body, JSON, more)

    def _tell(self, story: _Story, scope: Scope) -> None:
        seconds, method = time.perf_counter() - story.began_s, scope["method"]
        self.metrics.answered(story.route, method if story.route != "none" else "any", story.status, seconds)
        facts = {
            "request_id": story.request_id,
            "tenant": story.key.tenant if story.key else None,
            "key": story.key.id if story.key else None,
            "method": method,
            "route": story.route,
            "status": story.status,
            "ms": round(1000 * seconds, 3),
            "bytes": story.bytes_out,
        }
        if TRACE_ID in scope:
            facts["trace_id"] = scope[TRACE_ID]
        self._tell_line(facts)

    # ---- serving ---------------------------------------------------------------------------------

    async def _serve_open(self, op: Operation, scope: Scope, send: Send, story: _Story) -> None:
        story.route = op.path
        if scope["method"] not in ("GET", "HEAD"):
            raise WrongMethod(scope["method"], op.methods)
        health = op.run(self)
        status = 503 if op.path.endswith("/ready") and not health.ready else 200
        await _send(send, story, status, msgspec.json.encode(health), JSON)

    async def _serve(
        self,
        scope: Scope,
        heads: Heads,
        receive: Receive,
        send: Send,
        story: _Story,
        exchange: Exchange | None,
    ) -> None:
        """Check what the key may do, read the body, run the operation in a thread."""
        op, path = self._router.find(scope["method"], scope["path"])
        story.route, key = op.shown, story.key
        assert key is not None
        key.require(op.scope)
        if op.is_about_data:
            self._tenants.require_folder(is_fresh=op.together is None)  # a search may be a moment late
        query = query_of(op, scope["query_string"])
        raw = await self._body(op, heads, receive, exchange)
        self.metrics.n_waiting += 1
        try:
            if self.is_stopping:
                raise UnavailableError("the server is stopping")
            call = self._call(op, key, path, query, raw, heads)
            answering = self._answer(op, call, scope["path"], heads, exchange)
            if op.tells and LINES in map(media_of, call.accept.split(",")):
                sent = await self._answer_in_lines(call, answering, send, story)
                if sent is None:
                    return
                status, content = sent
            else:
                status, content = await answering
        finally:
            self.metrics.n_waiting -= 1
            self._held.give_back(len(raw))
        if isinstance(content, Download):
            await _begin(send, story, status, content.n_bytes, TAR, content.headers)
            await content.send(receive, send)
            return
        if exchange is not None and exchange.may_answer(send):
            story.status, story.bytes_out = status, len(content)
            exchange.answer(head(status, call.media, len(content), story.request_id), content)
            return
        await _send(send, story, status, content, call.media)

    async def _body(self, op: Operation, heads: Heads, receive: Receive, exchange: Exchange | None) -> bytes:
        """The body as it was sent, empty where the route takes none; to be given back to ``_held``."""
        length = heads.get(b"content-length", b"0" if op.body is None else b"").decode("latin-1")
        if op.body is None:
            if length != "0" or b"transfer-encoding" in heads:
                raise InvalidInputError("this route takes no body")
            return b""
        most_bytes = self.settings.max_body_bytes
        if exchange is not None and exchange.is_whole:
            return whole_body(exchange.body(), length, self._held, most_bytes)
        timeout_s = self.settings.body_timeout_s
        return await read_body(receive, length, self._held, most_bytes=most_bytes, timeout_s=timeout_s)

    def _call(
        self, op: Operation, key: Key, path: dict[str, str], query: dict[str, Any], raw: bytes, heads: Heads
    ) -> Call:
        """All that an operation is handed."""
        encoding = heads.get(b"content-encoding", b"").decode("latin-1")
        content_type = heads.get(b"content-type", b"").decode("latin-1")
        return Call(
            key,
            self._tenants,
            self._keys,
            self.settings,
            self.metrics,
            path,
            query,
            (raw, encoding, content_type) if op.body is not None else None,
            heads.get(b"accept", b"").decode("latin-1"),
            CONTENT_TYPE if op.answer is bytes else JSON if op.answer is not None else None,
            self._dropin,
        )

    async def _serve_faiss(
        self, scope: Scope, heads: Heads, receive: Receive, send: Send, story: _Story
    ) -> None:
        """Hand a call of FAISS to the tenant's own process; what it may do there depends on the key."""
        story.route, key = PATH, story.key
        assert key is not None
        key.require("read")
        if scope["method"] != "POST":
            raise WrongMethod(scope["method"], ("POST",))
        if media_of(heads.get(b"content-type", b"").decode("latin-1")) != MEDIA:
            raise WrongMedia(f"send the header content-type: {MEDIA}")
        if self.is_stopping:
            raise UnavailableError("the server is stopping")
        if not self._tenants.has_faiss:
            raise InvalidInputError(
                "this server serves shards from object storage, and no indexes of FAISS's own: faissbase "
                "serve on a folder does"
            )
        self._tenants.require_folder(is_fresh=True)
        announced = heads.get(b"content-length", b"").decode("latin-1")
        begin = partial(_begin, send, story, 200, media=MEDIA, more=[])
        await self._dropin.serve(key, announced, receive, lambda n_bytes: begin(n_bytes=n_bytes), send)

    def _claimed(self, key: Key, name: str) -> Callable[[], None]:
        """Refuse a name for a FAISS index that a collection has, and one index more than there may be.

        The name is nobody else's until what this gives is called.
        """
        give_back = self._tenants.claims.take(key.tenant, name)
        try:
            if name in self._tenants.database(key.tenant).list_collections():
                raise AlreadyExistsError(f"there is an index {name!r} already")
            with self._tenants.usage(key.tenant).room_for_index(self.settings):
                return give_back
        except BaseException:
            give_back()
            raise

    def _room(self, key: Key, n_bytes: int) -> int | None:
        """How many bytes the named FAISS indexes of a tenant may grow by; None where that is not bounded."""
        if not self.settings.max_tenant_bytes:
            return None
        return self._tenants.usage(key.tenant).room_bytes(self.settings, n_bytes)

    async def _answer(
        self, op: Operation, call: Call, path: str, heads: Heads, exchange: Exchange | None
    ) -> Answer:
        """What an operation gives, or has given, where it came before with the same ``Idempotency-Key``."""
        is_gone = _is_here if exchange is None else exchange.is_gone
        if op.together is not None:
            return await self._searching.serve(op, call, _answer_of, is_gone)
        sent = checked_key(heads.get(b"idempotency-key"))
        workers = self._long if op.is_long else self._short
        if sent is None or op.scope == "read" or op.answer is Download:
            return await workers.serve(op, call, _answer_of, is_gone)
        what = (op.path, path, sent)
        return await workers.serve(op, call, lambda op, call: self._answer_once(op, call, what), is_gone)

    async def _answer_in_lines(
        self, call: Call, answering: Coroutine[Any, Any, Answer], send: Send, story: _Story
    ) -> Answer | None:
        """Tell meanwhile how far the work is; what it gives, where there was nothing to tell.

        So an error that comes before the work has begun has a status of its own.
        """
        call.tell = telling = Telling()
        work = asyncio.ensure_future(answering)
        try:
            await telling.send_until(work, partial(_begin, send, story, 200, None, LINES, []), send)
        finally:
            work.cancel()  # unless it has ended
        if not telling.has_begun:
            return work.result()
        line = self._last_line(work, story)
        story.bytes_out = telling.n_bytes + len(line)
        await send({"type": "http.response.body", "body": line})
        return None

    def _last_line(self, work: asyncio.Future[Answer], story: _Story) -> bytes:
        try:
            return last_line(*work.result())
        except Exception as error:  # noqa: BLE001  # it is the answer
            ours = as_ours(error)
            story.status = status_of(ours)
            if story.status == 500:
                LOGGER.error("%s", error, exc_info=error, extra={"facts": {"request_id": story.request_id}})
            return fault_line(story.status, body_of(ours, story.request_id, self._tenants.tidy))

    def _answer_once(self, op: Operation, call: Call, what: tuple[str, ...]) -> Answer:
        raw = b"" if call.body is None else call.body[0]
        known = self._answered.begin(call.key.id, what, str(call.query).encode() + b"\n" + raw)
        if known is not None:
            return known
        try:
            status, content = _answer_of(op, call)
        except BaseException:
            self._answered.fail(call.key.id, what)
            raise
        self._answered.end(call.key.id, what, status, content)
        return status, content

    def age_s(self) -> float | None:
        """See `Tenants.age_s`."""
        return self._tenants.age_s()

    def is_folder_there(self) -> bool:
        """See `Tenants.is_folder_there`."""
        return self._tenants.is_folder_there()

    def close(self) -> None:
        """Wait for what runs, then checkpoint and close all files."""
        self.is_stopping = True
        for workers in (self._searching, self._short, self._long):
            workers.close()
        self._dropin.close()
        self._tenants.close()
        self._keys.close()


def _is_here() -> bool:
    return False


def _answer_of(op: Operation, call: Call) -> Answer:
    """Decode, run, encode: all that takes time, in one thread."""
    op.decode(call)
    return op.status, op.encode(op.serve(call))


async def _send(
    send: Send,
    story: _Story,
    status: int,
    content: bytes,
    media: str | None,
    more: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """A whole answer."""
    await _begin(send, story, status, len(content), media, more or [])
    await send({"type": "http.response.body", "body": content})


async def _send_page(page: pages.Page, method: str, heads: Heads, send: Send, story: _Story) -> None:
    """A file of the console, or that the caller has it already."""
    story.route = pages.ROUTE
    if method not in ("GET", "HEAD"):
        raise WrongMethod(method, pages.METHODS)
    is_known = page.is_known(heads.get(b"if-none-match", b""))
    story.status, content = (304, b"") if is_known else (page.status, page.content)
    story.bytes_out = len(content)
    headers = [(b"x-request-id", story.request_id.encode()), *page.headers]
    if not is_known:
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": story.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _begin(
    send: Send,
    story: _Story,
    status: int,
    n_bytes: int | None,
    media: str | None,
    more: list[tuple[bytes, bytes]],
) -> None:
    """The head of an answer, with the headers that every answer has; ``n_bytes`` None is not known yet."""
    headers = [(b"x-request-id", story.request_id.encode()), *SECURITY, *more]
    if media is not None:
        headers.append((b"content-type", media.encode()))
    if status != 204 and n_bytes is not None:
        headers.append((b"content-length", str(n_bytes).encode()))
    story.status, story.bytes_out = status, n_bytes or 0
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _sent_key(scope: Scope) -> str | None:
    """The key in the request's head; where two differ, one that nobody has."""
    found: str | None = None
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            text = value.decode("latin-1")
        elif name == b"authorization":
            kind, _, text = value.decode("latin-1").partition(" ")
            if kind.lower() != "bearer":
                continue
        else:
            continue
        sent = text.strip()
        if found is not None and sent != found:
            return ""
        found = sent
    return found


def _is_of_this_machine(host: bytes) -> bool:
    """Whether the header ``Host`` has a name that leads here only: a page of others comes by another."""
    try:
        return is_own_name(urlsplit(f"//{host.decode('latin-1')}").hostname or "")
    except ValueError:
        return False


def _request_id(heads: Heads) -> str:
    """The caller's own id, where it is a short plain word, else a new one."""
    sent = heads.get(b"x-request-id")
    return new_id() if sent is None or not _ID.match(sent) else sent.decode()


OPERATIONS: tuple[Operation, ...] = (
    *searches.OPERATIONS,
    *indexes.OPERATIONS,
    *vectors.OPERATIONS,
    *access.OPERATIONS,
    *backups.OPERATIONS,
    *watching.OPERATIONS,
)
