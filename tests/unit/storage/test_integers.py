"""Integers beyond 64 bits are refused, at any depth; numbers that are as large but no integers are not."""

from __future__ import annotations

import orjson
import pytest

from faissbase.storage.integers import LargeInteger, refuse_large_integers


@pytest.mark.parametrize("depth", [1, 900])
@pytest.mark.parametrize("number", ["1e30", "-1.5e20", "9223372036854775807", "18446744073709551615"])
def test_numbers_that_orjson_reads_as_they_are_written_pass(number: str, depth: int) -> None:
    text = "[" * depth + number + "]" * depth
    refuse_large_integers(orjson.loads(text), text)


@pytest.mark.parametrize("depth", [1, 100, 1000])
@pytest.mark.parametrize("number", ["18446744073709551616", "-9223372036854775809", "1" + "0" * 30])
def test_integers_that_orjson_makes_floats_of_are_refused(number: str, depth: int) -> None:
    text = "[" * depth + number + "]" * depth
    with pytest.raises(LargeInteger, match="64 bits"):
        refuse_large_integers(orjson.loads(text), text)
