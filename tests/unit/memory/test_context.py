"""ContextMemory without a model: turns, scores, filters, scopes, time, links, and nothing destroyed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import create_engine, delete, select, update
from sqlalchemy.orm import Session
from tests.unit.memory.planted import START, Clock, Planted, scores_of, texts_of

from faissbase.errors import (
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.memory import ContextMemory, files
from faissbase.memory.models import Conversation, Link, Memory, Message

DAY = timedelta(days=1)


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(tmp_path: Path, planted: Planted, clock: Clock) -> Iterator[ContextMemory]:
    with ContextMemory(tmp_path / "memory.db", planted, clock=clock) as found:
        yield found


def put(memory: ContextMemory, planted: Planted, text: str, conversation: str = "c", **given: Any) -> int:
    """A memory as another program might store it."""
    with Session(memory.engine) as db:
        vector = planted.embed([text])[0]
        row = Memory(conversation_id=conversation, text=text, embedding=vector, embedder="planted", **given)
        db.add(row)
        db.commit()
        return row.id


def stored(memory: ContextMemory, kind: Any) -> list[Any]:
    with Session(memory.engine) as db:
        return list(db.scalars(select(kind)))


# ---- turns ---------------------------------------------------------------------------------------


def test_turns_are_kept_word_for_word_and_found_at_once(memory: ContextMemory) -> None:
    said = "  My dog Rex  -- he's 3!\n\nLikes: bones. "
    memory.add(
        [{"role": "user", "content": said, "name": "Ana"}, {"role": "assistant", "content": "Nice."}], "c"
    )
    [first, second] = stored(memory, Message)
    assert (first.content, first.speaker, first.role, first.position) == (said, "Ana", "user", 1)
    assert (second.speaker, second.position) == ("assistant", 2)
    [found, *_] = memory.search_turns("bones for Rex", "c")["results"]
    assert (found["content"], found["speaker"], found["message_id"]) == (said, "Ana", first.id)


def test_without_a_model_every_turn_is_an_episode(memory: ContextMemory) -> None:
    added = memory.add(["one", "two", {"role": "system", "content": "be kind"}], "c")
    assert added["semantic"] == []
    assert [(each["memory"], each["event"], each["type"]) for each in added["bubbles"]] == [
        ("one", "ADD", "bubble"),
        ("two", "ADD", "bubble"),
    ]
    assert [each["type"] for each in memory.search("one", "c")["results"]] == ["bubble", "bubble"]


def test_one_text_and_one_dict_are_messages_too(memory: ContextMemory) -> None:
    memory.add("just a text", "c")
    memory.add({"role": "user", "content": [{"type": "text", "text": "in parts"}]}, "c")
    assert [each.content for each in stored(memory, Message)] == ["just a text", "in parts"]


def test_an_answer_is_found_by_the_question_before_it() -> None:
    talk = [
        "Hello!",
        "How are you?",
        "What colour is your bicycle?",
        "Green, mostly.",
        "I had soup today.",
        "Nice.",
    ]
    with ContextMemory() as memory:
        memory.add([{"content": text, "name": ["Ana", "Ben"][n % 2]} for n, text in enumerate(talk)], "c")
        found = memory.search_turns("colour of the bicycle", "c", limit=2)["results"]
    assert sorted(each["content"] for each in found) == ["Green, mostly.", "What colour is your bicycle?"]


def test_turns_tell_what_stands_around_them(memory: ContextMemory) -> None:
    memory.add([f"number {word}" for word in ("one", "two", "three", "four")], "c")
    [found] = memory.search_turns("three", "c", limit=1, neighbours=1)["results"]
    assert [each["content"] for each in found["neighbours"]] == ["number two", "number four"]


def test_turns_of_a_conversation_that_was_deleted_are_not_taken_for_those_of_the_next(
    memory: ContextMemory,
) -> None:
    memory.add(["my dog is Rex", "my cat is Tom"], "c")
    assert memory.search_turns("Rex", "c", limit=1)["results"][0]["content"] == "my dog is Rex"
    with Session(memory.engine) as db:
        db.execute(delete(Conversation))
        db.commit()
    memory.add(["I like tea", "I like jazz", "I hate kale"], "c")
    assert memory.search_turns("tea", "c", limit=1)["results"][0]["content"] == "I like tea"
    assert memory.search_turns("Rex", "c")["results"] == []


def test_a_turn_that_another_program_has_deleted_is_not_told(memory: ContextMemory) -> None:
    memory.add(["my dog is Rex", "my cat is Tom"], "c")
    memory.search_turns("Rex", "c")
    with Session(memory.engine) as db:
        db.execute(delete(Message).where(Message.content.contains("Rex")))
        db.commit()
    assert [each["content"] for each in memory.search_turns("Rex", "c")["results"]] == ["my cat is Tom"]


def test_turns_are_filtered_by_speaker_and_time(memory: ContextMemory) -> None:
    for day, speaker in enumerate(["Ana", "Ben", "Ana"]):
        at = START + day * DAY
        memory.add({"content": f"apples on day {day}", "speaker": speaker, "occurred_at": at}, "c")

    def found(**filters: Any) -> list[str]:
        return sorted(each["content"] for each in memory.search_turns("apples", "c", **filters)["results"])

    assert found(speaker="Ana") == ["apples on day 0", "apples on day 2"]
    assert found(since=START + DAY) == ["apples on day 1", "apples on day 2"]
    assert found(until=(START + DAY).isoformat()) == ["apples on day 0"]
    assert found(speaker=["Ana", "Ben"], since=START + DAY, until=START + 2 * DAY) == ["apples on day 1"]


def test_the_newest_of_equal_turns_comes_first(memory: ContextMemory) -> None:
    for day in range(3):
        memory.add({"content": "I live in Rome", "occurred_at": START + day * DAY, "speaker": "Ana"}, "c")
    found = memory.search_turns("where does Ana live now?", "c")["results"]
    assert [each["occurred_at"] for each in found] == [START + day * DAY for day in (2, 1, 0)]


# ---- scores --------------------------------------------------------------------------------------


def test_the_score_is_similarity_times_importance_times_decay(
    memory: ContextMemory, planted: Planted
) -> None:
    planted.at("fact", 0.8)
    planted.at("half", 0.6, 2)
    planted.at("nothing", 0.9, 3)
    planted.at("episode", 0.7, 4)
    put(memory, planted, "fact", importance=0.9, occurred_at=START - 100 * DAY)
    put(memory, planted, "half")
    put(memory, planted, "nothing", importance=0.0)
    put(memory, planted, "episode", importance=0.6, kind="bubble", occurred_at=START - timedelta(days=2.5))
    answer = memory.search("query", "c")
    assert answer["query"] == "query"
    assert answer["total"] == 4
    assert scores_of(answer) == pytest.approx(
        {"fact": 0.72, "half": 0.3, "nothing": 0.0, "episode": 0.7 * 0.6 * math.exp(-0.125)}, abs=1e-6
    )
    assert texts_of(answer) == ["fact", "episode", "half", "nothing"]


def test_decay_counts_real_days_and_no_episode_ahead_is_worth_more(
    memory: ContextMemory, planted: Planted
) -> None:
    for name, hours in {"hours": 6.0, "ahead": -240.0}.items():
        planted.at(name, 1.0)
        at = START - timedelta(hours=hours)
        put(memory, planted, name, importance=1.0, kind="bubble", occurred_at=at)
    assert scores_of(memory.search("query", "c")) == pytest.approx(
        {"ahead": 1.0, "hours": math.exp(-0.05 * 0.25)}, abs=1e-6
    )


def test_decay_minds_time_zones(memory: ContextMemory, planted: Planted, clock: Clock) -> None:
    planted.at("there", 1.0)
    tokyo = timezone(timedelta(hours=9))
    memory.add({"content": "there", "occurred_at": START.astimezone(tokyo).isoformat()}, "c")
    clock.now = (START + DAY).astimezone(timezone(timedelta(hours=-8)))
    assert scores_of(memory.search("query", "c"))["there"] == pytest.approx(0.5 * math.exp(-0.05), abs=1e-6)
    [entry] = memory.search("query", "c")["results"]
    assert entry["occurred_at"] == START


def test_below_zero_what_is_old_does_not_pass_what_is_new(memory: ContextMemory, planted: Planted) -> None:
    for name, days in {"old": 30, "new": 1}.items():
        planted.at(name, -0.5)
        put(memory, planted, name, importance=1.0, kind="bubble", occurred_at=START - days * DAY)
    answer = memory.search("query", "c")
    assert texts_of(answer) == ["new", "old"]
    assert all(score <= -0.5 for score in scores_of(answer).values())


def test_no_important_memory_is_hidden_by_many_that_are_nearer(
    memory: ContextMemory, planted: Planted
) -> None:
    rng = np.random.default_rng(7)
    with Session(memory.engine) as db:
        for number in range(300):
            vector = np.zeros(64, np.float32)
            vector[0], vector[1:] = 5, 0.1 * rng.standard_normal(63)
            db.add(Memory(conversation_id="c", text=f"{number}", embedding=vector, importance=0.1))
        db.commit()
    planted.at("weighty", 0.3)
    put(memory, planted, "weighty", importance=1.0)
    assert texts_of(memory.search("query", "c", limit=1)) == ["weighty"]


def test_of_equal_scores_the_newest_comes_first(memory: ContextMemory, planted: Planted) -> None:
    for day in (1, 3, 2):
        planted.at(f"day {day}", 0.8)
        put(memory, planted, f"day {day}", occurred_at=START - day * DAY)
    assert texts_of(memory.search("query", "c")) == ["day 1", "day 2", "day 3"]


def test_what_is_inactive_or_has_ended_is_never_found(memory: ContextMemory, planted: Planted) -> None:
    for name in ("active", "inactive", "ended", "ending"):
        planted.at(name, 0.9)
    put(memory, planted, "active")
    put(memory, planted, "inactive", active=False)
    put(memory, planted, "ended", valid_to=START - timedelta(seconds=1))
    put(memory, planted, "ending", valid_to=START + DAY)
    assert sorted(texts_of(memory.search("query", "c"))) == ["active", "ending"]


# ---- filters and scopes --------------------------------------------------------------------------


def test_memories_are_filtered_by_type_time_and_speaker(memory: ContextMemory, planted: Planted) -> None:
    put(memory, planted, planted.at("fact", 0.9), occurred_at=START - 5 * DAY, speaker="Ana")
    put(memory, planted, planted.at("old", 0.8), kind="bubble", occurred_at=START - 9 * DAY, speaker="Ana")
    put(memory, planted, planted.at("new", 0.7), kind="bubble", occurred_at=START - DAY, speaker="Ben")

    def found(**filters: Any) -> list[str]:
        return sorted(texts_of(memory.search("query", "c", **filters)))

    assert found(type="semantic") == ["fact"]
    assert found(type="bubble") == ["new", "old"]
    assert found(type=["bubble", "semantic"]) == ["fact", "new", "old"]
    assert found(since=START - 6 * DAY) == ["fact", "new"]
    assert found(until=START - 5 * DAY) == ["old"]
    assert found(speaker="Ana") == ["fact", "old"]
    assert found(speaker=["Ana", "Ben"], type="bubble", since=START - 2 * DAY) == ["new"]


def test_no_record_of_another_conversation_or_scope_is_found(memory: ContextMemory) -> None:
    owners = [
        ("c1", "u1", "a1", "s1"),
        ("c1", "u2", "a1", "s2"),
        ("c2", "u1", "a2", "s1"),
        ("c3", None, None, None),
    ]
    for conversation, user, agent, session in owners:
        text = f"apples of {conversation} {user} {agent} {session}"
        memory.add(text, conversation, user_id=user, agent_id=agent, session_id=session)

    def found(search: Any, *where: Any, **scope: Any) -> list[str]:
        results = search("apples", *where, limit=50, **scope)["results"]
        return sorted((each.get("memory") or each["content"]).removeprefix("apples of ") for each in results)

    for search in (memory.search, memory.search_turns):
        assert found(search, "c3") == ["c3 None None None"]
        assert found(search, "c1") == ["c1 u1 a1 s1", "c1 u2 a1 s2"]
        assert found(search, "c1", user_id="u1") == ["c1 u1 a1 s1"]
        assert found(search, user_id="u1") == ["c1 u1 a1 s1", "c2 u1 a2 s1"]
        assert found(search, agent_id="a1", session_id="s2") == ["c1 u2 a1 s2"]
        assert found(search, "c2", user_id="u2") == []
        assert found(search, user_id="nobody") == []


def test_what_is_linked_stays_within_the_scope(memory: ContextMemory) -> None:
    memory.add("green apples grow", "c", user_id="u1")
    memory.add("green apples grow here", "c", user_id="u2")
    assert stored(memory, Link) == []


# ---- links ---------------------------------------------------------------------------------------


def _ring(planted: Planted, n: int, cosine: float) -> list[str]:
    """Texts at this cosine from each other's middle, the query."""
    return [planted.at(f"t{number}", cosine, 1 + number) for number in range(n)]


