"""What a memory weighs: its importance, and how much of it time has taken. Knows only numbers.

The clock is a number that is passed in: seconds since 1970, in UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from faissbase.types import Float32, Mask

USUAL_IMPORTANCE = 0.5
DECAY_A_DAY = 0.05
DAY_S = 86_400.0
FOREVER = np.inf


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; one without a zone is taken to be in UTC."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc)


def seconds_of(moment: datetime | None, otherwise: float = np.nan) -> float:
    """Seconds since 1970; ``otherwise`` for None."""
    return otherwise if moment is None else in_utc(moment).timestamp()


@dataclass(frozen=True, slots=True)
class Standing:
    """What a store keeps beside one vector.

    Attributes
    ----------
    importance : float
        0.5 where it was not set.
    occurred_s, ends_s : float
        Seconds since 1970; NaN where it is not known, infinite while it holds.
    is_episodic : bool
    stamp : int
        Changes whenever the database's record does.
    """

    importance: float = USUAL_IMPORTANCE
    occurred_s: float = np.nan
    ends_s: float = FOREVER
    is_episodic: bool = False
    stamp: int = 0


def standing(
    importance: float | None,
    occurred_at: datetime | None,
    *,
    is_episodic: bool,
    ends_at: datetime | None = None,
    stamp: int = 0,
) -> Standing:
    """A `Standing` from what a database holds. An importance that is not set is 0.5; 0 is 0."""
    weight = USUAL_IMPORTANCE if importance is None else float(importance)
    return Standing(weight, seconds_of(occurred_at), seconds_of(ends_at, FOREVER), is_episodic, int(stamp))


@dataclass(frozen=True, slots=True)
class Standings:
    """The standings of n memories in columns, named as in `Standing`."""

    importance: Float32
    occurred_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]
    is_episodic: Mask
    stamp: npt.NDArray[np.int64]

    TYPES: ClassVar[tuple[Any, ...]] = (np.float32, np.float64, np.float64, np.bool_, np.int64)

    @classmethod
    def of(cls, each: list[Standing]) -> Standings:
        names = [field.name for field in fields(Standing)]
        columns = ([getattr(one, name) for one in each] for name in names)
        return cls(*(np.array(column, kind) for column, kind in zip(columns, cls.TYPES, strict=True)))

    @classmethod
    def empty(cls, n: int) -> Standings:
        return cls(*(np.empty(n, kind) for kind in cls.TYPES))

    @property
    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        return self.importance, self.occurred_s, self.ends_s, self.is_episodic, self.stamp

    def __len__(self) -> int:
        return len(self.stamp)

    def __getitem__(self, which: Any) -> Standings:
        return Standings(*(column[which] for column in self.columns))


@dataclass(frozen=True, slots=True)
class Weights:
    """What similarities are multiplied by: ``above`` where they are 0 or more, ``below`` otherwise."""

    above: Float32
    below: Float32

    def __getitem__(self, which: Any) -> Weights:
        return Weights(self.above[which], self.below[which])

    def scored(self, similarities: Float32) -> Float32:
        found: Float32 = similarities * np.where(similarities < 0, self.below, self.above)
        return found


def weights(standings: Standings, now_s: float) -> Weights:
    """``importance × exp(-0.05 × days)``; without the decay for what is not episodic, or is dated ahead.

    A similarity below zero times a decay would rise with age. There, the weight is
    ``importance × (2 - decay)``, so that what is old stays behind what is new.
    """
    days = ((now_s - standings.occurred_s) / DAY_S).astype(np.float32)
    is_fading = standings.is_episodic & (days > 0)  # NaN is not
    decay = np.exp(np.where(is_fading, days, np.float32(0)) * np.float32(-DECAY_A_DAY))
    return Weights(standings.importance * decay, standings.importance * (np.float32(2) - decay))
