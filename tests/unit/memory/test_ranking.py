"""Turns found by words and vectors, by what stands around them, by speaker and time."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from faissbase.errors import InvalidInputError
from faissbase.memory.ranked import Ranked, Turn, Weights, Where
from faissbase.memory.ranking import TurnIndex
from faissbase.memory.words import asking_share

START = datetime(2024, 3, 1, 9, tzinfo=timezone.utc)


def turn(id: str, text: str, speaker: str = "Ana", session: str | None = "1", days: float = 0) -> Turn:
    return Turn(id, text, speaker, session, START + timedelta(days=days))


def index_of(*turns: Turn, weights: Weights | None = None) -> TurnIndex:
    index = TurnIndex(weights)
    index.add(turns)
    return index


def ids(found: list[Ranked]) -> list[str]:
    return [hit.id for hit in found]


def test_the_turn_with_the_rare_words_of_the_question_comes_first() -> None:
    index = index_of(
        turn("a", "We had dinner by the river."),
        turn("b", "My grandfather repaired old clocks."),
        turn("c", "The river was high after the rain."),
    )
    assert ids(index.search("Who repairs clocks?"))[0] == "b"


def test_a_turn_without_a_common_word_is_found_by_its_vector() -> None:
    index = index_of(turn("a", "We had dinner."), turn("b", "Paws on the sofa again.", session="2"))
    assert ids(index.search("Is there a dog?", nearest={"b": 0.6, "a": 0.1}))[0] == "b"


def test_an_answer_is_found_by_the_question_before_it() -> None:
    index = index_of(
        turn("ask", "Which instrument did you learn as a child?", "Ben"),
        turn("answer", "The cello, from my aunt."),
        turn("other", "It rained all day.", session="2"),
    )
    assert set(ids(index.search("Which instrument did Ana learn?", k=2))) == {"ask", "answer"}


def test_neighbours_of_another_session_are_none() -> None:
    index = index_of(
        turn("ask", "Which instrument did you learn?", "Ben", session="1"),
        turn("far", "The cello, from my aunt.", session="2"),
    )
    assert ids(index.search("Which instrument?")) == ["ask"]


def test_removed_turns_are_never_found_and_their_neighbours_meet() -> None:
    index = index_of(
        turn("ask", "Which instrument did you learn?", "Ben"),
        turn("aside", "Wait, the phone."),
        turn("answer", "The cello."),
    )
    assert ids(index.search("instrument")) == ["ask", "aside"]
    assert index.remove(["aside", "unknown"]) == 1
    assert [(hit.id, hit.parts["neighbours"] > 0) for hit in index.search("instrument")] == [
        ("ask", False),
        ("answer", True),
    ]
    assert len(index) == 2


def test_an_index_that_lost_most_of_its_turns_answers_like_a_new_one() -> None:
    turns = [turn(str(n), f"word{n} apples and pears", session=str(n // 7), days=n) for n in range(300)]
    index = index_of(*turns)
    index.remove(str(n) for n in range(300) if n % 5)
    fresh = index_of(*(one for n, one in enumerate(turns) if not n % 5))
    assert index.search("apples word45", 20) == fresh.search("apples word45", 20)


def test_an_id_added_again_is_replaced() -> None:
    index = index_of(turn("a", "I like chess."), turn("a", "I like sailing."))
    assert len(index) == 1
    assert index.search("chess") == []
    assert ids(index.search("sailing")) == ["a"]


def test_speaker_time_kind_and_ids_narrow_the_answer() -> None:
    index = index_of(
        turn("a", "apples today", "Ana", days=0),
        turn("b", "apples today", "Ben", days=5),
        Turn("c", "apples today", "Ana", None, START + timedelta(days=9), "semantic"),
        Turn("d", "apples today", "Ana", None, None),
    )
    assert ids(index.search("apples", where=Where(speakers=["Ben", "Nobody"]))) == ["b"]
    assert ids(index.search("apples", where=Where(kinds=["semantic"]))) == ["c"]
    assert set(ids(index.search("apples", where=Where(since=START + timedelta(days=5))))) == {"b", "c"}
    assert ids(index.search("apples", where=Where(until=START + timedelta(days=5)))) == ["a"]
    assert set(ids(index.search("apples", where=Where(among=["a", "d", "x"])))) == {"a", "d"}
    assert index.search("apples", where=Where(speakers=[])) == []


def test_a_time_without_zone_is_utc() -> None:
    index = index_of(Turn("a", "apples", occurred_at=datetime(2024, 3, 1, 9)))
    assert index.search("apples", where=Where(since=START, until=START + timedelta(seconds=1)))


def test_the_speaker_who_is_named_comes_before_the_other() -> None:
    index = index_of(turn("b", "I bake bread.", "Ben", "1"), turn("a", "I bake bread.", "Ana", "2"))
    assert ids(index.search("What does Ana bake?"))[0] == "a"
    assert ids(index.search("What does Ben bake?"))[0] == "b"
    assert ids(index.search("What do I bake?", asker="Ben"))[0] == "b"


def test_who_tells_comes_before_who_asks() -> None:
    index = index_of(
        turn("q", "Is the bread fresh?", session="1"), turn("a", "The bread is fresh.", session="2")
    )
    assert ids(index.search("fresh bread")) == ["a", "q"]


def test_a_named_month_prefers_its_turns() -> None:
    index = index_of(
        turn("march", "We hiked a long trail.", session="1"),
        turn("june", "We hiked a long trail.", session="2", days=100),
    )
    assert ids(index.search("Where did we hike in March 2024?"))[0] == "march"
    assert ids(index.search("Where did we hike in June 2024?"))[0] == "june"


def test_the_newest_comes_first_where_it_is_asked_for() -> None:
    index = index_of(
        turn("old", "My phone is a red phone, a fine phone.", session="1"),
        turn("new", "My phone is blue.", session="2", days=50),
    )
    assert ids(index.search("phone", recency=0.9))[0] == "new"
    assert ids(index.search("phone", recency=0))[0] == "old"


def test_scores_are_between_zero_and_one_and_their_parts_explain_them() -> None:
    index = index_of(turn("q", "Do you bake bread?", "Ben"), turn("a", "I bake bread.", days=1))
    for hit in index.search("bake bread", nearest={"a": 0.9, "q": 0.5}):
        shares = hit.parts["words"] + hit.parts["vectors"] + hit.parts["neighbours"] + hit.parts["session"]
        assert 0 < hit.score <= 1
        assert hit.score == pytest.approx(shares * hit.parts["factor"])


def test_ids_that_are_gone_from_the_index_are_passed_over() -> None:
    assert ids(index_of(turn("a", "apples")).search("apples", nearest={"gone": 0.9, "a": 0.2})) == ["a"]


def test_an_empty_index_and_a_question_without_words_find_nothing() -> None:
    assert TurnIndex().search("anything") == []
    assert index_of(turn("a", "apples")).search("?!") == []


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(InvalidInputError, match=f"k must be at least 1, got {k}"):
        index_of(turn("a", "apples")).search("apples", k)


def test_recency_beyond_one_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"between 0 and 1, got 1\.5"):
        index_of(turn("a", "apples")).search("apples", recency=1.5)


def test_a_string_where_names_are_expected_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="speakers takes a list of strings, got 'Ana'"):
        Where(speakers="Ana")


@pytest.mark.parametrize(
    ("text", "share"), [("", 0.0), ("Yes.", 0.0), ("Why?", 1.0), ("I see. Why? How?!", 2 / 3), ("...", 0.0)]
)
def test_the_share_of_questions_is_that_of_sentences(text: str, share: float) -> None:
    assert asking_share(text) == pytest.approx(share)


def test_a_weight_below_zero_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"vectors must be 0 or more, got -0\.5"):
        Weights(vectors=-0.5)


def test_a_condition_finds_what_many_better_turns_would_hide() -> None:
    index = TurnIndex()
    index.add(turn(f"b{n}", "apples and apples", "Ben", session=f"b{n}") for n in range(1_500))
    index.add([turn("a", "a long talk about pears, plums, apples", "Ana", session="a")])
    assert ids(index.search("apples", where=Where(speakers=["Ana"]))) == ["a"]


def test_k_turns_come_back_where_every_turn_has_the_word() -> None:
    index = TurnIndex()
    index.add(turn(f"{n}", "apples", days=n, session=f"{n}") for n in range(3_000))
    assert ids(index.search("apples", 2_500)) == [f"{n}" for n in range(2_999, 499, -1)]


def test_the_same_question_has_the_same_answer() -> None:
    turns = [turn(f"{n}", f"word{n % 17} and word{n % 5}", session=f"{n // 9}") for n in range(200)]
    near = {f"{n}": 1 / (1 + n % 23) for n in range(0, 200, 3)}
    first, second = index_of(*turns), index_of(*turns)
    reverse = dict(reversed(near.items()))
    assert first.search("word3 word4", nearest=near) == second.search("word3 word4", nearest=reverse)


def test_an_index_that_grows_turn_by_turn_answers_like_one_made_at_once() -> None:
    turns = [turn(f"{n}", f"word{n % 11} tea", session=f"{n % 4}", days=n) for n in range(120)]
    grown = TurnIndex()
    for one in turns:
        grown.add([one])
        grown.search("word1 tea")
    assert grown.search("word1 tea", 50) == index_of(*turns).search("word1 tea", 50)
