"""The threshold that keeps a false-hit budget, from labelled pairs. Knows numbers only: no prompts, no cache.

The budget is the share of pairs of *different* meaning whose score reaches the threshold (the false-positive
rate). What is promised is not the share seen in the pairs given, but the one to be expected on pairs like
them: with probability ``confidence`` over the draw of the pairs, it is at most ``max_false_hits``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from faissbase.errors import InvalidInputError

_TINY = 1e-300
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and what is known about it.

    Attributes
    ----------
    threshold : float
        A score at or above it is a hit. Above every score where too many different pairs scored highest:
        then only exact matches are served.
    false_hits : float
        Share of the different pairs that reach the threshold, as seen.
    interval : tuple[float, float]
        Bounds of the same share on unseen pairs; each alone holds with probability ``confidence``. The
        upper one is what `calibrate` keeps within the budget.
    hits : float
        Share of the pairs of the same meaning that reach the threshold.
    pairs : int
        Pairs that were given.
    """

    threshold: float
    false_hits: float
    interval: tuple[float, float]
    hits: float
    pairs: int


def calibrate(
    scores: ArrayLike,
    same_meaning: ArrayLike,
    *,
    max_false_hits: float = 0.01,
    confidence: float = 0.95,
    groups: Sequence[Hashable] | None = None,
) -> Calibration:
    """The lowest threshold whose false hits stay within the budget on pairs that were not given.

    Parameters
    ----------
    scores : float[n]
        One score a pair, larger where the prompts agree more; ``-inf`` where a guard refuses the pair.
    same_meaning : bool[n]
        Whether one answer serves both prompts of the pair.
    max_false_hits : float
        The budget: the largest share of different pairs that may be served.
    confidence : float
        Probability, over the draw of the pairs, that the budget holds.
    groups : sequence of n labels, optional
        Pairs of one group share prompts and are not independent; each group is then counted as if its pairs
        were copies of each other (Kish's effective sample size), which never promises too much.

    Raises
    ------
    InvalidInputError
        Lengths differ, a score is NaN, one kind of pair is missing, or there are too few different pairs to
        support the budget: the message says how many it takes.

    Notes
    -----
    The number of false hits among independent pairs is binomial, its upper bound Clopper and Pearson's. The
    share of false hits only falls as the threshold rises, so that taking the lowest threshold at which (and
    above which) the bound is within the budget costs no confidence.

    **Sources.** Clopper and Pearson, Biometrika 26 (1934); Bates et al., "Distribution-free, risk-controlling
    prediction sets", J. ACM 68 (2021), theorem 1; Kish, "Survey sampling" (1965), 8.2, and Korn and Graubard,
    Survey Methodology 24 (1998), for the bound on an effective sample size.

    Examples
    --------
    >>> scores = [0.01 * (i % 90) for i in range(900)] + [0.95] * 100
    >>> found = calibrate(scores, [False] * 900 + [True] * 100, max_false_hits=0.02)
    >>> round(found.threshold, 2), found.hits, found.interval[1] <= 0.02
    (0.89, 1.0, True)
    """
    values, is_same = _checked(scores, same_meaning)
    _check_share("max_false_hits", max_false_hits)
    _check_share("confidence", confidence)
    different = np.sort(values[~is_same])[::-1]
    n = _effective(groups, ~is_same)
    _check_enough(n, len(different), max_false_hits, confidence)
    allowed = _allowed(len(different), n, max_false_hits, confidence)
    threshold = _threshold(values, different, allowed)
    wrong = int(np.count_nonzero(different >= threshold))
    return Calibration(
        threshold=threshold,
        false_hits=wrong / len(different),
        interval=binomial_bounds(wrong * n / len(different), n, confidence),
        hits=float(np.mean(values[is_same] >= threshold)),
        pairs=len(values),
    )


