"""Arrow bodies: the same records and answers as with JSON, and nothing that is damaged does harm."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard
from tests.e2e.server.arrow_bodies import ARROW, HEADERS, damaged, records, stream_of, vector_column
from tests.e2e.server.running import Running, done, made, new_key, refused

import faissbase

N, D = 30, 4
N_DAMAGED = 60
MOST_BYTES, MOST_ROWS = 100_000, 500
PUT = "/index/docs/vectors"
SEARCH = "/index/docs/search"
V = np.eye(2, D, dtype=np.float32)
ASKED = {"k": 5, "filter": {"n": {"$gt": 3}}, "recall": 1.0, "include": ["metadata", "document", "vector"]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that takes small bodies."""
    options = ("--max-body-bytes", MOST_BYTES, "--max-vectors", MOST_ROWS, "--max-metadata-bytes", 100)
    with Running(made(tmp_path_factory.mktemp("arrow") / "data"), *options) as running:
        yield running
        assert "traceback" not in "".join(running.lines).lower()
        assert running.stop() == 0


@pytest.fixture(scope="module")
def client(running: Running) -> Iterator[httpx.Client]:
    _, key = new_key(running.folder, "acme", "admin")
    with running.client(key) as client:
        yield client


@pytest.fixture
def http(client: httpx.Client) -> Iterator[httpx.Client]:
    """A client of a server with the empty index ``docs``."""
    done(client.post("/index", json={"name": "docs", "dimension": D, "metric": "l2"}), 201)
    yield client
    done(client.delete("/index/docs"), 204)


def stored(http: httpx.Client) -> Any:
    return done(http.post(f"{PUT}/get", json={"filter": {}, "include_vectors": True, "limit": 100}))[
        "vectors"
    ]


def n_stored(http: httpx.Client) -> int:
    return int(done(http.get("/index/docs/ntotal"))["ntotal"])


def as_json(table: Any) -> dict[str, Any]:
    rows = [
        {"id": row["id"], "values": row["vector"], "document": row["document"]}
        | {"metadata": orjson.loads(row["metadata"] or b"{}")}
        for row in table.to_pylist()
    ]
    return {"vectors": rows}


# ---- storing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_rows", [None, 7])
def test_records_are_stored_as_from_json(http: httpx.Client, batch_rows: int | None) -> None:
    table = records(N, D)
    body = stream_of(table, batch_rows=batch_rows)
    assert done(http.post(PUT, content=body, headers=HEADERS)) == {"upserted": N}
    mine = stored(http)
    done(http.post("/index/docs/reset"))
    done(http.post(PUT, json=as_json(table)))
    assert mine == stored(http)
    assert len(mine) == N


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", pa.array([f"r{i} é" for i in range(N)], pa.large_string())),
        ("document", pa.nulls(N)),
        ("document", None),
        ("metadata", None),
        ("metadata", pa.nulls(N)),
        ("metadata", pa.array([b'{"n": 1}'] * N, pa.large_binary())),
        ("metadata", pa.array([b'{"n": 1}'] * N, pa.binary())),
        ("metadata", pa.array(['{"n": 1}'] * N, pa.large_string())),
    ],
)
def test_columns_may_be_of_several_types(http: httpx.Client, column: str, values: Any) -> None:
    body = stream_of(records(N, D, **{column: values}))
    assert done(http.post(PUT, content=body, headers=HEADERS)) == {"upserted": N}
    first = stored(http)[1]
    assert first["id"] == "r1 é"
    if column == "metadata":
        assert first["metadata"] == ({"n": 1} if values is not None and values.null_count == 0 else {})


@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("as_list", [None, pa.list_, pa.large_list])
def test_vectors_may_be_of_several_types(http: httpx.Client, kind: str, as_list: Any) -> None:
    vectors = np.arange(1, 3 * D + 1).reshape(3, D).astype(kind)
    column = vector_column(vectors)
    if as_list is not None:
        column = column.cast(as_list(column.type.value_type))
    done(http.post(PUT, content=stream_of(records(3, D, vector=column)), headers=HEADERS))
    assert [record["values"] for record in stored(http)] == vectors.tolist()


def test_metadata_may_be_a_struct(http: httpx.Client) -> None:
    objects = [{"a": 1, "b": "x", "c": [1.5, None], "d": {"e": True}}, None, {"b": "y"}]
    table = records(3, D, metadata=pa.array(objects))
    done(http.post(PUT, content=stream_of(table), headers=HEADERS))
    empty = {"a": None, "c": None, "d": None}
    assert [record["metadata"] for record in stored(http)] == [objects[0], {}, {"b": "y", **empty}]


