"""Collections that the folder knows, and whose records are elsewhere. What is there is opened by others."""

from __future__ import annotations

from typing import Any, Protocol

from faissbase.collection.stats import Served
from faissbase.errors import NotReadyError
from faissbase.storage.totals import Totals


class Places(Protocol):
    """Opens what is at a URL; given to a `Database` by whoever opens it."""

    def open(self, url: str, *, read_only: bool) -> Any:
        """The collection at ``url``, open for use; `NotFoundError` where there is none."""
        ...

    def totals(self, url: str) -> Totals: ...
    def served(self, url: str) -> Served | None: ...
    def oldest_s(self) -> float | None: ...
    def count_stored(self, url: str, ids: list[str]) -> int: ...

    def delete(self, url: str) -> None:
        """Delete the collection at ``url``; nothing where there is none."""
        ...

    def close(self) -> None: ...


def elsewhere(name: str, url: str) -> NotReadyError:
    """What is told where nobody was given who opens ``url``."""
    return NotReadyError(f"collection {name!r} is at {url}: open its folder with faissbase.connect")
