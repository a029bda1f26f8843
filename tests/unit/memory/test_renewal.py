"""Later turns that may replace the best one."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from faissbase.memory.ranked import Turn, Weights
from faissbase.memory.ranking import TurnIndex
from faissbase.memory.renewal import Statement, speaks_of_change, successors

START = datetime(2024, 3, 1, tzinfo=timezone.utc)
OLD = Statement("I live in Lyon.", "user", 0.0, 1.0, 0.5)


def later(text: str, nearness: float, *, speaker: str = "user", at_s: float = 1.0) -> Statement:
    return Statement(text, speaker, at_s, nearness, 0.5 * nearness)


def test_the_same_said_again_comes_first() -> None:
    assert successors([OLD, later("I live in Porto.", 0.95)], 2) == [1]


def test_a_change_may_be_less_near_than_a_repetition() -> None:
    assert successors([OLD, later("I moved to Porto.", 0.5)], 2) == [1]
    assert successors([OLD, later("Porto has a river.", 0.5)], 2) == []


def test_what_is_far_from_the_question_replaces_nothing() -> None:
    assert successors([OLD, later("I moved the sofa.", 0.2)], 2) == []


@pytest.mark.parametrize(
    "other", [later("I live in Rome.", 0.95, speaker="Ben"), later("I live in Rome.", 0.95, at_s=-1)]
)
def test_only_later_turns_of_the_same_speaker_replace(other: Statement) -> None:
    assert successors([OLD, other], 2) == []


def test_an_unknown_time_replaces_nothing() -> None:
    assert successors([OLD, later("I live in Rome.", 0.95, at_s=float("nan"))], 2) == []


def test_of_several_the_nearest_are_taken_and_the_latest_comes_first() -> None:
    said = [
        OLD,
        later("I moved to A.", 0.9, at_s=1),
        later("I moved to B.", 0.8, at_s=2),
        later("I moved to C.", 0.6, at_s=3),
    ]
    assert successors(said, 2) == [2, 1]
    assert successors(said, 3) == [3, 2, 1]
    assert successors([], 2) == []


def test_without_vectors_words_decide() -> None:
    bare = Statement("I live in Lyon.", "user", 0.0, 1.0, 0.0)
    assert successors([bare, Statement("I live in Porto.", "user", 1.0, 1.0, 0.0)], 2) == [1]


@pytest.mark.parametrize(
    "text", ["I no longer smoke.", "We switched to tea.", "She gave it up.", "My new address"]
)
def test_words_of_change_are_found(text: str) -> None:
    assert speaks_of_change(text)


@pytest.mark.parametrize("text", ["I know the news.", "The movement is slow.", "I drink tea."])
def test_words_that_contain_them_are_not(text: str) -> None:
    assert not speaks_of_change(text)


def index_of_move(weights: Weights | None = None) -> TurnIndex:
    index = TurnIndex(weights)
    index.add(
        [
            Turn("old", "I live in Lyon, near the river.", "user", "1", START),
            Turn("talk", "The weather is fine.", "user", "1", START),
            Turn("new", "I moved to Porto last month.", "user", "2", START + timedelta(days=90)),
        ]
    )
    return index


NEAR = {"old": 0.5, "new": 0.35, "talk": 0.1}


def test_the_newer_of_two_contradicting_facts_comes_first_in_the_present() -> None:
    found = index_of_move().search("Where do I live?", nearest=NEAR, asker="user")
    assert [hit.id for hit in found][:2] == ["new", "old"]
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    shares = sum(found[0].parts[name] for name in ("words", "vectors", "neighbours", "session"))
    assert found[0].score == pytest.approx(shares * found[0].parts["factor"] + found[0].parts["renewal"])


def test_the_past_and_a_named_time_leave_the_older_fact_first() -> None:
    assert index_of_move().search("Where did I live?", nearest=NEAR, asker="user")[0].id == "old"
    assert index_of_move().search("Where do I live in March 2024?", nearest=NEAR)[0].id == "old"


def test_renewal_can_be_turned_off() -> None:
    index = index_of_move(Weights(successors=0))
    assert index.search("Where do I live?", nearest=NEAR, asker="user")[0].id == "old"


def test_the_newer_fact_comes_first_even_where_one_turn_is_asked_for() -> None:
    assert [hit.id for hit in index_of_move().search("Where do I live?", 1, nearest=NEAR)] == ["new"]
