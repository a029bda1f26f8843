"""What a filter means for one metadata object, and what is refused."""

from __future__ import annotations

from collections import OrderedDict
from datetime import date, datetime, timezone
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pandas as pd
import pytest

from faissbase.collection.inputs import encode_metadatas
from faissbase.errors import InvalidInputError
from faissbase.filters.tree import And, Comparison, Everything, Not, Or, _Parser, fields, matches, parse
from faissbase.filters.values import MAX_DEPTH, MAX_ITEMS

BIG = 2**53


class Colour(str, Enum):
    RED = "red"


def holds(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    return matches(parse(where), metadata)


def nested(depth: int, innermost: Any = 1) -> Any:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("where", [None, {}, {"$and": [{}]}, {"$not": {"$not": {}}}])
def test_an_empty_filter_matches_every_record(where: dict[str, Any] | None) -> None:
    assert matches(parse(where), {})
    assert matches(parse(where), {"a": 1})


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"a": 1}, "Comparison(field='a', operator='$eq', text='1')"),
        ({"$and": [{"a": 1}]}, "Comparison(field='a', operator='$eq', text='1')"),
        ({"a": {"$ne": 1}}, "Not(part=Comparison(field='a', operator='$eq', text='1'))"),
        ({"a": {"$neq": 1}}, "Not(part=Comparison(field='a', operator='$eq', text='1'))"),
        ({"a": {"$nin": [1, 2]}}, "Not(part=Comparison(field='a', operator='$in', text='[1,2]'))"),
    ],
)
def test_a_filter_is_written_as_few_kinds_of_node(where: dict[str, Any], expected: str) -> None:
    assert repr(parse(where)) == expected


def test_several_fields_and_operators_must_all_hold() -> None:
    tree = parse({"a": {"$gte": 1, "$lt": 5}, "b": "x"})
    assert isinstance(tree, And)
    assert matches(tree, {"a": 1, "b": "x"})
    assert not matches(tree, {"a": 5, "b": "x"})
    assert not matches(tree, {"a": 1, "b": "y"})


def test_logical_operators_combine_filters() -> None:
    where = {"$or": [{"a": 1}, {"$and": [{"b": 2}, {"$not": {"c": 3}}]}]}
    assert isinstance(parse(where), Or)
    assert holds(where, {"a": 1})
    assert holds(where, {"b": 2})
    assert not holds(where, {"b": 2, "c": 3})


@pytest.mark.parametrize(
    ("value", "operand", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        (True, True, True),
        ("1", 1, False),
        (None, None, True),
        (None, False, False),
        (BIG + 1, float(BIG), False),
        (BIG + 1, BIG + 1, True),
        (float(BIG), BIG, True),
        ([1, 2], [1.0, 2], True),
        ([1, 2], [2, 1], False),
        ([1], [True], False),
        ([], [], True),
        ([1], 1, False),
        ({"x": 1, "y": [True]}, {"y": [True], "x": 1.0}, True),
        ({"x": 1}, {"x": True}, False),
        ({"x": 1, "y": 2}, {"x": 1}, False),
    ],
)
def test_equality_is_that_of_json_values(value: Any, operand: Any, equal: bool) -> None:
    assert holds({"a": {"$eq": operand}}, {"a": value}) is equal
    assert holds({"a": {"$ne": operand}}, {"a": value}) is not equal
    assert holds({"a": {"$in": ["other", operand]}}, {"a": value}) is (equal or (value, operand) == ([1], 1))


@pytest.mark.parametrize(
    "positive",
    [
        {"$eq": 1},
        {"$eq": None},
        {"$in": [1, None]},
        {"$gt": 0},
        {"$gte": 0},
        {"$lt": "z"},
        {"$lte": 9},
        {"$contains": None},
        {"$exists": True},
    ],
)
def test_a_missing_field_fails_comparisons_and_passes_their_negations(positive: dict[str, Any]) -> None:
    assert not holds({"a": positive}, {})
    assert holds({"a": {"$not": positive}}, {})
    assert holds({"$not": {"a": positive}}, {})


