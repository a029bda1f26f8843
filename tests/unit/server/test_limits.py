"""Rates of requests, and requests that are not run twice."""

from __future__ import annotations

import pytest

from faissbase.errors import InvalidInputError, UnavailableError
from faissbase.server.limits import Answered, Rates, TooMany, checked_key


class _Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_tenant_has_two_seconds_worth_at_once_and_its_rate_from_then_on() -> None:
    clock = _Clock()
    rates = Rates(5.0, clock)
    for _ in range(10):
        rates.take("acme")
    with pytest.raises(TooMany) as caught:
        rates.take("acme")
    assert caught.value.retry_after_s == pytest.approx(0.2)
    rates.take("other")
    clock.now += 0.2
    rates.take("acme")
    with pytest.raises(TooMany):
        rates.take("acme")
    clock.now += 1000.0
    for _ in range(10):
        rates.take("acme")
    with pytest.raises(TooMany):
        rates.take("acme")


def test_no_rate_is_no_limit() -> None:
    rates = Rates(0.0, _Clock())
    for _ in range(10_000):
        rates.take("acme")


WHAT = ("route", "path", "k1")


def test_a_request_is_answered_as_before_for_an_hour() -> None:
    clock = _Clock()
    answered = Answered(clock)
    assert answered.begin("mine", WHAT, b"body") is None
    with pytest.raises(UnavailableError, match="being run"):
        answered.begin("mine", WHAT, b"body")
    answered.end("mine", WHAT, 201, b"answer")
    assert answered.begin("mine", WHAT, b"body") == (201, b"answer")
    with pytest.raises(InvalidInputError, match="another request"):
        answered.begin("mine", WHAT, b"other")
    assert answered.begin("other", WHAT, b"body") is None
    clock.now += 3601.0
    assert answered.begin("mine", WHAT, b"other") is None


def test_what_failed_may_be_run_again() -> None:
    answered = Answered(_Clock())
    assert answered.begin("mine", WHAT, b"body") is None
    answered.fail("mine", WHAT)
    assert answered.begin("mine", WHAT, b"other") is None


@pytest.mark.parametrize(("n", "size"), [(100, 1 << 20), (3000, 1)])
def test_memory_for_answers_is_bounded_for_each_caller(n: int, size: int) -> None:
    answered = Answered(_Clock())
    assert answered.begin("other", WHAT, b"") is None
    answered.end("other", WHAT, 200, b"kept")
    assert answered.begin("mine", ("running",), b"") is None
    for number in range(n):
        assert answered.begin("mine", (str(number),), b"") is None
        answered.end("mine", (str(number),), 200, b"x" * size)
    assert answered.begin("mine", ("0",), b"") is None
    assert answered.begin("mine", (str(n - 1),), b"") is not None
    assert answered.begin("other", WHAT, b"") == (200, b"kept")
    with pytest.raises(UnavailableError):
        answered.begin("mine", ("running",), b"")


@pytest.mark.parametrize("text", ["", "x" * 201, "a\nb", "\x00"])
def test_odd_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        checked_key(text.encode())
