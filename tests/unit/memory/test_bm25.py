"""BM25 that grows and shrinks equals BM25 over what is left."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from faissbase.memory.bm25 import BM25

K1, B = 1.2, 0.75


def by_definition(texts: dict[int, list[str]], words: list[str], n: int) -> list[float]:
    """The formula, text by text."""
    mean = sum(map(len, texts.values())) / len(texts)
    scores = [0.0] * n
    for word in set(words):
        holding = sum(word in text for text in texts.values())
        weight = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        for slot, text in texts.items():
            count = text.count(word)
            scores[slot] += weight * count * (K1 + 1) / (count + K1 * (1 - B + B * len(text) / mean))
    return scores


def random_texts(rng: random.Random, n: int) -> dict[int, list[str]]:
    return {
        slot: [f"w{min(19, int(rng.expovariate(0.2)))}" for _ in range(rng.randint(1, 9))]
        for slot in range(n)
    }


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_the_formula_after_adding_and_removing(seed: int) -> None:
    rng = random.Random(seed)
    index, texts = BM25(k1=K1, b=B), random_texts(rng, 60)
    for slot, words in texts.items():
        index.add(slot, words)
    for slot in rng.sample(sorted(texts), 25):
        index.remove(slot, texts.pop(slot))
    asked = ["w0", "w3", "w3", "w7", "unknown"]
    assert index.scores(asked, 60) == pytest.approx(by_definition(texts, asked, 60))


def test_a_slot_that_is_added_to_scores_as_one_text() -> None:
    whole, pieces = BM25(k1=K1, b=B), BM25(k1=K1, b=B)
    whole.add(0, ["tea", "milk", "tea"])
    whole.add(1, ["coffee"])
    pieces.add(0, ["tea", "milk"])
    pieces.add(1, ["coffee"])
    pieces.add(0, ["tea"])
    assert pieces.scores(["tea", "coffee"], 2) == pytest.approx(whole.scores(["tea", "coffee"], 2))
    pieces.remove(0, ["tea", "milk"])
    assert pieces.scores(["milk"], 2).tolist() == [0.0, 0.0]
    assert pieces.scores(["tea"], 2)[0] > 0


def test_a_slot_in_between_may_be_added_late() -> None:
    index = BM25(k1=K1, b=B)
    for slot in (0, 5, 2):
        index.add(slot, ["tea"])
    assert (index.scores(["tea"], 6) > 0).tolist() == [True, False, True, False, False, True]


def test_common_words_find_no_more_once_rare_ones_found_enough() -> None:
    index = BM25(k1=K1, b=B)
    for slot in range(20):
        index.add(slot, ["day", "rare"] if slot in (4, 9) else ["day"])
    everything, few = index.scores(["day", "rare"], 20), index.scores(["day", "rare"], 20, enough=2)
    assert np.flatnonzero(few).tolist() == [4, 9]
    assert few[[4, 9]] == pytest.approx(everything[[4, 9]])
    assert np.count_nonzero(everything) == 20


def test_an_empty_index_scores_nothing() -> None:
    index = BM25(k1=K1, b=B)
    index.add(0, ["tea"])
    index.remove(0, ["tea"])
    assert index.scores(["tea"], 1).tolist() == [0.0]
    assert index.scores([], 1).tolist() == [0.0]
