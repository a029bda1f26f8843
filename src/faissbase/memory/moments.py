"""When something happened, out of what a model says of it. Knows only times.

>>> from datetime import datetime, timedelta, timezone
>>> said_at = datetime(2024, 5, 3, 1, 30, tzinfo=timezone(timedelta(hours=2)))
>>> moment_of("2024-05-02", said_at).isoformat()
'2024-05-01T22:00:00+00:00'
>>> moment_of("yesterday", said_at).isoformat()
'2024-05-01T23:30:00+00:00'
"""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta, timezone, tzinfo

_CLOCK = r"(\d\d?):(\d\d)(?::(\d\d)(?:[.,]\d+)?)? ?(Z|[+-]\d\d(?::?\d\d)?)?"
_ISO = re.compile(
    rf"(\d{{4}})(?:-(\d\d?)(?:-(\d\d?)(?:[T ]{_CLOCK})?)?)?(?: ?\(\w+\))?", re.ASCII | re.IGNORECASE
)
_DISTANCE = re.compile(
    r"(?:(?P<ahead>in) )?(?P<n>an?|one|\d{1,4}) "
    r"(?P<unit>minute|hour|day|week|month|year)s?(?: (?P<past>ago))?",
    re.ASCII,
)
_NEIGHBOUR = re.compile(r"(?P<way>last|next) (?P<unit>week|month|year)")
_DAYS = {"now": 0, "today": 0, "tonight": 0, "yesterday": -1, "tomorrow": 1}
_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400}
_MONTHS = {"month": 1, "year": 12}


def moment_of(value: object, said_at: datetime) -> datetime | None:
    """The moment in UTC that ``value`` names; None where it names none.

    ISO 8601, whole or cut to day, month or year (their beginnings), or English such as ``3 days ago``.
    Without a zone it is meant in that of ``said_at``, from which relative words count.
    """
    if not isinstance(value, str):
        return None
    text = " ".join(value.split())
    try:
        found = _iso(text, said_at.tzinfo) or _relative(text.lower(), said_at)
        return None if found is None else found.astimezone(timezone.utc)
    except (ValueError, OverflowError):  # the 31st of June, the year 0
        return None


def _iso(text: str, zone: tzinfo | None) -> datetime | None:
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else None for part in found.groups()[:6])
    own_zone = found.group(7)
    tz = zone if own_zone is None else _zone(own_zone)
    return datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, second or 0, tzinfo=tz)


def _zone(text: str) -> timezone:
    if text in "Zz":
        return timezone.utc
    digits = text[1:].replace(":", "")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return timezone(-offset if text[0] == "-" else offset)


def _relative(text: str, said_at: datetime) -> datetime | None:
    if text in _DAYS:
        return said_at + timedelta(days=_DAYS[text])
    found = _NEIGHBOUR.fullmatch(text)
    if found is not None:
        return _away(said_at, 1 if found["way"] == "next" else -1, found["unit"])
    found = _DISTANCE.fullmatch(text)
    if found is None or (found["ahead"] is None) == (found["past"] is None):
        return None
    n = int(found["n"]) if found["n"].isdigit() else 1
    return _away(said_at, n if found["ahead"] else -n, found["unit"])


def _away(moment: datetime, n: int, unit: str) -> datetime:
    if unit in _SECONDS:
        return moment + timedelta(seconds=n * _SECONDS[unit])
    months = moment.year * 12 + moment.month - 1 + n * _MONTHS[unit]
    year, month = months // 12, months % 12 + 1
    # The last of a longer month has no like in a shorter one.
    last = calendar.monthrange(year, month)[1]
    return moment.replace(year=year, month=month, day=min(moment.day, last))