@pytest.mark.parametrize("n", [0, 1])
def test_few_records_are_stored_too(http: httpx.Client, n: int) -> None:
    table = records(1, D).slice(0, n)
    assert done(http.post(PUT, content=stream_of(table), headers=HEADERS)) == {"upserted": n}


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_an_arrow_body_may_come_packed(http: httpx.Client, encoding: str, pack: Any) -> None:
    body = pack(stream_of(records(N, D)))
    headers = {**HEADERS, "content-encoding": encoding}
    assert done(http.post(PUT, content=body, headers=headers)) == {"upserted": N}


def test_add_refuses_what_exists_and_a_key_gives_its_answer_again(http: httpx.Client) -> None:
    body, headers = stream_of(records(N, D)), {**HEADERS, "idempotency-key": "once"}
    for _ in range(2):
        answer = http.post(PUT, params={"mode": "add"}, content=body, headers=headers)
        assert done(answer) == {"upserted": N}
    other = stream_of(records(N + 1, D))
    refused(http.post(PUT, params={"mode": "add"}, content=other, headers=HEADERS), 409, "already_exists")
    assert n_stored(http) == N


def with_row(kind: Any, values: list[Any], row: int, value: Any) -> Any:
    return pa.array([*values[:row], value, *values[row + 1 :]], kind)


VECTORS: list[Any] = np.ones((N, D)).tolist()
IDS: list[Any] = [f"r{i}" for i in range(N)]
OBJECTS: list[Any] = ["{}"] * N
FIXED = pa.list_(pa.float32(), D)
LISTS = pa.list_(pa.float64())
WRONG_RECORDS = [
    ({"id": with_row(pa.string(), IDS, 20, None)}, "column 'id', row 20 is null"),
    ({"id": with_row(pa.string(), IDS, 20, "r3")}, "'r3' is repeated"),
    ({"id": with_row(pa.string(), IDS, 20, "")}, "position 20"),
    ({"id": pa.array(range(N))}, "column 'id' cannot be int64"),
    ({"id": pa.array(IDS).dictionary_encode()}, "got a dictionary"),
    ({"id": pa.array(IDS, pa.string_view())}, "column 'id' cannot be string_view"),
    ({"id": None}, "column 'id' is missing"),
    ({"vector": None}, "column 'vector' is missing"),
    ({"vector": with_row(FIXED, VECTORS, 20, None)}, "column 'vector', row 20 is null"),
    ({"vector": with_row(FIXED, VECTORS, 20, [1, 2, None, 3])}, "column 'vector', row 20 holds a null"),
    ({"vector": with_row(FIXED, VECTORS, 20, [1, 2, np.nan, 3])}, "row 20 holds nan at position 2"),
    ({"vector": with_row(LISTS, VECTORS, 20, [1, 2, 1e300, 3])}, r"row 20 holds 1e\+300"),
    ({"vector": with_row(LISTS, VECTORS, 20, [1.0])}, "column 'vector', row 20: expected 4 values, got 1"),
    ({"vector": vector_column(np.ones((N, D + 1)))}, "column 'vector', row 0: expected 4 values, got 5"),
    ({"vector": vector_column(np.ones((N, D), np.int32))}, "column 'vector' cannot be fixed_size_list"),
    ({"metadata": with_row(pa.string(), OBJECTS, 20, "[1]")}, "metadata of row 20 must be an object"),
    ({"metadata": with_row(pa.string(), OBJECTS, 20, "{")}, "metadata of row 20"),
    ({"metadata": with_row(pa.string(), OBJECTS, 20, '{"$a": 1}')}, "metadata of row 20"),
    ({"metadata": pa.array([{"a": 1.0}] * (N - 1) + [{"a": np.nan}])}, f"metadata of row {N - 1} holds nan"),
    ({"metadata": pa.array([1] * N)}, "column 'metadata' cannot be int64"),
    ({"metadata": pa.array([{"a": b"x"}] * N)}, "column 'metadata' cannot be struct"),
    ({"metadata": pa.array([{"a": [None]}] * N)}, "column 'metadata' cannot be struct"),
    ({"document": pa.array([1] * N)}, "column 'document' cannot be int64"),
    ({"extra": pa.array(IDS)}, "unknown column 'extra'"),
]


@pytest.mark.parametrize(("columns", "told"), WRONG_RECORDS)
def test_wrong_columns_are_told_and_none_is_stored(
    http: httpx.Client, columns: dict[str, Any], told: str
) -> None:
    body = stream_of(records(N, D, **columns), batch_rows=7)
    message = refused(http.post(PUT, content=body, headers=HEADERS), 422, "invalid_input")
    assert re.search(told, message), message
    assert n_stored(http) == 0


def test_a_column_that_comes_twice_is_refused(http: httpx.Client) -> None:
    table = records(N, D)
    twice = table.append_column("id", table["id"])
    assert "twice" in refused(http.post(PUT, content=stream_of(twice), headers=HEADERS), 422, "invalid_input")


