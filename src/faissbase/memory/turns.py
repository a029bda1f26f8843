"""Turns of a conversation, and how a model is shown them. Knows no model and no database.

What was said is data: it reaches a model as JSON between tags, and cannot close the tag.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from faissbase.errors import InvalidInputError

BATCH_CHARACTERS = 16_000


@dataclass(frozen=True, slots=True)
class Turn:
    """What somebody said.

    Attributes
    ----------
    text : str
    speaker : str
        A name, or a role such as ``user``.
    said_at : datetime or None
        With a time zone, which is the one that "yesterday" is meant in.
    """

    text: str
    speaker: str = "user"
    said_at: datetime | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not isinstance(self.speaker, str):
            raise InvalidInputError(
                f"a turn's text and speaker are texts, got {self.text!r}, {self.speaker!r}"
            )
        if self.said_at is not None:
            check_has_zone(self.said_at, "said_at")


@dataclass(frozen=True, slots=True)
class Batch:
    """Turns that fit into one request.

    Attributes
    ----------
    turns : tuple of Turn
    places : tuple of int
        Where each stands among the turns that were given.
    n_ended : int
        How many of those have been shown to their end with this batch.
    """

    turns: tuple[Turn, ...]
    places: tuple[int, ...]
    n_ended: int


def check_has_zone(moment: datetime, name: str) -> datetime:
    """``moment``, if it says its time zone."""
    if not isinstance(moment, datetime) or moment.utcoffset() is None:
        raise InvalidInputError(f"{name} must be a datetime with a time zone, got {moment!r}")
    return moment


def batches_of(turns: Sequence[Turn], most: int = BATCH_CHARACTERS) -> Iterator[Batch]:
    """``turns`` that are not empty, ``most`` characters at a time; a longer turn comes in pieces."""
    pieces: list[tuple[int, Turn]] = []
    size = 0
    for place, piece in _pieces(turns, most):
        if pieces and size + len(piece.text) > most:
            yield _batch(pieces, n_ended=place)
            pieces, size = [], 0
        pieces.append((place, piece))
        size += len(piece.text)
    if pieces:
        yield _batch(pieces, n_ended=len(turns))


def _batch(pieces: list[tuple[int, Turn]], n_ended: int) -> Batch:
    places, turns = zip(*pieces, strict=True)
    return Batch(turns, places, n_ended)


def _pieces(turns: Sequence[Turn], most: int) -> Iterator[tuple[int, Turn]]:
    for place, turn in enumerate(turns):
        if turn.text.strip():
            for start in range(0, len(turn.text), most):
                yield place, replace(turn, text=turn.text[start : start + most])


def shown_turns(turns: Sequence[Turn]) -> str:
    """One JSON object a line: its number from 1, who said it, when (with the weekday), and what."""
    lines = []
    for number, turn in enumerate(turns, 1):
        shown: dict[str, Any] = {"turn": number, "speaker": turn.speaker}
        if turn.said_at is not None:
            shown["said_at"] = shown_time(turn.said_at)
        lines.append(shown_json({**shown, "text": turn.text}))
    return "\n".join(lines)


def shown_time(moment: datetime) -> str:
    """As ISO 8601 with the weekday, which models need for "last Friday"."""
    return f"{moment.isoformat(timespec='seconds')} ({_WEEKDAYS[moment.weekday()]})"


def shown_json(value: object) -> str:
    """JSON in one line that cannot end a tag: its angle brackets are escaped."""
    text = json.dumps(value, ensure_ascii=False)
    # Half of a surrogate pair is no text that could be sent.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def tagged(tag: str, content: str) -> str:
    """``content``, which `shown_json` has made, between tags."""
    return f"<{tag}>\n{content}\n</{tag}>"


# Not by strftime: it speaks the language of the process.
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
