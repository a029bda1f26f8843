"""Hashed words: near where words or their parts are shared, the same in every process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faissbase.embedding import HashedEmbedder
from faissbase.errors import InvalidInputError


def _similarity(a: str, b: str) -> float:
    first, second = HashedEmbedder().embed([a, b])
    return float(first @ second)


def test_shared_words_bring_texts_near() -> None:
    question = "How do I reset my password?"
    near = _similarity(question, "Reset a forgotten password")
    assert near > _similarity(question, "Which restaurants are open on Sunday?") + 0.2


def test_inflections_and_spellings_are_near() -> None:
    assert _similarity("indexing vectors", "indexes of a vector") > 0.3
    assert _similarity("neighbour search", "neighbor searches") > 0.3


def test_case_and_punctuation_do_not_matter() -> None:
    assert _similarity("Hello, WORLD!", "hello world") == pytest.approx(1)


def test_common_words_weigh_less_than_rare_ones() -> None:
    assert _similarity("what is the llama", "llama farming") > _similarity(
        "what is the llama", "what is the sky"
    )


def test_every_process_embeds_alike() -> None:
    code = (
        "from faissbase.embedding import HashedEmbedder as H; print(H(64).embed(['a b c']).tobytes().hex())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == HashedEmbedder(64).embed(["a b c"]).tobytes().hex()


@given(st.lists(st.text(st.characters(codec=None)), max_size=5))
def test_any_text_has_a_unit_vector_of_its_own(texts: list[str]) -> None:
    vectors = HashedEmbedder(64).embed(texts)
    assert vectors.shape == (len(texts), 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(HashedEmbedder(64).embed([text])[0], vector)


def test_texts_without_words_are_told_apart() -> None:
    assert _similarity("!!!", "???") < 0.5
    assert _similarity("", "???") < 0.5


def test_the_name_tells_the_dimension() -> None:
    assert HashedEmbedder(256).name == "hashed-256"
    for dimension in (0, 63, 65_536):
        with pytest.raises(InvalidInputError, match=str(dimension)):
            HashedEmbedder(dimension)
