"""What nobody should send: every answer is an error of the one shape, and the server goes on."""

from __future__ import annotations

import gzip
import operator
import re
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec
import orjson
import pytest
import zstandard
from tests.e2e.server.hostile import GOOD, J, Target, holds_its_own, ids_of
from tests.e2e.server.running import done, path_of, refused

from faissbase.server.app import OPERATIONS
from faissbase.server.operations import Operation
from faissbase.wire import RecordIn, Search

FOR_PEOPLE = ("faissbase serves ", "its console is at ", "no API key is needed yet")
DEEP = 100_000
WITH_BODY = [op for op in OPERATIONS if op.body is not None]
ODD_NAMES = [
    "%2E%2E",
    "%2E",
    "a%2Fb",
    "%00",
    "a%00b",
    "%01%1F%7F",
    "%0A",
    "%FF",
    "%ED%A0%80",
    "%C3%BC",
    "%F0%9F%98%80",
]
LONG_NAMES = ["x" * 129, "x" * 2000, "x" * 20_000, "%2F" * 5000]


# ---- bodies that are no bodies ----------------------------------------------------------------------

MALFORMED = [
    b"{",
    b"}",
    b'{"vector": [0, 1}',
    b"\x00",
    b"\xff\xfe{\x00}\x00",
    b'{"vector": [0, 1]} x',
    b"'a'",
    b'{"k": 01}',
]
MALFORMED += [
    b'{"text": "\xff"}',
    b'{"text": "\\ud800"}',
    b'{"text": "\x01"}',
    b"NaN",
    b"\xef\xbb\xbf{}",
    b"{'k': 1}",
    b"{,}",
]


@pytest.mark.parametrize("body", MALFORMED, ids=repr)
def test_what_is_no_json_is_malformed(target: Target, body: bytes) -> None:
    refused(target.http.post("/index/docs/search", content=body, headers=J), 400, "malformed")


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null", b"true", b"[{}]", b"-0.0"], ids=repr)
def test_a_body_is_an_object(target: Target, body: bytes) -> None:
    for op in WITH_BODY:
        answer = target.http.request(op.methods[0], spare(op), content=body, headers=J)
        refused(answer, 422, "invalid_input")


DEEP_BODIES = {
    "arrays": b"[" * DEEP,
    "closed arrays": b"[" * DEEP + b"]" * DEEP,
    "objects": b'{"filter":' * DEEP,
    "filter": b'{"vector":[0,1],"filter":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "filter of arrays": b'{"vector":[0,1],"filter":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}}",
    "vector": b'{"vector":' + b"[" * DEEP + b"]" * DEEP + b"}",
}


@pytest.mark.parametrize("name", DEEP_BODIES)
def test_deep_json_is_refused(target: Target, name: str) -> None:
    answer = target.http.post("/index/docs/search", content=DEEP_BODIES[name], headers=J)
    assert answer.status_code in (400, 422)
    assert holds_its_own(answer)


