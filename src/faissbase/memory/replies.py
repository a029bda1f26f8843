"""What a model replies, made into values that can be trusted. Knows no model, no network, no database."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

from faissbase.errors import UnavailableError

MOST_REPLY = 500_000
_TRIED_STARTS = 64
_TRIED_OBJECTS = 4
_SHOWN = 200
_ANSWER_BEGIN = re.compile(r"\s*(?:\{|```)")
_THOUGHTS_BEGIN = re.compile(r"\s*<think(?:ing)?>", re.IGNORECASE)
_THOUGHTS_END = re.compile(r"</think(?:ing)?>", re.IGNORECASE)
_START = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()


class BadReply(UnavailableError):
    """A model replied, but not what it was asked for; asking again may help.

    Attributes
    ----------
    partial : Any
        What is whole of a reply that was cut off; None where nothing is.
    """

    kind: ClassVar[str] = "bad_reply"

    def __init__(self, message: str, *, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


def shown(value: object) -> str:
    """The beginning of ``value``, for a message."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def object_in(text: object, names: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object in a reply: alone, fenced, or the longest one with words around it.

    Where ``names`` are given, it has one of them: what lies inside of a broken object is not taken for it.

    Raises
    ------
    BadReply
        There is none. Where one begins and breaks off, ``partial`` is its whole part.
    """
    if not isinstance(text, str):
        raise BadReply(f"a text was wanted of the model, got {shown(text)}")
    if len(text) > MOST_REPLY:
        raise BadReply(f"the model's reply has {len(text)} characters, at most {MOST_REPLY} are read")
    answer = _answer_in(text)
    found = _longest(answer, names)
    if found is None:
        partial = _whole_part(answer, names)
        raise BadReply(f"no JSON object as asked for in the model's reply: {shown(text)}", partial=partial)
    return found


def _answer_in(text: str) -> str:
    """What comes after a model's thoughts, whose draft is not its answer; nothing, where they do not end."""
    if _ANSWER_BEGIN.match(text):
        return text
    parts = _THOUGHTS_END.split(text)
    return "" if len(parts) == 1 and _THOUGHTS_BEGIN.match(text) else parts[-1]


def _longest(text: str, names: Collection[str]) -> dict[str, Any] | None:
    best: tuple[int, dict[str, Any]] | None = None
    for size, value in _values(text):
        if _has_one(value, names) and (best is None or size > best[0]):
            best = (size, value)
    return None if best is None else best[1]


def _has_one(value: object, names: Collection[str]) -> bool:
    return isinstance(value, dict) and (not names or any(name in value for name in names))


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """Objects and arrays in ``text``, one after another, with their lengths."""
    position = 0
    for _ in range(_TRIED_STARTS):
        found = _START.search(text, position)
        if found is None:
            return
        try:
            value, end = _DECODER.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            position = found.start() + 1
        else:
            yield end - found.start(), value
            position = end


def _whole_part(text: str, names: Collection[str]) -> dict[str, Any] | None:
    """The object that ``text`` begins and does not end, up to its last whole value."""
    start = text.find("{")
    for _ in range(_TRIED_OBJECTS):
        if start < 0:
            break
        for closed in _closings(text[start:]):
            try:
                value = json.loads(closed)
            except (ValueError, RecursionError):
                continue
            if _has_one(value, names):
                found: dict[str, Any] = value
                return found
        start = text.find("{", start + 1)
    return None


def _closings(text: str) -> list[str]:
    """``text`` cut at its last commas and after its last closed values, and closed; the longest first."""
    open_ends: list[str] = []
    cuts: list[tuple[int, str]] = []
    in_string = is_escaped = False
    for i, character in enumerate(text):
        if in_string:
            in_string = is_escaped or character != '"'
            is_escaped = character == "\\" and not is_escaped
        elif character == '"':
            in_string = True
        elif character in "{[":
            open_ends.append("}" if character == "{" else "]")
        elif character in "}]" and open_ends:
            open_ends.pop()
            cuts.append((i + 1, "".join(reversed(open_ends))))
        elif character == ",":
            cuts.append((i, "".join(reversed(open_ends))))
        if not open_ends or len(open_ends) > _TRIED_STARTS:
            return []  # it ends, so that it has not broken off but is no JSON; or it is no reply of sense
    return [text[:end] + ends for end, ends in reversed(cuts[-_TRIED_STARTS:])]


def text_of(value: object, most: int) -> str | None:
    """``value`` as one clean line-by-line text of 1 to ``most`` characters; None where it is no such text."""
    if not isinstance(value, str):
        return None
    text = value.encode("utf-8", "replace").decode("utf-8")
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
    text = "".join(kept).strip()
    return text if 0 < len(text) <= most else None


def number_of(value: object) -> float | None:
    """``value`` as a finite number; also of a text such as ``"0.7"``. None where it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def whole_number_of(value: object) -> int | None:
    """``value`` as a whole number; also of ``"3"`` and ``3.0``. None where it is none."""
    number = number_of(value)
    return int(number) if number is not None and number.is_integer() else None


def items_of(reply: dict[str, Any], name: str, most: int, problems: list[str]) -> list[Any]:
    """The list under ``name``, up to ``most`` items; what is wrong with it goes to ``problems``."""
    found = reply.get(name)
    if found is None:
        problems.append(f"the reply has no {name!r}")
        return []
    if not isinstance(found, list):
        problems.append(f"{name!r} must be a list, got {shown(found)}")
        return []
    if len(found) > most:
        problems.append(f"{len(found)} items in {name!r}, the first {most} are taken")
    return found[:most]


def sameness(text: str) -> str:
    """What two texts share that say the same in the same words: case, spaces and the last stop aside."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .!")
