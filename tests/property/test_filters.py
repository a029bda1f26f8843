"""Masks equal the plain definition, and equality of values equals that of a model written another way."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from faissbase.filters.columns import Columns
from faissbase.filters.tree import matches, parse
from faissbase.filters.values import value_key

BIG = 2**53

# Few values, most of them easily taken for another one of the list, so that filters meet them often.
CONFUSABLE_SCALARS: list[Any] = [
    *(True, 1, 1.0, "1", "true", "True", False, 0, -0.0, None, "null", "None", "", "a", "ab"),
    *(BIG, BIG + 1, BIG + 2, float(BIG), 2**63, 2**63 + 1, 2**64 - 1, float(2**64)),
]
CONFUSABLE: list[Any] = [
    *CONFUSABLE_SCALARS,
    *([], [1], [True], [1.0], ["a"], [[1]], "[1]", [BIG + 1], [float(BIG)], {}, {"b": 1}, {"b": True}),
]
STRINGS = ["a", "ab", "1", "true", "[1]"]
NAMES = ["a", "b", "a.b"]

any_scalar = (
    st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3)
)
any_value = st.recursive(
    any_scalar,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=4,
)
scalars = st.one_of(*[st.sampled_from(CONFUSABLE_SCALARS)] * 4, any_scalar)
values = st.one_of(*[st.sampled_from(CONFUSABLE)] * 6, any_value)
ordered = scalars.filter(lambda value: isinstance(value, (int, float, str)) and not isinstance(value, bool))
metadatas = st.fixed_dictionaries({}, optional={"a": values, "b": values, "a.b": values})
dense_metadatas = st.fixed_dictionaries({"a": values}, optional={"b": values})


def one_of_operators(
    operators: list[str], operands: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda operator, operand: {operator: operand}, st.sampled_from(operators), operands)


conditions = st.one_of(
    one_of_operators(["$eq", "$ne", "$neq"], values),
    one_of_operators(["$gt", "$gte", "$lt", "$lte"], ordered | st.just(2**70) | st.just(-(2**1023) - 1)),
    one_of_operators(["$in", "$nin"], st.lists(values, max_size=4)),
    one_of_operators(["$in", "$nin"], st.lists(st.sampled_from(STRINGS), max_size=3)),
    one_of_operators(["$contains"], scalars),
    one_of_operators(["$exists"], st.booleans()),
)
comparisons = st.builds(
    lambda name, condition, negated: {name: {"$not": condition} if negated else condition},
    st.sampled_from(["a", *NAMES]),
    conditions,
    st.booleans(),
)
wheres = comparisons | st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$and": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    ),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.one_of(st.none(), metadatas, dense_metadatas, dense_metadatas), max_size=12),
    filters=st.lists(wheres, min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=6),
    budget_bytes=st.sampled_from([0, 2_000, 6_000, 1 << 28]),
    few_slots=st.sampled_from([0, 2]),
)
def test_masks_equal_the_plain_definition_however_slots_grow(
    rows: list[dict[str, Any] | None],
    filters: list[dict[str, Any]],
    steps: list[tuple[int, int]],
    budget_bytes: int,
    few_slots: int,
) -> None:
    def read(first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        for slot in range(first, stop):
            if rows[slot] is not None:
                yield slot, orjson.dumps(rows[slot])

    loaded = [row if row is None else orjson.loads(orjson.dumps(row)) for row in rows]
    trees = [parse(where) for where in filters]
    columns = Columns(budget_bytes, few_slots=few_slots)
    for wanted, choice in [*steps, *((len(rows), choice) for choice in range(len(trees)))]:
        n, tree = min(wanted, len(rows)), trees[choice % len(trees)]
        mask = columns.mask(tree, n, read)
        assert mask.shape == (n,)
        assert columns.size_bytes <= budget_bytes
        for slot, metadata in enumerate(loaded[:n]):
            if metadata is not None:
                assert bool(mask[slot]) is matches(tree, metadata), (tree, metadata)


@settings(max_examples=150, deadline=None)
@given(
    stored=st.lists(values, min_size=5, max_size=20),
    asked=st.lists(conditions, min_size=5, max_size=10),
)
def test_every_comparison_of_a_column_equals_the_plain_definition(
    stored: list[Any], asked: list[dict[str, Any]]
) -> None:
    texts = [b"{}", *(orjson.dumps({"a": value}) for value in stored)]
    columns = Columns(few_slots=0)
    for condition in asked:
        tree = parse({"a": condition})
        mask = columns.mask(tree, len(texts), lambda first, stop: enumerate(texts[first:stop], first))
        assert mask.tolist() == [matches(tree, orjson.loads(text)) for text in texts], condition


def as_text(value: Any) -> str:
    """Canonical text of a JSON value with numbers as exact fractions: the model of equality."""
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return f"number {Fraction(value)}"
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return f"{{{', '.join(f'{key!r}: {as_text(value[key])}' for key in sorted(value))}}}"


@settings(max_examples=400, deadline=None)
@given(left=values, right=values)
def test_values_are_equal_exactly_when_their_exact_texts_are(left: Any, right: Any) -> None:
    equal = as_text(left) == as_text(right)
    assert (value_key(left) == value_key(right)) is equal
    assert matches(parse({"a": {"$eq": right}}), {"a": left}) is equal


@settings(max_examples=100, deadline=None)
@given(condition=conditions, metadata=metadatas)
def test_negation_turns_every_answer_around(condition: dict[str, Any], metadata: dict[str, Any]) -> None:
    plain = matches(parse({"a": condition}), metadata)
    assert matches(parse({"a": {"$not": condition}}), metadata) is not plain
    assert matches(parse({"$not": {"a": condition}}), metadata) is not plain
