"""Rows of a slot file that are still on their way to it. Knows slots: not where their rows come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from faissbase.types import Float32, Slots

CheckRows = Callable[[Slots, Float32], None]
"""Raises `CorruptionError` for rows ``float32[m, d]`` that are not those of their slots."""


class Arrival(Protocol):
    """A file as long as all its rows, of which some may not be there yet and read as zeros.

    So whoever reads a row asks `need` or `need_all` first; both return at once when all are there. Both raise
    `UnavailableError` where rows cannot be had now, and `CorruptionError` where they are not what was stored.

    Attributes
    ----------
    path : Path
        The file.
    is_whole : bool
        Whether every row is there.
    """

    @property
    def path(self) -> Path: ...
    @property
    def is_whole(self) -> bool: ...

    def check_with(self, check: CheckRows) -> None:
        """Have ``check`` look at rows that are needed before all are there; called before any is."""
        ...

    def begin(self) -> None:
        """Bring all rows, in the background."""
        ...

    def need(self, slots: Slots | Sequence[int]) -> None:
        """Return once the rows in these slots are there; what is no slot is passed over."""
        ...

    def need_all(self) -> None:
        """Return once every row is there."""
        ...

    def close(self) -> None:
        """Stop bringing rows."""
        ...
