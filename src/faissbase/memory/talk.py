"""The turns of conversations, found by words, vectors and what stands around them.

One index a conversation, in memory, which reads what was committed since whenever it is asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import Engine, and_, select
from sqlalchemy.orm import Session

from faissbase.memory import databases
from faissbase.memory.models import Conversation, Message
from faissbase.memory.ranked import Ranked, Turn, Where
from faissbase.memory.ranking import NEAREST, TurnIndex
from faissbase.memory.said import ANYBODY, Scope
from faissbase.memory.store import FAISSVectorStore
from faissbase.types import Float32

_ROWS_AT_ONCE = 2_000
_CONVERSATIONS_KEPT = 256
_PAUSE_S = 4 * 3600.0  # after so long a silence, a new session begins where none is named


@dataclass(frozen=True, slots=True)
class TurnsWanted:
    """What a search of turns asks for beside its question."""

    limit: int
    scope: Scope = ANYBODY
    speakers: Collection[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    recency: float | None = None
    asker: str | None = None
    now: datetime | None = None


class Talk:
    """The turns of one conversation."""

    def __init__(self, conversation_id: str, dimension: int) -> None:
        self._conversation_id = conversation_id
        self._dimension = dimension
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._index = TurnIndex()
        self._store = FAISSVectorStore(self._dimension)
        self._n = 0
        self._last_id: int | None = None
        self._n_pauses = 0
        self._last_at: datetime | None = None

    def search(self, session: Session, question: str, query: Float32, wanted: TurnsWanted) -> list[Ranked]:
        """The best turns, of all that are committed."""
        with self._lock:
            self._catch_up(session)
            among = self._among(session, wanted.scope)
            nearest = {}
            if self._store.count and query.any():
                found = self._store.ranked(query, NEAREST, among=among)
                nearest = {str(each.memory_id): each.similarity for each in found}
            return self._index.search(
                question,
                wanted.limit,
                nearest=nearest,
                where=Where(wanted.speakers, wanted.since, wanted.until, among=among),
                asker=wanted.asker,
                now=wanted.now,
                recency=wanted.recency,
            )

    def _among(self, session: Session, scope: Scope) -> set[str] | None:
        if not scope.asked:
            return None
        owned = select(Message.id).where(
            Message.conversation_id == self._conversation_id,
            *(getattr(Message, name) == value for name, value in scope.asked.items()),
        )
        return set(map(str, session.scalars(owned)))

    def _catch_up(self, session: Session) -> None:
        is_last = and_(Message.conversation_id == Conversation.id, Message.position == self._n)
        wanted = select(Conversation.n_messages, Message.id).outerjoin(Message, is_last)
        found = session.execute(wanted.where(Conversation.id == self._conversation_id)).one_or_none()
        n, last_id = (0, None) if found is None else found
        # A backup was put back, or the conversation was deleted and has begun again.
        if n < self._n or last_id != self._last_id:
            self._start()
        if n == self._n:
            return
        new = (
            select(Message)
            .where(Message.conversation_id == self._conversation_id, Message.position > self._n)
            .order_by(Message.position)
            .execution_options(yield_per=_ROWS_AT_ONCE)
        )
        for messages in session.scalars(new).partitions():
            self._add(messages)

    def _add(self, messages: Sequence[Message]) -> None:
        self._index.add([self._turn(message) for message in messages])
        usable = [
            each for each in messages if len(each.embedding) == self._dimension and each.embedding.any()
        ]
        if usable:
            vectors = np.stack([each.embedding for each in usable])
            self._store.add_many([str(each.id) for each in usable], vectors)
        self._n, self._last_id = messages[-1].position, messages[-1].id

    def _turn(self, message: Message) -> Turn:
        if (
            self._last_at is not None
            and abs((message.occurred_at - self._last_at).total_seconds()) > _PAUSE_S
        ):
            self._n_pauses += 1
        self._last_at = message.occurred_at
        named = message.session_id
        return Turn(
            str(message.id),
            message.content,
            message.speaker,
            f"named {named}" if named is not None else f"pause {self._n_pauses}",
            message.occurred_at,
        )


class Talks:
    """The turns of all conversations of one database, those used last kept in memory."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Talk] = OrderedDict()

    def search(
        self,
        conversations: Sequence[str] | None,
        question: str,
        query: Float32,
        wanted: TurnsWanted,
        neighbours: int,
    ) -> list[dict[str, Any]]:
        """The best turns of these conversations, or of all that have some of the scope wanted."""
        with databases.reading(self._engine) as session:
            found: list[Ranked] = []
            for conversation_id in conversations or self._owned(session, wanted.scope):
                found += self._talk(conversation_id, len(query)).search(session, question, query, wanted)
            best = sorted(found, key=lambda each: -each.score)[: wanted.limit]
            return _told(session, best, wanted.scope, neighbours)

    def _owned(self, session: Session, scope: Scope) -> list[str]:
        conditions = [getattr(Message, name) == value for name, value in scope.asked.items()]
        return list(session.scalars(select(Message.conversation_id).where(*conditions).distinct()))

    def _talk(self, conversation_id: str, dimension: int) -> Talk:
        with self._lock:
            talk = self._kept.setdefault(conversation_id, Talk(conversation_id, dimension))
            self._kept.move_to_end(conversation_id)
            while len(self._kept) > _CONVERSATIONS_KEPT:
                self._kept.popitem(last=False)
            return talk


def _told(session: Session, found: list[Ranked], scope: Scope, neighbours: int) -> list[dict[str, Any]]:
    messages = {
        message.id: message
        for message in session.scalars(
            select(Message).where(Message.id.in_([int(each.id) for each in found]))
        )
    }
    results = []
    for each in found:
        message = messages.get(int(each.id))
        if message is None:  # deleted by another program
            continue
        entry = {**shown_message(message), "score": each.score}
        if neighbours:
            entry["neighbours"] = _around(session, message, scope, neighbours)
        results.append(entry)
    return results


def _around(session: Session, message: Message, scope: Scope, n: int) -> list[dict[str, Any]]:
    """What was said right before and after, in the same session and scope, in order."""
    near = (
        select(Message)
        .where(
            Message.conversation_id == message.conversation_id,
            Message.position.between(message.position - n, message.position + n),
            Message.id != message.id,
            Message.session_id.is_not_distinct_from(message.session_id),
            *(getattr(Message, name) == value for name, value in scope.asked.items()),
        )
        .order_by(Message.position)
    )
    return [shown_message(each) for each in session.scalars(near)]


def shown_message(message: Message) -> dict[str, Any]:
    """What an answer tells of a turn."""
    return {
        "message_id": message.id,
        "conversation_id": message.conversation_id,
        "position": message.position,
        "role": message.role,
        "speaker": message.speaker,
        "content": message.content,
        "occurred_at": message.occurred_at,
    }