# ---- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        stream_of(records(MOST_ROWS + 1, D), batch_rows=100),
        stream_of(records(1, D, metadata=pa.array([f'{{"x": "{"y" * 100}"}}']))),
        stream_of(records(1, D, metadata=pa.array([{"x": "y" * 100}]))),
        stream_of(records(1, D, document=pa.array(["x" * MOST_BYTES]))),
        stream_of(records(1, D).replace_schema_metadata({"x": "y" * (1 << 20)})),
    ],
)
def test_more_than_the_limits_is_too_large(http: httpx.Client, body: bytes) -> None:
    refused(http.post(PUT, content=body, headers=HEADERS), 413, "too_large")
    assert n_stored(http) == 0


def test_what_unpacks_to_too_much_is_refused(http: httpx.Client) -> None:
    bomb = stream_of(records(1, D, document=pa.array(["x" * 10_000_000])))
    headers = {**HEADERS, "content-encoding": "zstd"}
    refused(http.post(PUT, content=zstandard.compress(bomb), headers=headers), 413, "too_large")
    for compression in ("zstd", "lz4"):
        small = stream_of(records(1, D, document=pa.array(["x" * 10_000_000])), compression=compression)
        assert len(small) < MOST_BYTES
        assert "Content-Encoding" in refused(
            http.post(PUT, content=small, headers=HEADERS), 422, "invalid_input"
        )


def test_the_old_metadata_version_is_refused(http: httpx.Client) -> None:
    body = stream_of(records(1, D), metadata_version=pa.ipc.MetadataVersion.V4)
    refused(http.post(PUT, content=body, headers=HEADERS), 422, "invalid_input")


# ---- damage -----------------------------------------------------------------------------------------

WHOLE = stream_of(records(N, D), batch_rows=12)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        WHOLE[:-8],
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        WHOLE + b"\0",
        WHOLE + WHOLE,
        b"ARROW1\0\0" + WHOLE,
        WHOLE[8:],
        b"\xff\xff\xff\xff\x00\x00\x00\x00",
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" + WHOLE[8:],
    ],
)
def test_what_is_no_stream_is_malformed(http: httpx.Client, body: bytes) -> None:
    for path in (PUT, SEARCH):
        refused(http.post(path, content=body, headers=HEADERS), 400, "malformed")


STRUCTS = stream_of(records(N, D, metadata=pa.array([{"a": [i], "b": {"c": "x" * i}} for i in range(N)])))
QUERIES = stream_of(pa.table({"vector": vector_column(np.ones((N, D)))}))


@pytest.mark.parametrize(
    ("path", "body"), [(PUT, WHOLE), (PUT, STRUCTS), (SEARCH, QUERIES)], ids=["records", "structs", "queries"]
)
def test_a_damaged_stream_is_refused_or_served(http: httpx.Client, path: str, body: bytes) -> None:
    seen = set()
    for each in damaged(body, N_DAMAGED * 3, seed=len(body)):
        answer = http.post(path, content=each, headers=HEADERS)
        assert answer.status_code in (200, 400, 413, 422), answer.text
        seen.add(answer.status_code)
    assert {200, 400} <= seen
    assert done(http.post(path, content=body, headers=HEADERS))


# ---- searching --------------------------------------------------------------------------------------


def queries(vectors: Any, **asked: Any) -> bytes:
    table = pa.table({"vector": vector_column(vectors)})
    return stream_of(table.replace_schema_metadata({"search": orjson.dumps(asked)}))