@pytest.mark.parametrize("depth", [40, 200, 300, 900, 1100, DEEP])
def test_deep_metadata_and_filters_are_stored_and_asked_or_refused(target: Target, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    record = b'{"vectors":[{"id":"deep","values":[0,1],"metadata":{"a":' + nested + b"}}]}"
    answer = target.http.post("/index/spare/vectors", content=record, headers=J)
    assert holds_its_own(answer)
    assert answer.is_success == (depth < 250)
    not_not = b'{"vector":[0,1],"filter":' + b'{"$not":' * depth + b'{"a":1}' + b"}" * depth + b"}"
    assert holds_its_own(target.http.post("/index/spare/search", content=not_not, headers=J))
    done(target.http.post("/index/spare/search", json={"vector": [0, 1], "filter": {"a": 1}}))


# ---- values of the wrong kind -----------------------------------------------------------------------

WRONG: list[Any] = [None, True, -1, 1.5, 2**64, "", "\x00", [], {}, [[]], [None], ["x"], [{}]]
WRONG += [{"a": None}, {"a": {"$gt": []}}, [[0, 1]], ["a", "a"], "ü" * 2000]


def base_of(op: Operation) -> dict[str, Any]:
    bodies: dict[str, dict[str, Any]] = {
        "CreateIndex": {"name": "docs", "dimension": 2},
        "PutVectors": {"vectors": [{"id": "w", "values": [0, 1]}]},
        "UpdateVectors": {"ids": ["a"]},
        "GetVectors": {"ids": ["a"]},
        "DeleteVectors": {"ids": ["w"]},
        "Search": {"vector": [0, 1]},
        "SpecializedSearch": {"type": "by_id", "id": "a"},
        "CreateKey": {"scopes": ["read"]},
    }
    return bodies.get(op.body.__name__, {})


def spare(op: Operation) -> str:
    return path_of(op, index="spare", vector="a", key="0" * 12)


def every_field() -> Iterator[tuple[Operation, str]]:
    for op in WITH_BODY:
        for name in get_type_hints(op.body):
            yield op, name


@pytest.mark.parametrize(("op", "name"), list(every_field()), ids=lambda each: getattr(each, "path", each))
def test_a_value_of_the_wrong_kind_is_refused_or_served(target: Target, op: Operation, name: str) -> None:
    refusals = 0
    for value in WRONG:
        body = encoded({**base_of(op), name: value})
        answer = target.http.request(op.methods[0], spare(op), content=body, headers=J)
        assert holds_its_own(answer)
        refusals += answer.status_code >= 400
    assert refusals > len(WRONG) // 2


def encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


@pytest.mark.parametrize("name", [each.name for each in msgspec.structs.fields(RecordIn)])
def test_a_wrong_value_within_a_record_is_refused_or_stored(target: Target, name: str) -> None:
    for value in WRONG:
        record = {"id": "w", "values": [0, 1], name: value}
        answer = target.http.post("/index/spare/vectors", content=encoded({"vectors": [record]}), headers=J)
        assert holds_its_own(answer)


@pytest.mark.parametrize("name", [each.name for each in msgspec.structs.fields(Search)])
def test_a_wrong_value_within_a_batch_is_refused_or_served(target: Target, name: str) -> None:
    for value in WRONG:
        searches = [{"vector": [0, 1], name: value}]
        body = encoded({"type": "batch", "searches": searches})
        assert holds_its_own(target.http.post("/index/spare/specialized_search", content=body, headers=J))


@pytest.mark.parametrize("op", WITH_BODY, ids=lambda op: op.path)
def test_a_field_that_nobody_knows_is_refused(target: Target, op: Operation) -> None:
    answer = target.http.request(op.methods[0], spare(op), json={**base_of(op), "nosuch": 1})
    assert "nosuch" in refused(answer, 422, "invalid_input")


@pytest.mark.parametrize(
    "word", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000, "-" + "9" * 5000]
)
def test_a_number_that_is_none_is_refused_wherever_it_stands(target: Target, word: str) -> None:
    search, put = "/index/docs/search", "/index/docs/vectors"
    asked = [
        (search, '{"vector":[0,%s]}'),
        (search, '{"vector":[0,1],"k":%s}'),
        (search, '{"vector":[0,1],"nprobe":%s}'),
        (search, '{"vector":[0,1],"recall":%s}'),
        (search, '{"vector":[0,1],"filter":{"a":%s}}'),
        (search, '{"vector":[0,1],"filter":{"a":{"$gt":%s}}}'),
        (put, '{"vectors":[{"id":"n","values":[0,%s]}]}'),
        (put, '{"vectors":[{"id":"n","values":[0,1],"metadata":{"a":%s}}]}'),
        ("/index/docs/specialized_search", '{"type":"range","vector":[0,1],"radius":%s}'),
        ("/index", '{"name":"n","dimension":%s}'),
        ("/keys", '{"scopes":["read"],"expires_in_s":%s}'),
    ]
    for path, body in asked:
        answer = target.http.post(path, content=(body % word).encode(), headers=J)
        assert answer.status_code in (400, 413, 422), body
        assert holds_its_own(answer)


