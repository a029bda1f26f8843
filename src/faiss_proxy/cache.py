"""Answers kept on the client, each with the state of the index that it is of.

Nothing here is given out unasked: the server says whether the index is still in that state.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from faissbase.dropin import frames

_OVERHEAD_BYTES = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it came: the state it is of, the result, its arrays."""

    version: str
    result: Any
    arrays: list[frames.Array]

    @property
    def n_bytes(self) -> int:
        return _OVERHEAD_BYTES + sum(array.nbytes for array in self.arrays)


class Cache:
    """The answers used last, of at most ``most_bytes`` together. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Kept] = OrderedDict()
        self._n_bytes = 0

    def find(self, key: bytes) -> Kept | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def keep(self, key: bytes, answer: Kept) -> None:
        with self._lock:
            old = self._kept.pop(key, None)
            self._n_bytes += answer.n_bytes - (old.n_bytes if old else 0)
            self._kept[key] = answer
            while self._n_bytes > self._most_bytes:
                self._n_bytes -= self._kept.popitem(last=False)[1].n_bytes


def key_of(pieces: Sequence[memoryview]) -> bytes:
    """What tells one question from another: all of its bytes."""
    digest = hashlib.blake2b(digest_size=20)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
