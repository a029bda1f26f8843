"""What is given to a memory, checked before anything is touched: messages, moments, whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeAlias

from faissbase.errors import InvalidInputError
from faissbase.memory.standing import in_utc

Messages: TypeAlias = "str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]"

NAME_LENGTH = 255
_MOMENTS = ("occurred_at", "timestamp", "created_at")
_FIELDS = frozenset({"role", "content", "name", "speaker", *_MOMENTS})
# What OpenAI's messages have beside: calls of tools, and what nobody says.
_UNSPOKEN = frozenset({"tool_calls", "tool_call_id", "function_call", "refusal", "audio", "annotations"})


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose something is, beside its conversation; None asks nothing."""

    user_id: str | None = None
    agent_id: str | None = None
    session_id: str | None = None

    def __post_init__(self) -> None:
        for name, value in self.asked.items():
            checked_name(value, name)

    @property
    def asked(self) -> dict[str, str]:
        """The parts that are not None."""
        parts = {"user_id": self.user_id, "agent_id": self.agent_id, "session_id": self.session_id}
        return {name: value for name, value in parts.items() if value is not None}


ANYBODY = Scope()


@dataclass(frozen=True, slots=True)
class Said:
    """One message that can be kept. ``occurred_at`` has a time zone."""

    role: str
    speaker: str
    content: str
    occurred_at: datetime

    @property
    def spoken(self) -> str:
        """As it is embedded to be found as a turn: who says it belongs to it, where that is a name."""
        return self.content if self.speaker == self.role else f"{self.speaker}: {self.content}"

    @property
    def offset_s(self) -> int:
        offset = self.occurred_at.utcoffset()
        return 0 if offset is None else int(offset.total_seconds())


def checked_messages(messages: Messages, now: datetime) -> list[Said]:
    """The messages of ``add``: texts, or OpenAI's ``{"role", "content"}`` with a name and a moment maybe.

    OpenAI's messages are taken as they are. One that only calls tools says nothing, and is passed over.

    Raises
    ------
    InvalidInputError
        Something is wrong with one; its place is named.
    """
    if isinstance(messages, str | Mapping):
        messages = [messages]
    if not isinstance(messages, Sequence):
        raise InvalidInputError(f"messages are a list of {{'role', 'content'}}, got {messages!r}")
    return [
        _said(message, place, now)
        for place, message in enumerate(messages)
        if not (isinstance(message, Mapping) and _only_calls(message))
    ]


def _only_calls(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call")) and not message.get("content")


def _said(message: str | Mapping[str, Any], place: int, now: datetime) -> Said:
    what = f"message {place}"
    if isinstance(message, str):
        message = {"content": message}
    if not isinstance(message, Mapping):
        raise InvalidInputError(f"{what} must be a text or a dict, got {message!r}")
    unknown = sorted(set(map(str, message)) - _FIELDS - _UNSPOKEN)
    if unknown:
        raise InvalidInputError(f"{what} has the unknown field {unknown[0]!r}: known are {sorted(_FIELDS)}")
    role = checked_name(message.get("role", "user"), f"the role of {what}")
    speaker = message.get("speaker") or message.get("name") or role
    moments = [message[name] for name in _MOMENTS if message.get(name) is not None]
    return Said(
        role,
        checked_name(speaker, f"the speaker of {what}"),
        checked_text(_joined(message.get("content") or message.get("refusal")), f"the content of {what}"),
        checked_moment(moments[0], f"the time of {what}") if moments else now,
    )


def _joined(content: object) -> object:
    """The text of OpenAI's content parts; anything else as it is."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def checked_text(text: object, what: str) -> str:
    """A text that says something, without the NUL characters that PostgreSQL does not keep."""
    kept = text.replace("\x00", "").encode("utf-8", "replace").decode() if isinstance(text, str) else ""
    if not kept.strip():
        raise InvalidInputError(f"{what} must be a text that is not empty, got {text!r}")
    return kept


def checked_name(name: object, what: str) -> str:
    """A text of 1 to 255 characters that a database keeps: no NUL, no half of a surrogate pair."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_LENGTH or not is_storable(name):
        raise InvalidInputError(f"{what} must be a text of 1 to {NAME_LENGTH} characters, got {name!r}")
    return name


def is_storable(text: str) -> bool:
    """Whether SQLite and PostgreSQL both keep it as it is."""
    return "\x00" not in text and not any("\ud800" <= sign <= "\udfff" for sign in text)


def checked_moment(value: object, what: str) -> datetime:
    """A moment with a time zone, from a datetime, ISO 8601, or seconds since 1970; UTC where none is said."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value.strip().replace("Z", "+00:00"))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            value = datetime.fromtimestamp(value, timezone.utc)
        if isinstance(value, datetime):
            in_utc(value)  # the first and last of years may have no such moment
            return value if value.tzinfo is not None else in_utc(value)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInputError(f"{what} is no moment: {value!r} ({error})") from error
    raise InvalidInputError(f"{what} must be a datetime, ISO 8601, or seconds since 1970, got {value!r}")


def checked_importance(value: object) -> float | None:
    """A number from 0 to 1, or None."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) <= 1:  # type: ignore[arg-type]  # a number by now
        raise InvalidInputError(f"importance must be a number from 0 to 1, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def checked_limit(limit: object) -> int:
    """A whole number from 1 on."""
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise InvalidInputError(f"limit must be a whole number from 1 on, got {limit!r}")
    return limit
