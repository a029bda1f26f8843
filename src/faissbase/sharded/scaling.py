"""How many workers there should be, from how much waits for them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from faissbase.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Bounds:
    """When workers are added and taken away.

    Attributes
    ----------
    least, most : int
        Workers there are at any time.
    busy, idle : float
        Questions under way or waiting, per worker: more than ``busy`` at ``looks_busy`` looks in a row adds
        workers, fewer than ``idle`` at ``looks_idle`` takes one away.
    """

    least: int
    most: int
    busy: float = 8.0
    idle: float = 0.5
    looks_busy: int = 6
    looks_idle: int = 120

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise InvalidInputError(f"expected 1 <= workers <= max_workers, got {self.least} and {self.most}")


def wanted_workers(n: int, depths: Sequence[float], bounds: Bounds) -> int:
    """The number of workers that should follow ``n``.

    Half as many again while they are busy, one less after a long time without work; never beyond the bounds.

    Parameters
    ----------
    depths : sequence of float
        Questions per worker at each look since the number last changed, the latest last.

    Examples
    --------
    >>> wanted_workers(4, [9.0] * 6, Bounds(2, 8)), wanted_workers(4, [9.0] * 5, Bounds(2, 8))
    (6, 4)
    """
    wanted = n
    if len(depths) >= bounds.looks_busy and min(depths[-bounds.looks_busy :]) > bounds.busy:
        wanted = n + max(1, n // 2)
    elif len(depths) >= bounds.looks_idle and max(depths[-bounds.looks_idle :]) < bounds.idle:
        wanted = n - 1
    return min(bounds.most, max(bounds.least, wanted))
