"""Integers of JSON that do not fit 64 bits: parsers make floats of them, which are other numbers."""

from __future__ import annotations

import json
from typing import Any

LEAST, MOST = -(2**63), 2**64 - 1


class LargeInteger(ValueError):
    """JSON text holds an integer beyond 64 bits."""


def refuse_large_integers(value: Any, text: bytes | str) -> None:
    """Raise `LargeInteger` where ``value``, as orjson read ``text``, holds a float that was a large integer.

    >>> refuse_large_integers({"a": 1e30}, '{"a": 1e30}')
    >>> refuse_large_integers({"a": 1e20}, '{"a": 100000000000000000000}')
    Traceback (most recent call last):
    faissbase.storage.integers.LargeInteger: 100000000000000000000 exceeds 64 bits: write it as text
    """
    if _holds_large_float(value):
        try:
            json.loads(text, parse_int=_checked)
        except RecursionError as error:
            raise LargeInteger(
                "a number beyond 64 bits lies too deep to be read: write it as text"
            ) from error


def _holds_large_float(value: Any) -> bool:
    """Without recursion: orjson takes what is nested deeper than Python may call."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        kind = type(each)
        if kind is float:
            if not LEAST < each <= MOST:  # the next integer below is LEAST itself as a float
                return True
        elif kind is dict:
            waiting.extend(each.values())
        elif kind is list:
            waiting.extend(each)
    return False


def _checked(digits: str) -> int:
    value = int(digits) if len(digits) <= len(str(LEAST)) else MOST + 1
    if not LEAST <= value <= MOST:
        shown = digits if len(digits) <= 40 else f"{digits[:40]}..."
        raise LargeInteger(f"{shown} exceeds 64 bits: write it as text")
    return value
