"""Bodies of requests: read within bounds, unpacked within bounds, decoded into what the route asks for."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import msgspec
import zstandard
from starlette.requests import ClientDisconnect, Request

from faissbase.errors import AccessError, InvalidInputError
from faissbase.server.faults import Malformed, TooLarge, TooSlow, WrongMedia
from faissbase.wire import Body

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_SHOWN = 200
_FED_BYTES = 1024
_WINDOW_BYTES = 1 << 27


async def read_body(request: Request, *, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body, packed as it came.

    Raises
    ------
    TooLarge
        Longer than ``most_bytes``, as it is announced or as it arrives.
    TooSlow
        Not all there after ``timeout_s`` seconds.
    """
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced) > most_bytes:
        raise TooLarge(f"the body has {int(announced):,} bytes, at most {most_bytes:,} are taken")
    try:
        packed = await asyncio.wait_for(_read(request, most_bytes), timeout_s)
    except (TimeoutError, asyncio.TimeoutError):
        raise TooSlow(f"the body had not arrived after {timeout_s:g} s") from None
    if announced.isascii() and announced.isdigit() and len(packed) != int(announced):
        raise Malformed(f"of a body of {int(announced):,} bytes {len(packed):,} have arrived")
    return packed


async def _read(request: Request, most_bytes: int) -> bytes:
    pieces, n_bytes = [], 0
    try:
        async for piece in request.stream():
            n_bytes += len(piece)
            if n_bytes > most_bytes:
                raise TooLarge(f"the body is longer than {most_bytes:,} bytes")
            pieces.append(piece)
    except ClientDisconnect:
        raise Malformed("the body ended before its end") from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def unpacked(packed: bytes, encoding: str, most_bytes: int) -> bytes:
    """A body without its encoding; `WrongMedia` where that is none of gzip and zstd, `TooLarge` beyond."""
    wanted = encoding.strip().lower()
    if wanted in ("", "identity") or not packed:
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
    kind = media_of(content_type)
    if body and kind not in ("", JSON):
        raise WrongMedia(f"send the header content-type: {JSON}, got {kind[:_SHOWN]!r}")
    try:
        found = decoder.decode(body or b"{}")
    except msgspec.ValidationError as error:
        raise InvalidInputError(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"the body is no JSON that can be read: {error}") from error
    if isinstance(found, Body) and found.tenant_id not in (None, tenant):
        raise AccessError(f"tenant_id {found.tenant_id[:_SHOWN]!r} is not the tenant of this key")
    return found
