"""Times that a question names, and whether it asks for the newest."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from faissbase.memory.when import asked

NOW = datetime(2024, 2, 15, 13, 30, tzinfo=timezone.utc)


def day(year: int, month: int, number: int) -> datetime:
    return datetime(year, month, number, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    [
        "What did we eat on 13 October 2023?",
        "What did we eat on October 13, 2023?",
        "What did we eat on the 13th of October, 2023?",
        "What did we eat on Oct. 13th?",
        "What did we eat on 2023-10-13?",
    ],
)
def test_a_date_is_one_day_however_it_is_written(text: str) -> None:
    (period,) = asked(text, NOW).periods
    assert (period.start, period.end) == (day(2023, 10, 13), day(2023, 10, 14))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("Where were we in December 2022?", day(2022, 12, 1), day(2023, 1, 1)),
        ("Where were we in January?", day(2024, 1, 1), day(2024, 2, 1)),
        ("Where were we in March?", day(2023, 3, 1), day(2023, 4, 1)),
        ("Where were we in 2022?", day(2022, 1, 1), day(2023, 1, 1)),
        ("Where were we 2023-05?", day(2023, 5, 1), day(2023, 6, 1)),
        ("Where were we yesterday?", day(2024, 2, 14), day(2024, 2, 15)),
        ("Where are we today?", day(2024, 2, 15), day(2024, 2, 16)),
        ("Where were we last week?", day(2024, 2, 1), day(2024, 2, 16)),
        ("Where are we this week?", day(2024, 2, 8), day(2024, 2, 16)),
        ("Where were we two weeks ago?", day(2024, 1, 29), day(2024, 2, 5)),
        ("Where were we 3 days ago?", day(2024, 2, 12), day(2024, 2, 13)),
    ],
)
def test_months_years_and_words_for_days_are_periods(text: str, start: datetime, end: datetime) -> None:
    (period,) = asked(text, NOW).periods
    assert (period.start, period.end) == (start, end)


def test_two_dates_are_two_periods() -> None:
    assert len(asked("Was it on 3 May 2023 or on 5 June 2023?", NOW).periods) == 2


@pytest.mark.parametrize(
    "text",
    [
        "May I ask you something?",
        "We may march on.",
        "Room 2023",
        "",
    ],
)
def test_what_is_no_date_is_no_period(text: str) -> None:
    assert asked(text, NOW).periods == ()


def test_a_day_that_no_calendar_has_is_read_as_its_month() -> None:
    (period,) = asked("Was it on 30 February 2023?", NOW).periods
    assert (period.start, period.end) == (day(2023, 2, 1), day(2023, 3, 1))


def test_a_period_is_in_the_zone_of_the_present() -> None:
    there = timezone(timedelta(hours=9))
    (period,) = asked("yesterday", datetime(2024, 2, 15, 1, tzinfo=there)).periods
    assert period.start == datetime(2024, 2, 14, tzinfo=there)


def test_numbers_beyond_any_calendar_do_no_harm() -> None:
    assert asked("What was 999999 years ago?", NOW).periods


@pytest.mark.parametrize(
    "text", ["What is her latest plan?", "Where does he live now?", "Does she still paint?", "currently"]
)
def test_words_for_the_newest_are_understood(text: str) -> None:
    assert asked(text, NOW).wants_newest


@pytest.mark.parametrize("text", ["What did she plan?", "Do you know knowledge?", "Distill it"])
def test_words_that_only_look_like_them_are_not(text: str) -> None:
    assert not asked(text, NOW).wants_newest


@pytest.mark.parametrize(
    "text", ["Where do I live?", "Who is my boss?", "When is the meeting?", "So, what's my number?"]
)
def test_questions_about_the_present_are_understood(text: str) -> None:
    assert asked(text, NOW).is_present


@pytest.mark.parametrize(
    "text",
    [
        "Where did I live?",
        "Who was my boss?",
        "Who painted it?",
        "Where do we stay in May 2023?",
        "I live here",
    ],
)
def test_questions_about_the_past_and_statements_are_not(text: str) -> None:
    assert not asked(text, NOW).is_present