# ---- values that make no sense ----------------------------------------------------------------------

SENSELESS = [
    ({"vector": [0, 1], "k": 0}, 422, "k must be"),
    ({"vector": [0, 1], "k": -1}, 422, "k must be"),
    ({"vector": [0, 1], "k": 10**9}, 413, "k is 1,000,000,000"),
    ({"vectors": [[0, 1]], "k": 0}, 422, "k must be"),
    ({"text": "a", "k": 0}, 422, "k must be"),
    ({"text": "a", "k": 10**9}, 413, "k is"),
    ({"vector": [0, 1], "explain": True, "k": 0}, 422, "k must be"),
    ({"vector": [0, 1], "nprobe": 10**9}, 413, "nprobe is"),
    ({"vector": [0, 1], "ef_search": 10**9}, 413, "ef_search is"),
    ({"vector": [0, 1], "rerank": 10**9}, 413, "rerank is"),
    ({"vector": [0, 1], "nprobe": 0}, 422, "nprobe"),
    ({"vector": [0, 1], "nprobe": -5}, 422, "nprobe"),
    ({"vector": [0, 1], "recall": 0}, 422, "recall"),
    ({"vector": [0, 1], "recall": 1.01}, 422, "recall"),
    ({"vector": [0, 1, 2]}, 422, "vector: expected 2 values, got 3"),
    ({"vector": []}, 422, "vector: expected 2 values, got 0"),
    ({"vectors": [[0, 1], [1]]}, 422, "vectors[1]: expected 2 values, got 1"),
    ({"vectors": [[0, 1]], "vector": [0, 1]}, 422, "not both"),
    ({"vectors": [[0, 1]], "text": "a"}, 422, "text goes with one vector"),
    ({"text": "a", "recall": 0.9}, 422, "recall"),
    ({"text": "a", "vector": [1, 2, 3]}, 422, "d=2, got d=3"),
    ({}, 422, "what to search for"),
    ({"vector": [0, 1e300]}, 422, "row 0"),
    ({"vectors": [[0, 1], [0, 1e39]]}, 422, "row 1"),
    ({"vector": [0, 1], "include": ["metadata", "secrets"]}, 422, "include[1]"),
    ({"vector": [0, 1], "filter": {"a": {"$near": 1}}}, 422, "$near"),
    ({"vector": [0, 1], "filter": {"$where": "1"}}, 422, "$where"),
    ({"vectors": [[0, 1]] * 10_001}, 413, "10,001 vectors"),
]


@pytest.mark.parametrize(("body", "status", "words"), SENSELESS, ids=lambda each: str(each)[:60])
def test_a_search_that_makes_no_sense_is_told_why(
    target: Target, body: dict[str, Any], status: int, words: str
) -> None:
    code = "too_large" if status == 413 else "invalid_input"
    assert words in refused(target.http.post("/index/docs/search", json=body), status, code)


def vectors(*values: list[float]) -> list[dict[str, Any]]:
    return [{"id": f"v{i}", "values": row} for i, row in enumerate(values)]


SENSELESS_PUTS = [
    (vectors([0, 1], [1, 2, 3]), 422, "vectors[1] ('v1'): expected 2 values, got 3"),
    (vectors([0, 1], []), 422, "vectors[1] ('v1'): expected 2 values, got 0"),
    (vectors([0, 1], [0, 1e300]), 422, "row 1"),
    (vectors([0, 1]) * 2, 422, "'v0' is repeated"),
    ([{"id": "", "values": [0, 1]}], 422, "1 to 1024 bytes"),
    ([{"id": "a\x00b", "values": [0, 1]}], 422, "1 to 1024 bytes"),
    ([{"id": "x" * 1025, "values": [0, 1]}], 422, "1 to 1024 bytes"),
    ([{"id": "ü" * 600, "values": [0, 1]}], 422, "1 to 1024 bytes"),
    ([{"id": "m", "values": [0, 1], "metadata": []}], 422, "must be an object"),
    ([{"id": "m", "values": [0, 1], "metadata": {"$a": 1}}], 422, "starts with $"),
    ([{"id": "m", "values": [0, 1], "metadata": {"a": "x" * 70_000}}], 413, "at most 65,536"),
    (vectors(*[[0.0, 1.0]] * 10_001), 413, "10,001 vectors"),
]


