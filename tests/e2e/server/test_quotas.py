"""How much a tenant may hold, and that its counts are true whoever writes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.server.running import Running, done, made, new_key, refused

import faissbase
from faissbase.client.exchange import TRIES
from faissbase.database.database import Database

MOST, MOST_INDEXES = 100, 3
ACME = "acme"


class Shop:
    """A client of one tenant."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def make(self, name: str) -> httpx.Response:
        return self.http.post("/index", json={"name": name, "dimension": 1, "metric": "l2"})

    def put(self, name: str, ids: Any, mode: str = "upsert", **more: Any) -> httpx.Response:
        records = [{"id": str(id), "values": [1], **more} for id in ids]
        return self.http.post(f"/index/{name}/vectors", json={"vectors": records}, params={"mode": mode})

    def held(self) -> int:
        return sum(each["ntotal"] for each in done(self.http.get("/index"))["indexes"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = made(tmp_path_factory.mktemp("quotas") / "data")
    with Running(folder, "--max-tenant-vectors", MOST, "--max-indexes", MOST_INDEXES) as running:
        yield running
        assert running.stop() == 0


tenants = itertools.count()


@pytest.fixture
def tenant() -> str:
    return f"t{next(tenants)}"


@pytest.fixture
def shop(server: Running, tenant: str) -> Iterator[Shop]:
    """A tenant with two indexes, ``a`` and ``b``."""
    _, key = new_key(server.folder, tenant, "write")
    with server.client(key) as http:
        found = Shop(http)
        for name in ("a", "b"):
            done(found.make(name), 201)
        yield found


def test_a_put_that_would_be_too_much_stores_nothing(shop: Shop) -> None:
    done(shop.put("a", range(60)))
    answer = shop.put("b", range(41))
    assert f"may hold {MOST}" in refused(answer, 429, "quota_exceeded")
    assert int(answer.headers["retry-after"]) >= 1
    assert shop.held() == 60
    done(shop.put("b", range(40)))
    refused(shop.put("a", ["new"], mode="add"), 429, "quota_exceeded")
    assert shop.held() == MOST


def test_records_that_are_replaced_count_once(shop: Shop) -> None:
    done(shop.put("a", range(MOST)))
    done(shop.put("a", range(MOST)))
    refused(shop.put("a", [*range(99), "new"]), 429, "quota_exceeded")
    refused(shop.put("b", range(1)), 429, "quota_exceeded")
    body = {"ids": ["0"], "metadatas": [{"x": 1}]}
    assert done(shop.http.post("/index/a/vectors/update", json=body)) == {"updated": 1}


DELETIONS: list[tuple[str, str, dict[str, Any] | None, int]] = [
    ("DELETE", "vectors/0", None, 1),
    ("POST", "vectors/delete", {"ids": ["1", "2", "nobody"]}, 2),
    ("POST", "vectors/delete", {"filter": {"n": 1}}, 3),
    ("POST", "reset", {}, MOST),
]


@pytest.mark.parametrize(("method", "path", "body", "n"), DELETIONS, ids=[each[1] for each in DELETIONS])
def test_what_is_deleted_makes_room(
    shop: Shop, method: str, path: str, body: dict[str, Any] | None, n: int
) -> None:
    done(shop.put("a", range(3), metadata={"n": 1}))
    done(shop.put("a", range(3, MOST)))
    refused(shop.put("b", ["x"]), 429, "quota_exceeded")
    assert done(shop.http.request(method, f"/index/a/{path}", json=body)) == {"deleted": n}
    refused(shop.put("b", range(n + 1)), 429, "quota_exceeded")
    done(shop.put("b", range(n)))
    refused(shop.put("b", ["x"]), 429, "quota_exceeded")


def test_a_deleted_index_makes_room(shop: Shop) -> None:
    done(shop.put("a", range(MOST)))
    assert shop.http.delete("/index/a").status_code == 204
    done(shop.make("a"), 201)
    done(shop.put("a", range(MOST)))


@pytest.mark.parametrize("n", [1, 7])
def test_puts_at_once_do_not_pass_the_bound_together(shop: Shop, n: int) -> None:
    def put(i: int) -> int:
        return shop.put("ab"[i % 2], [f"{i}-{j}" for j in range(n)]).status_code

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(put, range(2 * MOST // n)))
    assert statuses.count(200) == MOST // n
    assert set(statuses) == {200, 429}
    assert shop.held() == MOST // n * n


def test_replacing_at_once_is_never_refused(shop: Shop) -> None:
    done(shop.put("a", range(MOST)))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: shop.put("a", range(i, i + 20)), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert shop.held() == MOST


def test_what_other_processes_write_and_delete_counts(server: Running, shop: Shop, tenant: str) -> None:
    done(shop.put("a", range(50)))
    with Database(server.folder, read_only=False, durability="full", tenant=tenant) as other:
        other.get_collection("b").add([str(i) for i in range(50)], [[1.0]] * 50)
        assert f"holds {MOST}" in refused(shop.put("a", range(100, 151)), 429, "quota_exceeded")
        other.get_collection("b").delete(["1", "2"])
        done(shop.put("a", ["x", "y"]))
        refused(shop.put("a", ["z"]), 429, "quota_exceeded")
        other.delete_collection("b")
        done(shop.put("a", range(100, 148)))
        refused(shop.put("a", ["z"]), 429, "quota_exceeded")


def test_quotas_are_of_each_tenant(server: Running, shop: Shop) -> None:
    done(shop.put("a", range(MOST)))
    _, key = new_key(server.folder, f"t{next(tenants)}", "write")
    with server.client(key) as http:
        other = Shop(http)
        done(other.make("a"), 201)
        done(other.put("a", range(MOST)))


def test_indexes_made_at_once_do_not_pass_the_bound(shop: Shop) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(shop.make, [f"i{i}" for i in range(8)]))
    assert sorted(answer.status_code for answer in answers) == [201] + [429] * 7
    refused(next(each for each in answers if each.status_code == 429), 429, "quota_exceeded")
    assert shop.http.delete("/index/a").status_code == 204
    done(shop.make("again"), 201)


def test_the_client_raises_at_once(server: Running, tenant: str) -> None:
    _, key = new_key(server.folder, tenant, "write")
    with faissbase.connect(server.url, api_key=key) as db:
        docs = db.create_collection("a", 1, "l2")
        began = time.monotonic()
        with pytest.raises(faissbase.AccessError, match="may hold 100"):
            docs.add([str(i) for i in range(101)], [[1.0]] * 101)
        assert time.monotonic() - began < 2
        assert len(docs) == 0
    with server.client(key) as http:
        server.line_of(http.get("/index").headers["x-request-id"])  # the lines before are there too
    n_sent = len([1 for line in server.logged() if line.get("status") == 429 and line["tenant"] == tenant])
    assert n_sent == 1 < TRIES


def test_the_bytes_of_a_tenant_are_bounded(tmp_path: Path) -> None:
    folder = made(tmp_path / "data")
    _, key = new_key(folder, ACME, "write")
    with Running(folder, "--max-tenant-bytes", 10_000_000) as running, running.client(key) as http:
        shop = Shop(http)
        done(shop.make("a"), 201)
        refused(shop.put("a", ["big"], document="x" * 10_100_000), 429, "quota_exceeded")
        n_stored = 0
        while shop.put("a", [n_stored], document="x" * 500_000).status_code == 200:
            n_stored += 1
        assert 5 < n_stored < 20
        assert shop.held() == n_stored
        refused(shop.put("a", ["more"], document="x" * 500_000), 429, "quota_exceeded")
        body = {"ids": ["0"], "documents": ["y" * 5_000_000]}
        refused(shop.http.post("/index/a/vectors/update", json=body), 429, "quota_exceeded")
        held = sum(file.stat().st_size for file in (folder / ACME).rglob("*") if file.is_file())
        assert held < 12_000_000  # the last one is in the log and in the file
        assert http.delete("/index/a").status_code == 204
        done(shop.make("a"), 201)
        done(shop.put("a", ["again"], document="x" * 500_000))