def test_episodes_are_linked_both_ways_from_cosine_0_6_on(memory: ContextMemory, planted: Planted) -> None:
    planted.vectors["a"] = np.eye(64, dtype=np.float32)[1]
    for name, cosine in {"near": 0.61, "far": 0.59}.items():
        vector = np.zeros(64, np.float32)
        vector[1], vector[2 if name == "near" else 3] = cosine, math.sqrt(1 - cosine**2)
        planted.vectors[name] = vector
    ids = {each["memory"]: each["memory_id"] for each in memory.add(["a", "near", "far"], "c")["bubbles"]}
    links = {(link.memory_id, link.other_id): link.similarity for link in stored(memory, Link)}
    assert links == pytest.approx({(ids["a"], ids["near"]): 0.61, (ids["near"], ids["a"]): 0.61}, abs=1e-5)


def test_no_memory_has_more_than_five_links_and_the_nearest_stay(
    memory: ContextMemory, planted: Planted
) -> None:
    hub = planted.at("hub", 1.0)
    memory.add(hub, "c")
    for number, cosine in enumerate((0.61, 0.65, 0.7, 0.66, 0.64, 0.75, 0.62)):
        memory.add(planted.at(f"s{number}", cosine, 2 + number), "c")
    links = stored(memory, Link)
    by_memory: dict[int, list[float]] = {}
    for link in links:
        by_memory.setdefault(link.memory_id, []).append(round(link.similarity, 2))
        assert any((other.memory_id, other.other_id) == (link.other_id, link.memory_id) for other in links)
    assert max(map(len, by_memory.values())) <= 5
    assert sorted(by_memory[1]) == [0.64, 0.65, 0.66, 0.7, 0.75]


