"""A dictionary within a byte budget."""

from __future__ import annotations

from dataclasses import dataclass

from faissbase.filters.recent import Recent


@dataclass
class Block:
    size_bytes: int


def test_the_least_recently_used_goes_first() -> None:
    recent = Recent[str, Block](100)
    for key in "abc":
        recent.put(key, Block(30))
    recent.get("a")
    recent.put("d", Block(30))
    assert [key for key in "abcd" if key in recent] == ["a", "c", "d"]
    assert recent.size_bytes == 90


def test_a_value_put_again_counts_with_its_new_size() -> None:
    recent = Recent[str, Block](100)
    block = Block(10)
    recent.put("a", block)
    block.size_bytes = 60
    recent.put("a", block)
    assert recent.size_bytes == 60


def test_a_value_over_the_budget_is_not_held() -> None:
    recent = Recent[str, Block](100)
    recent.put("a", Block(101))
    assert recent.get("a") is None
    assert recent.size_bytes == 0


def test_clear_forgets_all() -> None:
    recent = Recent[str, Block](100)
    recent.put("a", Block(10))
    recent.clear()
    assert "a" not in recent
    assert recent.size_bytes == 0
