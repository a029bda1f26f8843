"""Recall as it really is: recent questions asked again exactly, and compared.

Where a band of selectivity misses its target, its effort is raised. Where the target is met for certain,
less effort is tried on the same questions, and kept where it meets the target for certain too: an index is
built for questions harder than those that most people ask.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from faissbase.ann.calibrate import lower_bound
from faissbase.collection.answers import Moment, nearest_slots, planned_slots
from faissbase.collection.asked import Question
from faissbase.collection.planner import DEFAULT_RECALL, Wanted
from faissbase.collection.tuning import BANDS, band_of

_EXACTLY = Wanted(recall=1.0)
_Z = 1.96
_ANSWERS_PART = 0.7  # of the budget; exact search takes most
_QUESTIONS_LEAST = 64
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
        What the effort of this band is multiplied by since, this report included.
    is_easy : bool
        Whether enough questions tell that less effort might do.
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
    is_easy: bool = False

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
    """What came of one question; its band is a place in `BANDS`, its target 0 where the effort was given."""

    band: int
    recall: float
    target: float
    is_exact: bool
    k: int = 1


@dataclass(frozen=True, slots=True)
class _Answered:
    """A question with its true answer: the distance of the last of ``k`` hits."""

    question: Question
    band: int
    kth: float
    k: int


def measured_recall(moment: Moment, questions: Sequence[Question], budget_s: float) -> RecallReport:
    """Ask each question again, exactly and as it was asked, within ``budget_s`` seconds of CPU time.

    Efforts are changed by what is found, as long as the budget lasts.
    """
    start = time.process_time()
    answered = list(_answered_within(moment, questions, start + _ANSWERS_PART * budget_s))
    bands = []
    for at in sorted({each.band for each in answered}):
        of_band = [each for each in answered if each.band == at]
        bands.append(_tuned(moment, at, of_band, start + budget_s))
    return RecallReport(tuple(bands), len(questions), len(answered), time.process_time() - start)


def _answered_within(moment: Moment, questions: Sequence[Question], until_s: float) -> Iterator[_Answered]:
    """The true answers of those that have any; of one at least, whatever the time."""
    for number, question in enumerate(questions):
        if number and time.process_time() > until_s:
            return
        selection = moment.select(question.where)
        # A question of before the index was built may turn a knob that this index has not.
        if not selection.count or not question.wanted.fits(moment.snapshot):
            continue
        exact, _ = nearest_slots(moment, question.query, question.k, question.where, _EXACTLY)
        band = band_of(selection.count / selection.n)
        yield _Answered(question, band, float(exact[0, -1]), exact.shape[1])


def _tuned(moment: Moment, at: int, answered: Sequence[_Answered], until_s: float) -> Band:
    """What a band reaches once its effort was fitted to those questions that leave the effort open."""
    open_ones = [each for each in answered if not each.question.wanted.is_explicit]
    if open_ones:
        _fit(moment, at, open_ones, until_s)
    return replace(_measured(moment, at, answered), effort_factor=moment.snapshot.tuning.factors[at])


def _fit(moment: Moment, at: int, answered: Sequence[_Answered], until_s: float) -> None:
    """Raise the effort of a band until it reaches its target, or lower it as long as it still does."""
    tuning = moment.snapshot.tuning
    band = _measured(moment, at, answered)
    if band.n_exact == band.n_queries:
        return
    while band.is_below and tuning.raise_effort(at):
        moment.snapshot.plans.clear()
        if time.process_time() > until_s:
            return
        band = _measured(moment, at, answered)
    while band.is_easy and time.process_time() < until_s:
        before = tuning.factors[at]
        if not tuning.lower_effort(at):
            return
        moment.snapshot.plans.clear()
        band = _measured(moment, at, answered)
        if not band.is_easy:
            tuning.factors[at] = before
            moment.snapshot.plans.clear()


def _measured(moment: Moment, at: int, answered: Sequence[_Answered]) -> Band:
    return band_of_measured(at, [_asked_again(moment, each) for each in answered])


def _asked_again(moment: Moment, answered: _Answered) -> Measured:
    question = answered.question
    wanted = question.wanted
    plan, (distances, slots) = planned_slots(moment, question.query, question.k, question.where, wanted)
    slack = TOLERANCE * (abs(answered.kth) + 1e-30)
    is_l2 = moment.snapshot.view.metric == "l2"
    near = distances[0] <= answered.kth + slack if is_l2 else distances[0] >= answered.kth - slack
    n_right = int((near & (slots[0] >= 0)).sum())
    target = 0.0 if wanted.is_explicit else (wanted.recall or DEFAULT_RECALL)
    is_exact = plan.path not in ("index", "codes")
    return Measured(answered.band, min(1.0, n_right / answered.k), target, is_exact, answered.k)


def band_of_measured(at: int, measured: Sequence[Measured]) -> Band:
    """A band from the questions that belong to it."""
    recalls = [each.recall for each in measured]
    n = len(recalls)
    mean = sum(recalls) / n
    low, high = interval(recalls)
    target = sum(each.target for each in measured) / n
    n_exact = sum(each.is_exact for each in measured)
    above, to = BANDS[at]
    return Band(above, to, n, mean, low, high, target, n_exact, is_easy=_is_easy(measured))


def _is_easy(measured: Sequence[Measured]) -> bool:
    """Whether the index meets every target that was asked for, each by enough questions to be certain."""
    tunable = [each for each in measured if each.target > 0.0 and not each.is_exact]
    for target in {each.target for each in tunable}:
        asked = [each for each in tunable if each.target == target]
        recalls = np.array([each.recall for each in asked])
        if len(asked) < _QUESTIONS_LEAST or lower_bound(recalls, min(each.k for each in asked)) < target:
            return False
    return bool(tunable)


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
