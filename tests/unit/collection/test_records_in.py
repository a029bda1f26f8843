"""Ids, metadata and documents as callers hand them in; a call that is refused changes nothing."""

from __future__ import annotations

import datetime
import uuid
from collections import UserDict
from collections.abc import Iterator
from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.collection.inputs import encode_metadatas


@pytest.fixture(scope="module")
def collection() -> Iterator[LocalCollection]:
    with faissbase.connect(":memory:") as db:
        yield db.create_collection("docs", 2, "l2")


@pytest.fixture
def docs(collection: LocalCollection) -> LocalCollection:
    collection.delete([record.id for record in collection.get()])
    collection.add(["kept"], [[1, 2]], [{"n": 1}], ["as it was"])
    return collection


@pytest.fixture(autouse=True)
def _nothing_changed(docs: LocalCollection, request: pytest.FixtureRequest) -> Any:
    yield
    if "refused" in request.node.name:
        [record] = docs.get()
        assert (record.id, record.metadata, record.document) == ("kept", {"n": 1}, "as it was")


@pytest.mark.parametrize(
    "ids",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        np.array(["a", "b"], object),
        pa.array(["a", "b"]),
        pa.chunked_array([["a"], ["b"]]),
        pd.Series(["a", "b"]),
        pd.Index(["a", "b"]),
        (id for id in "ab"),
        {"a": 1, "b": 2}.keys(),
        [np.str_("a"), np.str_("b")],
    ],
)
def test_ids_come_in_any_sequence(docs: LocalCollection, ids: Any) -> None:
    assert docs.upsert(ids, [[1, 0], [0, 1]]) == 2
    assert [record.id for record in docs.get(["a", "b"])] == ["a", "b"]


@pytest.mark.parametrize(
    "id", ["x", "é", "日本", "🙂", " ", "\t\n", "a" * 1024, "é" * 512, "0", "\x7f", "\ufeff"]
)
def test_an_id_is_kept_to_the_letter(docs: LocalCollection, id: str) -> None:
    docs.upsert(id, [3, 4])
    assert [record.id for record in docs.get(id)] == [id]
    assert docs.search([3, 4], 1)[0].id == id
    assert docs.delete(id) == 1


def test_ids_that_look_alike_are_different(docs: LocalCollection) -> None:
    ids = ["é", "e\u0301", "a", "A", "a ", "1", "1.0"]
    docs.upsert(ids, [[i, 0] for i in range(len(ids))])
    assert [record.id for record in docs.get(ids)] == ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", ""], "id '' at position 1 must be 1 to 1024 bytes"),
        (["a", "b\0c"], r"id 'b\\x00c' at position 1"),
        (["a", "\ud800"], r"id '\\ud800' at position 1"),
        (["a", "x" * 1025], "at position 1 must be 1 to 1024 bytes"),
        (["a", "é" * 513], "at position 1 must be 1 to 1024 bytes"),
        (["a", 7], "ids must be strings, got int 7 at position 1"),
        (["a", None], "ids must be strings, got NoneType None at position 1"),
        (["a", b"b"], "ids must be strings, got bytes b'b' at position 1"),
        (["a", "a"], "id 'a' is repeated within one call"),
        (np.array([1, 2]), "ids must be strings, got int 1 at position 0"),
        (["a", "b", "c"], "expected 3 vectors, one for each id, got 2"),
        (["a"], "expected 1 vectors, one for each id, got 2"),
        (None, "ids must be a list, got NoneType"),
        (5, "ids must be a list, got int"),
        (b"ab", "ids must be a list, got bytes"),
        ({"a": 1, "b": 2}, "ids must be a list, got dict"),
    ],
)
def test_refused_ids_are_named(docs: LocalCollection, ids: Any, message: str) -> None:
    for write in (docs.add, docs.upsert):
        with pytest.raises(faissbase.InvalidInputError, match=message):
            write(ids, [[1, 0], [0, 1]])


@pytest.mark.parametrize("ids", [["b", ""], ["b", 7], ["b", "b"], "x" * 1025, 5])
def test_refused_ids_are_refused_by_every_call(docs: LocalCollection, ids: Any) -> None:
    for call in (docs.get, docs.delete, lambda ids: docs.update(ids, documents=["x", "y"])):
        with pytest.raises(faissbase.InvalidInputError):
            call(ids)


def test_refused_ids_in_a_set(docs: LocalCollection) -> None:
    with pytest.raises(faissbase.InvalidInputError):
        docs.upsert({"kept"}, [[1, 2]], [{"n": 1}], ["as it was"])


