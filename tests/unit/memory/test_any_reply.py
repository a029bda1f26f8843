"""Whatever a model replies, the writing phases return, and only what they promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.openai_server import OpenAIServer, Raw
from tests.unit.memory.talking import NOW, chatting, turns

from faissbase.errors import UnavailableError
from faissbase.memory.decisions import Candidate, decide
from faissbase.memory.extraction import Bubble, Extracted, Fact, extract
from faissbase.memory.llm import ChatModel
from faissbase.memory.replies import BadReply, object_in
from faissbase.memory.summary import summarize

FACTS = ["Ana lives in Porto.", "Ana drinks tea."]
CANDIDATES = [[Candidate("a", "Ana lives in Paris.")], [Candidate("b", "Ana likes tea.")]]

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
_FIELDS = {
    "fact": st.integers(-1, 3),
    "turn": st.integers(-1, 3),
    "memory": st.integers(-1, 4) | st.sampled_from(["a", "b"]),
    "operation": st.sampled_from(["ADD", "update", "REPLACE", "DELETE", "NOOP", "MERGE"]),
    "text": st.text(max_size=20) | st.sampled_from([*FACTS, "x" * 1001, "\ud83d\x00"]),
    "importance": st.floats() | st.sampled_from(["0.7", "high"]),
    "occurred_at": st.sampled_from(
        ["yesterday", "2024-05-03", "0001-01-01T00:00:00+14:00", "9999 weeks ago"]
    ),
}
_item = st.fixed_dictionaries({}, optional={name: field | _scalars for name, field in _FIELDS.items()})
_items = st.lists(_item | _values, max_size=4)
_objects = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("facts", "events", "decisions", "summary"), _items | _values)
)


def _as_text(value: Any) -> str:
    return json.dumps(value)


@st.composite
def _replies(draw: st.DrawFn) -> str:
    """Nearly good replies, other JSON, any text, and each of them cut anywhere."""
    text = draw(_objects.map(_as_text) | _values.map(_as_text) | st.text(max_size=200))
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


def _check_extracted(found: Extracted) -> None:
    items: list[Fact | Bubble] = [*found.semantic, *found.bubbles]
    for item in items:
        assert 0 < len(item.text) <= 1000
        assert item.text.encode()
        assert "\x00" not in item.text
        assert item.turn in (None, 0, 1)
    for bubble in found.bubbles:
        assert 0.3 <= bubble.importance <= 1.0
        assert bubble.occurred_at.utcoffset() == timedelta(0)


@given(_replies())
def test_extraction_takes_any_reply(reply: str) -> None:
    _check_extracted(extract(turns("a", "b"), model=lambda messages: reply, now=NOW))


@given(_replies())
def test_decisions_take_any_reply(reply: str) -> None:
    found = decide(FACTS, CANDIDATES, model=lambda messages: reply)
    assert {decision.fact for decision in found.decisions} == {0, 1}
    for decision in found.decisions:
        assert decision.memory_id in (None, "a" if decision.fact == 0 else "b")
        assert (decision.text is None) == (decision.operation in ("DELETE", "NOOP"))
        assert decision.text is None or 0 < len(decision.text.encode()) <= 4000
        assert (decision.memory_id is None) == (decision.operation == "ADD")


@given(_replies())
def test_summaries_take_any_reply(reply: str) -> None:
    found = summarize("before", turns("a"), model=lambda messages: reply)
    assert (found.text is None) == (found.n_covered == 0) == found.should_retry
    assert found.text is None or 0 < len(found.text.encode()) <= 16_000


@given(_replies() | _values)
def test_an_object_is_found_or_the_reply_is_a_bad_one(reply: object) -> None:
    found: Any
    try:
        found = object_in(reply, ["facts"])
    except BadReply as error:
        found = error.partial
    assert found is None or "facts" in found


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[OpenAIServer, ChatModel]]:
    with chatting() as found:
        yield found


@given(body=_values.map(_as_text) | st.text(max_size=100) | _replies())
def test_any_answer_of_a_server_that_is_no_completion_is_worth_another_try(
    served: tuple[OpenAIServer, ChatModel], body: str
) -> None:
    server, model = served
    server.reply_always(Raw(body))
    with pytest.raises(UnavailableError):
        model.complete([{"role": "user", "content": "a"}])