def test_what_others_say_as_nearly_does_not_keep_ones_own_from_being_linked(
    memory: ContextMemory, planted: Planted
) -> None:
    vector = planted.vectors[planted.at("said", 0.9)]
    planted.vectors |= {f"said by others {i}": vector for i in range(50)}
    memory.add([{"content": "said", "occurred_at": START - timedelta(days=9)}], "c", user_id="ana")
    memory.add([f"said by others {i}" for i in range(50)], "c", user_id="bob")
    memory.add([{"content": "said", "occurred_at": START - timedelta(days=8)}], "c", user_id="ana")
    newer, older = memory.search("query", "c", user_id="ana")["results"]
    assert newer["connections"] == [older["memory_id"]]


def test_an_episode_that_is_updated_is_linked_by_what_it_says_now(
    memory: ContextMemory, planted: Planted
) -> None:
    for text, cosine in {"one": 0.9, "other": 0.1, "now as one": 0.95}.items():
        planted.at(text, cosine)
    one, other = (each["memory_id"] for each in memory.add(["one", "other"], "c")["bubbles"])
    assert stored(memory, Link) == []
    memory.update(other, "now as one")
    pairs = {(link.memory_id, link.other_id) for link in stored(memory, Link)}
    assert pairs == {(one, other), (other, one)}
    memory.update(other, "like nothing else")
    assert stored(memory, Link) == []