@pytest.mark.parametrize(
    ("metadata", "stored"),
    [
        ({}, {}),
        (None, {}),
        ({"a": None, "b": [None, "null"]}, {"a": None, "b": [None, "null"]}),
        ({"a": [1, 2.5, True, "x", {"b": []}]}, {"a": [1, 2.5, True, "x", {"b": []}]}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"d": datetime.date(2024, 2, 29)}, {"d": "2024-02-29"}),
        ({"t": datetime.datetime(2024, 1, 2, 3, 4, 5)}, {"t": "2024-01-02T03:04:05"}),
        (
            {"t": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc)},
            {"t": "2024-01-02T00:00:00+00:00"},
        ),
        (
            {"t": pd.Timestamp("2024-01-02 03:04:05.000006789", tz="UTC")},
            {"t": "2024-01-02T03:04:05.000006+00:00"},
        ),
        ({"u": uuid.UUID(int=1)}, {"u": "00000000-0000-0000-0000-000000000001"}),
        ({"i": np.int64(-3), "f": np.float32(0.5), "b": np.bool_(True)}, {"i": -3, "f": 0.5, "b": True}),
        ({"x": np.array([[1, 2], [3, 4]])}, {"x": [[1, 2], [3, 4]]}),
        ({"s": np.str_("x")}, {"s": "x"}),
        ({"big": 2**64 - 1, "small": -(2**63)}, {"big": 2**64 - 1, "small": -(2**63)}),
        ({"a": {"$b": 1}}, {"a": {"$b": 1}}),
        ({"a$": 1, "": 2, "é": "\0"}, {"a$": 1, "": 2, "é": "\0"}),
        (UserDict({"a": 1}), {"a": 1}),
        ({"text": "x" * 1_000_000}, {"text": "x" * 1_000_000}),
    ],
)
def test_metadata_comes_back_as_json_has_it(docs: LocalCollection, metadata: Any, stored: Any) -> None:
    docs.upsert(["a"], [[1, 0]], [metadata])
    [record] = docs.get("a")
    assert record.metadata == stored
    assert docs.search([1, 0], 1)[0].metadata == stored


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"n": float("nan")}, "metadata of row 1 holds nan"),
        ({"n": float("inf")}, "metadata of row 1 holds inf"),
        ({"n": [0, {"m": (1, float("-inf"))}]}, "metadata of row 1 holds -inf"),
        ({"n": np.float32("nan")}, "metadata of row 1 holds nan"),
        ({"n": np.array([[1, np.nan]])}, "metadata of row 1 holds nan"),
        ({"text": "x" * (1 << 20)}, "metadata of row 1 takes 1048587 bytes, at most 1048576 are allowed"),
        ({"$set": 1}, r"metadata of row 1: field '\$set' starts with \$"),
        ({1: "x"}, "metadata of row 1 cannot be stored as JSON"),
        ({"d": Decimal("1")}, "metadata of row 1 cannot be stored as JSON"),
        ({"d": {1, 2}}, "metadata of row 1 cannot be stored as JSON"),
        ({"d": b"x"}, "metadata of row 1 cannot be stored as JSON"),
        ({"d": 2**64}, "metadata of row 1 cannot be stored as JSON: field 'd' is 18446744073709551616: "),
        (
            {"n": 1, "d": {"x": pd.NaT}},
            "metadata of row 1 cannot be stored as JSON: field 'd' is {'x': NaT}: ",
        ),
        ({"n": Enum("Levels", {"NONE": float("nan")}).NONE}, "metadata of row 1 holds nan"),  # type: ignore[attr-defined]
        ({"d": 1j}, "metadata of row 1 cannot be stored as JSON"),
        ({"d": "\ud800"}, "metadata of row 1 cannot be stored as JSON"),
        ([("a", 1)], r"metadata of row 1 must be an object \(dict\), got list"),
        ("text", r"metadata of row 1 must be an object \(dict\), got str"),
    ],
)
def test_refused_metadata_is_named(docs: LocalCollection, metadata: Any, message: str) -> None:
    with pytest.raises(faissbase.InvalidInputError, match=message):
        docs.upsert(["a", "b"], [[1, 0], [0, 1]], [{}, metadata])
    docs.update("kept", metadatas={})
    with pytest.raises(faissbase.InvalidInputError, match=message.replace("row 1", "row 0")):
        docs.update(["kept"], metadatas=[metadata])


@pytest.mark.parametrize("row", [0, 127, 128, 299])
def test_refused_metadata_is_found_among_many(docs: LocalCollection, row: int) -> None:
    wrong: list[Any] = [{"n": float("nan")}, {"text": "x" * (1 << 20)}, {"$set": 1}, {"d": {1}}, {1: "x"}]
    for metadata in wrong:
        metadatas = [{"n": None, "price": "$5"} for _ in range(300)]
        metadatas[row] = metadata
        with pytest.raises(faissbase.InvalidInputError, match=rf"^metadata of row {row}\b"):
            docs.add([str(i) for i in range(300)], np.ones((300, 2)), metadatas)
        assert [record.id for record in docs.get()] == ["kept"]


TEXTS = st.text() | st.sampled_from(
    ['",', '","', "},{", "[", "null", "$", "\\", '"', "0" * 32, ',"' + "f" * 32 + '",']
)


