"""Bodies of requests: read within bounds, unpacked within bounds, decoded into what the route asks for."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec
import zstandard
from starlette.types import Receive

from faissbase.collection.bounds import TooLarge
from faissbase.errors import AccessError, InvalidInputError, UnavailableError
from faissbase.server.faults import Malformed, TooSlow, WrongMedia
from faissbase.wire import Body

if sys.version_info >= (3, 11):
    from asyncio import timeout
else:
    from async_timeout import timeout  # type: ignore[import-not-found]

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_SHOWN = 200
_FED_BYTES = 1024
_WINDOW_BYTES = 1 << 27
_AT_BYTE = re.compile(r"\(byte (\d+)\)")
_NOT_FINITE = re.compile(rb"[\[,:\s]*(-?(?:NaN|Infinity))")
_SEARCHED_BYTES = 1 << 20  # to read more of it a second time would hold up others


class Held:
    """How many bytes of bodies are held for all requests, so that waiting ones cannot fill the memory."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.n_bytes = 0

    def take(self, n_bytes: int) -> None:
        if self.n_bytes + n_bytes > self._most_bytes:
            raise UnavailableError("the server holds as many bodies as it may: try again later")
        self.n_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        self.n_bytes -= n_bytes


def whole_body(content: bytes, announced: str, held: Held, most_bytes: int) -> bytes:
    """`read_body` of one that has arrived."""
    _check_announced(announced, most_bytes)
    if len(content) > most_bytes:
        raise TooLarge(f"the body is longer than {most_bytes:,} bytes")
    _check_arrived(announced, len(content))
    held.take(len(content))
    return content


async def read_body(
    receive: Receive, announced: str, held: Held, *, most_bytes: int, timeout_s: float
) -> bytes:
    """The whole body, packed as it came; it counts as ``held`` until the caller gives it back.

    Raises
    ------
    TooLarge
        Longer than ``most_bytes``, as it is announced or as it arrives.
    TooSlow
        Not all there after ``timeout_s`` seconds.
    UnavailableError
        Too much is held already.
    """
    _check_announced(announced, most_bytes)
    pieces: list[bytes] = []
    try:
        async with timeout(timeout_s):
            await _read(receive, pieces, held, most_bytes)
        _check_arrived(announced, sum(map(len, pieces)))
    except BaseException as error:
        held.give_back(sum(map(len, pieces)))
        if isinstance(error, TimeoutError | asyncio.TimeoutError):
            raise TooSlow(f"the body had not arrived after {timeout_s:g} s") from None
        raise
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_announced(announced: str, most_bytes: int) -> None:
    if announced.isascii() and announced.isdigit() and int(announced) > most_bytes:
        raise TooLarge(f"the body has {int(announced):,} bytes, at most {most_bytes:,} are taken")


def _check_arrived(announced: str, n_bytes: int) -> None:
    if announced.isascii() and announced.isdigit() and n_bytes != int(announced):
        raise Malformed(f"of a body of {int(announced):,} bytes {n_bytes:,} have arrived")


async def _read(receive: Receive, pieces: list[bytes], held: Held, most_bytes: int) -> None:
    n_bytes, is_more = 0, True
    while is_more:
        message = await receive()
        if message["type"] != "http.request":
            raise Malformed("the body ended before its end")
        piece, is_more = message.get("body", b""), message.get("more_body", False)
        n_bytes += len(piece)
        if n_bytes > most_bytes:
            raise TooLarge(f"the body is longer than {most_bytes:,} bytes")
        held.take(len(piece))
        pieces.append(piece)


