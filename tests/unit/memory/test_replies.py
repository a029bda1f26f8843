"""JSON is found in whatever a model writes around it, and what is broken is told apart from what is whole."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from faissbase.errors import UnavailableError
from faissbase.memory.replies import (
    MOST_REPLY,
    BadReply,
    items_of,
    number_of,
    object_in,
    sameness,
    text_of,
    whole_number_of,
)

WHOLE = {"facts": ["a", "b"], "n": 1}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(WHOLE),
        f"\n\n{json.dumps(WHOLE, indent=2)}  ",
        f"```json\n{json.dumps(WHOLE)}\n```",
        f"```\n{json.dumps(WHOLE)}\n```\nI hope this helps {{with}} it [1].",
        f"Here you are [as asked]: {json.dumps(WHOLE)}",
        f'<think>maybe {{"facts": ["no", "far more than the answer has"]}}</think>{json.dumps(WHOLE)}',
        f'Maybe {{"facts": ["no", "far more than the answer has"]}}</think>\n{json.dumps(WHOLE)}',
        f"{json.dumps({'facts': []})} was my draft; now: {json.dumps(WHOLE)}",
        f"\ufeff{json.dumps(WHOLE)}",
    ],
)
def test_an_object_is_found_in_what_surrounds_it(text: str) -> None:
    assert object_in(text, ["facts"]) == WHOLE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no",
        "null",
        "[]",
        "[1, 2]",
        "3",
        '"facts"',
        "<html>{}</html>",
        "{'facts': []}",
        '{"other": 1}',
        "{" * 5000,
    ],
)
def test_a_reply_without_the_object_is_a_bad_one(text: str) -> None:
    with pytest.raises(BadReply, match="no JSON object as asked") as caught:
        object_in(text, ["facts"])
    assert caught.value.partial is None
    assert isinstance(caught.value, UnavailableError)
    assert caught.value.retryable
    assert caught.value.kind == "bad_reply"


@pytest.mark.parametrize(
    ("text", "partial"),
    [
        ('{"facts": [{"text": "a"}, {"text": "b"}, {"te', {"facts": [{"text": "a"}, {"text": "b"}]}),
        ('{"facts": [{"text": "a"}, {"text": "b, c", "turn', {"facts": [{"text": "a"}, {"text": "b, c"}]}),
        ('{"facts": ["a", "b"], "events": [{"text": "c"}', {"facts": ["a", "b"], "events": [{"text": "c"}]}),
        ('{"facts": ["a \\" , }", "b', {"facts": ['a " , }']}),
        ('```json\n{"facts": [1, 2', {"facts": [1]}),
        ('see {this}: {"facts": [[1], [2', {"facts": [[1]]}),
        ('{"facts": ["half of it', None),
        ('{"facts": [', None),
        ('{"other": [1, 2], "more', None),
    ],
)
def test_of_a_reply_that_broke_off_the_whole_part_is_kept(text: str, partial: Any) -> None:
    with pytest.raises(BadReply) as caught:
        object_in(text, ["facts"])
    assert caught.value.partial == partial


@pytest.mark.parametrize(
    "text", ["[" * 480_000, '{"a":' * 90_000, "{" * 480_000, '{"a": "' + "x" * 480_000, "{,}" * 160_000]
)
def test_replies_made_to_be_slow_are_not(text: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(BadReply):
        object_in(text, ["facts"])
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize("end", ["", "</think>", '</think>{"facts": ["a'])
def test_a_draft_among_thoughts_is_no_answer(end: str) -> None:
    with pytest.raises(BadReply) as caught:
        object_in('<think>Maybe {"facts": ["no"]}, or so' + end, ["facts"])
    assert caught.value.partial is None


def test_a_tag_within_the_answer_is_a_part_of_it() -> None:
    assert object_in('```\n{"facts": ["</think>", "{}"]}```', ["facts"]) == {"facts": ["</think>", "{}"]}


def test_a_reply_beyond_measure_is_not_read() -> None:
    with pytest.raises(BadReply, match=f"at most {MOST_REPLY}"):
        object_in('{"facts": []}' + " " * MOST_REPLY)


def test_a_reply_that_is_no_text_is_shown() -> None:
    with pytest.raises(BadReply, match="got '17'"):
        object_in(17)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  two words \n", "two words"),
        ("nul\x00 and bell\x07", "nul and bell"),
        ("half a pair \ud83d", "half a pair ?"),
        ("line\nline", "line\nline"),
        ("", None),
        ("\x00 \n", None),
        ("eleven char", None),
        (None, None),
        (["a"], None),
    ],
)
def test_texts_are_cleaned_and_bounded(value: object, text: str | None) -> None:
    assert text_of(value, 10 if value == "eleven char" else 20) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        ("0.7", 0.7),
        (True, None),
        (float("nan"), None),
        (float("inf"), None),
        (10**400, None),
        ("much", None),
        (None, None),
        ([1], None),
        ("1e999", None),
    ],
)
def test_numbers_are_finite_or_none(value: object, number: float | None) -> None:
    assert number_of(value) == number


def test_whole_numbers() -> None:
    assert [whole_number_of(value) for value in (3, "3", 3.0, 3.5, None, True)] == [3, 3, 3, None, None, None]


def test_lists_are_bounded_and_their_faults_told() -> None:
    problems: list[str] = []
    assert items_of({"facts": [1, 2, 3]}, "facts", 2, problems) == [1, 2]
    assert items_of({"facts": "a"}, "facts", 2, problems) == []
    assert items_of({}, "facts", 2, problems) == []
    assert problems == [
        "3 items in 'facts', the first 2 are taken",
        "'facts' must be a list, got 'a'",
        "the reply has no 'facts'",
    ]


def test_texts_are_the_same_whatever_their_case_spaces_and_stop() -> None:
    assert sameness("Ana  likes\nTEA.") == sameness("ana likes tea")
    assert sameness("Ana likes tea") != sameness("Ana likes tea?")
