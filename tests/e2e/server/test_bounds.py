"""How much one answer may bring, and what the metadata of a record may become."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from tests.e2e.server.running import Running, done, made, new_key, refused

import faissbase
from faissbase.collection.bounds import NUMBER_BYTES

MOST_ANSWER, MOST_METADATA = 20_000, 300
N, D, DOCUMENT = 60, 50, 2000
SPARE = 1000  # cursor and brackets


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server with narrow bounds, and a key of it."""
    folder = made(tmp_path_factory.mktemp("bounds") / "data")
    _, key = new_key(folder, "acme", "write")
    bounds = ("--max-answer-bytes", MOST_ANSWER, "--max-metadata-bytes", MOST_METADATA)
    with Running(folder, *bounds) as running:
        yield running.url, key
        assert running.stop() == 0


@pytest.fixture(scope="module")
def http(address: tuple[str, str]) -> Iterator[httpx.Client]:
    """The index ``docs``: N vectors, each with a document of 2,000 letters."""
    url, key = address
    vectors = np.random.default_rng(7).standard_normal((N, D)).astype(np.float32)
    with faissbase.connect(url, api_key=key) as db:
        docs = db.create_collection("docs", D, "l2")
        docs.add([f"r{i}" for i in range(N)], vectors, [{"i": i} for i in range(N)], ["x" * DOCUMENT] * N)
    with httpx.Client(base_url=f"{url}/v1", headers={"X-API-Key": key}, trust_env=False) as client:
        yield client


