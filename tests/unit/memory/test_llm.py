"""Models are asked over real HTTP, and by functions; what fails is one of the declared errors."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from tests.openai_server import Cut, OpenAIServer, Raw, Text, Trickle
from tests.unit.memory.talking import chatting

from faissbase.errors import AccessError, FaissbaseError, InvalidInputError, UnavailableError
from faissbase.memory.llm import Chat, ChatModel, Message, as_chat_model, reply_of, schema_of
from faissbase.memory.replies import BadReply

MESSAGES: list[Message] = [{"role": "user", "content": "count"}]
SCHEMA = schema_of(n={"type": "integer"})


def test_a_model_is_asked_with_its_name_key_and_parameters() -> None:
    with OpenAIServer() as server:
        server.reply_with({"n": 1})
        model = ChatModel("small", server.url, "secret", parameters={"temperature": 0})
        assert model.complete_json(MESSAGES, SCHEMA) == {"n": 1}
        model.close()
    asked = server.requests[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.body["model"] == "small"
    assert asked.body["temperature"] == 0
    assert asked.body["messages"] == MESSAGES
    assert asked.body["response_format"]["json_schema"]["schema"] == SCHEMA


def test_plain_text_is_replied_as_it_is() -> None:
    with chatting() as (server, model):
        server.reply_with("hello")
        assert model.complete(MESSAGES) == "hello"
    assert "response_format" not in server.bodies()[0]


@pytest.mark.parametrize(
    ("known", "modes"),
    [
        (("text", "json_object", "json_schema"), ["json_schema", "json_schema"]),
        (("text", "json_object"), ["json_schema", "json_object", "json_object"]),
        (("text",), ["json_schema", "json_object", None, None]),
    ],
)
def test_the_best_json_mode_that_a_server_takes_is_kept(known: list[str], modes: list[str | None]) -> None:
    with chatting(json_modes=known) as (server, model):
        server.reply_always({"n": 1})
        for _ in range(2):
            assert model.complete_json(MESSAGES, SCHEMA) == {"n": 1}
    assert [body.get("response_format", {}).get("type") for body in server.bodies()] == modes


def test_a_request_that_is_wrong_in_every_mode_is_told() -> None:
    with chatting() as (server, model):
        with pytest.raises(InvalidInputError, match="no reply is scripted"):
            model.complete_json(MESSAGES, SCHEMA)
        server.reply_with({"n": 1})
        assert model.complete_json(MESSAGES, SCHEMA) == {"n": 1}
    assert server.bodies()[-1]["response_format"]["type"] == "json_schema"


def test_a_reply_without_json_is_asked_for_once_more() -> None:
    messages: list[Message] = [{"role": "system", "content": "be exact"}, *MESSAGES]
    with chatting() as (server, model):
        server.reply_with("I would rather not.", '```json\n{"n": 2}\n```')
        assert model.complete_json(messages, SCHEMA) == {"n": 2}
    first, again = (body["messages"] for body in server.bodies())
    assert first == messages
    assert again[0] == messages[0]
    assert [message["role"] for message in again] == ["system", "user"]
    assert again[1]["content"].startswith("count\n\nReply with one JSON object")


def test_a_second_reply_without_json_is_the_last() -> None:
    with chatting() as (server, model):
        server.reply_with("no", "never", {"n": 1})
        with pytest.raises(BadReply, match="never"):
            model.complete_json(MESSAGES, SCHEMA)
    assert server.waiting() == 1


def test_a_reply_that_was_cut_off_is_not_asked_for_again() -> None:
    with chatting() as (server, model):
        server.reply_with(Text('{"n": [1, 2, 3', finish_reason="length"), {"n": 1})
        with pytest.raises(BadReply) as caught:
            model.complete_json(MESSAGES, SCHEMA)
    assert caught.value.partial == {"n": [1, 2]}
    assert server.waiting() == 1


@pytest.mark.parametrize(
    "body",
    [
        '{"choices": []}',
        '{"choices": [{"message": {"content": null, "refusal": "no"}}]}',
        '{"choices": [{"message": "n"}]}',
        '{"choices": {"0": 1}}',
        '{"choices": ["abc"]}',
        '{"choices": null}',
        '{"object": "error", "message": "overloaded"}',
        "[1, 2]",
        "null",
        '"text"',
        "17",
    ],
)
def test_an_answer_that_is_no_completion_is_a_bad_reply(body: str) -> None:
    with chatting() as (server, model):
        server.reply_always(lambda _: Raw(body))
        with pytest.raises(BadReply, match="'scripted'"):
            model.complete_json(MESSAGES, SCHEMA)


@pytest.mark.parametrize(
    "reply",
    [
        Raw("<html><h1>Bad gateway</h1></html>", media="text/html"),
        Raw("<html><h1>Bad gateway</h1></html>", status=502, media="text/html"),
        Raw('{"choices": [{"mess'),
        Raw(b"\xff\xfe\x00"),
        Raw(""),
        Raw("", status=302, headers={"location": "http://127.0.0.1:9/"}),
        Raw(b"no gzip", headers={"content-encoding": "gzip"}),
        Cut('{"n": 1}'),
    ],
)
def test_garbage_is_tried_again_and_then_unavailable(reply: Raw | Cut) -> None:
    with chatting(retries=1) as (server, model):
        server.reply_always(lambda _: reply)
        with pytest.raises(UnavailableError):
            model.complete_json(MESSAGES, SCHEMA)
        assert len(server.requests) == 2
        server.reply_with(reply, {"n": 1})
        assert model.complete_json(MESSAGES, SCHEMA) == {"n": 1}


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    waits: list[float] = []
    with OpenAIServer() as server:
        server.fail_with(429, retry_after="7")
        server.fail_with(500)
        server.reply_with({"n": 1})
        model = ChatModel("m", server.url, retries=2, sleep=waits.append)
        assert model.complete_json(MESSAGES, SCHEMA) == {"n": 1}
        model.close()
    assert waits[0] == 7
    assert 0 < waits[1] < 3


def test_a_server_that_stays_busy_is_unavailable() -> None:
    with chatting(retries=2) as (server, model):
        server.fail_with(429, times=5)
        with pytest.raises(UnavailableError, match="429"):
            model.complete_json(MESSAGES, SCHEMA)
        assert len(server.requests) == 3


def test_a_wrong_key_is_told_at_once() -> None:
    with chatting(retries=3, api_key="other") as (server, model):
        with pytest.raises(AccessError, match="Incorrect API key"):
            model.complete_json(MESSAGES, SCHEMA)
        assert len(server.requests) == 1


def test_a_server_that_hangs_is_left() -> None:
    with chatting(timeout_s=0.2) as (server, model):
        server.hang()
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match="Timeout"):
            model.complete_json(MESSAGES, SCHEMA)
        assert time.monotonic() - begun < 3


def test_a_server_that_answers_byte_by_byte_is_left_in_time() -> None:
    with chatting(timeout_s=0.3) as (server, model):
        server.reply_with(Trickle(b" " * 1000))
        begun = time.monotonic()
        with pytest.raises(UnavailableError, match=r"takes longer than 0\.3 s"):
            model.complete_json(MESSAGES, SCHEMA)
        assert time.monotonic() - begun < 5


def test_nobody_at_the_address_is_unavailable() -> None:
    with chatting() as (server, model):
        server.close()
        with pytest.raises(UnavailableError, match="Connect"):
            model.complete_json(MESSAGES, SCHEMA)


def test_a_function_of_messages_is_a_model() -> None:
    seen: list[list[Message]] = []

    def model(messages: list[Message]) -> str:
        seen.append(messages)
        return "so: {}" if len(seen) == 1 else 'so: {"n": 3}'

    assert as_chat_model(model).complete_json(MESSAGES, SCHEMA) == {"n": 3}
    assert seen[0] == MESSAGES
    assert seen[0][0] is not MESSAGES[0]


def test_a_function_that_fails_is_unavailable_and_says_how() -> None:
    def model(messages: list[Message]) -> str:
        raise RuntimeError("out of credit")

    with pytest.raises(UnavailableError, match=r"'model' failed: RuntimeError.'out of credit'"):
        as_chat_model(model).complete_json(MESSAGES, SCHEMA)


def test_errors_of_this_library_pass_through_a_function() -> None:
    def model(messages: list[Message]) -> str:
        raise AccessError("no key")

    with pytest.raises(AccessError, match="no key"):
        as_chat_model(model).complete_json(MESSAGES, SCHEMA)


def test_a_function_that_returns_no_text_is_a_bad_reply() -> None:
    with pytest.raises(BadReply, match="a text was wanted"):
        as_chat_model(lambda messages: {"n": 1}).complete_json(MESSAGES, SCHEMA)  # type: ignore[arg-type, return-value]


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="got 'gpt'"):
        as_chat_model("gpt")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="a model's name"):
        ChatModel("")


def test_functions_are_models_without_httpx_and_servers_say_what_they_need() -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(['httpx', 'sqlalchemy'], None))
from datetime import datetime, timezone
from faissbase.errors import NotReadyError
from faissbase.memory.decisions import decide
from faissbase.memory.extraction import extract
from faissbase.memory.llm import ChatModel
from faissbase.memory.summary import summarize
from faissbase.memory.turns import Turn
now = datetime(2024, 5, 3, tzinfo=timezone.utc)
print(extract([Turn('a')], model=lambda messages: '{"facts": ["found"], "events": []}', now=now).semantic)
try:
    ChatModel('m')
except NotReadyError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Fact(text='found', turn=None)" in run.stdout
    assert 'pip install "faissbase[' in run.stdout


def test_a_model_of_ones_own_is_taken_as_it_is() -> None:
    with chatting() as (_, model):
        assert as_chat_model(model) is model
        assert isinstance(model, Chat)


class _Returns:
    def __init__(self, found: object) -> None:
        self._found = found

    def complete_json(self, messages: object, schema: object) -> dict[str, object]:
        if isinstance(self._found, FaissbaseError):
            raise self._found
        return self._found  # type: ignore[return-value]


def test_a_reply_in_any_case_tells_failures_and_keeps_parts() -> None:
    assert reply_of(_Returns({"n": 1}), MESSAGES, SCHEMA).problem is None
    cut = reply_of(_Returns(BadReply("cut", partial={"n": 1})), MESSAGES, SCHEMA)
    assert (cut.content, cut.problem) == ({"n": 1}, "cut")
    assert reply_of(_Returns(AccessError("no key")), MESSAGES, SCHEMA).problem == "AccessError: no key"
    assert (
        reply_of(_Returns([1]), MESSAGES, SCHEMA).problem
        == "a JSON object was wanted of the model, got '[1]'"
    )