def test_null_is_present_and_missing_is_found_by_exists() -> None:
    assert holds({"a": None}, {"a": None})
    assert holds({"a": {"$exists": True}}, {"a": None})
    assert not holds({"a": {"$exists": False}}, {"a": None})
    assert holds({"a": {"$exists": False}}, {"b": 1})
    assert holds({"a": {"$ne": 1}}, {})
    assert holds({"a": {"$nin": [1]}}, {})


@pytest.mark.parametrize(
    ("value", "condition", "expected"),
    [
        (2, {"$gt": 1}, True),
        (1, {"$gt": 1}, False),
        (1, {"$gte": 1.0}, True),
        (1.5, {"$lt": 2}, True),
        (2, {"$lte": 2}, True),
        (BIG + 1, {"$gt": float(BIG)}, True),
        (float(BIG), {"$lt": BIG + 1}, True),
        (1.0, {"$lt": 2**1024 - 1}, True),
        (-1e308, {"$gt": -(2**1024) + 1}, True),
        ("2024-05-01", {"$gte": "2024-04-30"}, True),
        ("B", {"$lt": "a"}, True),
        ("é", {"$gt": "z"}, True),
        ("2", {"$gt": 1}, False),
        (2, {"$gt": "1"}, False),
        (True, {"$gte": 0}, False),
        (None, {"$lte": 0}, False),
        ([5], {"$gt": 1}, False),
        ({"x": 5}, {"$gt": 1}, False),
    ],
)
def test_order_is_among_numbers_or_among_strings(
    value: Any, condition: dict[str, Any], expected: bool
) -> None:
    assert holds({"a": condition}, {"a": value}) is expected


@pytest.mark.parametrize(
    ("value", "items", "expected"),
    [
        ("x", [], False),
        ("x", ["y", "x"], True),
        (["x", "z"], ["y", "x"], True),
        (["x"], [["x"]], True),
        ([["x"]], [["x"]], True),
        ([True], [1], False),
        ([], [None], False),
        ({"k": 1}, [{"k": 1.0}], True),
    ],
)
def test_in_finds_the_value_or_an_element_of_an_array(value: Any, items: list[Any], expected: bool) -> None:
    assert holds({"a": {"$in": items}}, {"a": value}) is expected
    assert holds({"a": {"$nin": items}}, {"a": value}) is not expected


@pytest.mark.parametrize(
    ("value", "operand", "expected"),
    [
        (["new", "red"], "red", True),
        (["new"], "ne", False),
        ("a new thing", "new", True),
        ("abc", "", True),
        ([1, True], 1.0, True),
        ([True], 1, False),
        ([1], True, False),
        ([None], None, True),
        ([[1]], 1, False),
        ("1", 1, False),
        (1, 1, False),
        ({"new": 1}, "new", False),
    ],
)
def test_contains_looks_into_arrays_and_strings(value: Any, operand: Any, expected: bool) -> None:
    assert holds({"a": {"$contains": operand}}, {"a": value}) is expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"a": {"b": {"c": 1}}}, True),
        ({"a.b.c": 1}, True),
        ({"a.b": {"c": 1}}, True),
        ({"a": {"b.c": 1}}, True),
        ({"a.b.c": 2, "a": {"b": {"c": 1}}}, False),
        ({"a.b": {"x": 2}, "a": {"b": {"c": 1}}}, True),
        ({"a.b": 5, "a": {"b.c": 1}}, True),
        ({"a": [{"b": {"c": 1}}]}, False),
        ({"a": {"b": 1}}, False),
        ({}, False),
    ],
)
def test_dots_descend_objects_longest_key_first(metadata: dict[str, Any], expected: bool) -> None:
    assert holds({"a.b.c": 1}, metadata) is expected


@pytest.mark.parametrize(
    "value",
    [
        date(2024, 5, 1),
        datetime(2024, 5, 1, 12, 30),
        datetime(2024, 5, 1, 12, 30, 0, 250, tzinfo=timezone.utc),
        UUID(int=7),
        Colour.RED,
        ("a", 1),
        OrderedDict(x=(1, 2)),
        np.float32(0.1),
        np.float16(0.1),
        np.datetime64("2024-05-01T12:30:00.25"),
        [np.float32(0.1), {"x": np.datetime64("2024-05-01")}],
        pd.Timestamp("2024-05-01 12:30", tz="Europe/Berlin"),
    ],
)
def test_operands_mean_what_is_stored_for_them(value: Any) -> None:
    stored = orjson.loads(encode_metadatas([{"a": value}], 1)[0])
    assert holds({"a": {"$eq": value}}, stored)
    assert holds({"a": {"$in": [value]}}, stored)
    if not isinstance(value, tuple | list | dict | UUID):
        assert holds({"a": {"$gte": value, "$lte": value}}, stored)


