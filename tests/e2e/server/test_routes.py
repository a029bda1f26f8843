"""Every route over real records: what comes back by HTTP is what the library says of the same folder."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import orjson
import pytest
import zstandard
from tests.e2e.server.running import Running, done, new_key, refused

from faissbase.collection.collection import LocalCollection
from faissbase.database.database import Database
from faissbase.demo.dataset import DemoQueries
from faissbase.types import Batch, Hit, Record

TENANT = "acme"
N_PUT = 500
GAMES = {"section": "games"}
SMALL = {"$and": [{"installed_size": {"$lt": 100}}, {"section": {"$ne": "games"}}]}
FILTERS = [None, GAMES, SMALL, {"section": "nosuch"}]
ODD_IDS = [
    "a/b",
    "a//b/",
    "../x",
    ".",
    "a b",
    " ",
    "100%",
    "%2F",
    "a?b#c",
    "ünï",
    "日本",
    "😀",
    "a+b",
    "get",
    '"',
]
J = {"content-type": "application/json"}


@dataclass(frozen=True)
class Shop:
    """A server that holds `records` as the index ``packages``, and the library on the same folder."""

    http: httpx.Client
    library: LocalCollection
    records: Batch
    queries: DemoQueries


def as_json(records: Batch, rows: Sequence[int]) -> list[dict[str, Any]]:
    assert records.ids is not None
    assert records.metadatas is not None
    assert records.documents is not None
    return [
        {
            "id": records.ids[row],
            "values": records.vectors[row].tolist(),
            "metadata": records.metadatas[row],
            "document": records.documents[row],
        }
        for row in rows
    ]


@pytest.fixture(scope="module")
def http(server: Running) -> Iterator[httpx.Client]:
    """A client of the tenant that may write."""
    _, key = new_key(server.folder, TENANT, "write")
    with server.client(key) as client:
        yield client


@pytest.fixture(scope="module")
def shop(server: Running, http: httpx.Client, records: Batch, queries: DemoQueries) -> Iterator[Shop]:
    n, d = records.vectors.shape
    done(http.post("/index", json={"name": "packages", "dimension": d, "metric": "cosine"}), 201)
    for start in range(0, n, N_PUT):
        batch = as_json(records, range(start, min(n, start + N_PUT)))
        body = orjson.dumps({"vectors": batch})
        stored = done(http.post("/index/packages/vectors", content=body, headers=J))
        assert stored == {"upserted": len(batch)}
    with Database(server.folder, read_only=True, durability="full", tenant=TENANT) as db:
        yield Shop(http, db.get_collection("packages"), records, queries)


@pytest.fixture
def own(http: httpx.Client, counter: Iterator[int]) -> str:
    """The name of a new index of d=2, by l2, holding ``a``, ``b`` and ``c`` on a line."""
    name = f"own-{next(counter)}"
    done(http.post("/index", json={"name": name, "dimension": 2, "metric": "l2"}), 201)
    put(http, name, {"a": [0, 0], "b": [1, 0], "c": [3, 0]})
    return name


@pytest.fixture(scope="module")
def counter() -> Iterator[int]:
    return itertools.count()


def put(http: httpx.Client, index: str, vectors: dict[str, list[float]], **query: str) -> httpx.Response:
    body = {
        "vectors": [{"id": id, "values": values, "metadata": {"id": id}} for id, values in vectors.items()]
    }
    return http.post(f"/index/{index}/vectors", json=body, params=query)


def ids_of(found: Any) -> list[str]:
    return [each["id"] for each in found]


def stored_ids(http: httpx.Client, index: str) -> list[str]:
    return ids_of(done(http.get(f"/index/{index}/vectors"))["vectors"])


# ---- indexes ----------------------------------------------------------------------------------------


def test_an_index_is_found_by_id_and_by_name(shop: Shop) -> None:
    info = done(shop.http.get("/index/packages"))
    assert info["ntotal"] == len(shop.library)
    assert (info["name"], info["tenant_id"], info["metric"]) == ("packages", TENANT, "cosine")
    assert done(shop.http.get(f"/index/{info['id']}")) == info
    assert info in done(shop.http.get("/index"))["indexes"]
    by_id = done(shop.http.post(f"/index/{info['id']}/search", json={"text": "game"}))
    assert by_id == done(shop.http.post("/index/packages/search", json={"text": "game"}))


def test_a_name_is_given_once(http: httpx.Client, own: str) -> None:
    refused(http.post("/index", json={"name": own, "dimension": 2}), 409, "already_exists")


def test_a_deleted_index_is_gone_by_name_and_by_id(http: httpx.Client, own: str) -> None:
    info = done(http.get(f"/index/{own}"))
    assert http.delete(f"/index/{own}").status_code == 204
    for path in (own, info["id"]):
        for request in (http.get, http.delete):
            refused(request(f"/index/{path}"), 404, "not_found")
        refused(http.get(f"/index/{path}/vectors/a"), 404, "not_found")
        refused(http.post(f"/index/{path}/search", json={"vector": [0, 0]}), 404, "not_found")
        refused(put(http, path, {"a": [0, 0]}), 404, "not_found")
    assert own not in [each["name"] for each in done(http.get("/index"))["indexes"]]


def test_an_index_made_anew_holds_nothing_of_the_one_before(http: httpx.Client, own: str) -> None:
    assert http.delete(f"/index/{own}").status_code == 204
    done(http.post("/index", json={"name": own, "dimension": 2, "metric": "l2"}), 201)
    assert stored_ids(http, own) == []
    done(put(http, own, {"z": [7, 7]}))
    assert ids_of(done(http.post(f"/index/{own}/search", json={"vector": [0, 0]}))["results"]) == ["z"]


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["by the server", "by another process"])
def test_an_index_made_anew_may_have_another_dimension(
    server: Running, http: httpx.Client, own: str, is_elsewhere: bool
) -> None:
    assert stored_ids(http, own) == ["a", "b", "c"]
    if is_elsewhere:
        with Database(server.folder, read_only=False, durability="full", tenant=TENANT) as db:
            db.delete_collection(own)
            db.create_collection(own, 3, "l2")
    else:
        assert http.delete(f"/index/{own}").status_code == 204
        done(http.post("/index", json={"name": own, "dimension": 3, "metric": "l2"}), 201)
    done(put(http, own, {"z": [7, 7, 7]}))
    assert ids_of(done(http.post(f"/index/{own}/search", json={"vector": [0, 0, 0]}))["results"]) == ["z"]


# ---- records ----------------------------------------------------------------------------------------


def same_record(found: dict[str, Any], record: Record) -> bool:
    vector = None if record.vector is None else record.vector.tolist()
    expected = (record.id, record.metadata, record.document, vector)
    return (found["id"], found["metadata"], found.get("document"), found.get("values")) == expected


def test_records_come_back_as_they_were_given(shop: Shop) -> None:
    for row, given in enumerate(as_json(shop.records, range(0, 1500, 300))):
        found = done(shop.http.get(f"/index/packages/vectors/{quote(given['id'], safe='')}"))
        assert found["metadata"] == given["metadata"], row
        assert found["document"] == given["document"], row
        np.testing.assert_allclose(found["values"], given["values"], rtol=1e-6)


def test_records_are_read_by_ids_in_their_order(shop: Shop) -> None:
    assert shop.records.ids is not None
    asked = [shop.records.ids[700], "nosuch", shop.records.ids[3], shop.records.ids[1200]]
    for vectors in (False, True):
        body = {"ids": asked, "include_vectors": vectors}
        found = done(shop.http.post("/index/packages/vectors/get", json=body))["vectors"]
        expected = shop.library.get(asked, include_vectors=vectors)
        assert ids_of(found) == [asked[0], asked[2], asked[3]]
        assert all(map(same_record, found, expected))


@pytest.mark.parametrize("where", [GAMES, SMALL, {}], ids=str)
def test_records_are_read_by_filter(shop: Shop, where: dict[str, Any]) -> None:
    found = done(shop.http.post("/index/packages/vectors/get", json={"filter": where, "limit": 10_000}))
    expected = shop.library.get(where=where)
    assert len(expected) > 10
    assert len(found["vectors"]) == len(expected)
    assert all(map(same_record, found["vectors"], expected))


@pytest.mark.parametrize("where", [None, GAMES, {"section": "nosuch"}], ids=str)
def test_records_that_match_are_counted(shop: Shop, where: dict[str, Any] | None) -> None:
    counted = done(shop.http.post("/index/packages/vectors/count", json={"filter": where}))
    assert counted == {"count": shop.library.count(where)}


def test_a_listing_goes_through_all_records_once(shop: Shop) -> None:
    cursor: str | None = None
    found: list[str] = []
    for limit in itertools.chain([1, 7], itertools.repeat(400)):
        query = {"limit": str(limit)} | ({} if cursor is None else {"cursor": cursor})
        page = done(shop.http.get("/index/packages/vectors", params=query))
        found += ids_of(page["vectors"])
        cursor = page["cursor"]
        if cursor is None:
            break
        assert len(page["vectors"]) == limit
    assert found == shop.records.ids


def test_a_listing_shows_vectors_where_they_are_asked_for(shop: Shop) -> None:
    for word, expected in (("false", False), ("true", True)):
        query = {"limit": "5", "include_vectors": word}
        page = done(shop.http.get("/index/packages/vectors", params=query))
        records = shop.library.scroll(limit=5, include_vectors=expected).records
        assert all(map(same_record, page["vectors"], records))


def test_add_refuses_an_id_that_exists_and_stores_nothing(http: httpx.Client, own: str) -> None:
    message = refused(put(http, own, {"x": [5, 5], "b": [9, 9]}, mode="add"), 409, "already_exists")
    assert "'b'" in message
    assert stored_ids(http, own) == ["a", "b", "c"]
    assert done(http.get(f"/index/{own}/vectors/b"))["values"] == [1, 0]
    assert done(put(http, own, {"x": [5, 5], "y": [9, 9]}, mode="add")) == {"upserted": 2}


def test_upsert_replaces_all_of_a_record(http: httpx.Client, own: str) -> None:
    body = {"vectors": [{"id": "b", "values": [8, 8], "document": "new"}]}
    assert done(http.post(f"/index/{own}/vectors", json=body, params={"mode": "upsert"})) == {"upserted": 1}
    found = done(http.get(f"/index/{own}/vectors/b"))
    assert found == {"id": "b", "metadata": {}, "document": "new", "values": [8, 8]}


def test_update_changes_the_parts_that_are_given(http: httpx.Client, own: str) -> None:
    body: dict[str, Any] = {"ids": ["a", "b"], "metadatas": [{"n": 1}, None], "documents": [None, "text"]}
    assert done(http.post(f"/index/{own}/vectors/update", json=body)) == {"updated": 2}
    found = done(http.post(f"/index/{own}/vectors/get", json={"ids": ["a", "b"], "include_vectors": True}))
    assert found["vectors"] == [
        {"id": "a", "metadata": {"id": "a", "n": 1}, "values": [0, 0]},
        {"id": "b", "metadata": {"id": "b"}, "document": "text", "values": [1, 0]},
    ]
    body = {"ids": ["a"], "metadatas": [{"n": 2}], "vectors": [[4, 4]], "replace": True}
    assert done(http.post(f"/index/{own}/vectors/update", json=body)) == {"updated": 1}
    assert done(http.get(f"/index/{own}/vectors/a")) == {"id": "a", "metadata": {"n": 2}, "values": [4, 4]}
    refused(
        http.post(f"/index/{own}/vectors/update", json={"ids": ["no"], "documents": [""]}), 404, "not_found"
    )


def test_a_batch_with_one_wrong_record_stores_nothing(http: httpx.Client, own: str) -> None:
    message = refused(put(http, own, {"x": [5, 5], "y": [1, 2, 3]}), 422, "invalid_input")
    assert "vectors[1] ('y')" in message
    assert stored_ids(http, own) == ["a", "b", "c"]


def test_records_are_deleted_one_by_one_by_ids_and_by_filter(http: httpx.Client, own: str) -> None:
    done(put(http, own, {"d": [4, 0], "e": [5, 0]}))
    assert done(http.delete(f"/index/{own}/vectors/a")) == {"deleted": 1}
    refused(http.delete(f"/index/{own}/vectors/a"), 404, "not_found")
    assert done(http.post(f"/index/{own}/vectors/delete", json={"ids": ["b", "b2", "c"]})) == {"deleted": 2}
    assert done(http.post(f"/index/{own}/vectors/delete", json={"filter": {"id": "d"}})) == {"deleted": 1}
    assert stored_ids(http, own) == ["e"]
    wrong: list[dict[str, Any]] = [{}, {"ids": ["e"], "filter": {"id": "e"}}, {"filter": {}}]
    for body in wrong:
        refused(http.post(f"/index/{own}/vectors/delete", json=body), 422, "invalid_input")
    assert stored_ids(http, own) == ["e"]


@pytest.mark.parametrize("id", ODD_IDS)
def test_any_id_is_stored_read_and_deleted(http: httpx.Client, own: str, id: str) -> None:
    done(put(http, own, {id: [6, 7]}))
    path = f"/index/{own}/vectors/{quote(id, safe='')}".replace("/.", "/%2E")
    assert done(http.get(path)) == {"id": id, "metadata": {"id": id}, "values": [6, 7]}
    example = {"type": "by_id", "id": id, "k": 1}
    found = done(http.post(f"/index/{own}/specialized_search", json=example))
    assert ids_of(found["results"]) == ["c"]
    assert done(http.delete(path)) == {"deleted": 1}
    assert stored_ids(http, own) == ["a", "b", "c"]


@pytest.mark.parametrize("id", ["a\nb", "b\n", "\n"])
def test_an_id_with_a_line_break_is_no_other(http: httpx.Client, own: str, id: str) -> None:
    done(put(http, own, {id: [6, 7]}))
    path = f"/index/{own}/vectors/{quote(id, safe='')}"
    assert done(http.get(path))["id"] == id
    assert done(http.delete(path)) == {"deleted": 1}
    assert stored_ids(http, own) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.ZstdCompressor().compress)]
)
def test_bodies_may_come_packed(http: httpx.Client, own: str, encoding: str, pack: Any) -> None:
    body = orjson.dumps({"vectors": [{"id": "p", "values": [1, 1], "document": "x" * 100_000}]})
    answer = http.post(
        f"/index/{own}/vectors", content=pack(body), headers=J | {"content-encoding": encoding}
    )
    assert done(answer) == {"upserted": 1}
    assert len(done(http.get(f"/index/{own}/vectors/p"))["document"]) == 100_000


# ---- searches ---------------------------------------------------------------------------------------


def same_hits(found: list[dict[str, Any]], hits: Sequence[Hit]) -> bool:
    scores = [each["score"] for each in found]
    distances = [each["distance"] for each in found]
    return (
        ids_of(found) == [hit.id for hit in hits]
        and [each["metadata"] for each in found] == [hit.metadata for hit in hits]
        and scores == pytest.approx([hit.score for hit in hits], abs=1e-6)
        and distances == pytest.approx([hit.distance for hit in hits], abs=1e-6)
    )


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_search_finds_what_the_library_finds(shop: Shop, where: dict[str, Any] | None) -> None:
    for row in range(8):
        vector = shop.queries.query_vectors[row]
        body = {"vector": vector.tolist(), "k": 7, "filter": where}
        found = done(shop.http.post("/index/packages/search", json=body))
        assert same_hits(found["results"], shop.library.search(vector, 7, where)), row


def test_a_search_of_many_answers_each_in_its_place(shop: Shop) -> None:
    xq = shop.queries.query_vectors[:20]
    body = {"vectors": xq.tolist(), "k": 5, "filter": GAMES}
    found = done(shop.http.post("/index/packages/search", json=body))["results"]
    expected = shop.library.search(xq, 5, GAMES)
    assert all(map(same_hits, found, expected))
    assert done(shop.http.post("/index/packages/search", json={"vectors": []})) == {"results": []}


def test_a_get_with_a_body_is_a_search(shop: Shop) -> None:
    body = {"vector": shop.queries.query_vectors[3].tolist(), "k": 3}
    found = done(shop.http.request("GET", "/index/packages/search", json=body))
    assert found == done(shop.http.post("/index/packages/search", json=body))


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_text_search_finds_what_the_library_finds(shop: Shop, where: dict[str, Any] | None) -> None:
    body = {"text": "puzzle game library", "k": 9, "filter": where}
    found = done(shop.http.post("/index/packages/search", json=body))["results"]
    expected = shop.library.text_search("puzzle game library", 9, where)
    assert same_hits(found, expected)
    assert all(each["distance"] is None for each in found)


@pytest.mark.parametrize("where", FILTERS, ids=str)
def test_a_hybrid_search_finds_what_the_library_finds(shop: Shop, where: dict[str, Any] | None) -> None:
    vector = shop.queries.query_vectors[5]
    text = shop.queries.query_texts[5]
    body = {"text": text, "vector": vector.tolist(), "k": 9, "filter": where}
    found = done(shop.http.post("/index/packages/search", json=body))["results"]
    assert same_hits(found, shop.library.hybrid_search(text, vector, 9, where))


@pytest.mark.parametrize(
    ("include", "fields"),
    [
        ([], set()),
        (["metadata"], {"metadata"}),
        (["document"], {"document"}),
        (["vector"], {"values"}),
        (["vector", "document", "metadata"], {"metadata", "document", "values"}),
    ],
    ids=lambda given: None if isinstance(given, set) else str(given),
)
def test_a_hit_comes_with_what_was_asked_for(shop: Shop, include: list[str], fields: set[str]) -> None:
    vector = shop.queries.query_vectors[1].tolist()
    for asked in ({"vector": vector}, {"text": "game"}, {"vectors": [vector]}):
        answer = done(shop.http.post("/index/packages/search", json={**asked, "k": 3, "include": include}))
        hits = answer["results"][0] if "vectors" in asked else answer["results"]
        assert len(hits) == 3
        assert all(hit.keys() == {"id", "score", "distance", *fields} for hit in hits)
        for hit in hits if fields == {"metadata", "document", "values"} else []:
            [record] = shop.library.get(hit["id"], include_vectors=True)
            assert same_record(hit, record)


def test_explain_tells_the_plan_beside_the_hits(shop: Shop) -> None:
    xq = shop.queries.query_vectors[:2]
    body = {"vector": xq[0].tolist(), "k": 4, "filter": GAMES}
    plain = done(shop.http.post("/index/packages/search", json=body))
    explained = done(shop.http.post("/index/packages/search", json={**body, "explain": True}))
    assert explained["results"] == plain["results"]
    plan = shop.library.explain(xq[0], 4, GAMES).plan
    assert (explained["explain"]["path"], explained["explain"]["n_matching"]) == (plan.path, plan.n_matching)
    assert explained["explain"]["times_ms"].keys() == {"filter", "search", "rows"}
    many = done(shop.http.post("/index/packages/search", json={"vectors": xq.tolist(), "explain": True}))
    assert [len(hits) for hits in many["results"]] == [10, 10]
    assert many["explain"]["n_matching"] == len(shop.library)


def test_a_search_within_a_radius_finds_what_the_library_finds(shop: Shop) -> None:
    vector = shop.queries.query_vectors[2]
    expected = shop.library.range_search(vector, 0.3, SMALL)
    assert len(expected) > 3
    body = {"type": "range", "vector": vector.tolist(), "radius": 0.3, "filter": SMALL}
    found = done(shop.http.post("/index/packages/specialized_search", json=body))["results"]
    assert same_hits(found, expected)
    found = done(shop.http.post("/index/packages/specialized_search", json={**body, "k": 2}))["results"]
    assert same_hits(found, expected[:2])


def test_a_search_by_id_leaves_its_own_record_out(shop: Shop) -> None:
    assert shop.records.ids is not None
    id = shop.records.ids[40]
    body = {"type": "by_id", "id": id, "k": 5}
    found = done(shop.http.post("/index/packages/specialized_search", json=body))["results"]
    expected = shop.library.search(shop.records.vectors[40], 6)
    assert expected[0].id == id
    assert same_hits(found, expected[1:])
    missing = shop.http.post("/index/packages/specialized_search", json={**body, "id": "nosuch"})
    assert "'nosuch'" in refused(missing, 404, "not_found")


def test_a_recommendation_goes_towards_and_away(shop: Shop) -> None:
    assert shop.records.ids is not None
    rows, away = [10, 20], [30]
    ids = [shop.records.ids[row] for row in rows + away]
    body = {"type": "recommend", "positive": ids[:2], "negative": ids[2:], "k": 6, "filter": SMALL}
    found = done(shop.http.post("/index/packages/specialized_search", json=body))["results"]
    towards = shop.records.vectors[rows].mean(axis=0)
    query = 2 * towards - shop.records.vectors[away].mean(axis=0)
    expected = [hit for hit in shop.library.search(query, 9, SMALL) if hit.id not in ids]
    assert same_hits(found, expected[:6])


def test_a_batch_answers_each_search_in_its_place(shop: Shop) -> None:
    vector = shop.queries.query_vectors[4]
    searches: list[dict[str, Any]] = [
        {"vector": vector.tolist(), "k": 2},
        {"text": "game", "k": 3, "filter": GAMES},
        {"vector": vector.tolist(), "k": 1, "filter": GAMES, "include": []},
    ]
    body = {"type": "batch", "searches": searches}
    answers = done(shop.http.post("/index/packages/specialized_search", json=body))["answers"]
    alone = [done(shop.http.post("/index/packages/search", json=search)) for search in searches]
    assert answers == alone


# ---- care -------------------------------------------------------------------------------------------


def test_sizes_are_those_that_the_library_tells(shop: Shop) -> None:
    assert done(shop.http.get("/index/packages/ntotal")) == {"ntotal": len(shop.library)}
    found, expected = done(shop.http.get("/index/packages/stats")), shop.library.stats()
    for name in ("name", "dimension", "metric", "index_type", "ntotal", "slots", "tombstones", "index"):
        assert found[name] == getattr(expected, name)
    assert "path" not in found


def test_a_sound_index_is_verified(shop: Shop) -> None:
    assert done(shop.http.post("/index/packages/verify")) == {
        "ok": True,
        "rows_checked": len(shop.library),
        "problems": [],
    }


def test_optimize_gives_back_what_deleted_records_took(http: httpx.Client, own: str) -> None:
    done(http.delete(f"/index/{own}/vectors/b"))
    assert done(http.get(f"/index/{own}/stats"))["tombstones"] == 1
    done(http.post(f"/index/{own}/optimize"))
    after = done(http.get(f"/index/{own}/stats"))
    assert (after["tombstones"], after["ntotal"]) == (0, 2)
    assert ids_of(done(http.post(f"/index/{own}/search", json={"vector": [0, 0]}))["results"]) == ["a", "c"]


def test_reset_removes_every_record_and_keeps_the_index(http: httpx.Client, own: str) -> None:
    assert done(http.post(f"/index/{own}/reset")) == {"deleted": 3}
    assert done(http.get(f"/index/{own}/ntotal")) == {"ntotal": 0}
    assert done(http.post(f"/index/{own}/search", json={"vector": [0, 0]})) == {"results": []}
    done(put(http, own, {"a": [1, 1]}))
    assert stored_ids(http, own) == ["a"]


def test_a_cursor_from_before_a_reset_is_refused(http: httpx.Client, own: str) -> None:
    cursor = done(http.get(f"/index/{own}/vectors", params={"limit": "1"}))["cursor"]
    done(http.post(f"/index/{own}/reset"))
    done(put(http, own, {"a": [1, 1], "b": [1, 1]}))
    refused(http.get(f"/index/{own}/vectors", params={"cursor": cursor}), 409, "conflict")


def test_a_named_index_is_trained_and_says_so_where_it_cannot_be(http: httpx.Client, own: str) -> None:
    assert done(http.post(f"/index/{own}/train")) == {"ntotal": 3}
    name = f"{own}-ivf"
    body = {"name": name, "dimension": 4, "metric": "l2", "index_type": "IVF16,Flat"}
    done(http.post("/index", json=body), 201)
    refused(http.post(f"/index/{name}/train"), 409, "not_ready")
    rng = np.random.default_rng(0)
    xb = rng.normal(size=(1000, 4)).round(3)
    done(put(http, name, {str(i): row for i, row in enumerate(xb.tolist())}))
    assert done(http.post(f"/index/{name}/train", json={"vectors": xb[:700].tolist()})) == {"ntotal": 1000}
    assert done(http.get(f"/index/{name}/stats"))["index"] == "IVF16,Flat"
    body = {"vector": xb[7].tolist(), "k": 1, "nprobe": 16}
    assert ids_of(done(http.post(f"/index/{name}/search", json=body))["results"]) == ["7"]