def pages(http: httpx.Client, path: str, body: dict[str, Any] | None) -> list[list[str]]:
    """The ids of each page of a listing, none longer than it may be."""
    found: list[list[str]] = []
    cursor = None
    while True:
        more: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
        if body is None:
            answer = http.get(path, params={"include_vectors": "true", "limit": N, **more})
        else:
            answer = http.post(path, json={**body, **more})
        page = done(answer)
        assert len(answer.content) <= MOST_ANSWER + SPARE
        found.append([each["id"] for each in page["vectors"]])
        cursor = page["cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize("include_vectors", [False, True])
def test_a_page_ends_before_it_is_too_long_and_the_next_goes_on(
    http: httpx.Client, include_vectors: bool
) -> None:
    everything = [f"r{i}" for i in range(N)]
    body = {"filter": {"i": {"$gte": 0}}, "limit": N, "include_vectors": include_vectors}
    for found in (
        pages(http, "/index/docs/vectors/get", body),
        pages(http, "/index/docs/vectors", None),
    ):
        assert len(found) > 4
        assert [id for page in found for id in page] == everything


def test_a_record_that_is_too_long_alone_is_sent_all_the_same(http: httpx.Client) -> None:
    done(http.post("/index", json={"name": "long", "dimension": 1, "metric": "l2"}), 201)
    texts = ["y" * (2 * MOST_ANSWER), "z" * (3 * MOST_ANSWER)]
    records = [{"id": text[0], "values": [1], "document": text} for text in texts]
    done(http.post("/index/long/vectors", json={"vectors": records}))
    first = done(http.get("/index/long/vectors"))
    assert [each["document"] for each in first["vectors"]] == texts[:1]
    second = done(http.get("/index/long/vectors", params={"cursor": first["cursor"]}))
    assert [each["document"] for each in second["vectors"]] == texts[1:]
    assert done(http.get("/index/long/vectors/z"))["document"] == texts[1]


TOO_MUCH: list[tuple[str, dict[str, Any]]] = [
    ("vectors/get", {"ids": [f"r{i}" for i in range(N)]}),
    ("search", {"vector": [0] * D, "k": N, "include": ["document"]}),
    ("search", {"vector": [0] * D, "k": 20, "include": ["vector"]}),
    ("search", {"vectors": [[0] * D] * 50, "k": 1, "include": ["document"]}),
    ("search", {"vectors": [[0] * D] * 50, "k": 1, "include": ["document"], "explain": True}),
    ("specialized_search", {"type": "range", "vector": [0] * D, "radius": 1e6, "include": ["document"]}),
    ("specialized_search", {"type": "by_id", "id": "r0", "k": 50, "include": ["document"]}),
    (
        "specialized_search",
        {"type": "batch", "searches": [{"vector": [0] * D, "k": 1, "include": ["document"]}] * 50},
    ),
]


@pytest.mark.parametrize(("path", "body"), TOO_MUCH, ids=[f"{p} {list(b)}" for p, b in TOO_MUCH])
def test_an_answer_that_would_be_too_long_is_refused(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    message = refused(http.post(f"/index/docs/{path}", json=body), 413, "too_large")
    assert f"{MOST_ANSWER:,}" in message


def test_what_fits_is_sent_whatever_else_is_near(http: httpx.Client) -> None:
    body = {"type": "range", "vector": [0] * D, "radius": 1e6, "k": 5, "include": ["document"]}
    assert len(done(http.post("/index/docs/specialized_search", json=body))["results"]) == 5
    n_fitting = MOST_ANSWER // (NUMBER_BYTES * D + DOCUMENT + SPARE)
    body = {"vector": [0] * D, "k": n_fitting, "include": ["vector"]}
    assert len(done(http.post("/index/docs/search", json=body))["results"]) == n_fitting


def test_the_client_goes_through_short_pages(address: tuple[str, str], http: httpx.Client) -> None:
    with faissbase.connect(address[0], api_key=address[1]) as db:
        docs = db.get_collection("docs")
        assert [record.id for record in docs.get(include_vectors=True)] == [f"r{i}" for i in range(N)]
        with pytest.raises(faissbase.InvalidInputError, match="ask for less"):
            docs.search([0.0] * D, N)


# ---- metadata ---------------------------------------------------------------------------------------


@pytest.fixture
def record(http: httpx.Client, request: pytest.FixtureRequest) -> str:
    """The path of an index that holds ``a``, with metadata of 100 bytes."""
    name = f"m{abs(hash(request.node.name)) % 10**9}"
    done(http.post("/index", json={"name": name, "dimension": 1, "metric": "l2"}), 201)
    stored = [{"id": id, "values": [1], "metadata": {"p0": "v" * 91}} for id in ("a", "b")]
    done(http.post(f"/index/{name}/vectors", json={"vectors": stored}))
    return f"/index/{name}/vectors"


def metadata_of(http: httpx.Client, record: str, id: str = "a") -> Any:
    return done(http.get(f"{record}/{id}"))["metadata"]


def test_metadata_may_not_grow_too_long_by_one_update_after_another(http: httpx.Client, record: str) -> None:
    statuses = []
    for i in range(1, 20):
        body = {"ids": ["a"], "metadatas": [{f"p{i}": "w" * 50}]}
        statuses.append(http.post(f"{record}/update", json=body).status_code)
    assert statuses[:3] == [200] * 3
    assert set(statuses[3:]) == {413}
    assert len(orjson.dumps(metadata_of(http, record))) <= MOST_METADATA


def test_an_update_that_is_refused_for_one_record_changes_none(http: httpx.Client, record: str) -> None:
    before = [metadata_of(http, record, id) for id in ("a", "b")]
    body = {"ids": ["b", "a"], "metadatas": [{"x": 1}, {"x": "w" * 250}]}
    assert "'a'" in refused(http.post(f"{record}/update", json=body), 413, "too_large")
    assert [metadata_of(http, record, id) for id in ("a", "b")] == before
    body = {"ids": ["a"], "metadatas": [{"x": "w" * 250}], "replace": True}
    assert done(http.post(f"{record}/update", json=body)) == {"updated": 1}


def test_updates_at_once_do_not_pass_the_bound_together(http: httpx.Client, record: str) -> None:
    def update(i: int) -> int:
        body = {"ids": ["a"], "metadatas": [{f"q{i}": "w" * 100}]}
        return http.post(f"{record}/update", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(update, range(8)))
    assert sorted(statuses) == [200] + [413] * 7
    assert len(orjson.dumps(metadata_of(http, record))) <= MOST_METADATA


def test_a_folder_has_no_bounds(tmp_path: Path) -> None:
    with faissbase.connect(tmp_path) as db:
        docs = db.create_collection("docs", 1, "l2")
        docs.add(["a"], [[1]], [{"x": "v" * 60_000}])
        docs.update(["a"], [{"y": "w" * 60_000}])
        assert len(docs.get(["a"])[0].metadata["y"]) == 60_000
