"""An object by its ranges: several at a time, each whole or asked for again. Knows offsets and bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice

from xxhash import xxh3_128

from faissbase.errors import UnavailableError
from faissbase.storage.files import write_at

PIECE_BYTES = 4 << 20
CONNECTIONS = 8
_TRIES = 4

ReadRange = Callable[[int, int], bytes]
"""From an offset and a number of bytes to the bytes there; a store that fails may bring fewer."""

Piece = tuple[int, bytes]


def whole_range(read: ReadRange, start: int, size_bytes: int) -> bytes:
    """So many bytes from ``start`` on, asked for again where the store fails or brings another number.

    Raises
    ------
    UnavailableError
        It does so again and again.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            found = read(start, size_bytes)
        except UnavailableError:
            if attempt == _TRIES:
                raise
            continue
        if len(found) == size_bytes:
            return found
    raise UnavailableError(f"asked for {size_bytes} bytes from {start} on, the store brought {len(found)}")


def pieces(
    read: ReadRange, start: int, stop: int, piece_bytes: int = PIECE_BYTES, *, connections: int = CONNECTIONS
) -> Generator[Piece, None, None]:
    """The bytes from ``start`` to ``stop`` in order, in pieces with their offsets.

    As many are under way at a time as there are connections; one more is in memory while it is used. Close
    the iterator to end it early.
    """
    spans = ((at, min(piece_bytes, stop - at)) for at in range(start, stop, piece_bytes))
    with ThreadPoolExecutor(connections, thread_name_prefix="faissbase-ranges") as threads:

        def asked(at: int, size_bytes: int) -> Future[Piece]:
            return threads.submit(lambda: (at, whole_range(read, at, size_bytes)))

        under_way = deque(asked(*span) for span in islice(spans, connections))
        try:
            while under_way:
                found = under_way.popleft().result()
                under_way.extend(asked(*span) for span in islice(spans, 1))
                yield found
        finally:
            for each in under_way:
                each.cancel()


def copy_to(fd: int, read: ReadRange, size_bytes: int) -> str:
    """Write an object of a known size to an open file; its XXH3 checksum of 128 bits, in hexadecimal."""
    digest = xxh3_128()
    with closing(pieces(read, 0, size_bytes)) as found:
        for start, piece in found:
            digest.update(piece)
            write_at(fd, memoryview(piece), start)
    return digest.hexdigest()
