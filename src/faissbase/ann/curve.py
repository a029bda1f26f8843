"""Recall against effort as measured on one segment, and what to search with for a recall that is asked.

Knows numbers only: `calibrate` measures them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from faissbase.ann.segment import Knobs

CODES_NS = 0.055
"""Nanoseconds a float of a scan of codes where it was not measured (40,000 of d = 384, FAISS 1.15.1)."""
_ROUNDING = 1e-6
_GROWTH = 0.7  # effort for k hits grows as k to this power: recall@k then does not fall


@dataclass(frozen=True, slots=True)
class Point:
    """What one setting reaches.

    Attributes
    ----------
    effort, rerank, least : int
        See `Knobs`.
    recall : float
        Recall@k: the mean over the queries. With a selector, queries that are not answered (see
        `Knobs.least`) count as exact, since they are then searched exactly.
    recall_low : float
        Lower end of a one-sided 95 % interval of it; see `lower_bound`.
    us_per_query : float
        One query on one thread, the median, in microseconds.
    share : float
        The part of the vectors that a selector leaves; 1 without one.
    settled : float
        The share of queries that are answered, for subsets drawn at random.
    pace : float
        How many times as long as usual an exact search took at that moment: the machine may have been busy.
    """

    effort: int
    rerank: int
    recall: float
    recall_low: float
    us_per_query: float
    share: float = 1.0
    least: int = 0
    settled: float = 1.0
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Knobs with what was measured of them: the time of one query, and how often it is answered."""

    knobs: Knobs
    recall_low: float
    us_per_query: float
    settled: float = 1.0
    pace: float = 1.0

    @property
    def usual_us(self) -> float:
        """The time of one query beside which exact searches take what they usually take."""
        return self.us_per_query / self.pace

    def harder(self, factor: float) -> Choice:
        """With so many times the effort, and the cost that goes with it."""
        if factor == 1.0:
            return self
        knobs = replace(self.knobs, effort=math.ceil(self.knobs.effort * factor))
        return replace(self, knobs=knobs, us_per_query=self.us_per_query * factor)


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan of codes reaches, re-ranked so deep: recall and its lower end, as in `Point`.

    ``ns`` is what a float of the codes costs beside exact searches that take what they usually take.
    """

    rerank: int
    recall: float
    recall_low: float
    ns: float = CODES_NS


@dataclass(frozen=True)
class Curve:
    """Recall@k against effort, as measured on one segment, without a selector and with some.

    ``scans`` says what scans of codes reach, the worst of all subsets that were measured; none where they
    were not.
    """

    k: int
    points: tuple[Point, ...]
    scans: tuple[Scan, ...] = ()

    @property
    def knows_filters(self) -> bool:
        """Whether it was measured what selectors do to recall."""
        return any(share < 1.0 for share in self._shares)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; `from_dict` reads it."""
        points, scans = ([asdict(each) for each in kind] for kind in (self.points, self.scans))
        return {"k": self.k, "points": points, "scans": scans}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Curve:
        points = tuple(Point(**point) for point in values["points"])
        return Curve(int(values["k"]), points, tuple(Scan(**scan) for scan in values.get("scans", ())))

    def knobs_for(self, recall: float, share: float = 1.0, k: int | None = None) -> Knobs | None:
        """The cheapest knobs whose lower bound reaches ``recall``; None where none do. See `choice_for`."""
        choice = self.choice_for(recall, share, k)
        return None if choice is None else choice.knobs

    def choice_for(self, recall: float, share: float = 1.0, k: int | None = None) -> Choice | None:
        """The cheapest knobs whose lower bound reaches ``recall``, with their cost; None where none do.

        Parameters
        ----------
        recall : float
            Recall@k, 0 to 1.
        share : float
            The part of the segment's vectors that a selector leaves; 1 without one. Between the shares that
            were measured, the next smaller one speaks; below the smallest, none does.
        k : int, optional
            Hits asked. For more than were measured, effort grows with the power 0.7 of their number.
        """
        best = _cheapest(self.choices_for(recall, share))
        return best if best is None or k is None or k <= self.k else _for_more(best, k / self.k)

    def choices_for(self, recall: float, share: float = 1.0) -> list[Choice]:
        """For each re-ranking depth, the least effort whose lower bound reaches ``recall``; see `choice_for`.

        Which of them is the cheapest is a matter of measured times; what they find is not.
        """
        points = self._of_share(share)
        settings = sorted({(point.rerank, point.least) for point in points})
        groups = ([p for p in points if (p.rerank, p.least) == setting] for setting in settings)
        choices = (_crossing(group, recall) for group in groups)
        return [choice for choice in choices if choice is not None]

    def scan_rerank(self, recall: float) -> int | None:
        """How deep to re-rank a scan of codes; None where no depth is known to reach ``recall``."""
        return min((scan.rerank for scan in self.scans if scan.recall_low >= recall), default=None)

    @property
    def scan_ns(self) -> float:
        """What a float of a scan of codes costs; see `Scan`."""
        return max((scan.ns for scan in self.scans), default=CODES_NS)

    def us_per_query(self, knobs: Knobs, share: float = 1.0, k: int | None = None) -> float:
        """The time of one query on one thread with these knobs, from the nearest efforts; 0 unknown."""
        growth = 1.0 if k is None else max(1.0, k / self.k) ** _GROWTH
        points = self._of_share(share) or self._of_share(1.0)
        known = {point.rerank for point in points}
        rerank = min(known, key=lambda rerank: abs(rerank - knobs.rerank), default=0)
        times = sorted({p.effort: p.us_per_query for p in points if p.rerank == rerank}.items())
        if not times:
            return 0.0
        efforts, us = zip(*times, strict=True)
        effort = knobs.effort / growth
        measured = float(np.interp(effort, efforts, us))
        return measured * max(1.0, effort / float(efforts[-1])) * growth

    def measured_share(self, share: float) -> float:
        """The share whose measurements speak for ``share``: the next smaller one; 0 where there is none."""
        return max((measured for measured in self._shares if measured <= share), default=0.0)

    @cached_property
    def _shares(self) -> tuple[float, ...]:
        return tuple({point.share for point in self.points})

    def _of_share(self, share: float) -> list[Point]:
        measured = self.measured_share(share)
        return [p for p in self.points if p.share == measured]


