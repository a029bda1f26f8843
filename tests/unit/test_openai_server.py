"""The server that other tests rely on does what it says, seen by a plain HTTP client."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from tests.openai_server import (
    CHAT,
    Cut,
    Hang,
    OpenAIServer,
    Raw,
    Text,
    backwards,
    not_finite,
    one_missing,
    one_more,
    other_dimension,
)

EMBEDDINGS = "/embeddings"
COMPLETIONS = "/chat/completions"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(dimension=16, max_batch=4) as found:
        yield found


@pytest.fixture
def client(server: OpenAIServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=5.0) as found:
        yield found


def test_texts_that_share_words_are_near_each_other(client: httpx.Client) -> None:
    texts = ["the red house", "the red barn", "many blue ships"]
    answer = client.post(EMBEDDINGS, json={"model": "m", "input": texts}).json()
    x = np.array([entry["embedding"] for entry in answer["data"]])
    assert x.shape == (3, 16)
    assert np.allclose(np.linalg.norm(x, axis=1), 1.0, atol=1e-5)
    assert x[0] @ x[1] > x[0] @ x[2]


def test_vectors_are_the_same_each_time_and_in_base64(client: httpx.Client) -> None:
    plain = client.post(EMBEDDINGS, json={"input": "hello"}).json()["data"][0]["embedding"]
    coded = client.post(EMBEDDINGS, json={"input": "hello", "encoding_format": "base64"}).json()["data"][0]
    assert np.frombuffer(base64.b64decode(coded["embedding"]), "<f4").tolist() == plain


def test_a_request_may_name_its_dimension(client: httpx.Client) -> None:
    data = client.post(EMBEDDINGS, json={"input": ["a"], "dimensions": 5}).json()["data"]
    assert len(data[0]["embedding"]) == 5


def test_too_many_texts_are_refused(client: httpx.Client) -> None:
    assert client.post(EMBEDDINGS, json={"input": ["a"] * 5}).status_code == 400


def test_spoiled_vectors(server: OpenAIServer, client: httpx.Client) -> None:
    for spoiler in (one_missing, one_more, other_dimension, not_finite, backwards):
        server.spoil_with(spoiler)
    found = [client.post(EMBEDDINGS, json={"input": ["a", "b"]}).json()["data"] for _ in range(6)]
    assert [len(data) for data in found] == [1, 3, 2, 2, 2, 2]
    assert len(found[2][0]["embedding"]) == 17
    assert np.isnan(found[3][1]["embedding"][0])
    assert [entry["index"] for entry in found[4]] == [1, 0]
    assert [entry["index"] for entry in found[5]] == [0, 1]


def test_failures_come_first_and_as_often_as_scripted(server: OpenAIServer, client: httpx.Client) -> None:
    server.fail_with(429, times=2, retry_after="7")
    server.fail_with(500, path=CHAT)
    statuses = [client.post(EMBEDDINGS, json={"input": "a"}) for _ in range(3)]
    assert [answer.status_code for answer in statuses] == [429, 429, 200]
    assert statuses[0].headers["retry-after"] == "7"
    assert client.post(COMPLETIONS, json={"messages": []}).status_code == 500


def test_replies_come_in_order_and_then_there_are_none(server: OpenAIServer, client: httpx.Client) -> None:
    server.reply_with("one", {"two": 2}, lambda body: body["messages"][0]["content"])
    asked = {"model": "m", "messages": [{"role": "user", "content": "three"}]}
    found = [client.post(COMPLETIONS, json=asked) for _ in range(4)]
    contents = [answer.json()["choices"][0]["message"]["content"] for answer in found[:3]]
    assert contents == ["one", json.dumps({"two": 2}), "three"]
    assert found[3].status_code == 400
    assert server.bodies(CHAT) == [asked] * 4


def test_raw_replies_and_the_reason_of_an_end(server: OpenAIServer, client: httpx.Client) -> None:
    server.reply_with(Raw("<html>", media="text/html"), Text("half", finish_reason="length"))
    html = client.post(COMPLETIONS, json={})
    assert (html.text, html.headers["content-type"]) == ("<html>", "text/html")
    choice = client.post(COMPLETIONS, json={"messages": []}).json()["choices"][0]
    assert choice["finish_reason"] == "length"


def test_a_hanging_answer_times_out_and_lets_the_server_close(server: OpenAIServer) -> None:
    server.hang()
    server.reply_with(Hang())
    for _ in range(2):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(server.url + COMPLETIONS, json={"messages": []}, timeout=0.2)
    server.close()
    with pytest.raises(httpx.ConnectError):
        httpx.post(server.url + COMPLETIONS, json={})


def _events(client: httpx.Client) -> Iterator[str]:
    with client.stream("POST", COMPLETIONS, json={"messages": [], "stream": True}) as answer:
        for line in answer.iter_lines():
            if line:
                yield line.removeprefix("data: ")


def test_a_stream_tells_its_end(server: OpenAIServer, client: httpx.Client) -> None:
    server.reply_with(Text("hello world", piece=4))
    *events, last = _events(client)
    choices = [json.loads(event)["choices"][0] for event in events]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "hello world"
    assert choices[-1]["finish_reason"] == "stop"
    assert last == "[DONE]"


def test_a_cut_stream_breaks_off(server: OpenAIServer, client: httpx.Client) -> None:
    server.reply_with(Cut("hello world", after=1, piece=4), Cut("hello"))
    seen: list[str] = []
    with pytest.raises(httpx.RemoteProtocolError):
        seen.extend(_events(client))
    with pytest.raises(httpx.RemoteProtocolError):
        client.post(COMPLETIONS, json={"messages": []})


def test_a_key_may_be_asked_for() -> None:
    with OpenAIServer(api_key="secret") as server:
        for header, status in ((None, 401), ("Bearer other", 401), ("Bearer secret", 200)):
            headers = {} if header is None else {"authorization": header}
            answer = httpx.post(server.url + EMBEDDINGS, json={"input": "a"}, headers=headers)
            assert answer.status_code == status


def test_unknown_json_modes_are_refused() -> None:
    with OpenAIServer(json_modes=("text", "json_object")) as server:
        server.reply_always("{}")
        statuses = [
            httpx.post(server.url + COMPLETIONS, json={"response_format": {"type": mode}}).status_code
            for mode in ("text", "json_object", "json_schema")
        ]
    assert statuses == [200, 200, 400]
