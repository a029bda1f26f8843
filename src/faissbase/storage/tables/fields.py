"""The JSON of a record's fields. Knows values, not which file or row they came from."""

from __future__ import annotations

from typing import Any

import orjson

from faissbase.errors import InvalidInputError
from faissbase.storage.integers import LargeInteger, refuse_large_integers
from faissbase.storage.tables.contract import METADATA_COLUMN


class Refusal(Exception):
    """What is wrong with a row; who knows which row it is raises InvalidInputError from it."""


def parse_json(text: bytes | str) -> Any:
    """The value of JSON text; Refusal where it is none."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refusal(f"not valid JSON: {error}, got {shown(text)}") from error


def check_integers(value: Any, text: bytes | str) -> None:
    """Refusal where ``value``, parsed from ``text``, has lost digits of an integer."""
    try:
        refuse_large_integers(value, text)
    except LargeInteger as error:
        raise Refusal(str(error)) from error


def dump_json(value: dict[str, Any], row: int) -> bytes:
    """JSON text; InvalidInputError naming ``row`` where a value has none."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise InvalidInputError(f"row {row} cannot be written as JSON: {error}") from error


def merge_metadata(metadata: Any, beside: dict[str, Any]) -> dict[str, Any]:
    """``metadata`` (an object or None) and the fields beside it; Refusal where a name stands in both.

    >>> merge_metadata({"a": 1}, {"b": 2})
    {'a': 1, 'b': 2}
    """
    if metadata is None:
        return beside
    if not isinstance(metadata, dict):
        raise Refusal(f"expected an object under {METADATA_COLUMN!r}, got {shown(metadata)}")
    both = sorted(metadata.keys() & beside.keys())
    if both:
        raise Refusal(f"{both} both inside {METADATA_COLUMN!r} and beside it: rename one")
    return metadata | beside


def shown(value: Any) -> str:
    """The value for a message, cut to 60 characters."""
    text = repr(value[:60] if isinstance(value, bytes | str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