def _cheapest(choices: Iterable[Choice]) -> Choice | None:
    def cost(choice: Choice) -> tuple[float, int, int]:
        return choice.usual_us / choice.settled, choice.knobs.rerank, -choice.knobs.least

    return min(choices, key=cost, default=None)


def _crossing(points: Sequence[Point], recall: float) -> Choice | None:
    """Where the lower bound crosses ``recall`` on one curve of rising effort.

    Between two measured efforts it is taken as a straight line; recall curves bend the other way, so that
    the truth lies above.
    """
    before: Point | None = None
    for point in sorted(points, key=lambda point: point.effort):
        if point.recall_low >= recall:
            return _between(before, point, recall)
        before = point
    return None


def _between(low: Point | None, high: Point, recall: float) -> Choice:
    if low is None:
        knobs = Knobs(high.effort, high.rerank, high.least)
        return Choice(knobs, high.recall_low, high.us_per_query, high.settled, high.pace)
    part = (recall - low.recall_low) / (high.recall_low - low.recall_low)
    effort = math.ceil(low.effort + part * (high.effort - low.effort) - _ROUNDING)
    us = low.us_per_query + part * (high.us_per_query - low.us_per_query)
    pace = low.pace + part * (high.pace - low.pace)
    return Choice(Knobs(effort, high.rerank, high.least), recall, us, min(low.settled, high.settled), pace)


def _for_more(choice: Choice, ratio: float) -> Choice:
    knobs = choice.knobs
    growth = ratio**_GROWTH
    grown = Knobs(math.ceil(knobs.effort * growth), knobs.rerank, math.ceil(knobs.least * growth))
    return Choice(grown, choice.recall_low, choice.us_per_query * growth, choice.settled, choice.pace)