def test_hits_tell_two_links_and_three_of_them_are_appended(memory: ContextMemory, planted: Planted) -> None:
    names = _ring(planted, 6, 0.9)
    ids = {each["memory"]: each["memory_id"] for each in memory.add(names, "c")["bubbles"]}
    answer = memory.search("query", "c", limit=2)
    hits, appended = answer["results"][:2], answer["results"][2:]
    assert [each["type"] for each in hits] == ["bubble", "bubble"]
    assert all(len(each["connections"]) == 2 for each in hits)
    assert 1 <= len(appended) <= 3
    assert {each["type"] for each in appended} == {"connected"}
    assert {each["score"] for each in appended} == {0.0}
    shown = [each["memory_id"] for each in answer["results"]]
    assert len(shown) == len(set(shown)) == answer["total"]
    assert set(shown) <= set(ids.values())
    alone = memory.search("query", "c", limit=2, include_connections=False)["results"]
    assert [each["connections"] for each in alone] == [[], []]


@pytest.mark.parametrize(
    "filters",
    [{"speaker": "Ana"}, {"since": START}, {"until": START - DAY}, {"type": "semantic"}],
    ids=lambda filters: next(iter(filters)),
)
@pytest.mark.parametrize("is_past", [False, True])
def test_what_is_appended_meets_the_filters_too(
    memory: ContextMemory, planted: Planted, filters: Any, is_past: bool
) -> None:
    said = [
        {"content": planted.at("mine", 0.9), "speaker": "Ana", "occurred_at": START},
        {"content": planted.at("theirs", 0.8), "speaker": "Bob", "occurred_at": START - DAY},
        {"content": planted.at("old", 0.7), "speaker": "Cy", "occurred_at": START - 2 * DAY},
    ]
    memory.add(said, "c")
    wanted = {"speaker": ["mine"], "since": ["mine"], "until": ["old"], "type": []}[next(iter(filters))]
    found = memory.search("query", "c", limit=1, as_of=START if is_past else None, **filters)
    assert texts_of(found) == wanted
    assert [each["connections"] for each in found["results"]] == [[] for _ in wanted]