@pytest.mark.parametrize(
    ("scalar", "plain"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("x"), "x")],
)
def test_numpy_scalars_mean_their_python_value(scalar: Any, plain: Any) -> None:
    assert parse({"a": scalar}) == parse({"a": plain})


def test_filters_of_one_text_are_one_cache_key() -> None:
    one, same = parse({"a": {"$in": [1, {"x": 1, "y": 2}]}}), parse({"a": {"$in": (1, {"y": 2, "x": 1})}})
    assert one == same
    assert hash(one) == hash(same)


def test_true_one_and_one_point_zero_are_different_cache_keys() -> None:
    wheres: list[dict[str, Any]] = [
        {"a": {operator: operand}}
        for operator, operands in [("$eq", [True, 1, 1.0, "1", [1], [True]]), ("$in", [[True], [1], [1.0]])]
        for operand in operands
    ]
    assert len({parse(where) for where in wheres}) == len(wheres)


def test_and_or_not_over_the_same_parts_are_different_cache_keys() -> None:
    parts = [{"a": 1}, {"b": 2}]
    trees = {parse({"$and": parts}), parse({"$or": parts}), parse({"$not": {"$and": parts}})}
    assert len(trees) == 3
    assert Everything() in {parse({})}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"$and": [{"a": 1}, {"b": 2}]}, {"$or": [{"a": 1}, {"b": 2}]}),
        ({"$and": [{"a": 1}, {"b": 2}]}, {"$and": [{"a": True}, {"b": 2}]}),
        ({"a": {"$in": [1, "1"]}}, {"a": {"$in": [True, "1"]}}),
        ({"a": {"$in": [[1]]}}, {"a": {"$in": [[1.5]]}}),
        ({"a": {"$in": ["b", "c"]}}, {"a": {"$nin": ["b", "c"]}}),
        ({"a": {"x": {"y": 1}}}, {"a": {"x": {"y": "1"}}}),
        ({"a": "b", "c": "d"}, {"a": "c", "b": "d"}),
        ({"$not": {"a": {"$gt": 1}}}, {"$not": {"a": {"$gt": 1.5}}}),
    ],
)
def test_what_is_asked_again_is_not_taken_for_another(one: dict[str, Any], other: dict[str, Any]) -> None:
    for where in (one, other, one):
        assert parse(where) == _Parser().filter(where, depth=0)
    assert parse(one) is parse(orjson.loads(orjson.dumps(one)))
    assert parse(one) != parse(other)


def test_a_filter_that_was_changed_is_read_anew() -> None:
    wanted = ["x"]
    where = {"$or": [{"a": {"$in": wanted}}, {"b": 1}]}
    before = parse(where)
    wanted.append("y")
    assert before != parse(where) == _Parser().filter(where, depth=0)


