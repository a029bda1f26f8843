"""What a question says about time: a period it names, and whether it asks for the newest.

Knows English words and a calendar; the present is passed in.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_MONTHS |= {"sept": 9}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_YEAR = r"((?:19|20)\d\d)"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"

_ISO = re.compile(rf"\b{_YEAR}-(\d\d?)(?:-(\d\d?))?\b")
_DAY_FIRST = re.compile(rf"\b{_DAY}(?: of)? ({_MONTH})\b\.?(?:,? {_YEAR}\b)?", re.I)
_MONTH_FIRST = re.compile(rf"\b({_MONTH})\b\.? {_DAY}\b(?:,? {_YEAR}\b)?", re.I)
_MONTH_ALONE = re.compile(
    rf"\b(?:({_MONTH})\b\.?,? {_YEAR}|(?:in|since|of|during) ({_MONTH})\b(?!\.?,? {_YEAR}))", re.I
)
_YEAR_ALONE = re.compile(rf"\b(?:in|during|of|since) {_YEAR}\b", re.I)
_AGO = re.compile(r"\b(\d{1,6}|an?|one|two|three|four|five|six) (day|week|month|year)s? ago\b", re.I)
_LAST = re.compile(r"\b(last|this|past) (week|weekend|month|year)\b", re.I)
_DAY_WORDS = re.compile(r"\b(today|tonight|yesterday)\b", re.I)

_NEWEST = re.compile(
    r"\b(latest|newest|most recent(?:ly)?|current(?:ly)?|now|nowadays|right now|these days|at the moment|"
    r"at present|presently|as of today|the last time|last time|any ?more|still|up to date|so far)\b",
    re.I,
)
_PRESENT = re.compile(
    r"^\W*(?:(?:so|and|hey|ok|okay|well),? )?"
    r"(?:what|whats|when|where|who|which|how|whose|am|is|are|do|does|has|have)\b(?! \w+ed\b)"
    r"(?!.*\b(?:did|was|were|had|ago|used to)\b)",
    re.I,
)
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_DAYS = {"day": 1, "week": 7, "weekend": 7, "month": 31, "year": 366}


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start`` up to but not including ``end``."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question says about time.

    Attributes
    ----------
    wants_newest
        It says so: "latest", "currently", "still".
    is_present
        It asks how things are, not how they were, so that a newer answer replaces an older one.
    periods
        Days, months and years it names.
    """

    wants_newest: bool
    is_present: bool
    periods: tuple[Period, ...]


def asked(question: str, now: datetime) -> Asked:
    """Read ``question`` as somebody would who hears it at ``now``; periods are in the zone of ``now``.

    A month without a year is the last one that has begun.

    >>> found = asked("What did we do in May?", datetime(2024, 2, 1))
    >>> found.periods[0].start, found.periods[0].end
    (datetime.datetime(2023, 5, 1, 0, 0), datetime.datetime(2023, 6, 1, 0, 0))
    """
    periods = tuple(_periods(question, now))
    return Asked(bool(_NEWEST.search(question)), bool(_PRESENT.search(question)) and not periods, periods)


def _periods(question: str, now: datetime) -> list[Period]:
    days = [_day(year, month, day, now) for year, month, day in _dates(question)]
    found = [period for period in days if period]
    if found:
        return found
    found = [_month(match, now) for match in _MONTH_ALONE.finditer(question)]
    if found:
        return found
    if match := _YEAR_ALONE.search(question):
        year = int(match[1])
        return [Period(now_at(now, year, 1, 1), now_at(now, year + 1, 1, 1))]
    return _relative(question, now)


def _dates(question: str) -> list[tuple[str | None, int, str | None]]:
    """Year, month and day as written; the day is None for a month of a year."""
    iso = [(m[1], int(m[2]), m[3]) for m in _ISO.finditer(question)]
    day_first = [(m[3], _MONTHS[m[2].lower()], m[1]) for m in _DAY_FIRST.finditer(question)]
    rest = _DAY_FIRST.sub(" ", question)
    month_first = [(m[3], _MONTHS[m[1].lower()], m[2]) for m in _MONTH_FIRST.finditer(rest)]
    return [*iso, *day_first, *month_first]


def _day(year: str | None, month: int, day: str | None, now: datetime) -> Period | None:
    """The period of a date, or None where no calendar has it."""
    try:
        if day is None:
            return _whole_month(now, int(year or now.year), month)
        start = now_at(now, int(year or now.year), month, int(day))
        if year is None and start > now:
            start = now_at(now, now.year - 1, month, int(day))
    except ValueError:
        return None
    return Period(start, start + timedelta(days=1))


def _month(match: re.Match[str], now: datetime) -> Period:
    if match[2]:
        return _whole_month(now, int(match[2]), _MONTHS[match[1].lower()])
    month = _MONTHS[match[3].lower()]
    return _whole_month(now, now.year if month <= now.month else now.year - 1, month)


def _whole_month(now: datetime, year: int, month: int) -> Period:
    start = now_at(now, year, month, 1)
    return Period(start, now_at(now, year + month // 12, month % 12 + 1, 1))


def _relative(question: str, now: datetime) -> list[Period]:
    today = now_at(now, now.year, now.month, now.day)
    if match := _DAY_WORDS.search(question):
        start = today - timedelta(days=match[1].lower() == "yesterday")
        return [Period(start, start + timedelta(days=1))]
    if match := _AGO.search(question):
        count = int(match[1]) if match[1].isdigit() else _COUNTS[match[1].lower()]
        unit = _DAYS[match[2].lower()]
        middle = today - timedelta(days=min(count * unit, 36_500))
        return [Period(middle - timedelta(days=unit // 2), middle + timedelta(days=unit // 2 + 1))]
    if match := _LAST.search(question):
        unit = _DAYS[match[2].lower()]
        reach = unit if match[1].lower() == "this" else 2 * unit
        return [Period(today - timedelta(days=reach), today + timedelta(days=1))]
    return []


def now_at(now: datetime, year: int, month: int, day: int) -> datetime:
    """Midnight of a date in the zone of ``now``."""
    return datetime(year, month, day, tzinfo=now.tzinfo)