def test_links_to_what_has_ended_are_not_told(memory: ContextMemory, planted: Planted) -> None:
    [first, second, third] = memory.add(_ring(planted, 3, 0.9), "c")["bubbles"]
    memory.delete(second["memory_id"])
    [hit, appended] = memory.search("query", "c", limit=1)["results"]
    assert {hit["memory_id"], appended["memory_id"]} == {first["memory_id"], third["memory_id"]}
    assert hit["connections"] == [appended["memory_id"]]


def test_a_link_into_another_conversation_is_not_told(memory: ContextMemory, planted: Planted) -> None:
    one = put(memory, planted, planted.at("one", 0.9), "c")
    other = put(memory, planted, planted.at("other", 0.8), "d")
    with Session(memory.engine) as db:
        db.add_all([Link(memory_id=one, other_id=other, similarity=0.9)])
        db.commit()
    [hit] = memory.search("query", "c")["results"]
    assert (hit["memory_id"], hit["connections"]) == (one, [])


# ---- changes -------------------------------------------------------------------------------------


def test_an_update_keeps_what_was_said_before(memory: ContextMemory, planted: Planted, clock: Clock) -> None:
    [bubble] = memory.add(planted.at("Rex", 0.9), "c")["bubbles"]
    clock.pass_days(10)
    planted.at("Max", 0.8)
    changed = memory.update(bubble["memory_id"], "Max", importance=1.0, reason="renamed")
    assert (changed["memory_id"], changed["memory"], changed["importance"]) == (
        bubble["memory_id"],
        "Max",
        1.0,
    )
    assert texts_of(memory.search("query", "c")) == ["Max"]
    assert texts_of(memory.search("query", "c", as_of=START + DAY)) == ["Rex"]
    [before] = memory.search("query", "c", as_of=START + DAY)["results"]
    assert before["score"] == pytest.approx(0.9 * 0.5 * math.exp(-0.05), abs=1e-6)
    assert [
        (e["event"], e["old_memory"], e["new_memory"], e["by"]) for e in memory.history(bubble["memory_id"])
    ] == [
        ("ADD", None, "Rex", "turns"),
        ("UPDATE", "Rex", "Max", "user"),
    ]
    assert memory.history(bubble["memory_id"])[1]["happened_at"] == START + 10 * DAY


