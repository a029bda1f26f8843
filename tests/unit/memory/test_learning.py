"""ContextMemory with a model behind an OpenAI-compatible server that is right, wrong, slow and malicious."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from tests.openai_server import OpenAIServer, Raw
from tests.unit.memory.planted import START, Clock, Planted, texts_of
from tests.unit.memory.talking import chatting

from faissbase.errors import AccessError, InvalidInputError, UnavailableError
from faissbase.memory import ContextMemory
from faissbase.memory.learning import Learner
from faissbase.memory.llm import ChatModel
from faissbase.memory.models import Memory, Message, Summary
from faissbase.memory.turns import BATCH_CHARACTERS
from faissbase.types import Float32

DAY = timedelta(days=1)
Reply = Callable[[str], Any]


class Model:
    """Replies to each phase as it is told; what it was asked is kept by phase."""

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.events: list[Any] = []
        self.decisions: list[Any] = []
        self.summary: Any = {"summary": "It was about fruit."}
        self.asked: dict[str, list[str]] = {"extract": [], "decide": [], "summary": []}
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, body: dict[str, Any]) -> Any:
        system, user = (message["content"] for message in body["messages"][:2])
        if "running summary" in system:
            self.asked["summary"].append(user)
            return self.summary
        if "up to date" in system:
            self.asked["decide"].append(user)
            self.meanwhile()
            return {"decisions": self.decisions}
        self.asked["extract"].append(user)
        return {"facts": self.facts, "events": self.events}


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def planted() -> Planted:
    return Planted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(model: Model) -> Iterator[tuple[OpenAIServer, ChatModel]]:
    with chatting() as (server, chat):
        server.reply_always(model)
        yield server, chat


@pytest.fixture
def memory(
    tmp_path: Path, planted: Planted, clock: Clock, server: tuple[OpenAIServer, ChatModel]
) -> Iterator[ContextMemory]:
    with ContextMemory(tmp_path / "m.db", planted, server[1], clock=clock) as found:
        yield found


def rows(memory: ContextMemory, kind: Any) -> list[Any]:
    with Session(memory.engine) as db:
        return list(db.scalars(select(kind).order_by(*kind.__table__.primary_key.columns)))


def fact(text: str, turn: int = 1) -> dict[str, Any]:
    return {"text": text, "turn": turn}


def decision(
    operation: str, memory: int | None = None, text: str | None = None, fact: int = 1
) -> dict[str, Any]:
    return {"fact": fact, "operation": operation, "memory": memory, "text": text}


def learn(memory: ContextMemory, model: Model, text: str, **given: Any) -> dict[str, Any]:
    """Have ``text`` said and noted as a fact."""
    model.facts, model.events = [fact(text)], []
    return memory.add({"content": f"said: {text}", **given}, "c")


def test_facts_and_episodes_are_noted(memory: ContextMemory, model: Model) -> None:
    model.facts = [fact("Ana likes pears.")]
    model.events = [
        {"text": "Ana moved.", "occurred_at": "2026-04-01T10:00:00+02:00", "importance": 0.05, "turn": 2},
        {"text": "Ana was born.", "occurred_at": None, "importance": 7, "turn": 1},
    ]
    said: list[Any] = [{"content": "I like pears", "speaker": "Ana", "occurred_at": START - DAY}, "I moved"]
    added = memory.add(said, "c")
    assert [(each["memory"], each["event"]) for each in added["semantic"]] == [("Ana likes pears.", "ADD")]
    assert [(each["memory"], each["importance"]) for each in added["bubbles"]] == [
        ("Ana moved.", 0.3),
        ("Ana was born.", 1.0),
    ]
    kept = {row.text: row for row in rows(memory, Memory)}
    assert kept["Ana likes pears."].kind == "semantic"
    assert kept["Ana likes pears."].speaker == "Ana"
    assert kept["Ana likes pears."].valid_from == START - DAY
    assert kept["Ana moved."].kind == "bubble"
    assert kept["Ana moved."].occurred_at.isoformat() == "2026-04-01T08:00:00+00:00"
    assert [row.content for row in rows(memory, Message)] == ["I like pears", "I moved"]


def test_what_is_replaced_ends_and_stays_in_the_past(
    memory: ContextMemory, model: Model, planted: Planted, clock: Clock
) -> None:
    for text in ("Ana lives in Paris.", "Ana lives in Porto."):
        planted.at(text, 0.9)
    [paris] = learn(memory, model, "Ana lives in Paris.")["semantic"]
    clock.pass_days(30)
    model.decisions = [decision("REPLACE", 1, "Ana lives in Porto.")]
    [porto] = learn(memory, model, "Ana lives in Porto.")["semantic"]
    assert (porto["event"], porto["replaced"]) == ("REPLACE", paris["memory_id"])
    assert porto["memory_id"] != paris["memory_id"]
    assert texts_of(memory.search("query", "c")) == ["Ana lives in Porto."]
    assert texts_of(memory.search("query", "c", as_of=START + DAY)) == ["Ana lives in Paris."]
    assert [each["event"] for each in memory.history(paris["memory_id"])] == ["ADD", "REPLACE"]
    assert rows(memory, Memory)[0].replaced_by == porto["memory_id"]


def test_what_was_true_before_does_not_replace_what_is_true_now(
    memory: ContextMemory, model: Model, planted: Planted
) -> None:
    for text in ("Ana lives in Porto.", "Ana lives in Paris."):
        planted.at(text, 0.9)
    learn(memory, model, "Ana lives in Porto.", occurred_at=START)
    model.decisions = [decision("REPLACE", 1, "Ana lives in Paris.")]
    learn(memory, model, "Ana lives in Paris.", occurred_at=START - 90 * DAY)
    assert texts_of(memory.search("query", "c")) == ["Ana lives in Porto."]
    assert texts_of(memory.search("query", "c", as_of=START - DAY)) == ["Ana lives in Paris."]


def test_what_was_taken_back_before_it_was_said_again_stays(
    memory: ContextMemory, model: Model, planted: Planted
) -> None:
    learn(memory, model, planted.at("Ana has a dog.", 0.9), occurred_at=START)
    model.decisions = [decision("DELETE", 1)]
    learn(memory, model, planted.at("Ana's dog is gone.", 0.9), occurred_at=START - 90 * DAY)
    assert texts_of(memory.search("query", "c")) == ["Ana has a dog."]


def test_the_same_episode_of_two_users_is_kept_for_both(memory: ContextMemory, model: Model) -> None:
    model.events = [{"text": "We met.", "occurred_at": "2026-04-01T10:00:00Z", "importance": 0.5, "turn": 1}]
    for user in ("u1", "u2"):
        memory.add("we met", "c", user_id=user)
    for user in ("u1", "u2"):
        assert texts_of(memory.search("We met.", "c", user_id=user)) == ["We met."]


@pytest.mark.parametrize("error", [UnavailableError("busy"), AccessError("no key"), ConnectionError("down")])
def test_an_embedder_that_fails_once_the_turns_are_kept_is_asked_again(
    memory: ContextMemory,
    model: Model,
    planted: Planted,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    embed = planted.embed

    def fails_on_facts(texts: Sequence[str]) -> Float32:
        if "Ana has a dog." in texts:
            raise error
        return embed(texts)

    monkeypatch.setattr(planted, "embed", fails_on_facts)
    assert learn(memory, model, "Ana has a dog.")["semantic"] == []
    assert len(rows(memory, Message)) == 1
    monkeypatch.undo()
    assert [each["memory"] for each in memory.add([], "c")["semantic"]] == ["Ana has a dog."]


def test_a_fact_that_cannot_be_embedded_does_not_keep_later_turns_from_being_read(
    memory: ContextMemory, model: Model, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = planted.embed

    def refuses(texts: Sequence[str]) -> Float32:
        if "unspeakable" in texts:
            raise InvalidInputError("too long for the model")
        return embed(texts)

    monkeypatch.setattr(planted, "embed", refuses)
    assert learn(memory, model, "unspeakable")["semantic"] == []
    for is_given_up in (False, True):
        assert memory.add([], "c")["semantic"] == []
        assert [(row.extracted_at is not None) for row in rows(memory, Message)] == [is_given_up]


def test_an_update_stores_and_embeds_the_same_text(
    memory: ContextMemory, model: Model, planted: Planted
) -> None:
    planted.at("Ana has a dog.", 0.5)
    planted.at("Its name is Rex.", 0.5)
    planted.at("Ana has a dog, Rex.", 0.95)
    [dog] = learn(memory, model, "Ana has a dog.")["semantic"]
    model.decisions = [decision("UPDATE", 1, "Ana has a dog, Rex.")]
    [changed] = learn(memory, model, "Its name is Rex.")["semantic"]
    assert (changed["event"], changed["memory_id"]) == ("UPDATE", dog["memory_id"])
    [found] = memory.search("query", "c")["results"]
    assert found["memory"] == "Ana has a dog, Rex."
    assert found["score"] == pytest.approx(0.95 * 0.5, abs=1e-6)


def test_a_fact_taken_back_ends_and_one_that_is_known_changes_nothing(
    memory: ContextMemory, model: Model, planted: Planted
) -> None:
    for text in ("Ana has a dog.", "Ana has no dog any more.", "A dog is Ana's."):
        planted.at(text, 0.9)
    learn(memory, model, "Ana has a dog.")
    model.decisions = [decision("NOOP", 1)]
    assert learn(memory, model, "A dog is Ana's.")["semantic"] == []
    assert len(rows(memory, Memory)) == 1
    model.decisions = [decision("DELETE", 1)]
    [gone] = learn(memory, model, "Ana has no dog any more.")["semantic"]
    assert (gone["event"], gone["memory"]) == ("DELETE", "Ana has a dog.")
    assert texts_of(memory.search("query", "c")) == []


def test_ten_candidates_of_the_same_conversation_and_owner_are_shown(
    memory: ContextMemory, model: Model, planted: Planted
) -> None:
    for number in range(14):
        model.facts = [fact(planted.at(f"fact {number:02}", 0.95 - number / 50, 1 + number))]
        memory.add(f"say {number}", "c" if number != 13 else "other", user_id="u2" if number == 12 else "u1")
    model.facts = [fact("query")]
    model.decisions = [decision("NOOP", 1)]
    memory.add("ask", "c", user_id="u1")
    shown = json.loads(model.asked["decide"][-1].splitlines()[1])["memories"]
    assert [each["text"] for each in shown] == [f"fact {number:02}" for number in range(10)]


@pytest.mark.parametrize("foreign", [99, 2, "1; DROP TABLE", -1])
def test_a_memory_that_was_not_shown_is_not_touched(
    memory: ContextMemory, model: Model, planted: Planted, foreign: Any
) -> None:
    """Numbers of what was shown are all that a model can name; an id of another conversation is none."""
    model.facts = [fact(planted.at("theirs", 0.9))]
    memory.add("x", "other")
    learn(memory, model, planted.at("ours", 0.9))
    model.decisions = [decision("REPLACE", foreign, "taken over"), decision("DELETE", foreign)]
    learn(memory, model, planted.at("new", 0.8))
    kept = {row.text: (row.active, row.conversation_id) for row in rows(memory, Memory)}
    assert kept == {"theirs": (True, "other"), "ours": (True, "c"), "new": (True, "c")}


@pytest.mark.parametrize(
    "reply", ["", "not JSON at all", "[1, 2", {"facts": "none"}, {"facts": [None, 3, {}]}]
)
def test_a_bad_reply_loses_nothing(
    memory: ContextMemory, model: Model, server: tuple[OpenAIServer, ChatModel], reply: Any
) -> None:
    server[0].reply_always(reply)
    assert memory.add("My dog is called Rex", "c") == {"semantic": [], "bubbles": []}
    assert memory.search_turns("dog called", "c")["results"][0]["content"] == "My dog is called Rex"
    server[0].reply_always(model)
    if isinstance(reply, str):  # no answer at all: asked again by the next message
        model.facts = [fact("The dog is Rex.")]
        assert [each["memory"] for each in memory.add("And he is 3", "c")["semantic"]] == ["The dog is Rex."]
        assert "My dog is called Rex" in model.asked["extract"][-1]


def test_a_server_that_fails_or_hangs_loses_nothing(
    tmp_path: Path, model: Model, planted: Planted, clock: Clock
) -> None:
    with chatting(timeout_s=0.3) as (server, chat):
        server.reply_always(model)
        with ContextMemory(tmp_path / "m.db", planted, chat, clock=clock) as memory:
            server.fail_with(500, times=1)
            memory.add("first", "c")
            server.hang(times=1)
            memory.add("second", "c")
            assert [row.extracted_at for row in rows(memory, Message)] == [None, None]
            model.facts = [fact("Both were read.")]
            assert len(memory.add("third", "c")["semantic"]) == 1
            assert all(row.extracted_at is not None for row in rows(memory, Message))


def test_a_model_of_ones_own_that_raises_whatever_it_likes_loses_nothing(
    tmp_path: Path, planted: Planted
) -> None:
    class Broken:
        def complete_json(self, messages: Any, schema: Any) -> dict[str, Any]:
            raise LookupError("no such model")

    with ContextMemory(tmp_path / "m.db", planted, Broken()) as memory:
        assert memory.add(["said"] * 20, "c") == {"semantic": [], "bubbles": []}
        assert len(rows(memory, Message)) == 20


def test_all_turns_of_a_long_conversation_are_read(
    memory: ContextMemory, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.memory.learning._TURNS_AT_ONCE", 2)
    memory.add([f"turn {i}" for i in range(5)], "c")
    assert [text.count("turn ") for text in model.asked["extract"]] == [2, 4, 5]  # with those before
    assert all(row.extracted_at is not None for row in rows(memory, Message))


def test_a_model_that_is_down_is_not_asked_about_all_that_waits(
    memory: ContextMemory, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.memory.learning._TURNS_AT_ONCE", 2)
    n_asked = 0

    def fails(*_: Any) -> Any:
        nonlocal n_asked
        n_asked += 1
        raise UnavailableError("down")

    monkeypatch.setattr(ChatModel, "complete_json", fails)
    memory.add([f"turn {i}" for i in range(5)], "c")
    assert n_asked == 1


def test_turns_that_cannot_be_read_are_given_up_after_three_tries(
    memory: ContextMemory, model: Model, server: tuple[OpenAIServer, ChatModel]
) -> None:
    server[0].reply_always("garbage")
    memory.add("one", "c")
    for _ in range(4):
        memory.add([], "c")
    [message] = rows(memory, Message)
    assert (message.n_tries, message.extracted_at) == (3, START)


def test_an_episode_told_twice_because_a_reply_broke_off_is_kept_once(
    memory: ContextMemory, model: Model, server: tuple[OpenAIServer, ChatModel]
) -> None:
    event = {"text": "Ana moved.", "occurred_at": "2026-04-01T10:00:00Z", "importance": 0.5, "turn": 1}
    server[0].reply_always('{"facts": [], "events": [' + json.dumps(event) + ', {"text": "Ana br')
    memory.add("I moved", "c")
    server[0].reply_always(model)
    model.events = [event, {**event, "text": "Ana broke a leg."}]
    memory.add([], "c")
    assert [row.text for row in rows(memory, Memory)] == ["Ana moved.", "Ana broke a leg."]


def test_what_another_process_has_changed_meanwhile_is_not_overwritten(
    memory: ContextMemory, model: Model, planted: Planted
) -> None:
    planted.at("Ana has a dog.", 0.9)
    planted.at("It is Rex.", 0.9)
    [dog] = learn(memory, model, "Ana has a dog.")["semantic"]
    model.decisions = [decision("UPDATE", 1, "Ana has a dog, Rex.")]
    model.meanwhile = lambda: memory.update(dog["memory_id"], "Ana has a cat.")
    [added] = learn(memory, model, "It is Rex.")["semantic"]
    assert added["event"] == "ADD"
    assert [row.text for row in rows(memory, Memory)] == ["Ana has a cat.", "Ana has a dog, Rex."]


def test_turns_that_another_process_has_read_meanwhile_are_not_read_twice(
    memory: ContextMemory, model: Model, planted: Planted, server: tuple[OpenAIServer, ChatModel]
) -> None:
    learn(memory, model, planted.at("one", 0.9))
    model.decisions = [decision("ADD", None, "two")]
    other = Learner(memory.engine, planted, server[1])

    def once() -> None:
        model.meanwhile = lambda: None
        other.learn("c", START)

    model.meanwhile = once
    assert learn(memory, model, planted.at("two", 0.9))["semantic"] == []
    assert [row.text for row in rows(memory, Memory)] == ["one", "two"]


def test_system_and_tool_messages_are_kept_and_not_read(memory: ContextMemory, model: Model) -> None:
    memory.add([{"role": "system", "content": "You are kind"}, {"role": "tool", "content": "{}"}], "c")
    assert model.asked["extract"] == []
    assert len(rows(memory, Message)) == 2


def test_a_summary_is_made_every_twenty_messages_over_all_since_the_last(
    memory: ContextMemory, model: Model
) -> None:
    memory.add([f"word {number}" for number in range(19)], "c")
    assert memory.summary("c") is None
    memory.add([f"word {number}" for number in range(19, 25)], "c")
    assert memory.summary("c") == "It was about fruit."
    assert all(f'"word {number}"' in model.asked["summary"][0] for number in range(25))
    model.summary = {"summary": "And about cheese."}
    memory.add([f"word {number}" for number in range(25, 44)], "c")
    assert memory.summary("c") == "It was about fruit."
    memory.add("word 44", "c")
    assert memory.summary("c") == "And about cheese."
    assert "It was about fruit." in model.asked["summary"][1]
    assert '"word 24"' not in model.asked["summary"][1]
    assert '"word 25"' in model.asked["summary"][1]
    assert [row.upto for row in rows(memory, Summary)] == [25, 45]


def test_a_summary_that_fails_is_made_the_next_time(memory: ContextMemory, model: Model) -> None:
    model.summary = "garbage"
    memory.add([f"word {number}" for number in range(20)], "c")
    assert memory.summary("c") is None
    model.summary = {"summary": "All."}
    memory.add("word 20", "c")
    assert memory.summary("c") == "All."
    assert '"word 0"' in model.asked["summary"][-1]


def test_a_turn_that_the_summary_has_read_in_part_is_read_again(
    memory: ContextMemory, model: Model, server: tuple[OpenAIServer, ChatModel]
) -> None:
    server[0].reply_always(
        lambda body: Raw("", status=503) if "half" in str(body["messages"][1]["content"]) else model(body)
    )
    model.summary = {"summary": "half"}
    memory.add(["x" * (2 * BATCH_CHARACTERS), *(f"word {number}" for number in range(19))], "c")
    assert rows(memory, Summary) == []
    server[0].reply_always(model)
    model.summary = {"summary": "All."}
    memory.add("word 19", "c")
    assert [(row.text, row.upto) for row in rows(memory, Summary)] == [("All.", 21)]


def test_what_one_user_said_is_not_shown_with_anothers_turns(memory: ContextMemory, model: Model) -> None:
    memory.add("the secret of one", "c", user_id="u1")
    memory.add("the word of two", "c", user_id="u2")
    assert "secret" not in model.asked["extract"][-1]