def test_fields_are_all_that_the_filter_looks_at() -> None:
    assert fields(parse({"a": 1, "$or": [{"b.c": {"$not": {"$gt": 1}}}, {"a": 2}]})) == {"a", "b.c"}
    assert fields(parse(None)) == set()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ([], "must be a mapping"),
        ("a", "must be a mapping"),
        ({"$foo": 1}, r"unknown operator '\$foo'; allowed are \$eq"),
        ({"a": {"$foo": 1}}, r"field 'a': unknown operator '\$foo'; allowed are \$eq"),
        ({"a": {"$gt": 1, "b": 2}}, "field 'a': unknown operator 'b'"),
        ({"a": {"$and": [{"$gt": 1}]}}, r"field 'a': unknown operator '\$and'"),
        ({"$gt": 1}, r"\$gt needs a field around it"),
        ({"a": {"gt": 1}}, r"did you mean \$gt"),
        ({"a": {}}, "no operator"),
        ({"": 1}, "non-empty string, got ''"),
        ({3: 1}, "non-empty string, got 3"),
        ({"a": {"$gt": True}}, "number or a string, got True"),
        ({"a": {"$lt": None}}, "number or a string, got None"),
        ({"a": {"$gte": [1]}}, "number or a string"),
        ({"a": {"$lte": {"x": 1}}}, "number or a string"),
        ({"a": {"$in": "xy"}}, "needs a list, got 'xy'"),
        ({"a": {"$nin": 3}}, r"\$nin needs a list, got 3"),
        ({"a": {"$exists": 1}}, "True or False, got 1"),
        ({"a": {"$contains": ["x"]}}, r"got \['x'\]"),
        ({"a": {"$not": 3}}, r"use \$ne"),
        ({"a": {"$not": {"x": 3}}}, r"use \$ne"),
        ({"$not": 3}, "must be a mapping"),
        ({"$and": []}, r"\$and needs a list of at least one"),
        ({"$or": {"a": 1}}, r"\$or needs a list"),
        ({"$or": [3]}, "must be a mapping"),
        ({"a": float("nan")}, "got nan"),
        ({"a": {"$gt": float("inf")}}, "got inf"),
        ({"a": {"$in": [1, -float("inf")]}}, "got -inf"),
        ({"a": 1 << 1024}, "1025 bits"),
        ({"a": {1, 2}}, "type set"),
        ({"a": np.arange(3)}, "type ndarray"),
        ({"a": b"x"}, "type bytes"),
        ({"a": np.timedelta64(1, "D")}, "timedelta"),
        ({"a": np.datetime64("NaT")}, "NaT"),
        ({"a": pd.NaT}, "NaT"),
        ({"a": {"$eq": {1: 2}}}, "keys must be strings"),
    ],
)
def test_what_is_not_understood_is_refused(where: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse(where)


def test_depth_is_limited() -> None:
    where: dict[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH - 1):
        where = {"$not": where}
    assert isinstance(parse(where), Not)
    with pytest.raises(InvalidInputError, match="nested more than 32"):
        parse({"$not": where})
    parse({"a": nested(MAX_DEPTH)})
    with pytest.raises(InvalidInputError, match="nested more than 32"):
        parse({"a": nested(MAX_DEPTH + 1)})
    with pytest.raises(InvalidInputError, match="more than 32 deep"):
        parse({".".join("a" * (MAX_DEPTH + 1)): 1})


def test_size_is_limited() -> None:
    parse({"$or": [{"a": i} for i in range(4095)]})
    with pytest.raises(InvalidInputError, match=r"more than 4,096 .* use \$in"):
        parse({"$or": [{"a": i} for i in range(4096)]})
    with pytest.raises(InvalidInputError, match=r"more than 4,096"):
        parse({"$or": [{}] * 4096})
    parse({"a": {"$in": list(range(MAX_ITEMS))}})
    with pytest.raises(InvalidInputError, match="100,001 items; at most 100,000"):
        parse({"a": {"$in": list(range(MAX_ITEMS + 1))}})


def test_metadata_deeper_than_any_operand_is_compared_and_unequal() -> None:
    deep = {"a": nested(900)}
    assert not holds({"a": nested(MAX_DEPTH)}, deep)
    assert not holds({"a": {"$in": [1]}}, deep)
    assert holds({"a": {"$exists": True}}, deep)


def test_the_operand_is_kept_out_of_the_cache_key() -> None:
    tree = parse({"a": {"$gt": 3}})
    assert isinstance(tree, Comparison)
    assert tree.operand == 3
    assert tree == Comparison("a", "$gt", "3", operand=None)


@pytest.mark.parametrize(("value", "other"), [(1, True), (0, False), ("1", 1), (None, "null")])
def test_filters_met_before_are_told_apart_by_the_types_of_their_values(value: Any, other: Any) -> None:
    for where, unlike in (({"f": value}, {"f": other}), ({"f": {"$eq": value}}, {"f": {"$eq": other}})):
        for _ in range(2):
            assert matches(parse(where), {"f": value})
            assert not matches(parse(unlike), {"f": value})


def test_a_wrong_filter_is_refused_however_often_it_is_asked() -> None:
    for _ in range(3):
        with pytest.raises(InvalidInputError):
            parse({"f": {"$gt": float("nan")}})
        with pytest.raises(InvalidInputError):
            parse({"f": {"$near": 1}})
