"""Recall as it really is: recent questions asked again exactly, and compared.

Where a band of selectivity misses its target, the effort for that band is raised; where it is met with room
to spare, an effort once raised is lowered again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from faissbase.collection.answers import Moment, nearest_slots, planned_slots
from faissbase.collection.asked import Question
from faissbase.collection.planner import DEFAULT_RECALL, Wanted
from faissbase.collection.tuning import BANDS, band_of

_EXACTLY = Wanted(recall=1.0)
_Z = 1.96
TOLERANCE = 1e-5  # float32 rounding, relative: a hit as near as the k-th counts


@dataclass(frozen=True, slots=True)
class Band:
    """Questions of which a filter left a like share of all records.

    Attributes
    ----------
    share_above, share_to : float
        The share of records that match lies in ``(share_above, share_to]``.
    n_queries : int
    recall, recall_low, recall_high : float
        recall@k with its 95 % interval, counted query by query.
    target : float
        The mean of what was asked for.
    n_exact : int
        Of these questions, how many an exact path answered.
    effort_factor : float
        By how much the effort of this band has been raised, this report included.
    """

    share_above: float
    share_to: float
    n_queries: int
    recall: float
    recall_low: float
    recall_high: float
    target: float
    n_exact: int
    effort_factor: float = 1.0

    @property
    def is_below(self) -> bool:
        return self.recall < self.target

    @property
    def is_missed(self) -> bool:
        """Whether the whole interval lies below the target."""
        return self.recall_high < self.target


@dataclass(frozen=True, slots=True)
class RecallReport:
    """recall@k of recent questions, by bands of selectivity. Prints readably."""

    bands: tuple[Band, ...]
    n_sampled: int
    n_measured: int
    cpu_s: float

    @property
    def recall(self) -> float:
        """Over all bands; NaN where nothing was asked."""
        n = sum(band.n_queries for band in self.bands)
        return sum(band.recall * band.n_queries for band in self.bands) / n if n else math.nan

    def __str__(self) -> str:
        lines = [f"recall of {self.n_measured} of {self.n_sampled} sampled questions, {self.cpu_s:.2f} CPU s"]
        for band in self.bands:
            share = f"{100 * band.share_above:g} to {100 * band.share_to:g} % match"
            interval = f"{band.recall_low:.4f} to {band.recall_high:.4f}"
            told = "MISSED" if band.is_missed else "ok"
            lines.append(
                f"  {share:<22} {band.n_queries:>4} queries  recall {band.recall:.4f} ({interval}), "
                f"target {band.target:.3f}, {band.n_exact} exact, effort x {band.effort_factor:g}: {told}"
            )
        return "\n".join(lines) if self.bands else lines[0] + "; nothing was asked yet"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one question; its band is a place in `BANDS`."""

    band: int
    recall: float
    target: float
    is_exact: bool


def measured_recall(moment: Moment, questions: Sequence[Question], budget_s: float) -> RecallReport:
    """Ask each question again, exactly and as it was asked, within ``budget_s`` seconds of CPU time.

    A band that misses its target has its effort raised, and is asked again, as long as the budget lasts.
    """
    start = time.process_time()
    tuning = moment.snapshot.tuning
    asked = list(questions)
    bands: dict[int, Band] = {}
    n_measured = 0
    while asked and time.process_time() - start < budget_s:
        measured = _measured_within(moment, asked, start + budget_s)
        n_measured = n_measured or len(measured)
        moved = set()
        for at in sorted({each.band for _, each in measured}):
            band = band_of_measured(at, [each for _, each in measured if each.band == at])
            is_tunable = band.n_exact < band.n_queries and band.target > 0.0
            if is_tunable and tuning.learn(at, band.recall, band.recall_low, band.target):
                moved.add(at)
            bands[at] = replace(band, effort_factor=tuning.factors[at])
        if moved:
            moment.snapshot.plans.clear()
        asked = [each for each, found in measured if found.band in moved and bands[found.band].is_below]
    ordered = tuple(bands[at] for at in sorted(bands))
    return RecallReport(ordered, len(questions), n_measured, time.process_time() - start)


def _measured_within(
    moment: Moment, questions: Sequence[Question], until_s: float
) -> list[tuple[Question, Measured]]:
    measured: list[tuple[Question, Measured]] = []
    for question in questions:
        if measured and time.process_time() > until_s:
            break
        found = _measure(moment, question)
        if found is not None:
            measured.append(found)
    return measured


def _measure(moment: Moment, question: Question) -> tuple[Question, Measured] | None:
    """One question; None where nothing matches any more."""
    selection = moment.select(question.where)
    if not selection.count:
        return None
    exact, _ = nearest_slots(moment, question.query, question.k, question.where, _EXACTLY)
    wanted = question.wanted
    plan, (distances, slots) = planned_slots(moment, question.query, question.k, question.where, wanted)
    kth = float(exact[0, -1])
    slack = TOLERANCE * (abs(kth) + 1e-30)
    is_l2 = moment.snapshot.view.metric == "l2"
    near = distances[0] <= kth + slack if is_l2 else distances[0] >= kth - slack
    n_right = int((near & (slots[0] >= 0)).sum())
    share = selection.count / selection.n
    target = 0.0 if wanted.is_explicit else (wanted.recall or DEFAULT_RECALL)
    recall = min(1.0, n_right / exact.shape[1])
    is_exact = plan.path not in ("index", "codes")
    return question, Measured(band_of(share), recall, target, is_exact)


def band_of_measured(at: int, measured: Sequence[Measured]) -> Band:
    """A band from the questions that belong to it."""
    recalls = [each.recall for each in measured]
    n = len(recalls)
    mean = sum(recalls) / n
    low, high = interval(recalls)
    target = sum(each.target for each in measured) / n
    n_exact = sum(each.is_exact for each in measured)
    above, to = BANDS[at]
    return Band(above, to, n, mean, low, high, target, n_exact)


def interval(recalls: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of a mean of shares: the score interval, a query counting once.

    A query's hits are not independent, so that counting each hit would give too narrow an interval. For
    values in [0, 1] the variance is at most that of a yes or no with the same mean, which this takes.

    **Source**: E. B. Wilson, Journal of the American Statistical Association 22, 1927.
    """
    n = len(recalls)
    p = sum(recalls) / n
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    spread = _Z * math.sqrt(p * (1 - p) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    return max(0.0, min(centre - spread, p)), min(1.0, max(centre + spread, p))
