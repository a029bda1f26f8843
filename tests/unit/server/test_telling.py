"""Answers that tell how far long work is: in lines for who takes them, and as ever for who does not."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

import faissbase
from faissbase.client.exchange import Heard, answer_of
from faissbase.errors import ConflictError
from faissbase.server.app import Server
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Keys
from faissbase.server.operations import Call, Operation
from faissbase.server.routing import Router
from faissbase.server.settings import Settings
from faissbase.server.telling import LINES, Telling
from faissbase.server.tenants import Tenants

Lines = list[dict[str, Any]]


def work(call: Call) -> dict[str, Any]:
    """Tells as often as it is asked to by ``n``, then ends as ``end`` says."""
    for done in range(int(call.query.get("n", 0))):
        assert call.tell is not None
        call.tell(f"phase {done}", done, 10)
    if call.query.get("end") == "conflict":
        raise ConflictError("somebody was faster")
    if call.query.get("end") == "bug":
        raise RuntimeError("secret")
    return {"is_told": call.tell is not None}


WORK = Operation(
    ("POST",), "/work", "write", "", work, dict, query={"n": "", "end": ""}, is_long=True, tells=True
)  # fmt: skip


def answer_to(folder: Path, query: str, accept: str) -> httpx.Response:
    server = Server(Settings(), Keys(folder), Tenants(folder, folder_databases(folder)))
    server._router = Router([WORK])

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=server)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1") as http:
            return await http.post(f"/work?{query}", headers={"accept": accept})

    try:
        return asyncio.run(ask())
    finally:
        server.close()


def lines_of(answer: httpx.Response) -> Lines:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == LINES
    assert answer.headers["x-content-type-options"] == "nosniff"
    return [json.loads(line) for line in answer.text.splitlines()]


def test_who_takes_lines_is_told_meanwhile_and_answered_in_the_last(folder: Path) -> None:
    *told, last = lines_of(answer_to(folder, "n=3", f"{LINES}, application/json"))
    assert told[-1] == {"progress": {"phase": "phase 2", "done": 2, "total": 10}}
    assert last == {"status": 200, "answer": {"is_told": True}}


def test_who_does_not_is_answered_at_the_end(folder: Path) -> None:
    answer = answer_to(folder, "n=0", "*/*")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"is_told": False}


def test_work_with_nothing_to_tell_is_answered_as_ever(folder: Path) -> None:
    assert answer_to(folder, "n=0", LINES).json() == {"is_told": True}
    refused = answer_to(folder, "n=0&end=conflict", LINES)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")


@pytest.mark.parametrize(("end", "status", "code"), [("conflict", 409, "conflict"), ("bug", 500, "internal")])
def test_an_error_after_the_beginning_is_in_the_last_line(
    folder: Path, end: str, status: int, code: str
) -> None:
    last = lines_of(answer_to(folder, f"n=1&end={end}", LINES))[-1]
    assert (last["status"], last["error"]["code"]) == (status, code)
    assert last["error"]["request_id"]
    assert "secret" not in str(last)


def test_of_what_is_told_often_some_is_sent_and_the_end_of_a_phase() -> None:
    async def sent() -> Lines:
        telling, found = Telling(), []

        async def begin() -> None:
            found.append({"head": True})

        async def send(message: Any) -> None:
            found.append(json.loads(message["body"]))

        def tell_all() -> None:
            for done in range(1000):
                telling("counting", done + 1, 1000)

        await telling.send_until(asyncio.ensure_future(asyncio.to_thread(tell_all)), begin, send)
        return found

    head, *told = asyncio.run(sent())
    assert head == {"head": True}
    assert len(told) < 10
    assert told[-1] == {"progress": {"phase": "counting", "done": 1000, "total": 1000}}


def test_who_has_left_does_not_end_the_work() -> None:
    is_over = threading.Event()

    async def leave() -> None:
        telling = Telling()
        done = asyncio.ensure_future(asyncio.to_thread(is_over.wait, 30))
        waiting = asyncio.ensure_future(telling.send_until(done, begin, send))
        await asyncio.sleep(0)
        waiting.cancel()
        is_over.set()
        assert await done

    async def begin() -> None:
        raise AssertionError("nothing was told")

    async def send(message: Any) -> None:
        raise AssertionError("nothing was told")

    asyncio.run(leave())


def test_an_answer_without_its_last_line_is_none() -> None:
    told: list[tuple[str, int, int]] = []
    heard = Heard(lambda *each: told.append(each))
    heard.hear('{"progress": {"phase": "counting", "done": 1, "total": 2}}')
    assert told == [("counting", 1, 2)]
    with pytest.raises(faissbase.UnavailableError, match="no answer of a faissbase server"):
        answer_of(heard.status, heard.content)
