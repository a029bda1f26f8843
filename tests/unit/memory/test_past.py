"""What was known at moments of the past: always what was found then, and read from the database once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text, update
from tests.unit.memory.planted import START, Clock, Planted, texts_of

from faissbase.errors import ConflictError
from faissbase.memory import ContextMemory, Memory, past

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(tmp_path: Path, clock: Clock) -> Iterator[ContextMemory]:
    with ContextMemory(tmp_path / "m.db", Planted(), clock=clock) as found:
        yield found


def _found(memory: ContextMemory, **asked: Any) -> list[tuple[Any, ...]]:
    results = memory.search("question", "c", limit=200, include_connections=False, **asked)["results"]
    return [(each["memory_id"], each["memory"], round(each["score"], 5)) for each in results]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_found_as_of_a_moment_is_what_was_found_then(
    memory: ContextMemory, clock: Clock, seed: int
) -> None:
    rng = random.Random(seed)
    ids: list[int] = []
    then: dict[datetime, list[tuple[Any, ...]]] = {}
    for step in range(25):
        clock.now += HOUR
        if not ids or rng.random() < 0.5:
            ids += [each["memory_id"] for each in memory.add([f"said {step}", "more"], "c")["bubbles"]]
        elif rng.random() < 0.5:
            memory.delete(rng.choice(ids))
        else:
            try:
                memory.update(rng.choice(ids), f"now {step}", importance=rng.random())
            except ConflictError:  # it has ended
                continue
        clock.now += HOUR
        then[clock.now] = _found(memory)
    for moment, found in then.items():
        assert _found(memory, as_of=moment) == found


def test_a_history_is_read_again_only_when_something_has_changed(
    memory: ContextMemory, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read = 0
    read = past._read

    def counted(*args: Any) -> Any:
        nonlocal n_read
        n_read += 1
        return read(*args)

    monkeypatch.setattr(past, "_read", counted)
    memory.add("one", "c")
    memory.add("other", "d")
    for _ in range(3):
        assert texts_of(memory.search("query", "c", as_of=START)) == ["one"]
    memory.add("another", "d")
    assert texts_of(memory.search("query", "c", as_of=START)) == ["one"]
    assert n_read == 1
    engine = create_engine(f"sqlite:///{tmp_path / 'm.db'}")
    with engine.begin() as connection:  # another program
        connection.execute(update(Memory).where(Memory.text == "one").values(text="won"))
    assert texts_of(memory.search("query", "c", as_of=START)) == ["won"]
    with engine.begin() as connection:
        connection.execute(text("PRAGMA foreign_keys = ON"))
        connection.execute(text("DELETE FROM memory_memories WHERE text = 'won'"))
    assert texts_of(memory.search("query", "c", as_of=START)) == []
    assert n_read == 3


def test_the_past_has_scopes_and_filters_too(memory: ContextMemory, clock: Clock) -> None:
    for hour, user in enumerate(("ana", "bob", "ana")):
        said = {"content": f"{user} {hour}", "speaker": user, "occurred_at": START + hour * HOUR}
        memory.add(said, "c", user_id=user)
    clock.pass_days(1)
    asked: list[tuple[dict[str, Any], set[str]]] = [
        ({"user_id": "ana"}, {"ana 0", "ana 2"}),
        ({"speaker": "bob"}, {"bob 1"}),
        ({"since": START + HOUR, "user_id": "ana"}, {"ana 2"}),
        ({"type": "semantic"}, set()),
    ]
    for filters, wanted in asked:
        found = memory.search("query", "c", as_of=clock.now, **filters)
        assert set(texts_of(found)) == wanted
        assert texts_of(found) == texts_of(memory.search("query", "c", **filters))
    assert texts_of(memory.search("query", user_id="bob", as_of=clock.now)) == ["bob 1"]
