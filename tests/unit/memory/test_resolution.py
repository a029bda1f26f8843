"""Decisions that contradict each other end in one plan, always the same, that can be carried out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faissbase.memory.replies import sameness
from faissbase.memory.resolution import Decision, MemoryId, Operation, resolved

FACTS = ("one", "two", "three")


def _add(fact: int, text: str | None = None) -> Decision:
    return Decision("ADD", fact, None, text or FACTS[fact])


def _update(fact: int, memory_id: MemoryId = "m", text: str = "both") -> Decision:
    return Decision("UPDATE", fact, memory_id, text)


def _replace(fact: int, memory_id: MemoryId = "m", text: str = "instead") -> Decision:
    return Decision("REPLACE", fact, memory_id, text)


def _delete(fact: int, memory_id: MemoryId = "m") -> Decision:
    return Decision("DELETE", fact, memory_id)


def _noop(fact: int, memory_id: MemoryId | None = "m") -> Decision:
    return Decision("NOOP", fact, memory_id)


@pytest.mark.parametrize(
    ("proposed", "decided", "n_problems"),
    [
        ([], [_add(0), _add(1)], 0),
        ([_noop(0), _add(0), _noop(1)], [_add(0), _noop(1)], 1),
        ([_add(0), _update(0), _noop(1)], [_update(0), _noop(1)], 1),
        ([_update(0), _update(0, "n", "other"), _add(1)], [_update(0), _add(1)], 1),
        ([_replace(0), _replace(0, "n"), _add(1)], [_replace(0), _delete(0, "n"), _add(1)], 0),
        ([_update(0), _replace(0, "n"), _add(1)], [_update(0), _delete(0, "n"), _add(1)], 0),
        ([_delete(0), _delete(0, "n"), _add(1)], [_delete(0), _delete(0, "n"), _add(1)], 0),
        ([_delete(0), _delete(0), _add(1)], [_delete(0), _add(1)], 0),
        ([_add(0), _delete(0), _add(1)], [_add(0), _delete(0), _add(1)], 0),
        ([_replace(0), _delete(0), _add(1)], [_replace(0), _add(1)], 0),
        ([_update(0), _delete(0), _add(1)], [_update(0), _add(1)], 1),
        ([_noop(0), _delete(0), _add(1)], [_noop(0), _add(1)], 1),
        ([_noop(0), _delete(0, "n"), _add(1)], [_noop(0), _delete(0, "n"), _add(1)], 0),
        ([_replace(0), _replace(1, text="more")], [_replace(0), _add(1)], 1),
        ([_replace(0), _update(1)], [_replace(0), _add(1)], 1),
        ([_replace(0), _noop(1)], [_replace(0), _add(1)], 1),
        ([_replace(0), _delete(1)], [_replace(0), _noop(1)], 0),
        ([_update(0), _update(1, text="more")], [_update(0), _add(1)], 1),
        ([_update(0), _replace(1)], [_update(0), _add(1)], 1),
        ([_update(0), _delete(1)], [_update(0), _add(1)], 1),
        ([_update(0), _noop(1)], [_update(0), _noop(1)], 0),
        ([_noop(0), _replace(1)], [_noop(0), _replace(1)], 0),
        ([_noop(0), _delete(1)], [_noop(0), _delete(1)], 0),
        ([_delete(0), _noop(1)], [_delete(0), _add(1)], 1),
        ([_delete(0), _update(1)], [_delete(0), _add(1)], 1),
        ([_add(0, "same"), _add(1, "Same.")], [_add(0, "same"), _noop(1, None)], 0),
        ([_add(0, "same"), _replace(1, text="same")], [_add(0, "same"), _delete(1)], 0),
        ([_add(0, "two")], [_add(0, "two"), _noop(1, None)], 0),
    ],
)
def test_contradictions(proposed: list[Decision], decided: list[Decision], n_problems: int) -> None:
    problems: list[str] = []
    assert list(resolved(FACTS[:2], proposed, problems)) == decided
    assert len(problems) == n_problems


def test_what_is_left_out_is_told_with_its_reason() -> None:
    problems: list[str] = []
    resolved(FACTS[:2], [_replace(0), _update(1)], problems)
    assert problems == ["left out UPDATE of memory 'm' for fact 1: an earlier decision closes that memory"]


def _decisions() -> st.SearchStrategy[list[Decision]]:
    facts = st.integers(0, len(FACTS) - 1)
    ids = st.sampled_from(["m", "n", 1])
    texts = st.sampled_from(["a", "A", "b", "two"])
    changes: st.SearchStrategy[Operation] = st.sampled_from(["UPDATE", "REPLACE"])
    touches: st.SearchStrategy[Operation] = st.sampled_from(["DELETE", "NOOP"])
    return st.lists(
        st.builds(Decision, st.just("ADD"), facts, st.none(), texts)
        | st.builds(Decision, changes, facts, ids, texts)
        | st.builds(Decision, touches, facts, ids, st.none()),
        max_size=12,
    )


def _carry_out(decisions: Sequence[Decision]) -> dict[MemoryId, str]:
    """The memories after ``decisions``, each of which must find what it is done to."""
    memories: dict[MemoryId, str] = {"m": "of m", "n": "of n", 1: "of 1"}
    for i, decision in enumerate(decisions):
        if decision.operation == "NOOP":
            continue
        if decision.memory_id is not None:
            assert decision.memory_id in memories, decision
        if decision.operation in ("REPLACE", "DELETE"):
            del memories[decision.memory_id or 0]
        if decision.text is not None:
            key = decision.memory_id if decision.operation == "UPDATE" and decision.memory_id else f"new {i}"
            memories[key] = decision.text
    return memories


@given(_decisions())
def test_any_decisions_become_a_plan_that_can_be_carried_out(proposed: list[Decision]) -> None:
    decided = resolved(FACTS, proposed, [])
    assert decided == resolved(FACTS, proposed, [])
    assert [decision.fact for decision in decided] == sorted(decision.fact for decision in decided)
    assert {decision.fact for decision in decided} == set(range(len(FACTS)))
    memories = _carry_out(decided)
    texts = [sameness(text) for text in memories.values()]
    assert len(texts) == len(set(texts))
    updated = [decision.memory_id for decision in decided if decision.operation == "UPDATE"]
    assert len(updated) == len(set(updated))
    assert set(updated) <= set(memories)
