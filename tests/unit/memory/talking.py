"""What the tests of the writing phases share: a server with a model, times, and turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import Any

from tests.openai_server import OpenAIServer

from faissbase.memory.llm import ChatModel
from faissbase.memory.turns import Turn

PARIS = timezone(timedelta(hours=2))
NOW = datetime(2024, 5, 3, 20, 0, tzinfo=timezone.utc)
SAID_AT = datetime(2024, 5, 3, 1, 30, tzinfo=PARIS)


@contextmanager
def chatting(
    *, retries: int = 0, timeout_s: float = 5.0, **server: Any
) -> Iterator[tuple[OpenAIServer, ChatModel]]:
    """A server, and a model on it that waits for nobody between its tries."""
    with OpenAIServer(**server) as found:
        model = ChatModel(
            "scripted", found.url, "secret", retries=retries, timeout_s=timeout_s, sleep=lambda seconds: None
        )
        try:
            yield found, model
        finally:
            model.close()


def turns(*texts: str, said_at: datetime | None = SAID_AT) -> list[Turn]:
    return [Turn(text, "ana", said_at) for text in texts]


def asked(server: OpenAIServer, place: int = -1) -> str:
    """What the user's message of a request said."""
    content: str = server.bodies()[place]["messages"][1]["content"]
    return content
