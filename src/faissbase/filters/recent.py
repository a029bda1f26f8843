"""A dictionary that holds so many bytes and forgets what was used longest ago. Not for several threads."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What tells its memory."""

    @property
    def size_bytes(self) -> int: ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Sized)


class Recent(Generic[K, V]):
    """Values by key, together within ``budget_bytes``."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.size_bytes = 0

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        """The value, now the most recently used; None where it is not, or no longer, held."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: K, value: V) -> None:
        """Hold the value at its present size, then forget others, or itself, down to the budget.

        A value that grew counts with its new size only once it is put again.
        """
        _, previous_bytes = self._entries.pop(key, (None, 0))
        size_bytes = value.size_bytes
        self._entries[key] = (value, size_bytes)
        self.size_bytes += size_bytes - previous_bytes
        while self.size_bytes > self._budget_bytes:
            _, (_, freed_bytes) = self._entries.popitem(last=False)
            self.size_bytes -= freed_bytes

    def clear(self) -> None:
        self._entries.clear()
        self.size_bytes = 0