def test_what_is_deleted_is_found_only_as_of_when_it_held(
    memory: ContextMemory, planted: Planted, clock: Clock
) -> None:
    [bubble] = memory.add(planted.at("gone", 0.9), "c")["bubbles"]
    clock.pass_days(2)
    assert memory.delete(bubble["memory_id"], reason="asked to")
    assert not memory.delete(bubble["memory_id"])
    assert texts_of(memory.search("query", "c")) == []
    assert texts_of(memory.search("query", "c", as_of=START + DAY)) == ["gone"]
    assert texts_of(memory.search("query", "c", as_of=START - DAY)) == []
    assert texts_of(memory.search("query", "c", as_of=START + 2 * DAY)) == []
    last = memory.history(bubble["memory_id"])[-1]
    assert (last["event"], last["old_memory"], last["new_memory"], last["reason"]) == (
        "DELETE",
        "gone",
        None,
        "asked to",
    )
    with pytest.raises(ConflictError, match="has ended: what is history cannot be changed"):
        memory.update(bubble["memory_id"], "back")
    assert len(stored(memory, Memory)) == 1
    assert len(stored(memory, Message)) == 1


@pytest.mark.parametrize("memory_id", [99, "1", None, True, -1, 1 << 64])
def test_an_unknown_memory_is_said_to_be_none(memory: ContextMemory, memory_id: Any) -> None:
    memory.add("something", "c")
    for call in (memory.history, memory.delete, lambda id: memory.update(id, "x")):
        with pytest.raises(NotFoundError, match="no memory"):
            call(memory_id)


def test_a_memory_of_another_conversation_is_not_touched(memory: ContextMemory) -> None:
    [bubble] = memory.add("mine", "c")["bubbles"]
    for call in (memory.history, memory.delete):
        with pytest.raises(NotFoundError, match="in conversation 'd'"):
            call(bubble["memory_id"], conversation_id="d")
    with pytest.raises(NotFoundError, match="in conversation 'd'"):
        memory.update(bubble["memory_id"], "yours", conversation_id="d")
    assert texts_of(memory.search("mine", "c")) == ["mine"]


# ---- input ---------------------------------------------------------------------------------------