def unpacked(packed: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body without its encoding; `WrongMedia` where that is none of gzip and zstd, `TooLarge` beyond."""
    if not encoding or not packed:
        return packed
    wanted = encoding.strip().lower()
    if wanted in ("", "identity"):
        return packed
    try:
        if wanted == "gzip":
            unpacker = zlib.decompressobj(31)
            found = unpacker.decompress(packed, most_bytes + 1)
            is_whole = unpacker.eof and not unpacker.unused_data
        elif wanted == "zstd":
            found, is_whole = _unpacked_zstd(packed, most_bytes)
        else:
            raise WrongMedia(f"content-encoding is gzip or zstd, got {encoding[:_SHOWN]!r}")
    except (zlib.error, zstandard.ZstdError) as error:
        raise Malformed(f"the body is no {wanted}: {error}") from error
    if len(found) > most_bytes:
        raise TooLarge(f"the body has more than {most_bytes:,} bytes once unpacked")
    if not is_whole:
        raise Malformed(f"the body is cut short, or goes on after its end ({wanted})")
    return found


def _unpacked_zstd(packed: bytes, most_bytes: int) -> tuple[bytes, bool]:
    """What comes out, up to a piece beyond ``most_bytes``, and whether that is one whole frame.

    Fed in pieces, each of which gives 128 KiB for every four bytes at most.
    """
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
    pieces: list[bytes] = []
    n_bytes = 0
    for start in range(0, len(packed), _FED_BYTES):
        if unpacker.eof:
            return b"".join(pieces), False
        pieces.append(unpacker.decompress(packed[start : start + _FED_BYTES]))
        n_bytes += len(pieces[-1])
        if n_bytes > most_bytes:
            break
    return b"".join(pieces), unpacker.eof and not unpacker.unused_data


def media_of(content_type: str) -> str:
    """A media type without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def check_arrow() -> None:
    """Refuse Arrow where pyarrow, which `faissbase.server.arrow` needs, is not installed."""
    try:
        import pyarrow  # noqa: F401  # only to tell a missing extra from a fault of ours
    except ImportError as error:
        raise WrongMedia('Arrow bodies need pyarrow in the server: pip install "faissbase[arrow]"') from error


def decoded(body: bytes, content_type: str, decoder: msgspec.json.Decoder[Any], tenant: str) -> Any:
    """The body as the route's struct, of the tenant whose key came with it.

    Raises
    ------
    Malformed, InvalidInputError
        No JSON; not what the route takes, and where.
    AccessError
        It names another tenant.
    """
    kind = JSON if content_type == JSON else media_of(content_type)
    if body and kind not in ("", JSON):
        raise WrongMedia(f"send the header content-type: {JSON}, got {kind[:_SHOWN]!r}")
    try:
        found = decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        raise InvalidInputError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the body is no JSON that can be read: {error}{_not_finite(error, body)}") from error
    if isinstance(found, Body) and found.tenant_id not in (None, tenant):
        raise AccessError(f"tenant_id {found.tenant_id[:_SHOWN]!r} is not the tenant of this key")
    return found


def _not_finite(error: Exception, body: bytes) -> str:
    """Where a body that many write as JSON has NaN or an infinity, which JSON has not; empty where none."""
    told = _AT_BYTE.search(str(error))
    word = None if told is None else _NOT_FINITE.match(body, max(0, int(told[1]) - 1))
    if word is None:
        return ""
    place = _place_of_nan(body) if len(body) <= _SEARCHED_BYTES else ""
    return f": {word[1].decode()} is no finite number{place}"


def _place_of_nan(body: bytes) -> str:
    try:
        found = _path_of_nan(json.loads(body))
    except (ValueError, RecursionError):  # something else is wrong with it, too
        return ""
    return "" if found is None else f" - at `${found[:_SHOWN]}`"


def _path_of_nan(value: Any) -> str | None:
    """The way to the first number in ``value`` that is not finite."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    inside: Iterable[tuple[str, Any]] = ()
    if isinstance(value, dict):
        inside = ((f".{name}", each) for name, each in value.items())
    elif isinstance(value, list):
        inside = ((f"[{i}]", each) for i, each in enumerate(value))
    for step, each in inside:
        rest = _path_of_nan(each)
        if rest is not None:
            return f"{step}{rest}"
    return None
