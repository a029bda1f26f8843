"""Times that a model writes are found, in the zone of who spoke, and what is no time is none."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from tests.unit.memory.talking import PARIS

from faissbase.memory.moments import moment_of

SAID_AT = datetime(2024, 3, 31, 1, 30, tzinfo=PARIS)  # 23:30 of the day before in UTC


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-05-03T18:00:00+02:00", "2024-05-03T16:00:00"),
        ("2024-05-03T18:00:00Z", "2024-05-03T18:00:00"),
        ("2024-05-03t18:00:00.123456789z", "2024-05-03T18:00:00"),
        ("2024-05-03 18:00", "2024-05-03T16:00:00"),
        ("2024-05-03T18:00:00-0730", "2024-05-04T01:30:00"),
        ("2024-05-03T18:00:00+05", "2024-05-03T13:00:00"),
        (" 2024-05-03T18:00:00+02:00 (Friday) ", "2024-05-03T16:00:00"),
        ("2024-05-03", "2024-05-02T22:00:00"),
        ("2024-05", "2024-04-30T22:00:00"),
        ("2024", "2023-12-31T22:00:00"),
        ("2031-01-01T00:00:00Z", "2031-01-01T00:00:00"),
        ("yesterday", "2024-03-29T23:30:00"),
        ("Today", "2024-03-30T23:30:00"),
        ("tomorrow", "2024-03-31T23:30:00"),
        ("3 days ago", "2024-03-27T23:30:00"),
        ("an hour ago", "2024-03-30T22:30:00"),
        ("in 2 weeks", "2024-04-13T23:30:00"),
        ("last week", "2024-03-23T23:30:00"),
        ("last month", "2024-02-28T23:30:00"),
        ("next year", "2025-03-30T23:30:00"),
        ("14 months ago", "2023-01-30T23:30:00"),
    ],
)
def test_times_are_found(value: str, moment: str) -> None:
    found = moment_of(value, SAID_AT)
    assert found == datetime.fromisoformat(moment).replace(tzinfo=timezone.utc)
    assert found is not None
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "2024-02-30",
        "2024-13-01",
        "0000-01-01",
        "2024-05-03T25:00",
        "2024-05-03T18:00+99:00",
        "3 days",
        "in 3 days ago",
        "9999 years ago",
        "in 9999 years",
        "9999-12-31T23:59:59-01:00",
        "0001-01-01T00:00:00+14:00",
        "in 9 weeks ahead",
        "٢٠٢٤",
        None,
        2024,
        1.5,
        ["2024"],
        {},
    ],
)
def test_what_is_no_time_is_none(value: object) -> None:
    assert moment_of(value, SAID_AT) is None