def test_messages_of_openai_are_taken_as_they_are(memory: ContextMemory) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    memory.add(
        [
            {"role": "user", "content": [{"type": "text", "text": "Is it warm?"}]},
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
            {"role": "tool", "content": "31 degrees", "tool_call_id": "c1"},
            {"role": "assistant", "content": "It is.", "annotations": []},
            {"role": "assistant", "content": None, "refusal": "I cannot say."},
        ],
        "c",
    )
    said = [(each.role, each.content, each.position) for each in stored(memory, Message)]
    assert said == [
        ("user", "Is it warm?", 1),
        ("tool", "31 degrees", 2),
        ("assistant", "It is.", 3),
        ("assistant", "I cannot say.", 4),
    ]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user"}], "content of message 0"),
        (["fine", ""], "content of message 1"),
        (["fine", "\x00 "], "content of message 1"),
        ([{"content": "x", "name": "\ud800"}], "speaker of message 0"),
        (["fine", 3], "message 1 must be a text or a dict"),
        ([{"content": "x", "role": ""}], "role of message 0"),
        ([{"content": "x", "speaker": 3}], "speaker of message 0"),
        ([{"content": "x", "text": "y"}], "unknown field 'text'"),
        ([{"content": "x", "occurred_at": "yesterday"}], "time of message 0 is no moment"),
        ([{"content": "x", "occurred_at": object()}], "time of message 0"),
        ([{"content": "x", "occurred_at": 1e30}], "time of message 0 is no moment"),
        (3, "messages are a list"),
    ],
)
def test_a_bad_message_is_refused_before_anything_is_stored(
    memory: ContextMemory, messages: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        memory.add(messages, "c")
    assert stored(memory, Conversation) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"limit": 0}, "limit must be a whole number from 1 on, got 0"),
        ({"limit": 2.0}, "limit must be"),
        ({"type": "episodic"}, "type must be one of semantic, bubble, got 'episodic'"),
        ({"since": "soon"}, "since is no moment"),
        ({"as_of": "then"}, "as_of is no moment"),
        ({"speaker": [3]}, "speaker must be a text"),
        ({"user_id": ""}, "user_id must be a text of 1 to 255"),
        ({"conversation_id": None}, "say which conversation_id, or whose"),
        ({"query": " "}, "query must be a text that is not empty"),
    ],
)
def test_a_bad_search_is_refused(memory: ContextMemory, given: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        memory.search(**{"query": "query", "conversation_id": "c", **given})


@pytest.mark.parametrize("importance", [-0.1, 1.1, "high", True, float("nan")])
def test_an_importance_beyond_0_to_1_is_refused(memory: ContextMemory, importance: Any) -> None:
    [bubble] = memory.add("x", "c")["bubbles"]
    with pytest.raises(InvalidInputError, match="importance must be a number from 0 to 1"):
        memory.update(bubble["memory_id"], importance=importance)


def test_searching_an_unknown_conversation_finds_nothing(memory: ContextMemory) -> None:
    assert memory.search("anything", "none") == {"query": "anything", "total": 0, "results": []}
    assert memory.search_turns("anything", "none")["results"] == []
    assert memory.summary("none") is None


# ---- embedders and databases ---------------------------------------------------------------------


def test_another_embedder_is_refused_on_reopening(tmp_path: Path) -> None:
    with ContextMemory(tmp_path / "m.db", Planted()) as memory:
        memory.add("x", "c")
    for other in (Planted(name="other"), Planted(dimension=32)):
        with pytest.raises(ConflictError, match="was embedded by 'planted'"):
            ContextMemory(tmp_path / "m.db", other)
    with ContextMemory(tmp_path / "m.db", Planted()) as memory:
        assert texts_of(memory.search("x", "c")) == ["x"]


def test_an_embedder_that_fails_leaves_nothing_half(tmp_path: Path) -> None:
    class Failing(Planted):
        def embed(self, texts: Any) -> Any:
            if "bad" in texts:
                raise UnavailableError("no network")
            return super().embed(texts)

    with ContextMemory(tmp_path / "m.db", Failing()) as memory:
        with pytest.raises(UnavailableError, match="no network"):
            memory.add(["good", "bad"], "c")
        assert stored(memory, Message) == []


def test_a_memory_is_there_after_reopening_and_after_a_change_by_another_program(tmp_path: Path) -> None:
    planted = Planted()
    with ContextMemory(tmp_path / "m.db", planted) as memory:
        memory.add([planted.at("one", 0.9), planted.at("two", 0.8)], "c")
    assert list(tmp_path.glob("m.db.faiss/*/*.vectors"))
    engine = create_engine(f"sqlite:///{tmp_path / 'm.db'}")
    with engine.begin() as connection:
        connection.execute(update(Memory).where(Memory.text == "one").values(active=False))
    with ContextMemory(tmp_path / "m.db", planted) as memory:
        assert texts_of(memory.search("query", "c", include_connections=False)) == ["two"]


def test_engines_and_sessions_say_which_database(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'm.db'}")
    with ContextMemory(engine, Planted()) as memory:
        memory.add("by the engine", "c")
    with Session(engine) as db, ContextMemory(db, Planted()) as memory:
        assert texts_of(memory.search("by the engine", "c")) == ["by the engine"]


def test_an_index_that_may_not_be_read_or_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ContextMemory(tmp_path / "m.db", Planted()) as memory:
        memory.add("first", "c")

    def denied(*_: Any) -> Any:
        raise PermissionError(13, "of another user")

    monkeypatch.setattr("faissbase.memory.files.np.fromfile", denied)
    monkeypatch.setattr(files, "publish", denied)
    with ContextMemory(tmp_path / "m.db", Planted()) as memory:
        assert texts_of(memory.search("first", "c")) == ["first"]
        memory.add("second", "c")


def test_two_memories_of_one_database_see_each_other(tmp_path: Path) -> None:
    with (
        ContextMemory(tmp_path / "m.db", Planted()) as one,
        ContextMemory(tmp_path / "m.db", Planted()) as two,
    ):
        one.add("first", "c")
        assert texts_of(two.search("first", "c")) == ["first"]
        [bubble] = two.add("second", "c")["bubbles"]
        assert bubble["memory"] in texts_of(one.search("second", "c"))
        one.delete(bubble["memory_id"])
        assert texts_of(two.search("second", "c")) == ["first"]
        assert one.search_turns("second", "c")["results"][0]["content"] == "second"


def test_the_database_has_foreign_keys_a_wal_and_patience(memory: ContextMemory) -> None:
    with memory.engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("foreign_keys", "journal_mode", "busy_timeout", "synchronous")
        ]
    assert found == [1, "wal", 30_000, 2]


