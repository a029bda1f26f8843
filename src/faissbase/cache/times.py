"""When it is that a prompt asks about: "is" or "was", "this week" or "next". Knows words, in lower case."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

_TENSES = {
    word: tense
    for tense, words in {
        "present": "is am are do does has have",
        "past": "was were did had",
        "future": "will shall",
    }.items()
    for word in words.split()
}
_WHICH = {
    "this": 0,
    "current": 0,
    "next": 1,
    "coming": 1,
    "upcoming": 1,
    "last": -1,
    "previous": -1,
    "past": -1,
}
_PERIOD_WORDS = """
second minute hour day night morning afternoon evening week weekend fortnight month quarter season
semester term year decade century spring summer autumn fall winter monday tuesday wednesday thursday
friday saturday sunday january february march april may june july august september october november
december
"""
_PERIODS = frozenset(_PERIOD_WORDS.split())


def other_time(a: Sequence[str], b: Sequence[str]) -> str | None:
    """Why two prompts ask about other times, or None: the same sentence in another tense, or another week."""
    one, other = _periods(a), _periods(b)
    for period in sorted(one.keys() & other.keys()):
        if one[period].keys().isdisjoint(other[period]):
            return " | ".join(f"{next(iter(side[period].values()))} {period}" for side in (one, other))
    if len(a) != len(b):
        return None
    differing = [both for both in zip(a, b, strict=True) if both[0] != both[1]]
    if differing and all(word in _TENSES for both in differing for word in both):
        changed = [both for both in differing if _TENSES[both[0]] != _TENSES[both[1]]]
        return " | ".join(changed[0]) if changed else None
    return None


def _periods(tokens: Sequence[str]) -> dict[str, dict[int, str]]:
    """Which week, month and so on are named: for each kind of period the ones, and the word for each."""
    found: dict[str, dict[int, str]] = {}
    for which, period in pairwise(tokens):
        if which in _WHICH and period in _PERIODS:
            found.setdefault(period, {})[_WHICH[which]] = which
    return found
