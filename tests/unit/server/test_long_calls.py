"""What takes long on a server is waited for, and asked for once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import faissbase
from faissbase.client.aremote import AsyncCollection, AsyncConnection
from faissbase.client.calls import Facts
from faissbase.client.remote import Connection, RemoteCollection
from faissbase.client.settings import address_of
from faissbase.sharing import EachProcess

FACTS = Facts("0" * 32, "docs", 2, "l2", "auto")
LONG: list[tuple[str, Callable[[Any], Any]]] = [
    ("optimize", lambda docs: docs.optimize()),
    ("train", lambda docs: docs.train()),
    ("verify", lambda docs: docs.verify()),
    ("repair", lambda docs: docs.repair()),
    ("recall", lambda docs: docs.recall_report()),
]


def silent(asked: list[httpx.Request]) -> httpx.MockTransport:
    """A server that never answers, as far as it is waited for."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        raise httpx.ReadTimeout("timed out")

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(("name", "call"), LONG, ids=[name for name, _ in LONG])
def test_long_work_is_waited_for_and_asked_for_once(name: str, call: Callable[[Any], Any]) -> None:
    asked: list[httpx.Request] = []
    address = address_of("http://127.0.0.1:1", timeout_s=5)
    connection, twin = Connection(address), AsyncConnection(address)
    connection._http = EachProcess(lambda: httpx.Client(base_url=address.url, transport=silent(asked)))
    twin._http = EachProcess(lambda: httpx.AsyncClient(base_url=address.url, transport=silent(asked)))
    with pytest.raises(faissbase.UnavailableError, match="timed out"):
        call(RemoteCollection(connection, FACTS))
    with pytest.raises(faissbase.UnavailableError, match="timed out"):
        asyncio.run(call(AsyncCollection(twin, FACTS)))
    assert [request.url.path.rpartition("/")[2] for request in asked] == [name, name]
    assert {request.extensions["timeout"]["read"] for request in asked} == {3600.0}
