"""Searches that wait together: which are run as one, and that each is answered as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from faissbase.database.database import Database, connect
from faissbase.errors import FaissbaseError
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Key
from faissbase.server.metrics import Metrics
from faissbase.server.operations import Call
from faissbase.server.searches import likeness, most_together, search, search_together
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants
from faissbase.wire import Search

KEY = Key("k", "acme", "", frozenset(("read",)), None, 0.0)
OTHER_KEY = Key("k2", "acme", "", frozenset(("read",)), None, 0.0)


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("tenants") / "data"
    connect(folder).close()
    with Database(folder, read_only=False, durability="relaxed", tenant="acme") as db:
        for name in ("docs", "more"):
            ids = [str(i) for i in range(50)]
            db.create_collection(name, 2, "l2").add(
                ids, [[i, i % 7] for i in range(50)], [{"n": i % 3} for i in range(50)]
            )
    found = Tenants(folder, folder_databases(folder))
    yield found
    found.close()


def call(tenants: Tenants, index: str = "docs", key: Key = KEY, **asked: Any) -> Call:
    keys: Any = None  # a search looks at none
    return Call(key, tenants, keys, Settings(), Metrics(), {"index": index}, {}, Search(**asked))


def test_searches_that_differ_in_their_vector_alone_are_alike(tenants: Tenants) -> None:
    first = likeness(call(tenants, vector=[1, 2], k=3, filter={"n": 1}))
    assert first is not None
    assert first == likeness(call(tenants, vector=[5, 6], k=3, filter={"n": 1}))


@pytest.mark.parametrize(
    "asked",
    [
        {"k": 4},
        {"filter": {"n": 2}},
        {"filter": {"n": True}},
        {"filter": {"n": 1.0}},
        {"filter": None},
        {"recall": 0.5},
        {"nprobe": 1},
        {"include": []},
        {"vector": [1, 2, 3]},
        {"index": "more"},
        {"key": OTHER_KEY},
        {"tenant_id": "acme"},
    ],
    ids=str,
)
def test_searches_that_differ_in_more_are_not_alike(tenants: Tenants, asked: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"vector": [1, 2], "k": 3, "filter": {"n": 1}}
    assert likeness(call(tenants, **plain)) != likeness(call(tenants, **{**plain, **asked}))


@pytest.mark.parametrize(
    "asked", [{"text": "a"}, {"vectors": [[1, 2]]}, {"vector": [1, 2], "explain": True}, {}], ids=str
)
def test_other_searches_are_run_alone(tenants: Tenants, asked: dict[str, Any]) -> None:
    assert likeness(call(tenants, **asked)) is None


@pytest.mark.parametrize("asked", [{"k": 2**70}, {"filter": {"n": 2**70}}, {"nprobe": -(2**70)}], ids=str)
def test_any_number_may_be_compared(tenants: Tenants, asked: dict[str, Any]) -> None:
    likeness(call(tenants, vector=[1, 2], **asked))


@pytest.mark.parametrize(
    "asked", [{}, {"k": 3, "filter": {"n": 1}}, {"k": 60, "include": ["vector", "metadata"]}], ids=str
)
def test_together_they_find_what_each_finds_alone(tenants: Tenants, asked: dict[str, Any]) -> None:
    calls = [call(tenants, vector=[i, 2.5], **asked) for i in range(9)]
    together = [msgspec.json.encode(answer) for answer in search_together(calls)]
    assert together == [msgspec.json.encode(search(each)) for each in calls]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    folder = tmp_path_factory.mktemp("indexed") / "data"
    connect(folder).close()
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20_000, 32)).astype(np.float32)
    with Database(folder, read_only=False, durability="relaxed", tenant="acme") as db:
        for name, kind in (("graph", "HNSW16,SQ8"), ("lists", "IVF64,Flat"), ("flat", "Flat")):
            docs = db.create_collection(name, 32, "l2", kind)
            docs.add([str(i) for i in range(len(vectors))], vectors)
            docs.optimize()
    found = Tenants(folder, folder_databases(folder))
    yield found
    found.close()


@pytest.mark.parametrize(
    ("index", "asked", "most"),
    [
        ("graph", {"ef_search": 16}, 8),
        ("graph", {"ef_search": 16, "filter": {"n": 1}}, None),
        ("graph", {"recall": 1.0}, None),
        ("lists", {"nprobe": 2}, None),
        ("flat", {}, None),
    ],
    ids=str,
)
def test_few_are_run_as_one_where_a_graph_answers_each(
    indexed: Tenants, index: str, asked: dict[str, Any], most: int | None
) -> None:
    assert most_together(call(indexed, index, vector=[0.5] * 32, **asked)) == most


@pytest.mark.parametrize("asked", [{"k": 0}, {"k": 10**9}, {"nprobe": 10**9}, {"filter": {"$x": 1}}], ids=str)
def test_what_is_refused_alone_is_refused_together(tenants: Tenants, asked: dict[str, Any]) -> None:
    calls = [call(tenants, vector=[i, 2.5], **asked) for i in range(2)]
    with pytest.raises(FaissbaseError) as alone:
        search(calls[0])
    with pytest.raises(type(alone.value), match=str(alone.value)[:10]):
        search_together(calls)
