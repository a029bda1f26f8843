"""`calibrate`: the budget holds on pairs that it has not seen, or it says what it lacks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faissbase.cache.calibration import (
    Calibration,
    binomial_bounds,
    calibrate,
    incomplete_beta,
    pairs_needed,
)
from faissbase.errors import InvalidInputError

SEED = 20_240_611


def drawn(random: np.random.Generator, n_same: int, n_different: int) -> tuple[list[float], list[bool]]:
    """Scores of two kinds that overlap, so that the true share above any threshold is known: `true_share`."""
    scores = [*random.beta(8, 2, n_same), *random.beta(2, 5, n_different)]
    return scores, [True] * n_same + [False] * n_different


def true_share(threshold: float) -> float:
    """The share of all different pairs of `drawn` above a threshold."""
    return 1 - incomplete_beta(2, 5, threshold)


@pytest.mark.parametrize(("budget", "confidence"), [(0.01, 0.95), (0.02, 0.95), (0.05, 0.8)])
def test_budget_holds_on_unseen_pairs_as_often_as_promised(budget: float, confidence: float) -> None:
    random = np.random.default_rng(SEED)
    rounds = 300
    broken = 0
    for _ in range(rounds):
        scores, same = drawn(random, 50, 700)
        found = calibrate(scores, same, max_false_hits=budget, confidence=confidence)
        broken += true_share(found.threshold) > budget
    # Three standard deviations of a share of that many rounds.
    allowed = 1 - confidence
    assert broken / rounds <= allowed + 3 * math.sqrt(allowed * confidence / rounds)


def test_taking_the_share_seen_for_the_true_one_would_break_the_budget_half_of_the_time() -> None:
    random = np.random.default_rng(SEED)
    broken = 0
    for _ in range(200):
        scores, same = drawn(random, 50, 700)
        different = np.sort(np.array(scores)[~np.array(same)])[::-1]
        broken += true_share(float(np.nextafter(different[7], 1))) > 0.01
    assert broken > 60


def test_budget_holds_where_pairs_of_a_group_are_copies_of_each_other() -> None:
    random = np.random.default_rng(SEED)
    rounds, broken_with, broken_without = 200, 0, 0
    for _ in range(rounds):
        scores, same = drawn(random, 20, 400)
        groups = list(range(420)) * 5
        found = calibrate(scores * 5, same * 5, max_false_hits=0.02, groups=groups)
        careless = calibrate(scores * 5, same * 5, max_false_hits=0.02)
        broken_with += true_share(found.threshold) > 0.02
        broken_without += true_share(careless.threshold) > 0.02
    assert broken_with / rounds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)
    assert broken_without > broken_with + 15


def test_reports_what_it_saw() -> None:
    scores = [0.9] * 60 + [0.5] * 40 + [0.95] * 3 + [0.4] * 997
    found = calibrate(scores, [True] * 100 + [False] * 1000, max_false_hits=0.02)
    assert found == Calibration(0.5, 0.003, found.interval, 1.0, 1100)
    low, high = found.interval
    assert low < 0.003 < high <= 0.02


def test_threshold_is_a_score_that_was_seen() -> None:
    scores, same = drawn(np.random.default_rng(SEED), 100, 500)
    assert calibrate(scores, same).threshold in scores


def test_a_larger_budget_never_raises_the_threshold() -> None:
    scores, same = drawn(np.random.default_rng(SEED), 100, 2000)
    budgets = (0.005, 0.01, 0.02, 0.05, 0.2, 0.5)
    thresholds = [calibrate(scores, same, max_false_hits=budget).threshold for budget in budgets]
    assert thresholds == sorted(thresholds, reverse=True)


def test_pairs_that_a_guard_refuses_are_never_served() -> None:
    scores = [0.9] * 10 + [-math.inf] * 500
    found = calibrate(scores, [True] * 10 + [False] * 500)
    assert found.hits == 1.0
    assert found.false_hits == 0.0
    assert math.isfinite(found.threshold)


def test_pairs_of_one_meaning_that_a_guard_refuses_are_never_served_either() -> None:
    found = calibrate([-math.inf] * 10 + [-math.inf] * 500, [True] * 10 + [False] * 500)
    assert found.hits == 0.0
    assert found.threshold > 1


def test_only_exact_matches_are_served_where_different_pairs_score_highest() -> None:
    found = calibrate([0.9] * 50 + [1.0] * 400, [True] * 50 + [False] * 400)
    assert found.threshold > 1
    assert (found.hits, found.false_hits) == (0.0, 0.0)


def test_too_few_pairs_say_how_many_it_takes() -> None:
    with pytest.raises(InvalidInputError, match="at least 299 pairs of different meaning, got 298"):
        calibrate([0.9] * 300, [True] * 2 + [False] * 298)
    assert calibrate([0.9] * 301, [True] * 2 + [False] * 299).threshold > 0.9


def test_copies_do_not_count_as_evidence() -> None:
    same = [True] + [False] * 999
    groups = [0, *(number // 10 for number in range(999))]
    with pytest.raises(InvalidInputError, match="got 999 that share prompts and count as 99"):
        calibrate([0.5] * 1000, same, groups=groups)


@pytest.mark.parametrize(
    ("scores", "same", "options", "message"),
    [
        ([0.5, 0.6], [True], {}, r"scores of shape \(2,\) and labels of shape \(1,\)"),
        ([0.5, math.nan], [True, False], {}, "score of pair 1 is NaN"),
        ([0.5] * 400, [False] * 400, {}, "none of the 400 pairs has the same meaning"),
        ([0.5], [True], {"max_false_hits": 0.0}, "max_false_hits must be above 0 and below 1, got 0.0"),
        ([0.5], [True], {"confidence": 1.0}, "confidence must be above 0 and below 1, got 1.0"),
        ([0.5], [True], {}, "at least 299 pairs of different meaning, got 0"),
        ([0.5], [True], {"groups": [1, 2]}, "a group for each of 1 pairs, got 2"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    scores: list[float], same: list[bool], options: dict[str, float], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        calibrate(scores, same, **options)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # R: binom.test(k, n, conf.level = 0.90)$conf.int, whose sides are one-sided at 0.95
        (0, 10, 0.0, 0.2588656),
        (5, 10, 0.2224411, 0.7775589),
        (10, 10, 0.7411344, 1.0),
    ],
)
def test_bounds_are_clopper_and_pearsons(k: int, n: int, low: float, high: float) -> None:
    assert binomial_bounds(k, n, 0.95) == pytest.approx((low, high), abs=1e-6)


def test_pairs_needed_are_the_fewest_that_can_keep_the_budget() -> None:
    for budget in (0.005, 0.01, 0.02, 0.1):
        n = pairs_needed(budget)
        assert binomial_bounds(0, n, 0.95)[1] <= budget < binomial_bounds(0, n - 1, 0.95)[1]


@given(n=st.integers(1, 60), p=st.floats(0.001, 0.999), data=st.data())
def test_incomplete_beta_is_the_tail_of_the_binomial(n: int, p: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    tail = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert incomplete_beta(k, n - k + 1, p) == pytest.approx(tail, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(100, 500), st.integers(1, 100), st.integers(1, 4))
def test_bound_of_what_is_found_lies_within_the_budget(
    seed: int, n_different: int, n_same: int, digits: int
) -> None:
    scores, same = drawn(np.random.default_rng(seed), n_same, n_different)
    scores = [round(score, digits) for score in scores]  # ties
    found = calibrate(scores, same, max_false_hits=0.05)
    served = [label for score, label in zip(scores, same, strict=True) if score >= found.threshold]
    assert found.interval[1] <= 0.05 + 1e-12
    assert found.false_hits == pytest.approx(served.count(False) / n_different)
    assert found.hits == pytest.approx(served.count(True) / n_same)