@given(st.lists(st.dictionaries(st.text(), TEXTS | st.none() | st.lists(TEXTS)), min_size=1, max_size=300))
def test_metadata_of_many_is_that_of_each(metadatas: list[dict[str, Any]]) -> None:
    metadatas = [{key.lstrip("$"): value for key, value in each.items()} for each in metadatas]
    together = encode_metadatas(metadatas, len(metadatas))
    assert together == [encode_metadatas([each], 1)[0] for each in metadatas]
    assert [orjson.loads(text) for text in together] == metadatas


def test_refused_update_that_makes_metadata_too_large(docs: LocalCollection) -> None:
    docs.upsert(["a"], [[0, 0]], [{"x": "x" * 600_000}])
    with pytest.raises(faissbase.InvalidInputError, match="at most 1048576 are allowed"):
        docs.update(["kept", "a"], metadatas=[{"n": 2}, {"y": "y" * 600_000}])
    assert docs.delete("a") == 1


def test_metadata_nested_too_deep_is_refused(docs: LocalCollection) -> None:
    nested: Any = 1
    for _ in range(2000):
        nested = [nested]
    with pytest.raises(faissbase.InvalidInputError, match="row 0 cannot be stored as JSON"):
        docs.upsert("a", [1, 2], {"n": nested})


def test_one_metadata_object_and_one_document_serve_one_id(docs: LocalCollection) -> None:
    docs.upsert("a", [1, 2], {"n": 5}, "alone")
    docs.update("a", {"m": 6})
    [record] = docs.get("a")
    assert (record.metadata, record.document) == ({"n": 5, "m": 6}, "alone")


@pytest.mark.parametrize(
    ("metadatas", "documents", "message"),
    [
        ([{}], None, "expected 2 metadatas, one for each id, got 1"),
        ({}, None, "expected 2 metadatas, one for each id, got 1"),
        (None, ["x"], "expected 2 documents, one for each id, got 1"),
        (None, "x", "expected 2 documents, one for each id, got 1"),
        (None, ["x", 5], "document of row 1 must be text, got int"),
        (None, ["x", b"y"], "document of row 1 must be text, got bytes"),
        (None, ["x", "\ud800"], "document of row 1 must be valid text"),
        (None, ["x", "y" * ((16 << 20) + 1)], "document of row 1 must be valid text of 16777216 bytes"),
        (5, None, "metadatas must be a list, got int"),
    ],
)
def test_refused_lists_are_named(docs: LocalCollection, metadatas: Any, documents: Any, message: str) -> None:
    with pytest.raises(faissbase.InvalidInputError, match=message):
        docs.upsert(["a", "b"], [[1, 0], [0, 1]], metadatas, documents)


@pytest.mark.parametrize("document", ["", "\0 nul \0", "日本 🙂", "x" * 100_000, None])
def test_a_document_is_kept_to_the_letter(docs: LocalCollection, document: str | None) -> None:
    docs.upsert("a", [[1, 0]], documents=[document])
    assert docs.get("a")[0].document == document


def test_nothing_is_written_for_no_ids(docs: LocalCollection) -> None:
    assert docs.delete([]) == 0
    assert docs.get([]) == []


@pytest.mark.parametrize("vectors", [[], np.zeros((0, 2), np.float32)])
def test_an_empty_batch_is_no_error(docs: LocalCollection, vectors: Any) -> None:
    assert docs.upsert([], vectors) == docs.add([], vectors, [], []) == 0
    assert docs.update([], metadatas=[]) == 0


def test_update_takes_any_sequence(docs: LocalCollection) -> None:
    assert docs.update(("kept",), metadatas=({"n": 2},), documents=("new",), vectors=((3, 4),)) == 1
    [record] = docs.get("kept", include_vectors=True)
    assert record.vector is not None
    assert (record.metadata, record.document, record.vector.tolist()) == ({"n": 2}, "new", [3, 4])


def test_update_takes_an_iterator(docs: LocalCollection) -> None:
    docs.update(["kept"], metadatas=(metadata for metadata in [{"n": 2}]))
    assert docs.get("kept")[0].metadata == {"n": 2}


def test_refused_update_of_nothing(docs: LocalCollection) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="needs metadatas, documents or vectors"):
        docs.update(["kept"])
    with pytest.raises(faissbase.NotFoundError, match="no record with id 'x' and 1 more"):
        docs.update(["kept", "x", "y"], metadatas=[{"n": 9}] * 3)


def test_refused_add_of_one_known_id_adds_none(docs: LocalCollection) -> None:
    with pytest.raises(faissbase.AlreadyExistsError, match="id 'kept' exists already"):
        docs.add(["new", "kept"], [[1, 0], [0, 1]])


def test_refused_deletes_say_what_they_need(docs: LocalCollection) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="either ids or where"):
        docs.delete()
    with pytest.raises(faissbase.InvalidInputError, match="either ids or where"):
        docs.delete(["kept"], where={"n": 1})
    everythings: list[dict[str, Any]] = [{}, {"$and": [{}]}]
    for everything in everythings:
        with pytest.raises(faissbase.InvalidInputError, match=r"use reset\(\)"):
            docs.delete(where=everything)
