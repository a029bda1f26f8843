"""Anything that embeds becomes an embedder, and what it returns is checked."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from faissbase.embedding import Embedder, HashedEmbedder, as_embedder, check_same_embedder
from faissbase.errors import ConflictError, InvalidInputError


def _lengths(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), 1.0] for text in texts]


class _SentenceModel:
    """As sentence-transformers has it."""

    model_card_data = type("Card", (), {"base_model": "acme/mini"})()

    def encode(self, texts: list[str]) -> Any:
        return np.ones((len(texts), 3), np.float64)


class _LoadedModel(_SentenceModel):
    """As sentence-transformers has it, where the card's ``base_model`` is None unless the Hub was asked."""

    def __init__(self, loaded_by: str, base_model: str | None) -> None:
        self.model_card_data = SimpleNamespace(base_model=base_model)
        config = SimpleNamespace(_name_or_path=loaded_by)
        self._modules = [SimpleNamespace(auto_model=SimpleNamespace(config=config))]

    def __getitem__(self, place: int) -> Any:
        return self._modules[place]


class _LangChainModel:
    model = "text-embedding-3-small"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return _lengths(texts)

    def embed_query(self, text: str) -> list[float]:
        return _lengths([text])[0]


def test_a_callable_embeds_and_tells_its_dimension() -> None:
    embedder = as_embedder(_lengths)
    assert isinstance(embedder, Embedder)
    assert embedder.dimension == 2
    assert embedder.embed(["four", "six six"]).tolist() == [[4, 1], [7, 1]]
    assert embedder.embed(["four"]).dtype == np.float32
    assert embedder.name.endswith("._lengths")


def test_no_texts_give_no_vectors() -> None:
    assert as_embedder(_lengths).embed([]).shape == (0, 2)
    assert HashedEmbedder(64).embed([]).shape == (0, 64)


def test_models_of_other_libraries_embed_under_their_own_names() -> None:
    sentences = as_embedder(_SentenceModel())
    assert (sentences.name, sentences.dimension) == ("acme/mini", 3)
    chain = as_embedder(_LangChainModel())
    assert (chain.name, chain.dimension) == ("text-embedding-3-small", 2)
    assert as_embedder(_lengths, name="mine").name == "mine"


def test_a_sentence_model_has_the_name_it_was_loaded_by_whether_or_not_the_hub_answers() -> None:
    online, offline = _LoadedModel("acme/mini", "acme/mini"), _LoadedModel("acme/mini", None)
    assert as_embedder(online).name == as_embedder(offline).name == "acme/mini"
    assert as_embedder(_LoadedModel("models/a", None)).name == "models/a"


def test_an_embedder_stays_itself() -> None:
    hashed = HashedEmbedder(128)
    assert as_embedder(hashed) is hashed
    assert as_embedder(hashed, dimension=128) is hashed
    with pytest.raises(InvalidInputError, match=r"dimension 384, 'hashed-128' has 128"):
        as_embedder(hashed, dimension=384)


@pytest.mark.parametrize("source", [None, 3, "text-embedding-3-small", [1.0]])
def test_what_does_not_embed_is_refused(source: Any) -> None:
    with pytest.raises(InvalidInputError, match=type(source).__name__):
        as_embedder(source)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([1.0, 2.0], r"shape \(2,\) for 2 texts"),
        ([[1.0]], r"shape \(1, 1\) for 2 texts"),
        ([[1.0], [2.0, 3.0]], "no array of numbers"),
        ([["a"], ["b"]], "no array of numbers"),
        (None, "returned"),
        ([[], []], r"shape \(2, 0\)"),
        ([[1.0, 2.0], [float("nan"), 1.0]], r"not finite \(row 1\)"),
        ([[1e39, 2.0], [1.0, 1.0]], r"not finite \(row 0\)"),
        ([[1.0, 2.0, 3.0]] * 2, "d=3, expected d=2"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_wrong_vectors_are_refused(returned: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        as_embedder(lambda texts: returned, dimension=2).embed(["a", "b"])


class _Own:
    """An `Embedder` of somebody else, who says d=2 and returns anything."""

    name, dimension = "own", 2

    def __init__(self, returned: Any) -> None:
        self.returned = returned

    def embed(self, texts: Sequence[str]) -> Any:
        return self.returned


@pytest.mark.parametrize("returned", [[[1, 2], [3, 4]], iter([np.array([1, 2]), [3, 4]])])
def test_embedders_of_others_may_return_whatever_holds_vectors(returned: Any) -> None:
    found = as_embedder(_Own(returned)).embed(["a", "b"])
    assert found.tolist() == [[1, 2], [3, 4]]
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([[1.0, 2.0, 3.0]] * 2, "d=3, expected d=2"),
        ([[1.0, 2.0]], r"shape \(1, 2\) for 2 texts"),
        ([[1.0, 2.0], [float("nan"), 1.0]], r"not finite \(row 1\)"),
        (iter([[1.0, 2.0]] * 3), r"shape \(3, 2\) for 2 texts"),
        (None, "returned"),
    ],
)
def test_wrong_vectors_of_an_embedder_of_others_are_refused(returned: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        as_embedder(_Own(returned)).embed(["a", "b"])


@pytest.mark.parametrize("texts", ["one text", b"bytes", ["fine", 3], [None]])
def test_what_is_no_list_of_texts_is_refused(texts: Any) -> None:
    for embedder in (as_embedder(_lengths), HashedEmbedder(64)):
        with pytest.raises(InvalidInputError, match=r"list of texts|expected str"):
            embedder.embed(texts)


def test_a_model_that_changes_its_dimension_is_caught() -> None:
    sizes = iter([2, 3])

    def changing(texts: Sequence[str]) -> Any:
        return np.ones((len(texts), next(sizes)))

    embedder = as_embedder(changing)
    assert embedder.dimension == 2
    with pytest.raises(InvalidInputError, match="d=3, expected d=2"):
        embedder.embed(["a"])


def test_another_embedder_than_the_stored_one_is_a_conflict() -> None:
    check_same_embedder(("hashed-64", 64), HashedEmbedder(64), "the cache")
    with pytest.raises(
        ConflictError, match=r"the cache was embedded by 'other' \(d=64\), not by 'hashed-64'"
    ):
        check_same_embedder(("other", 64), HashedEmbedder(64), "the cache")