@pytest.mark.parametrize(("given", "status", "words"), SENSELESS_PUTS, ids=lambda each: str(each)[:60])
def test_records_that_make_no_sense_are_told_why_and_none_is_stored(
    target: Target, given: list[dict[str, Any]], status: int, words: str
) -> None:
    code = "too_large" if status == 413 else "invalid_input"
    assert words in refused(target.http.post("/index/docs/vectors", json={"vectors": given}), status, code)
    assert done(target.http.get("/index/docs/ntotal")) == {"ntotal": 1}


SENSELESS_INDEXES = [
    {"name": ""},
    {"name": ".."},
    {"name": "a/b"},
    {"name": "a b"},
    {"name": "ü"},
    {"name": "a\n"},
    {"name": "x" * 129},
    {"dimension": 0},
    {"dimension": -3},
    {"dimension": 65_536},
    {"dimension": 10**30},
    {"metric": "hamming"},
    {"index_type": "nosuch"},
    {"index_type": "IVF999999999,Flat"},
    {"index_type": "PQ3x8" * 1000},
]


@pytest.mark.parametrize("wrong", SENSELESS_INDEXES, ids=lambda each: str(each)[:60])
def test_an_index_that_makes_no_sense_is_not_made(target: Target, wrong: dict[str, Any]) -> None:
    before = done(target.http.get("/index"))
    body = {"name": "never", "dimension": 8, **wrong}
    refused(target.http.post("/index", json=body), 422, "invalid_input")
    assert done(target.http.get("/index")) == before


SPECIAL = [
    {"type": "range", "vector": [0, 1]},
    {"type": "range", "radius": 1},
    {"type": "range", "vector": [0, 1, 2], "radius": 1},
    {"type": "range", "vector": [0, 1], "radius": 1e300},
    {"type": "range", "vector": [0, 1], "radius": 1, "id": "a"},
    {"type": "by_id"},
    {"type": "by_id", "id": "a", "positive": ["a"]},
    {"type": "recommend"},
    {"type": "recommend", "positive": []},
    {"type": "recommend", "positive": ["a", "a"]},
    {"type": "recommend", "positive": ["a"], "negative": ["a"]},
    {"type": "batch"},
    {"type": "batch", "searches": [{"vectors": [[0, 1]]}]},
    {"type": "batch", "searches": [{"vector": [0, 1]}, {}]},
    {"type": "nosuch"},
]


@pytest.mark.parametrize("body", SPECIAL, ids=str)
def test_a_special_search_that_makes_no_sense_is_refused(target: Target, body: dict[str, Any]) -> None:
    refused(target.http.post("/index/docs/specialized_search", json=body), 422, "invalid_input")


@pytest.mark.parametrize("k", [0, -1, -2])
def test_a_special_search_for_no_hits_is_refused(target: Target, k: int) -> None:
    done(target.http.post("/index/docs/vectors", json={"vectors": vectors([5, 5], [6, 6], [7, 7])}))
    try:
        for asked in (
            {"type": "range", "vector": [0, 1], "radius": 1e9},
            {"type": "recommend", "positive": ["v0", "v1", "v2"]},
        ):
            answer = target.http.post("/index/docs/specialized_search", json={**asked, "k": k})
            assert "k" in refused(answer, 422, "invalid_input")
    finally:
        done(target.http.post("/index/docs/vectors/delete", json={"ids": ["v0", "v1", "v2"]}))


def test_a_recommendation_by_too_many_records_is_refused(target: Target) -> None:
    body = {"type": "recommend", "positive": ["a", *(f"q{i}" for i in range(20_000))]}
    refused(target.http.post("/index/docs/specialized_search", json=body), 413, "too_large")


