"""A local server that speaks OpenAI's protocol over real HTTP: embeddings, and scripted chat replies.

    with OpenAIServer(dimension=64) as server:
        server.reply_with("first reply", {"facts": []}, lambda body: body["messages"][-1]["content"])
        server.fail_with(429, times=2, retry_after="0")
        ...OpenAI(base_url=server.url)...
        assert server.paths() == ["/v1/chat/completions"]

Knows only the protocol: nothing of faissbase. Vectors come from words, so that texts that share words are
near each other. What has not been scripted is refused with 400, which no client tries again.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, TypeAlias

import numpy as np

EMBEDDINGS = "/v1/embeddings"
CHAT = "/v1/chat/completions"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Asked:
    """A request that has come in; ``body`` is None where it was no JSON."""

    path: str
    body: Any
    headers: dict[str, str]
    at_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Text:
    """A reply with what OpenAI says of it; sent in pieces of ``piece`` characters where a stream is asked."""

    content: str | None
    finish_reason: str = "stop"
    piece: int = 8


@dataclass(frozen=True)
class Cut:
    """A reply whose connection breaks after ``after`` pieces (stream), or halfway (no stream)."""

    content: str
    after: int = 1
    piece: int = 8


@dataclass(frozen=True)
class Raw:
    """Any bytes, sent as they are: HTML, half of a JSON, no choices."""

    body: bytes | str
    status: int = 200
    media: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trickle:
    """Any bytes, one at a time with a pause after each, so that no single wait is long."""

    body: bytes
    pause_s: float = 0.05


@dataclass(frozen=True)
class Hang:
    """No answer, until the time is over (then the connection closes) or the server closes."""

    seconds: float = 60.0


Reply: TypeAlias = "str | dict[str, Any] | list[Any] | Text | Cut | Raw | Trickle | Hang"
Scripted: TypeAlias = "Reply | Callable[[dict[str, Any]], Reply]"
Entries: TypeAlias = "list[dict[str, Any]]"
Spoiler: TypeAlias = "Callable[[Entries], Entries]"


def hashed_vector(text: str, dimension: int) -> list[float]:
    """The unit vector of ``text``: the sum of one random direction for each of its words."""
    total = np.zeros(dimension)
    for word in _WORD.findall(text.lower()) or [""]:
        total += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(dimension)
    vector: list[float] = (total / np.linalg.norm(total)).astype(np.float32).tolist()
    return vector


def one_missing(entries: Entries) -> Entries:
    """An answer with a vector too few."""
    return entries[:-1]


def one_more(entries: Entries) -> Entries:
    """An answer with a vector too many."""
    return [*entries, {**entries[-1], "index": len(entries)}]


def other_dimension(entries: Entries) -> Entries:
    """An answer whose vectors are a number longer."""
    return [{**entry, "embedding": [*entry["embedding"], 0.5]} for entry in entries]


def uneven(entries: Entries) -> Entries:
    """An answer whose last vector alone is a number longer."""
    return entries[:-1] + other_dimension(entries[-1:])


def not_finite(entries: Entries) -> Entries:
    """An answer with NaN in its last vector."""
    broken = [float("nan"), *entries[-1]["embedding"][1:]]
    return [*entries[:-1], {**entries[-1], "embedding": broken}]


def backwards(entries: Entries) -> Entries:
    """An answer in another order, which ``index`` tells."""
    return entries[::-1]


class OpenAIServer:
    """The server, in a thread of its own, between ``__enter__`` and ``__exit__``.

    Parameters
    ----------
    dimension : int
        Of the vectors, where the request names no ``dimensions``.
    max_batch : int
        More texts in one request are refused with 400.
    api_key : str or None
        What clients must send as bearer token; None lets everybody in.
    json_modes : sequence of str
        The kinds of ``response_format`` that the server knows; others are refused with 400.
    """

    def __init__(
        self,
        dimension: int = 64,
        *,
        max_batch: int = 2048,
        api_key: str | None = None,
        json_modes: Sequence[str] = ("text", "json_object", "json_schema"),
    ) -> None:
        self.dimension = dimension
        self.max_batch = max_batch
        self.api_key = api_key
        self.json_modes = tuple(json_modes)
        self.requests: list[Asked] = []
        self._lock = threading.Lock()
        self._replies: deque[Scripted] = deque()
        self._always: Scripted | None = None
        self._faults: deque[tuple[str | None, Raw | Hang]] = deque()
        self._spoilers: deque[Spoiler] = deque()
        self.closing = threading.Event()
        self._http = _Listening(("127.0.0.1", 0), _Exchange)
        self._http.owner = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """What a client takes as ``base_url``."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering: what hangs is let go, and connections are refused from now on."""
        if self.closing.is_set():
            return
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    # ---- scripting -------------------------------------------------------------------------------

    def reply_with(self, *replies: Scripted) -> None:
        """Add replies for the coming chat requests, one each; dicts and lists are sent as JSON text."""
        with self._lock:
            self._replies.extend(replies)

    def reply_always(self, reply: Scripted) -> None:
        """Reply so to every chat request for which no other reply is waiting."""
        with self._lock:
            self._always = reply

    def fail_with(
        self, status: int, *, times: int = 1, retry_after: str | None = None, path: str | None = None
    ) -> None:
        """Refuse the next ``times`` requests (to ``path`` only, where it is given)."""
        headers = {} if retry_after is None else {"retry-after": retry_after}
        fault = Raw(_error_body(f"scripted failure {status}"), status, headers=headers)
        with self._lock:
            self._faults.extend([(path, fault)] * times)

    def hang(self, *, times: int = 1, seconds: float = 60.0, path: str | None = None) -> None:
        """Leave the next ``times`` requests without an answer."""
        with self._lock:
            self._faults.extend([(path, Hang(seconds))] * times)

    def spoil_with(self, spoiler: Spoiler, *, times: int = 1) -> None:
        """Change the next ``times`` lists of embeddings, as `one_missing` or `not_finite` do."""
        with self._lock:
            self._spoilers.extend([spoiler] * times)

    # ---- what came in ----------------------------------------------------------------------------

    def paths(self) -> list[str]:
        """The paths asked, in order."""
        with self._lock:
            return [asked.path for asked in self.requests]

    def bodies(self, path: str = CHAT) -> list[Any]:
        """The bodies sent to ``path``, in order."""
        with self._lock:
            return [asked.body for asked in self.requests if asked.path == path]

    def texts(self) -> list[list[str]]:
        """The batches of texts that were to be embedded."""
        return [_inputs(body) for body in self.bodies(EMBEDDINGS)]

    def waiting(self) -> int:
        """How many scripted replies nobody has asked for yet."""
        with self._lock:
            return len(self._replies)

    # ---- answering -------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Text | Cut | Raw | Trickle | Hang:
        """What is sent back; `Text` and `Cut` are chat replies."""
        with self._lock:
            self.requests.append(asked)
            fault = self._next_fault(asked.path)
        if fault is not None:
            return fault
        if self.api_key is not None and asked.headers.get("authorization") != f"Bearer {self.api_key}":
            return Raw(_error_body("Incorrect API key provided"), 401)
        if not isinstance(asked.body, dict):
            return Raw(_error_body("the body must be a JSON object"), 400)
        if asked.path == EMBEDDINGS:
            return self._embeddings(asked.body)
        if asked.path == CHAT:
            return self._chat(asked.body)
        return Raw(_error_body(f"unknown path {asked.path}"), 404)

    def _next_fault(self, path: str) -> Raw | Hang | None:
        for i, (only, fault) in enumerate(self._faults):
            if only in (None, path):
                del self._faults[i]
                return fault
        return None

    def _embeddings(self, body: dict[str, Any]) -> Raw:
        texts = _inputs(body)
        if not texts or not all(isinstance(text, str) for text in texts):
            return Raw(_error_body("input must be a text or a list of texts"), 400)
        if len(texts) > self.max_batch:
            return Raw(_error_body(f"at most {self.max_batch} texts at once, got {len(texts)}"), 400)
        dimension = body.get("dimensions") or self.dimension
        entries: Entries = [
            {"object": "embedding", "index": i, "embedding": hashed_vector(text, dimension)}
            for i, text in enumerate(texts)
        ]
        with self._lock:
            spoiler = self._spoilers.popleft() if self._spoilers else None
        entries = spoiler(entries) if spoiler else entries
        if body.get("encoding_format") == "base64":
            entries = [{**entry, "embedding": _base64(entry["embedding"])} for entry in entries]
        tokens = sum(len(text.split()) for text in texts)
        answer = {"object": "list", "model": body.get("model"), "data": entries}
        return Raw(json.dumps({**answer, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}))

    def _chat(self, body: dict[str, Any]) -> Text | Cut | Raw | Trickle | Hang:
        mode = (body.get("response_format") or {"type": "text"}).get("type")
        if mode not in self.json_modes:
            return Raw(_error_body(f"response_format.type {mode!r} is not supported"), 400)
        with self._lock:
            scripted = self._replies.popleft() if self._replies else self._always
        if scripted is None:
            return Raw(_error_body("no reply is scripted"), 400)
        reply = scripted(body) if callable(scripted) else scripted
        if isinstance(reply, (dict, list)):
            reply = json.dumps(reply)
        return Text(reply) if isinstance(reply, str) else reply


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    owner: OpenAIServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is part of the tests."""


class _Exchange(BaseHTTPRequestHandler):
    """One connection: reads requests, sends what `OpenAIServer.answer` says."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 120
    server: _Listening
    _model: ClassVar[str] = "scripted"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            sent = json.loads(body)
        except ValueError:
            sent = None
        headers = {name.lower(): value for name, value in self.headers.items()}
        found = self.server.owner.answer(Asked(self.path, sent, headers))
        if isinstance(found, Hang):
            self.server.owner.closing.wait(found.seconds)
            self.close_connection = True
        elif isinstance(found, Raw):
            self._send(found)
        elif isinstance(found, Trickle):
            self._trickle(found)
        elif isinstance(sent, dict) and sent.get("stream"):
            self._stream(found)
        else:
            self._complete(found)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what came in is in ``requests``."""

    def _complete(self, reply: Text | Cut) -> None:
        reason = reply.finish_reason if isinstance(reply, Text) else "stop"
        message = {"role": "assistant", "content": reply.content}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        body = json.dumps({**self._head("chat.completion"), "choices": [choice], "usage": _usage(reply)})
        if isinstance(reply, Text):
            self._send(Raw(body))
            return
        self._begin(Raw(body), {"content-length": str(len(body.encode()))})
        self.wfile.write(body.encode()[: len(body) // 2])
        self._break()

    def _stream(self, reply: Text | Cut) -> None:
        self._begin(Raw(b"", media="text/event-stream"), {"transfer-encoding": "chunked"})
        content = reply.content or ""
        pieces = [content[i : i + reply.piece] for i in range(0, len(content), reply.piece)]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": piece} for piece in pieces]
        if isinstance(reply, Cut):
            for delta in deltas[: reply.after + 1]:
                self._event(delta, None)
            self._break()
            return
        for delta in deltas:
            self._event(delta, None)
        self._event({}, reply.finish_reason)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, delta: dict[str, Any], reason: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        event = {**self._head("chat.completion.chunk"), "choices": [choice]}
        self._chunk(f"data: {json.dumps(event)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _send(self, raw: Raw) -> None:
        content = raw.body.encode() if isinstance(raw.body, str) else raw.body
        self._begin(raw, {"content-length": str(len(content))})
        self.wfile.write(content)

    def _trickle(self, slow: Trickle) -> None:
        self._begin(Raw(b""), {"content-length": str(len(slow.body))})
        for i in range(len(slow.body)):
            self.wfile.write(slow.body[i : i + 1])
            if self.server.owner.closing.wait(slow.pause_s):
                self.close_connection = True
                return

    def _begin(self, raw: Raw, framing: dict[str, str]) -> None:
        self.send_response(raw.status)
        for name, value in {"content-type": raw.media, **framing, **raw.headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _break(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": "chatcmpl-0", "object": kind, "created": 0, "model": self._model}


def _inputs(body: dict[str, Any]) -> list[str]:
    found = body.get("input")
    return [found] if isinstance(found, str) else list(found or [])


def _base64(vector: list[float]) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def _usage(reply: Text | Cut) -> dict[str, int]:
    n = len((reply.content or "").split())
    return {"prompt_tokens": 0, "completion_tokens": n, "total_tokens": n}


def _error_body(message: str) -> str:
    return json.dumps({"error": {"message": message, "type": "scripted", "code": None}})
