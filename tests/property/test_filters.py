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

SCALARS: list[Any] = [
    *(None, True, False, 0, 1, 2, 1.0, -0.0, 0.5, -1, "", "a", "b", "ab", "1", "é"),
    *(2**53 - 1, 2**53, 2**53 + 1, float(2**53), 2**53 + 2, 2**60, 2**63, 2**64 - 1, float(2**64), -(2**63)),
    *(1e308, 5e-324),
]
NAMES = ["a", "b", "a.b", "c", "b.c", "a.b.c"]

scalars = st.sampled_from(SCALARS) | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False)
finite = st.sampled_from(SCALARS) | scalars.filter(lambda value: value not in (float("inf"), float("-inf")))
values = st.recursive(
    finite,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=5,
)
metadatas = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)

ordered = finite.filter(lambda value: isinstance(value, (int, float, str)) and not isinstance(value, bool))
conditions = st.one_of(
    st.builds(lambda operator, x: {operator: x}, st.sampled_from(["$eq", "$ne", "$neq"]), values),
    st.builds(
        lambda operator, x: {operator: x},
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]),
        ordered | st.just(2**70) | st.just(-(2**1023) - 1),
    ),
    st.builds(
        lambda operator, x: {operator: x}, st.sampled_from(["$in", "$nin"]), st.lists(values, max_size=4)
    ),
    st.builds(lambda x: {"$in": x}, st.lists(st.sampled_from(["a", "b", "1"]), max_size=3)),
    st.builds(lambda x: {"$contains": x}, finite),
    st.builds(lambda x: {"$exists": x}, st.booleans()),
)
comparisons = st.builds(
    lambda name, condition, negated: {name: {"$not": condition} if negated else condition},
    st.sampled_from(NAMES),
    conditions,
    st.booleans(),
)
wheres = st.recursive(
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
    rows=st.lists(st.none() | metadatas, max_size=12),
    filters=st.lists(wheres, min_size=1, max_size=4),
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=10),
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
    for wanted, choice in steps:
        n, tree = min(wanted, len(rows)), trees[choice % len(trees)]
        mask = columns.mask(tree, n, read)
        assert mask.shape == (n,)
        assert columns.size_bytes <= budget_bytes
        for slot, metadata in enumerate(loaded[:n]):
            if metadata is not None:
                assert bool(mask[slot]) is matches(tree, metadata), (tree, metadata)


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


@settings(max_examples=300, deadline=None)
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
