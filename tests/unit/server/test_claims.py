"""A name is one claimant's at a time."""

from __future__ import annotations

import threading

import pytest

from faissbase.errors import UnavailableError
from faissbase.server.claims import Claims


def test_a_second_claim_waits_for_the_first() -> None:
    claims, order = Claims(), []
    give_back = claims.take("acme", "docs")

    def second() -> None:
        with claims.held("acme", "docs"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    order.append("first")
    give_back()
    thread.join()
    assert order == ["first", "second"]


def test_other_names_and_tenants_are_not_waited_for() -> None:
    claims = Claims(patience_s=0)
    claims.take("acme", "docs")
    with claims.held("acme", "other"), claims.held("shop", "docs"):
        pass


def test_a_claim_that_is_not_given_back_is_told() -> None:
    claims = Claims(patience_s=0.01)
    claims.take("acme", "docs")
    with pytest.raises(UnavailableError, match="'docs' is being made"):
        claims.take("acme", "docs")


def test_a_claim_ends_with_an_error_in_its_block() -> None:
    claims = Claims(patience_s=0)
    with pytest.raises(ValueError, match="wrong"), claims.held("acme", "docs"):
        raise ValueError("wrong")
    claims.take("acme", "docs")
