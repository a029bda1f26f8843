"""Pages in a browser: those of the origins that were named may ask and read; without any, nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.e2e.server.running import Running, done, made, made_damaged, new_key, refused

OURS, THEIRS = "https://app.example.org", "https://elsewhere.example"
ASKS = {"origin": OURS, "access-control-request-method": "POST"}
SENT = "X-API-Key, Authorization, Content-Type, Content-Encoding, Idempotency-Key, X-Request-Id"


@dataclass(frozen=True)
class Target:
    """A server, and a client of it with a key and one without."""

    running: Running
    http: httpx.Client
    stranger: httpx.Client


def started(folder: Path, *options: object) -> Iterator[Target]:
    _, key = new_key(made(folder), "acme", "write")
    with Running(folder, *options) as running, running.client(key) as http, running.client() as stranger:
        done(http.post("/index", json={"name": "docs", "dimension": 2}), 201)
        yield Target(running, http, stranger)
        assert running.stop() == 0


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("cors") / "data"
    yield from started(folder, "--cors-origins", f"http://localhost:5173, {OURS}")


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from started(tmp_path_factory.mktemp("every") / "data", "--cors-origins", "*")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    yield from started(tmp_path_factory.mktemp("plain") / "data")


def cors(answer: httpx.Response) -> dict[str, str]:
    """The headers that a browser decides by."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control")}


def test_a_preflight_is_answered_without_a_key(target: Target) -> None:
    for method in ("GET", "POST", "DELETE"):
        headers = {**ASKS, "access-control-request-method": method, "access-control-request-headers": SENT}
        answer = target.stranger.options("/index/docs/search", headers=headers)
        assert answer.status_code == 200
        told = cors(answer)
        assert told["access-control-allow-origin"] == OURS
        assert method in told["access-control-allow-methods"].split(", ")
        allowed = {each.lower() for each in told["access-control-allow-headers"].split(", ")}
        assert {each.lower() for each in SENT.split(", ")} <= allowed
        assert "access-control-allow-credentials" not in told
        assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": THEIRS},
        {"origin": "null"},
        {"origin": f"{OURS}.elsewhere.example"},
        {"origin": OURS.replace("https", "http")},
        {"access-control-request-method": "PUT"},
        {"access-control-request-headers": "x-other"},
    ],
    ids=str,
)
def test_a_preflight_for_something_else_allows_nothing(target: Target, headers: dict[str, str]) -> None:
    answer = target.stranger.options("/index/docs/search", headers={**ASKS, **headers})
    assert answer.status_code == 400
    if "origin" in headers:
        assert "access-control-allow-origin" not in answer.headers


def test_options_that_are_no_preflight_need_a_key(target: Target) -> None:
    for headers in ({}, {"origin": OURS}, {"access-control-request-method": "POST"}):
        refused(target.stranger.options("/index/docs/search", headers=headers), 401, "unauthenticated")


def test_answers_and_errors_may_be_read_by_our_pages_alone(target: Target) -> None:
    for origin in (OURS, THEIRS):
        page = {"origin": origin}
        answers = [
            (200, target.http.get("/index", headers=page)),
            (200, target.stranger.get("/health", headers=page)),
            (401, target.stranger.get("/index", headers=page)),
            (404, target.http.get("/nosuch", headers=page)),
            (405, target.http.put("/index", headers=page)),
            (422, target.http.post("/index/docs/search", json={"k": 0}, headers=page)),
        ]
        for status, answer in answers:
            assert answer.status_code == status
            assert "Origin" in answer.headers["vary"]
            assert answer.headers["access-control-expose-headers"] == "X-Request-Id, Retry-After"
            assert "access-control-allow-credentials" not in answer.headers
            expected = OURS if origin == OURS else None
            assert answer.headers.get("access-control-allow-origin") == expected
    assert cors(target.http.get("/index")) == {}


def test_an_answer_that_tells_of_damage_may_be_read(tmp_path: Path) -> None:
    folder = made_damaged(tmp_path / "data")
    _, key = new_key(folder, "default", "read")
    with Running(folder, "--cors-origins", OURS) as running, running.client(key) as http:
        answer = http.get("/index/docs/vectors", headers={"origin": OURS})
        refused(answer, 500, "corruption")
        assert answer.headers["access-control-allow-origin"] == OURS


def test_every_origin_may_be_allowed(every: Target) -> None:
    page = {"origin": THEIRS}
    assert every.stranger.options("/index", headers={**ASKS, **page}).status_code == 200
    for answer in (every.http.get("/index", headers=page), every.stranger.get("/index", headers=page)):
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


def test_without_origins_nothing_changes(plain: Target) -> None:
    refused(plain.stranger.options("/index", headers=ASKS), 401, "unauthenticated")
    refused(plain.http.options("/index", headers=ASKS), 405, "method_not_allowed")
    for page in ({}, {"origin": OURS}):
        answer = plain.http.get("/index", headers=page)
        assert answer.status_code == 200
        assert cors(answer) == {}
        assert "vary" not in answer.headers


@pytest.mark.parametrize("origins", [OURS, "*"])
def test_while_there_are_no_keys_pages_are_not_served(tmp_path: Path, origins: str) -> None:
    folder = made(tmp_path / "data")
    with Running(folder, "--cors-origins", origins) as running, running.client() as http:
        done(http.get("/index"))
        message = refused(http.get("/index", headers={"origin": OURS}), 401, "unauthenticated")
        assert "pages in a browser are not served" in message