def binomial_bounds(k: float, n: float, confidence: float) -> tuple[float, float]:
    """Clopper-Pearson bounds of a share of which ``k`` in ``n`` were seen; each holds with ``confidence``.

    Real ``k`` and ``n`` are meant: an effective sample size is seldom whole.

    Examples
    --------
    >>> [round(bound, 4) for bound in binomial_bounds(0, 299, 0.95)]
    [0.0, 0.01]
    """
    doubt = 1 - confidence
    low = 0.0 if k <= 0 else _solve(lambda p: incomplete_beta(k, n - k + 1, p), doubt)
    high = 1.0 if k >= n else _solve(lambda p: incomplete_beta(k + 1, n - k, p), confidence)
    return low, high


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), a, b > 0, x in [0, 1].

    **Source.** NIST Digital Library of Mathematical Functions, 8.17.22 (continued fraction, by
    Lentz's method) and 8.17.4 (symmetry).

    Examples
    --------
    >>> round(incomplete_beta(2, 3, 0.4), 4)
    0.5248
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / (a * _continued_fraction(a, b, x))


def pairs_needed(max_false_hits: float, confidence: float = 0.95) -> int:
    """The fewest independent different pairs that can support a budget: none of them may then be a false hit.

    Examples
    --------
    >>> pairs_needed(0.01), pairs_needed(0.02)
    (299, 149)
    """
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_false_hits))


def _continued_fraction(a: float, b: float, x: float) -> float:
    value = 1.0
    c, d = value, 0.0
    for step in range(1, _STEPS):
        m, is_odd = divmod(step, 2)
        if is_odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _not_zero(1 + term * d)
        c = _not_zero(1 + term / c)
        value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def _solve(rising: Callable[[float], float], wanted: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return high


def _checked(scores: ArrayLike, same_meaning: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = np.asarray(scores, dtype=np.float64)
    is_same = np.asarray(same_meaning, dtype=bool)
    if values.ndim != 1 or values.shape != is_same.shape:
        raise InvalidInputError(
            f"expected one score and one label a pair, got scores of shape {values.shape} "
            f"and labels of shape {is_same.shape}"
        )
    wrong = np.flatnonzero(np.isnan(values))
    if len(wrong):
        raise InvalidInputError(f"the score of pair {wrong[0]} is NaN; -inf is a pair that is never served")
    if not is_same.any():
        raise InvalidInputError(
            f"none of the {len(values)} pairs has the same meaning; without them no hit rate is known"
        )
    return values, is_same


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise InvalidInputError(f"{name} must be above 0 and below 1, got {value}")


def _effective(groups: Sequence[Hashable] | None, is_different: NDArray[np.bool_]) -> float:
    """As how many independent pairs the different ones count."""
    if groups is None:
        return float(np.count_nonzero(is_different))
    if len(groups) != len(is_different):
        raise InvalidInputError(f"expected a group for each of {len(is_different)} pairs, got {len(groups)}")
    sizes = np.array(
        list(Counter(group for group, is_one in zip(groups, is_different, strict=True) if is_one).values())
    )
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def _check_enough(n: float, n_pairs: int, max_false_hits: float, confidence: float) -> None:
    needed = pairs_needed(max_false_hits, confidence)
    if n < needed:
        counted = f"{n_pairs}" if n == n_pairs else f"{n_pairs} that share prompts and count as {int(n)}"
        raise InvalidInputError(
            f"a budget of {max_false_hits:g} at confidence {confidence:g} takes at least {needed} pairs of "
            f"different meaning, got {counted}; give more pairs, or raise max_false_hits"
        )


def _allowed(n_pairs: int, n: float, max_false_hits: float, confidence: float) -> int:
    """How many of the different pairs may be served with the bound still within the budget."""
    low, high = 0, n_pairs
    while low + 1 < high:
        middle = (low + high) // 2
        k = middle * n / n_pairs
        # The bound lies within the budget where so few false hits are unlikely enough at the budget itself.
        is_within = incomplete_beta(k + 1, n - k, max_false_hits) >= confidence
        low, high = (middle, high) if is_within else (low, middle)
    return low


def _threshold(values: NDArray[np.float64], different: NDArray[np.float64], allowed: int) -> float:
    """The lowest score seen that serves no more than ``allowed``; just above all where there is none."""
    refused = different[allowed]
    above = values[values > refused]
    return (
        float(above.min())
        if len(above)
        else max(float(np.nextafter(refused, np.inf)), float(np.nextafter(1.0, 2.0)))
    )
