"""Words as a search wants them."""

from __future__ import annotations

import pytest

from faissbase.memory.words import EMPTY, stem_of, words_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("bought", "buying"),
        ("stopped", "stops"),
        ("hobbies", "hobby"),
        ("hoped", "hoping"),
        ("children", "child"),
        ("boxes", "box"),
        ("classes", "class"),
        ("quickly", "quick"),
        ("mom", "mother"),
    ],
)
def test_forms_of_one_word_have_one_stem(one: str, other: str) -> None:
    assert stem_of(one) == stem_of(other)


@pytest.mark.parametrize(
    ("one", "other"), [("bus", "bu"), ("glass", "glas"), ("sing", "s"), ("news", "newest")]
)
def test_different_words_keep_different_stems(one: str, other: str) -> None:
    assert stem_of(one) != stem_of(other)


def test_case_possessives_and_empty_words_do_not_count() -> None:
    assert words_of("What is ANA\u2019s favourite Place?") == words_of("ana favourite place")
    assert words_of(" ".join(sorted(EMPTY))) == []


def test_full_width_letters_equal_plain_ones() -> None:
    assert words_of("\uff21\uff4e\uff41 2024") == ["ana", "2024"]


def test_signs_without_spaces_are_cut_into_pairs() -> None:
    assert words_of("\u6771\u4eac\u90fd") == ["\u6771\u4eac", "\u4eac\u90fd"]
    assert words_of("\u6771") == ["\u6771"]


def test_letters_of_other_alphabets_are_kept() -> None:
    assert words_of("Привет Мир") == ["привет", "мир"]


def test_a_text_without_words_has_none() -> None:
    assert words_of("?! ... _") == []