@pytest.mark.parametrize("source", ["mysql://localhost/db", "nonsense://x"])
def test_other_databases_are_refused(source: str) -> None:
    with pytest.raises(InvalidInputError, match="is kept in sqlite or postgresql"):
        ContextMemory(source)


def test_what_is_no_database_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="expected a URL, a path, an Engine or a Session, got 3"):
        ContextMemory(3)  # type: ignore[arg-type]


def test_a_naive_moment_is_in_utc(memory: ContextMemory) -> None:
    memory.add({"content": "x", "occurred_at": datetime(2026, 1, 2, 3)}, "c")
    assert stored(memory, Message)[0].occurred_at == datetime(2026, 1, 2, 3, tzinfo=timezone.utc)


def test_who_says_it_is_embedded_with_a_turn_and_not_with_an_episode(
    memory: ContextMemory, planted: Planted
) -> None:
    memory.add(
        [{"role": "user", "name": "Ana", "content": "I sing"}, {"role": "user", "content": "So do I"}], "c"
    )
    assert planted.asked == ["Ana: I sing", "So do I", "I sing", "So do I"]


def test_a_closed_memory_stays_closed(memory: ContextMemory) -> None:
    memory.add("My dog is called Rex.", "c")
    memory.close()
    memory.close()
    for call in (
        lambda: memory.add("My cat is called Tom.", "c"),
        lambda: memory.search("dog", "c"),
        lambda: memory.search_turns("dog", "c"),
        lambda: memory.delete(1),
        lambda: memory.history(1),
    ):
        with pytest.raises(NotReadyError, match="the ContextMemory is closed: make a new one"):
            call()


@pytest.mark.parametrize(
    ("given", "message"),
    [({"speaker": 5}, "speaker is a text or several"), ({"recency": "much"}, "recency must be a number")],
)
def test_what_is_no_filter_of_turns_is_named(memory: ContextMemory, given: Any, message: str) -> None:
    memory.add("My dog is called Rex.", "c")
    with pytest.raises(InvalidInputError, match=message):
        memory.search_turns("dog", "c", **given)


def test_another_file_under_the_databases_name_is_corruption(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("something else\n" * 1000)
    with pytest.raises(CorruptionError, match=r"notes\.txt is no whole database"):
        ContextMemory(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text().startswith("something else\n")
