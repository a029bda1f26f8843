"""Joining a Ray cluster: what Ray says when it cannot be, in our words."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from faissbase.errors import AccessError, FaissbaseError, NotReadyError
from faissbase.sharded.joining import join

ray = pytest.importorskip("ray")

TOKEN = "RPC error: InvalidAuthToken: Authentication token is missing or incorrect"


def failed(*texts: str) -> ConnectionError:
    """A failed connection, and the errors that it goes back to."""
    causes: list[Exception] = [RuntimeError(text) for text in texts]
    outer = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    for error, cause in zip([outer, *causes], causes, strict=False):
        error.__cause__ = cause
    return outer


FAILURES: dict[str, tuple[Exception, type[FaissbaseError], str]] = {
    "a refused token": (
        ray.exceptions.AuthenticationError(TOKEN),
        AccessError,
        "refuses the token.*RAY_AUTH_TOKEN",
    ),
    "one behind a failed connection": (
        failed("no GCS", f"Traceback:\n{TOKEN}\nNote"),
        AccessError,
        "missing or incorrect",
    ),
    "no cluster": (failed("timed out"), NotReadyError, "no Ray cluster at this machine.*10.0.0.1"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_what_ray_says_is_told_by_what_to_do(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, kind, told = FAILURES[what]

    def init(**options: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(kind, match=told):
        join(None)


@pytest.mark.parametrize("is_given", [True, False])
def test_a_head_that_is_gone_is_told_at_once(is_given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    if not is_given:
        monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(NotReadyError, match=f"no Ray cluster at {address}: .*refused"):
        join(address if is_given else None)