# ---- query strings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPERATIONS, ids=lambda op: f"{op.methods[0]} {op.path}")
def test_an_unknown_parameter_is_refused(target: Target, op: Operation) -> None:
    for query in ("nosuch=1", "Limit=1", "%00=1", "&=", "limit=1&nosuch=1"):
        body = None if op.body is None else base_of(op)
        answer = target.http.request(op.methods[0], f"{spare(op)}?{query}", json=body)
        refused(answer, 422, "invalid_input")


@pytest.mark.parametrize(
    "value", ["0", "-1", "", "1.0", "1e2", "0x10", "ten", "٣", "1_0", " 1", "1 ", "10001", "9" * 5000, "\x00"]
)
def test_a_limit_is_a_whole_number_within_bounds(target: Target, value: str) -> None:
    answer = target.http.get("/index/docs/vectors", params={"limit": value})
    assert "limit" in refused(answer, 422, "invalid_input")


@pytest.mark.parametrize("value", ["0000000001" + "9" * 6, "0000000001" + "9" * 5000])
def test_a_limit_with_zeros_before_it_is_within_bounds(frail: Target, value: str) -> None:
    refused(frail.http.get("/index/docs/vectors", params={"limit": value}), 422, "invalid_input")


@pytest.mark.parametrize(
    "value", ["", "x", "-", "--", "0-0-0", "-1-0", "0", "\x00", "0-" + "9" * 5000, "0x0-0", "😀"]
)
def test_a_cursor_is_one_that_was_given(target: Target, value: str) -> None:
    answer = target.http.get("/index/docs/vectors", params={"cursor": value})
    assert holds_its_own(answer)
    assert answer.status_code in (409, 422)


@pytest.mark.parametrize("value", ["0-99", "0-" + "9" * 19, "0-" + "9" * 30, "0--9", "99-0"])
def test_a_cursor_that_leads_nowhere_ends_the_listing_or_is_refused(target: Target, value: str) -> None:
    assert holds_its_own(target.http.get("/index/docs/vectors", params={"cursor": value}))


@pytest.mark.parametrize(
    "query", ["mode=replace", "mode=", "mode=ADD", "include_vectors=1", "include_vectors=True"]
)
def test_a_word_is_one_of_those_there_are(target: Target, query: str) -> None:
    is_put = query.startswith("mode")
    body: dict[str, Any] | None = {"vectors": []} if is_put else None
    answer = target.http.request("POST" if is_put else "GET", f"/index/docs/vectors?{query}", json=body)
    assert "must be one of" in refused(answer, 422, "invalid_input")


# ---- paths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ODD_NAMES, *LONG_NAMES], ids=lambda name: name[:20])
def test_a_name_that_is_none_finds_nothing(target: Target, name: str) -> None:
    for method, path in (
        ("GET", f"/index/{name}"),
        ("DELETE", f"/index/{name}"),
        ("GET", f"/index/{name}/stats"),
        ("POST", f"/index/{name}/reset"),
        ("POST", f"/index/{name}/search"),
        ("GET", f"/index/{name}/vectors/a"),
        ("DELETE", f"/keys/{name}"),
    ):
        refused(target.http.request(method, path), 404, "not_found")


