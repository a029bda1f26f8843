"""Values as people read them."""

from __future__ import annotations

import doctest

import pytest

from faissbase.cli import text


def test_the_examples_hold() -> None:
    assert doctest.testmod(text).failed == 0


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (3.2e9, "3.2 GB"), (5e15, "5e+03 TB")],
)
def test_sizes_are_decimal(size_bytes: float, shown: str) -> None:
    assert text.size(size_bytes) == shown


def test_clipped_text_fits_wide_letters_too() -> None:
    assert text.clip("日本語のテキスト", 7) == "日本語…"
    assert text.width_of(text.clip("日本語のテキスト", 6)) <= 6
    assert text.width_of("e\u0301") == 1


def test_a_table_lines_up_under_wide_letters() -> None:
    lines = text.table([["日本", "1"], ["ab", "22"], ["abcdef", "3"]], "<>")
    assert {text.width_of(line) for line in lines} == {len("abcdef") + 2 + 2}


def test_escape_sequences_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in text.printable("\x1b]0;title\x07red\x1b[31m")
    assert "\x1b" not in text.compact({"a\x1b": "b\x1b", "c": ["\x1b"]})
    assert "\x1b" not in text.first_line("\n  \x1b[2J first \nsecond")


def test_metadata_shows_the_fields_asked_for_in_their_order() -> None:
    assert text.compact({"a": 1, "b": "x", "c": None}, ["c", "nope", "a"]) == "c=null  a=1"


def test_a_document_of_blank_lines_has_no_first_line() -> None:
    assert text.first_line("\n \n") == ""
