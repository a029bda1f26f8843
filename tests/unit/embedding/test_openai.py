"""Embeddings over HTTP: batches, order, what is tried again, and what is an error."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests import openai_server as wrong
from tests.openai_server import EMBEDDINGS, OpenAIServer, Raw, hashed_vector

from faissbase.embedding import Endpoint, OpenAIEmbedder
from faissbase.errors import AccessError, InvalidInputError, UnavailableError


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(dimension=16) as server:
        yield server


def _embedder(server: OpenAIServer, **options: object) -> OpenAIEmbedder:
    return OpenAIEmbedder("mini", base_url=server.url, **options)  # type: ignore[arg-type]


def test_texts_are_embedded_in_order(server: OpenAIServer) -> None:
    server.spoil_with(wrong.backwards)
    texts = ["red", "green", "blue"]
    vectors = _embedder(server).embed(texts)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.array([hashed_vector(text, 16) for text in texts], np.float32))


def test_many_texts_travel_in_batches(server: OpenAIServer) -> None:
    texts = [f"text {i}" for i in range(10)]
    assert _embedder(server, batch_size=4).embed(texts).shape == (10, 16)
    assert [len(batch) for batch in server.texts()] == [4, 4, 2]


def test_long_texts_travel_in_smaller_batches(server: OpenAIServer) -> None:
    _embedder(server).embed(["word " * 20_000] * 5)
    assert [len(batch) for batch in server.texts()] == [2, 2, 1]


def test_the_dimension_is_asked_once(server: OpenAIServer) -> None:
    embedder = _embedder(server)
    assert (embedder.name, embedder.dimension, embedder.dimension) == ("mini", 16, 16)
    assert len(server.paths()) == 1
    assert embedder.embed([]).shape == (0, 16)


def test_more_fields_and_the_key_are_sent() -> None:
    with OpenAIServer(dimension=16, api_key="secret") as server:
        embedder = _embedder(server, api_key="secret", parameters={"dimensions": 8})
        assert embedder.embed(["a"]).shape == (1, 8)
        assert server.bodies(EMBEDDINGS) == [{"dimensions": 8, "model": "mini", "input": ["a"]}]
        with pytest.raises(AccessError, match="Incorrect API key"):
            _embedder(server, api_key="other").embed(["a"])
        assert len(server.paths()) == 2


def test_what_the_environment_says_is_used(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    OpenAIEmbedder("mini").embed(["a"])
    assert server.requests[0].headers["authorization"] == "Bearer from the environment"


@pytest.mark.parametrize("status", [408, 429, 500, 503, 529])
def test_a_busy_server_is_asked_again(server: OpenAIServer, status: int) -> None:
    waits: list[float] = []
    endpoint = Endpoint(server.url, sleep=waits.append)
    server.fail_with(status, times=2)
    assert endpoint.post("embeddings", {"model": "m", "input": ["a"]})["data"]
    assert len(server.paths()) == 3
    assert 0.25 <= waits[0] <= 0.5 <= waits[1] <= 1.0


def test_retry_after_is_honoured_within_a_minute(server: OpenAIServer) -> None:
    waits: list[float] = []
    endpoint = Endpoint(server.url, sleep=waits.append)
    for told in ("7", "3600", "-1"):
        server.fail_with(429, retry_after=told)
    assert endpoint.post("embeddings", {"model": "m", "input": ["a"]})["data"]
    assert waits == [7.0, 60.0, 0.0]


def test_a_server_that_stays_busy_is_an_error(server: OpenAIServer) -> None:
    waits: list[float] = []
    server.fail_with(503, times=9)
    with pytest.raises(UnavailableError, match=r"answered 503: .*scripted failure"):
        Endpoint(server.url, retries=2, sleep=waits.append).post("embeddings", {"input": ["a"]})
    assert (len(server.paths()), len(waits)) == (3, 2)


def test_a_wrong_request_is_not_tried_again(server: OpenAIServer) -> None:
    with pytest.raises(InvalidInputError, match="404"):
        Endpoint(server.url).post("nowhere", {})
    assert len(server.paths()) == 1


def test_a_server_that_hangs_or_is_gone_is_unavailable(server: OpenAIServer) -> None:
    server.hang()
    with pytest.raises(UnavailableError, match="Timeout"):
        _embedder(server, timeout_s=0.2, retries=0).embed(["a"])
    server.close()
    with pytest.raises(UnavailableError, match="ConnectError"):
        _embedder(server, retries=0).embed(["a"])


@pytest.mark.parametrize(
    ("spoiler", "error", "message"),
    [
        (wrong.one_missing, UnavailableError, "1 vectors for 2 texts"),
        (wrong.one_more, UnavailableError, "3 vectors for 2 texts"),
        (wrong.other_dimension, InvalidInputError, "d=17, expected d=16"),
        (wrong.uneven, InvalidInputError, "no array of numbers"),
    ],
)
def test_wrong_vectors_are_errors(
    server: OpenAIServer, spoiler: wrong.Spoiler, error: type[Exception], message: str
) -> None:
    server.spoil_with(spoiler)
    with pytest.raises(error, match=message):
        _embedder(server, dimension=16).embed(["a", "b"])


def test_a_number_that_is_not_finite_is_an_error(server: OpenAIServer) -> None:
    server.spoil_with(wrong.not_finite, times=4)
    with pytest.raises((InvalidInputError, UnavailableError), match=r"not finite|no JSON"):
        _embedder(server, retries=0).embed(["a", "b"])


@pytest.mark.parametrize(
    "answer", ["<html>busy</html>", "{", "", "[]", '{"data": 3}', '{"data": [{}]}', "null"]
)
def test_an_answer_that_is_none_is_unavailable(server: OpenAIServer, answer: str) -> None:
    server._faults.extend([(None, Raw(answer))])
    with pytest.raises(UnavailableError, match="answered no"):
        _embedder(server, retries=0).embed(["a"])


def test_wrong_settings_are_refused() -> None:
    for options in ({"base_url": "localhost:11434"}, {"timeout_s": 0}, {"retries": -1}, {"batch_size": 0}):
        with pytest.raises(InvalidInputError, match=str(next(iter(options.values())))):
            OpenAIEmbedder("mini", **options)
