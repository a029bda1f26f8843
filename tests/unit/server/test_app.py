"""The application without a socket: what it answers while it ends, and to who asks too often."""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.server.conftest import Clock

from faissbase.server import bodies, operations
from faissbase.server.app import Server
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Keys
from faissbase.server.limits import Rates
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants

RATE = 3.0


@pytest.fixture
def keys(folder: Path) -> Keys:
    return Keys(folder)


@pytest.fixture
def server(folder: Path, keys: Keys, clock: Clock) -> Iterator[Server]:
    tenants = Tenants(folder, folder_databases(folder))
    found = Server(Settings(), keys, tenants)
    found._rates = Rates(RATE, clock)
    yield found
    found.close()


def ask(
    server: Server, method: str, *paths: str, key: str | None = None, host: str = "127.0.0.1", **more: Any
) -> list[httpx.Response]:
    """The answers to requests, one after the other."""

    async def all_of_them() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app=server)
        headers = {} if key is None else {"X-API-Key": key}
        url = f"http://{host}/v1"
        async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as http:
            return [await http.request(method, path, **more) for path in paths]

    return asyncio.run(all_of_them())


def test_a_server_that_ends_says_so_and_takes_no_work(server: Server) -> None:
    server.is_stopping = True
    live, ready, health = ask(server, "GET", "/health/live", "/health/ready", "/health")
    assert (live.status_code, ready.status_code, health.status_code) == (200, 503, 200)
    assert health.json() == {"status": "stopping", "live": True, "ready": False}
    for path in ("/index", "/metrics"):
        [answer] = ask(server, "GET", path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        assert answer.headers["retry-after"] == "1"


def test_the_end_of_a_server_is_no_error_of_its_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.is_stopping = True
    logger = logging.getLogger("faissbase.server")
    logger.addHandler(caplog.handler)
    try:
        ask(server, "GET", "/index")
    finally:
        logger.removeHandler(caplog.handler)
    assert [record for record in caplog.records if record.exc_info] == []


def test_while_the_data_folder_is_gone_nothing_is_answered_from_elsewhere(
    server: Server, folder: Path, clock: Clock
) -> None:
    records = {"vectors": [{"id": "a", "values": [1, 0]}]}
    ask(server, "POST", "/index", json={"name": "docs", "dimension": 2})
    ask(server, "POST", "/index/docs/vectors", json=records)
    away = folder.rename(folder.with_name("away"))
    for is_another_there in (False, True):
        clock.now_s += 60
        if is_another_there:
            folder.mkdir()
        answers = ask(server, "POST", "/index/docs/vectors", json=records)
        answers += ask(server, "GET", "/index", "/index/docs/ntotal")
        for answer in answers:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert "the data folder is gone" in answer.json()["error"]["message"]
        live, ready = ask(server, "GET", "/health/live", "/health/ready")
        assert (live.status_code, ready.status_code) == (200, 503)
        assert ready.json() == {"status": "no_data", "live": True, "ready": False}
    folder.rmdir()
    away.rename(folder)
    clock.now_s += 60
    assert ask(server, "GET", "/index/docs/ntotal")[0].json() == {"ntotal": 1}
    assert ask(server, "GET", "/health/ready")[0].status_code == 200


def test_a_tenant_that_asks_too_often_is_told_when_to_come_again(
    server: Server, keys: Keys, clock: Clock
) -> None:
    _, key = keys.create("eager", ["read"])
    _, other = keys.create("patient", ["read"])
    answers = ask(server, "GET", *["/index"] * 7, key=key)
    assert [answer.status_code for answer in answers] == [200] * 6 + [429]
    assert answers[-1].json()["error"]["code"] == "rate_limited"
    assert answers[-1].headers["retry-after"] == "1"
    assert [answer.status_code for answer in ask(server, "GET", "/index", key=other)] == [200]
    clock.now_s += 1 / RATE
    assert [answer.status_code for answer in ask(server, "GET", "/index", "/index", key=key)] == [200, 429]


def test_what_needs_no_key_is_not_counted(server: Server, keys: Keys) -> None:
    keys.create("acme", ["read"])
    assert {answer.status_code for answer in ask(server, "GET", *["/health"] * 20)} == {200}
    assert {answer.status_code for answer in ask(server, "GET", *["/index"] * 20)} == {401}


def test_every_answer_forbids_what_a_browser_might_do_with_it(server: Server) -> None:
    for answer in ask(server, "GET", "/health", "/index", "/nosuch", "/index/nosuch"):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "server" not in answer.headers
        assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(
    "host", ["localhost:8000", "LocalHost", "127.0.0.1:8000", "[::1]:8000", "127.0.0.2:8000"]
)
def test_an_open_server_answers_by_all_names_of_this_machine(server: Server, host: str) -> None:
    assert [answer.status_code for answer in ask(server, "GET", "/index", host=host)] == [200]


@pytest.mark.parametrize(
    "host",
    ["elsewhere.example", "localhost.elsewhere.example", "127.0.0.1.elsewhere.example", "10.0.0.1:8000"],
)
def test_an_open_server_does_not_answer_by_other_names(server: Server, host: str) -> None:
    assert [answer.status_code for answer in ask(server, "GET", "/index", host=host)] == [401]
    assert [answer.status_code for answer in ask(server, "GET", "/health", host=host)] == [200]


def test_a_body_is_unpacked_while_others_are_served(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    unpacked = bodies.unpacked

    def noting(packed: bytes, encoding: str, most_bytes: int) -> bytes:
        threads.append(threading.current_thread())
        return unpacked(packed, encoding, most_bytes)

    monkeypatch.setattr(operations, "unpacked", noting)
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    body = gzip.compress(b'{"name": "docs", "dimension": 2}')
    assert [
        answer.status_code for answer in ask(server, "POST", "/index", content=body, headers=headers)
    ] == [201]
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("digits", ["100000000000000000000", "-9223372036854775809", "9" * 300])
def test_an_integer_that_would_become_another_number_is_refused(server: Server, digits: str) -> None:
    [made] = ask(server, "POST", "/index", json={"name": "docs", "dimension": 2})
    assert made.status_code == 201
    record = f'{{"id": "a", "values": [1, 2], "metadata": {{"n": [{digits}], "x": 1e30}}}}'
    headers = {"content-type": "application/json"}
    [refused] = ask(
        server, "POST", "/index/docs/vectors", content=f'{{"vectors": [{record}]}}', headers=headers
    )
    assert refused.status_code == 422
    assert "metadata of vectors[0] ('a'): " in refused.json()["error"]["message"]
    assert "exceeds 64 bits" in refused.json()["error"]["message"]
    [count] = ask(server, "GET", "/index/docs/ntotal")
    assert count.json() == {"ntotal": 0}
