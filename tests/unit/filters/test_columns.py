"""Masks over slots: what is read and when, what is remembered, and that the answer is that of `matches`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import pytest

from faissbase.errors import CorruptionError, UnavailableError
from faissbase.filters.columns import Columns
from faissbase.filters.tree import Filter, matches, parse
from faissbase.types import Mask

BIG = 2**53


class Rows:
    """Metadata by slot, None where dead, remembering which ranges were read."""

    def __init__(self, metadatas: list[dict[str, Any] | None]) -> None:
        self.metadatas = metadatas
        self.reads: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.metadatas)

    def read(self, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        self.reads.append((first, stop))
        for slot in range(first, stop):
            metadata = self.metadatas[slot]
            if metadata is not None:
                yield slot, orjson.dumps(metadata)

    def expected(self, where: Filter) -> list[bool]:
        return [metadata is not None and matches(where, metadata) for metadata in self.metadatas]

    def live(self, mask: Mask) -> list[bool]:
        """The mask with the bits of dead slots, which do not count, cleared."""
        return [
            bool(bit) and metadata is not None for bit, metadata in zip(mask, self.metadatas, strict=True)
        ]


def numbered(n: int) -> Rows:
    return Rows([{"i": i, "even": i % 2 == 0, "name": f"n{i % 10}", "tags": [i % 3]} for i in range(n)])


VALUES: list[Any] = [
    *(0, 1, 1.0, -0.0, 1.5, True, False, None, "", "1", "a", "ab", "True", "null", "[1]"),
    *(BIG, BIG + 1, float(BIG), 2**60, 2**63, 2**64 - 1, float(2**64), -(2**63), -(2**63) + 1, 1e308),
    *([], [1], [True], [1, 2], ["a"], [[1]], {}, {"x": 1}, {"x": True}, {"x": [1.0]}),
]
OPERANDS: list[Any] = [*VALUES, BIG - 1, BIG + 2, BIG + 3, 2**70, 2**1024 - 1, -(2**1024) + 1]


def conditions() -> Iterator[dict[str, Any]]:
    for operand in OPERANDS:
        yield {"$eq": operand}
        yield {"$ne": operand}
        yield {"$in": [operand, "ab", 1.5]}
        if isinstance(operand, (int, float, str)) and not isinstance(operand, bool):
            yield from ({operator: operand} for operator in ("$gt", "$gte", "$lt", "$lte"))
        if not isinstance(operand, (list, dict)):
            yield {"$contains": operand}
    yield from ({"$exists": True}, {"$exists": False}, {"$in": []}, {"$in": ["a", "1"]}, {"$nin": [True]})


@pytest.mark.parametrize("few_slots", [0, 1000])
def test_every_operator_agrees_with_the_plain_definition(few_slots: int) -> None:
    rows = Rows([*({"a": value} for value in VALUES), {}, None, {"b": 1}])
    columns = Columns(few_slots=few_slots)
    for condition in conditions():
        where = parse({"a": condition})
        mask = columns.mask(where, len(rows), rows.read)
        assert rows.live(mask) == rows.expected(where), condition


@pytest.mark.parametrize("values", [["a", "b", "a"], [1, 2.5, 1], [None, True, None], [[1], ["a"], [1]], []])
def test_columns_of_one_kind_agree_with_the_plain_definition(values: list[Any]) -> None:
    rows = Rows([{"a": value} for value in values])
    columns = Columns(few_slots=0)
    for condition in conditions():
        where = parse({"a": condition})
        assert columns.mask(where, len(rows), rows.read).tolist() == rows.expected(where), condition


def test_the_mask_cannot_be_written() -> None:
    rows = numbered(100)
    mask = Columns().mask(parse({"even": True}), 100, rows.read)
    assert mask.dtype == np.bool_
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = False


def test_a_repeated_filter_reads_nothing() -> None:
    rows, columns = numbered(100), Columns()
    first = columns.mask(parse({"i": {"$gt": 50}}), 100, rows.read)
    again = columns.mask(parse({"i": {"$gt": 50}}), 100, rows.read)
    assert rows.reads == [(0, 100)]
    assert np.array_equal(first, again)


def test_a_new_filter_on_known_fields_reads_nothing() -> None:
    rows, columns = numbered(100), Columns()
    columns.mask(parse({"i": 1, "name": "n1"}), 100, rows.read)
    columns.mask(parse({"$or": [{"name": "n2"}, {"i": {"$lt": 3}}]}), 100, rows.read)
    assert rows.reads == [(0, 100)]


def test_an_empty_filter_over_many_slots_reads_nothing() -> None:
    rows = numbered(100)
    assert Columns().mask(parse({}), 100, rows.read).all()
    assert rows.reads == []


@pytest.mark.parametrize("few_slots", [0, 32])
def test_growth_reads_only_the_new_slots(few_slots: int) -> None:
    rows, columns = numbered(103), Columns(few_slots=few_slots)
    where = parse({"even": True})
    columns.mask(where, 100, rows.read)
    for n in (101, 103):
        assert columns.mask(where, n, rows.read).tolist() == rows.expected(where)[:n]
    assert rows.reads == [(0, 100), (100, 101), (101, 103)]


def test_stale_columns_are_extended_in_one_pass() -> None:
    rows, columns = numbered(3000), Columns(few_slots=0)
    columns.mask(parse({"i": 1}), 1000, rows.read)
    columns.mask(parse({"name": "n1"}), 2000, rows.read)
    where = parse({"i": {"$gt": 5}, "name": "n3", "even": False})
    assert columns.mask(where, 3000, rows.read).tolist() == rows.expected(where)
    assert rows.reads == [(0, 1000), (0, 2000), (0, 3000)]


def test_a_mask_stays_as_it_was_when_slots_are_added() -> None:
    rows, columns = numbered(500), Columns()
    where = parse({"even": True})
    early = columns.mask(where, 100, rows.read)
    before = early.tolist()
    columns.mask(where, 500, rows.read)
    assert early.tolist() == before


def test_fewer_slots_than_known_are_answered_too() -> None:
    rows, columns = numbered(500), Columns()
    where, other = parse({"even": True}), parse({"even": False})
    columns.mask(where, 500, rows.read)
    assert columns.mask(where, 100, rows.read).tolist() == rows.expected(where)[:100]
    assert columns.mask(other, 100, rows.read).tolist() == rows.expected(other)[:100]
    assert columns.mask(other, 500, rows.read).tolist() == rows.expected(other)
    assert columns.mask(where, 0, rows.read).shape == (0,)


def test_dotted_fields_are_looked_up_as_in_one_record() -> None:
    rows = Rows([{"a": {"b": 1}}, {"a.b": 1}, {"a": [{"b": 1}]}, {"a.b": 2, "a": {"b": 1}}])
    where = parse({"a.b": 1})
    assert Columns(few_slots=0).mask(where, 4, rows.read).tolist() == rows.expected(where)


def test_dead_slots_do_not_disturb_their_neighbours() -> None:
    rows = Rows([None, {"a": 1}, None, None, {"a": "x"}, None])
    where = parse({"a": {"$ne": 1}})
    mask = Columns(few_slots=0).mask(where, 6, rows.read)
    assert rows.live(mask) == rows.expected(where)


def test_a_range_without_any_live_record_is_covered() -> None:
    rows, columns = Rows([None] * 50), Columns(few_slots=0)
    columns.mask(parse({"a": 1}), 50, rows.read)
    columns.mask(parse({"a": 2}), 50, rows.read)
    assert rows.reads == [(0, 50)]


@pytest.mark.parametrize("budget_bytes", [0, 500, 5_000, 50_000])
def test_memory_stays_within_the_budget(budget_bytes: int) -> None:
    rows, columns = numbered(1000), Columns(budget_bytes)
    for i in range(30):
        where = parse({["i", "name", "even", "tags"][i % 4]: {"$ne": i}})
        assert columns.mask(where, 1000, rows.read).tolist() == rows.expected(where)
        assert columns.size_bytes <= budget_bytes


def test_large_operands_count_against_the_budget() -> None:
    columns = Columns(1 << 20)
    columns.mask(parse({"i": {"$in": list(range(50_000))}}), 10, numbered(10).read)
    assert columns.size_bytes < 10_000


def test_clear_forgets_columns_and_answers() -> None:
    rows, columns = numbered(100), Columns()
    columns.mask(parse({"i": 1}), 100, rows.read)
    assert columns.size_bytes > 0
    columns.clear()
    assert columns.size_bytes == 0
    renumbered = Rows(rows.metadatas[::-1])
    where = parse({"i": 1})
    assert columns.mask(where, 100, renumbered.read).tolist() == renumbered.expected(where)


def test_a_read_that_fails_half_way_can_be_repeated() -> None:
    rows, columns = numbered(2000), Columns(few_slots=0)
    where = parse({"name": "n7", "i": {"$gt": 4}})
    columns.mask(where, 100, rows.read)

    def failing(first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        yield from rows.read(first, 1500)
        raise UnavailableError("the disk went away")

    with pytest.raises(UnavailableError, match="went away"):
        columns.mask(where, 2000, failing)
    assert columns.mask(where, 2000, rows.read).tolist() == rows.expected(where)


@pytest.mark.parametrize(("text", "message"), [(b"{", "slot 7 is not JSON"), (b"[1]", "not a JSON object")])
@pytest.mark.parametrize("few_slots", [0, 1000])
def test_what_is_not_a_json_object_is_corruption(text: bytes, message: str, few_slots: int) -> None:
    def read(first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        yield 7, text

    with pytest.raises(CorruptionError, match=message):
        Columns(few_slots=few_slots).mask(parse({"a": 1}), 50, read)


def test_json_too_deep_to_write_again_is_still_compared() -> None:
    text = b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"

    def read(first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        return iter([(0, text), (1, text)])

    columns = Columns(few_slots=0)
    assert columns.mask(parse({"a": {"$exists": True}}), 2, read).tolist() == [True, True]
    assert columns.mask(parse({"a": {"$eq": [[]]}}), 2, read).tolist() == [False, False]


def test_threads_get_the_same_answers_as_one() -> None:
    rows, columns = numbered(600), Columns(20_000, few_slots=4)

    def ask(seed: int) -> bool:
        random = np.random.default_rng(seed)
        agreed = True
        for n in random.integers(1, 600, size=20).tolist():
            where = parse({"i": {"$gt": int(random.integers(0, 50))}, "name": f"n{n % 4}"})
            agreed &= columns.mask(where, n, rows.read).tolist() == rows.expected(where)[:n]
        return agreed

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(8)))
