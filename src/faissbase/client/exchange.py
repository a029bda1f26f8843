"""One request and what comes back, without a network: what both clients share.

An operation is a generator: it yields an `Exchange`, is sent the decoded answer, and returns what its caller
wants. So each is written once, and driven by a blocking and by an asynchronous client.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import quote

import orjson

from faissbase.collection.telling import Told
from faissbase.errors import (
    AccessError,
    FaissbaseError,
    InternalError,
    InvalidInputError,
    UnavailableError,
)

T = TypeVar("T")
Steps = Generator["Exchange", Any, T]

ARROW = "application/vnd.apache.arrow.stream"
LINES = "application/x-ndjson"
TRIES = 4
TIMEOUT_S = 60.0
FILE_TIMEOUT_S = 3600.0  # a file is made before any of it comes
_FIRST_WAIT_S = 0.1
_MOST_WAIT_S = 2.0
_RETRIED = (408, 429, 502, 503, 504)
_SHOWN = 200
QUOTA = "quota_exceeded"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request. ``is_safe``: sent twice, it does no more than sent once, so that it may be tried again.

    What is not travels with a key by which the server knows it again. A ``body`` of bytes is an Arrow stream.
    ``is_long``: the work may take an hour. It goes on there where no answer has come, so that asking again
    would only do it twice. ``told`` is told meanwhile how far it is, by servers that do so.
    """

    method: str
    path: str
    body: Any = None
    is_safe: bool = True
    is_long: bool = False
    told: Told | None = None
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def headers(self) -> dict[str, str]:
        found = {} if self.is_safe else {"idempotency-key": self.key}
        if isinstance(self.body, bytes):
            found |= {"content-type": ARROW, "accept": ARROW}
        if self.told is not None:
            found["accept"] = f"{LINES}, application/json"
        return found

    def content(self) -> bytes | None:
        """The body as it is sent: JSON, arrays of NumPy included, or Arrow."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return orjson.dumps(self.body, option=orjson.OPT_SERIALIZE_NUMPY)


@dataclass(slots=True)
class Heard:
    """An answer as it arrives, line by line: what it tells meanwhile, then its status and its content.

    Where it ends without them, it reads as one of nobody's.
    """

    told: Told
    status: int = 502
    content: bytes = b""

    def hear(self, line: str) -> None:
        found = orjson.loads(line)
        progress = found.get("progress")
        if progress is not None:
            self.told(progress["phase"], progress["done"], progress["total"])
            return
        self.status = found["status"]
        self.content = orjson.dumps({"error": found["error"]} if "error" in found else found["answer"])


class NotTaken(InvalidInputError):
    """The server does not take this form of a body, or so much in one."""

    def __init__(self, message: str, *, is_form: bool) -> None:
        super().__init__(message)
        self.is_form = is_form


@dataclass(slots=True)
class Forms:
    """What may be sent to a server: Arrow, where pyarrow is here, until the server refuses it."""

    arrow: bool = field(default_factory=lambda: find_spec("pyarrow") is not None)


def segment(text: str) -> str:
    """``text`` as one part of a path."""
    return quote(text, safe="")


def _kinds(of: type[FaissbaseError]) -> dict[str, type[FaissbaseError]]:
    found = {of.kind: of}
    for kind in of.__subclasses__():
        found |= _kinds(kind)
    return found


def answer_of(status: int, content: bytes, media: str | None = None) -> Any:
    """The decoded body of an answer; bytes where its ``media`` is Arrow.

    Raises
    ------
    FaissbaseError
        The one that the server has met, of the same class as the library raises.
    """
    if status < 400 and media == ARROW:
        return content
    try:
        found = orjson.loads(content) if content else None
    except orjson.JSONDecodeError as error:
        shown = content[:_SHOWN].decode(errors="replace")
        raise UnavailableError(f"no answer of a faissbase server (status {status}): {shown!r}") from error
    if status < 400:
        return found
    fault = found.get("error") if isinstance(found, dict) else None
    if not isinstance(fault, dict):
        raise UnavailableError(f"no answer of a faissbase server (status {status})")
    raise _error(status, str(fault.get("code")), str(fault.get("message")), fault.get("request_id"))


def _error(status: int, code: str, message: str, request_id: object) -> FaissbaseError:
    if status in (413, 415):
        return NotTaken(f"{message} (request {request_id})", is_form=status == 415)
    known = _kinds(FaissbaseError).get(code)
    if known is not None and known.__module__ == "faissbase.errors":
        kind = known
    elif code in ("unauthenticated", QUOTA):
        kind = AccessError
    elif status >= 500:
        kind = InternalError
    elif status in _RETRIED:
        kind = UnavailableError
    else:
        kind = InvalidInputError
    return kind(message if status < 500 else f"{message} (request {request_id})")


def wait_s(tried: int, *, retry_after: str | None = None, chance: random.Random) -> float:
    """How long to wait before trying again: twice as long each time, and not all callers together.

    **Source**: M. Brooker, Exponential backoff and jitter, AWS Architecture Blog, 2015 ("full jitter").
    """
    if retry_after is not None and retry_after.isdigit():
        return min(float(retry_after), _MOST_WAIT_S)
    return chance.uniform(0.0, min(_MOST_WAIT_S, _FIRST_WAIT_S * 2.0**tried))


def is_worth_trying_again(status: int | None, content: bytes, tried: int) -> bool:
    """Whether a request that met ``status``, or no answer at all (None), is sent once more.

    Not where a quota is used up: that does not change by waiting.
    """
    if status is not None and status < 400:
        return False
    if status == 429 and f'"code":"{QUOTA}"'.encode() in content:
        return False
    return tried + 1 < TRIES and (status is None or status in _RETRIED)