@pytest.mark.parametrize("name", [*ODD_NAMES, *LONG_NAMES, ""], ids=lambda name: name[:20])
def test_an_id_that_is_none_finds_nothing(target: Target, name: str) -> None:
    for method in ("GET", "DELETE"):
        answer = target.http.request(method, f"/index/docs/vectors/{name}")
        assert answer.status_code in (404, 422)
        assert holds_its_own(answer)
    assert done(target.http.get("/index/docs/ntotal")) == {"ntotal": 1}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "//",
        "/nosuch",
        "/index/",
        "/index//",
        "/index//stats",
        "/Index",
        "/index/docs/",
        "/index/docs/vectors/a/../b%2E%2E",
    ],
)
def test_a_path_that_is_none_is_not_found(target: Target, path: str) -> None:
    refused(target.http.get(f"{target.running.url}/v1{path}"), 404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_a_method_that_a_path_does_not_take_is_refused(target: Target, method: str) -> None:
    answer = target.http.request(method, "/index/docs")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "DELETE, GET, HEAD"


# ---- heads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["a b", "a\tb", "ü", "x" * 65, "a;b", "<script>", "../a", "{}"])
def test_an_odd_request_id_is_replaced_by_ours(target: Target, sent: str) -> None:
    answer = target.http.get("/index/nosuch", headers=[(b"x-request-id", sent.encode("latin-1"))])
    refused(answer, 404, "not_found")
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_plain_request_id_comes_back(target: Target) -> None:
    answer = target.http.get("/index/nosuch", headers={"x-request-id": "Trace_1.2-3"})
    refused(answer, 404, "not_found")
    assert answer.headers.get_list("x-request-id") == ["Trace_1.2-3"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/xml", "json"],
)
def test_a_body_of_another_type_is_refused(target: Target, kind: str) -> None:
    answer = target.http.post(
        "/index/docs/search", content=b'{"vector":[0,1]}', headers={"content-type": kind}
    )
    refused(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["application/json", "APPLICATION/JSON", "application/json; charset=utf-8", " application/json "]
)
def test_json_is_known_however_it_is_written(target: Target, kind: str) -> None:
    answer = target.http.post(
        "/index/docs/search", content=b'{"vector":[0,1]}', headers={"content-type": kind.strip()}
    )
    assert len(done(answer)["results"]) == 1


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "gzip,gzip", "x-gzip"])
def test_an_unknown_encoding_is_refused(target: Target, encoding: str) -> None:
    headers = {**J, "content-encoding": encoding}
    answer = target.http.post("/index/docs/search", content=b'{"vector":[0,1]}', headers=headers)
    refused(answer, 415, "unsupported_media_type")


HALF = operator.itemgetter(slice(0, 8))
LESS = operator.itemgetter(slice(0, -1))


def MORE(body: bytes) -> bytes:
    return body + b"more"


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", GOOD),
        ("gzip", gzip.compress(GOOD, mtime=0)[:-1]),
        ("gzip", gzip.compress(GOOD, mtime=0) + b"more"),
        ("gzip", b"\x1f\x8b" + b"\xff" * 50),
        ("zstd", GOOD),
        ("zstd", b"\x28\xb5\x2f\xfd" + b"\xff" * 50),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_malformed(target: Target, encoding: str, body: bytes) -> None:
    headers = {**J, "content-encoding": encoding}
    refused(target.http.post("/index/docs/search", content=body, headers=headers), 400, "malformed")


@pytest.mark.parametrize("change", [HALF, LESS, MORE], ids=["half", "less", "more"])
def test_a_zstd_body_is_whole(target: Target, change: Any) -> None:
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(GOOD)
    headers = {**J, "content-encoding": "zstd"}
    answer = target.http.post("/index/docs/search", content=change(packed), headers=headers)
    refused(answer, 400, "malformed")


# ---- what is left of it -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("train", {"vectors": [[0, 1], [1]]}),
        ("vectors/update", {"ids": ["a", "b"], "vectors": [[0, 1], [1]]}),
    ],
)
def test_rows_of_unequal_length_are_refused(frail: Target, path: str, body: dict[str, Any]) -> None:
    refused(frail.http.post(f"/index/spare/{path}", json=body), 422, "invalid_input")


def test_metadata_of_an_update_may_hold_any_number(frail: Target) -> None:
    body = msgspec.json.encode({"ids": ["a"], "metadatas": [{"n": 2**70}]})
    answer = frail.http.post("/index/spare/vectors/update", content=body, headers=J)
    assert holds_its_own(answer)


def test_after_all_of_it_both_servers_answer_and_their_logs_hold_no_traceback(
    target: Target, small: Target
) -> None:
    for each in (target, small):
        assert ids_of(each) == ["a"]
        lines = [line for line in each.running.lines if not line.startswith(FOR_PEOPLE)]
        assert each.running.logged() == [orjson.loads(line) for line in lines]
        assert [line for line in lines if "traceback" in line.lower()] == []
