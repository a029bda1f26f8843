"""What a benchmark reports: figures with their spread, target and recall. Knows no database."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Range = Literal["min to max", "quartiles"]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with its range over ``n`` measurements."""

    median: float
    low: float
    high: float
    n: int
    range: Range


def spread(values: Sequence[float], range: Range = "min to max") -> Spread:
    """Median and min to max; or the quartiles, for the times of many single calls."""
    if range == "min to max" or len(values) < 2:
        low, high = min(values), max(values)
    else:
        low, _, high = statistics.quantiles(values, n=4)
    return Spread(statistics.median(values), low, high, len(values), range)


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should reach, in words, and whether it did."""

    text: str
    is_met: bool


def at_least(limit: float, value: float) -> Target:
    return Target(f"≥ {limit:g}", value >= limit)


def at_most(limit: float, value: float) -> Target:
    return Target(f"≤ {limit:g}", value <= limit)


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report. ``recall`` is recall@10 of the very answers that were timed."""

    part: str
    data: str
    name: str
    unit: str
    spread: Spread
    target: Target | None = None
    recall: float | None = None
    note: str = ""