def test_a_search_answers_as_in_json(http: httpx.Client) -> None:
    done(http.post(PUT, content=WHOLE, headers=HEADERS))
    expected = done(http.post(SEARCH, json={"vectors": V.tolist(), **ASKED}))["results"]
    body = queries(V, **ASKED)
    assert done(http.post(SEARCH, content=body, headers=HEADERS))["results"] == expected
    answer = http.post(SEARCH, content=body, headers={**HEADERS, "accept": f"text/plain, {ARROW};q=0.5"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, ARROW)
    table = pa.ipc.open_stream(answer.content).read_all()
    kinds = [pa.int32(), pa.string(), pa.float32(), pa.float32(), pa.string(), pa.string(), FIXED]
    assert table.schema.types == kinds
    rows = table.to_pylist()
    flat = [{"query": query, **hit} for query, hits in enumerate(expected) for hit in hits]
    assert len(flat) == 10
    for row, hit in zip(rows, flat, strict=True):
        assert (row["query"], row["id"], row["distance"]) == (hit["query"], hit["id"], hit["distance"])
        assert row["score"] == np.float32(hit["score"])
        assert (orjson.loads(row["metadata"]), row["document"]) == (hit["metadata"], hit["document"])
        assert row["vector"] == hit["values"]


def test_a_search_brings_what_is_asked_for(http: httpx.Client) -> None:
    for asked, names in (({}, ["metadata"]), ({"include": []}, [])):
        headers = {**HEADERS, "accept": ARROW}
        answer = http.post(SEARCH, content=queries(V, **asked), headers=headers)
        table = pa.ipc.open_stream(answer.content).read_all()
        assert table.schema.names == ["query", "id", "score", "distance", *names]
        assert len(table) == 0
    none = stream_of(pa.table({"vector": vector_column(V)}).slice(0, 0))
    assert done(http.post(SEARCH, content=none, headers=HEADERS)) == {"results": []}


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"k": 0}, 422),
        ({"k": 100_000}, 413),
        ({"nprobe": 100_000}, 413),
        ({"recall": 2}, 422),
        ({"nonsense": 1}, 422),
        ({"text": "x"}, 422),
        ({"vector": [1, 2, 3, 4]}, 422),
        ({"explain": True}, 422),
        ({"filter": {"$near": 1}}, 422),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    http: httpx.Client, asked: dict[str, Any], status: int
) -> None:
    code = {403: "access", 413: "too_large", 422: "invalid_input"}[status]
    refused(http.post(SEARCH, content=queries(V, **asked), headers=HEADERS), status, code)


def test_wrong_queries_are_told(http: httpx.Client) -> None:
    wrong = V.copy()
    wrong[1, 2] = np.inf
    message = refused(http.post(SEARCH, content=queries(wrong), headers=HEADERS), 422, "invalid_input")
    assert "row 1 holds inf" in message
    body = stream_of(pa.table({"vector": vector_column(V), "id": ["a", "b"]}))
    refused(http.post(SEARCH, content=body, headers=HEADERS), 422, "invalid_input")
    body = queries(np.ones((MOST_ROWS + 1, D)))
    refused(http.post(SEARCH, content=body, headers=HEADERS), 413, "too_large")
    body = stream_of(pa.table({"vector": vector_column(V)}).replace_schema_metadata({"search": "{"}))
    refused(http.post(SEARCH, content=body, headers=HEADERS), 400, "malformed")


# ---- with the client, and without pyarrow -----------------------------------------------------------


def fill_and_search(url: str, key: str, n: int) -> tuple[Any, bool]:
    """What a client finds among n records it has stored, and whether it still sends Arrow."""
    vectors = np.random.default_rng(1).standard_normal((n, 64)).astype(np.float32)
    with faissbase.connect(url, api_key=key) as db:
        docs = db.get_or_create_collection("many", 64)
        assert docs.upsert([f"r{i}" for i in range(n)], vectors, [{"n": i} for i in range(n)]) == n
        assert docs.ntotal == n
        found = docs.search(vectors, 3)
        return found, db._connection.forms.arrow


def test_a_server_without_pyarrow_takes_json(tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('not here')")
    folder = made(tmp_path / "data")
    _, key = new_key(folder, "acme", "admin")
    with Running(folder, cwd=tmp_path, is_forked=False) as running, running.client(key) as http:
        done(http.post("/index", json={"name": "docs", "dimension": D}), 201)
        for path in (PUT, SEARCH):
            answer = http.post(path, content=WHOLE, headers=HEADERS)
            message = refused(answer, 415, "unsupported_media_type")
            assert 'pip install "faissbase[arrow]"' in message
        found, sends_arrow = fill_and_search(running.url, key, 1500)
        assert [hits[0].id for hits in found] == [f"r{i}" for i in range(1500)]
        assert not sends_arrow
        assert running.stop() == 0


@pytest.mark.parametrize("option", [("--max-body-bytes", 1_000_000), ("--max-vectors", 2000)])
def test_a_server_that_takes_less_at_once_gets_json(tmp_path: Path, option: tuple[str, int]) -> None:
    folder = made(tmp_path / "data")
    _, key = new_key(folder, "acme", "admin")
    vectors = np.random.default_rng(1).standard_normal((5000, 64)).astype(np.float32)
    with Running(folder, *option) as running, faissbase.connect(running.url, api_key=key) as db:
        docs = db.create_collection("many", 64)
        assert docs.add([f"r{i}" for i in range(5000)], vectors) == 5000
        assert docs.ntotal == 5000
        assert db._connection.forms.arrow  # it may take smaller pieces
        assert running.stop() == 0


def test_other_routes_take_no_arrow(http: httpx.Client) -> None:
    for path in ("/index", f"{PUT}/get", "/index/docs/train"):
        refused(http.post(path, content=WHOLE, headers=HEADERS), 415, "unsupported_media_type")
