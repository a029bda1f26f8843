"""What a language model makes of turns: memories, their changes, the running summary.

Asks the model outside of any transaction; then, in one, sees whether all is still as it was, and commits.
What another process has done meanwhile stays, and what fails is left for the next time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import groupby
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from faissbase.embedding import Embedder
from faissbase.embedding.embedder import embedded
from faissbase.errors import FaissbaseError
from faissbase.memory import databases
from faissbase.memory.changes import Changes, New, owned_by
from faissbase.memory.decisions import CANDIDATES, Candidate, Decision, decide
from faissbase.memory.extraction import Bubble, Extracted, Fact, extract
from faissbase.memory.linking import cosine, near_to
from faissbase.memory.llm import Chat
from faissbase.memory.models import Conversation, Memory, Message, Summary
from faissbase.memory.replicas import replica_of
from faissbase.memory.said import Scope
from faissbase.memory.summary import is_due, summarize
from faissbase.memory.turns import Turn
from faissbase.types import Float32

_log = logging.getLogger(__name__)

_TURNS_AT_ONCE = 200
_RECENT = 4
_TRIES_MAX = 3
NOT_TALK = ("system", "developer", "tool")


@dataclass(frozen=True, slots=True)
class Learner:
    """What learning needs of the memory that it learns for."""

    engine: Engine
    embedder: Embedder
    model: Chat

    def learn(self, conversation_id: str, now: datetime) -> list[dict[str, Any]]:
        """Take facts and bubbles from the turns that were not read yet; what has changed.

        What fails is told in the log, and left for the next time.
        """
        changed: list[dict[str, Any]] = []
        with _put_off(conversation_id):
            for pending in self._pending(conversation_id):
                lesson = _Lesson(self, conversation_id, pending, now)
                changed += lesson.run()
                if lesson.has_failed:  # a model that is down would be asked about all the others, too
                    break
        return changed

    def _pending(self, conversation_id: str) -> Iterator[list[Message]]:
        """Turns not read yet, those of one scope together."""
        last = 0
        while messages := self._unread(conversation_id, last):
            last = messages[-1].position
            for _, group in groupby(messages, scope_of):
                yield list(group)

    def _unread(self, conversation_id: str, after: int) -> Sequence[Message]:
        """Turns that were not read yet, behind that position."""
        unread = (
            select(Message)
            .where(
                Message.conversation_id == conversation_id,
                Message.extracted_at.is_(None),
                Message.position > after,
            )
            .order_by(Message.position)
            .limit(_TURNS_AT_ONCE)
        )
        with databases.reading(self.engine) as session:
            return session.scalars(unread).all()

    def summarize(self, conversation_id: str, now: datetime) -> None:
        """Renew the summary where twenty turns have come since the last one. Raises as little as `learn`."""
        with _put_off(conversation_id):
            self._renew_summary(conversation_id, now)

    def _renew_summary(self, conversation_id: str, now: datetime) -> None:
        with databases.reading(self.engine) as session:
            last = last_summary(session, conversation_id)
            upto = 0 if last is None else last.upto
            n = session.scalar(select(Conversation.n_messages).where(Conversation.id == conversation_id)) or 0
            if not is_due(n - upto):
                return
            since = select(Message).where(
                Message.conversation_id == conversation_id, Message.position.between(upto + 1, n)
            )
            messages = session.scalars(since.order_by(Message.position)).all()
        found = summarize(
            None if last is None else last.text, [turn_of(each) for each in messages], model=self.model
        )
        _tell(conversation_id, found.problems)
        if found.text is not None and found.n_covered:
            self._keep_summary(
                Summary(
                    conversation_id=conversation_id,
                    upto=messages[found.n_covered - 1].position,
                    text=found.text,
                    made_at=now,
                ),
                upto,
            )

    def _keep_summary(self, summary: Summary, after: int) -> None:
        """Unless another process has made one meanwhile."""
        with databases.writing(self.engine) as session:
            databases.lock_conversation(session, summary.conversation_id)
            last = last_summary(session, summary.conversation_id)
            if (0 if last is None else last.upto) == after:
                session.add(summary)


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What some turns tell: facts with what they do to memories, bubbles with what they lie near."""

    found: Extracted
    known: dict[int, int]
    decisions: Sequence[Decision]
    vectors: list[Float32]
    bubbles: list[tuple[Bubble, Float32]]
    near: list[dict[int, float]]


class _Lesson:
    """What is learnt from some turns of one conversation and scope."""

    def __init__(
        self, learner: Learner, conversation_id: str, pending: Sequence[Message], now: datetime
    ) -> None:
        self._engine, self._embedder, self._model = learner.engine, learner.embedder, learner.model
        self._conversation_id = conversation_id
        self._pending = pending
        self._scope = scope_of(pending[0])
        self._now = now
        self.has_failed = False

    def run(self) -> list[dict[str, Any]]:
        """Ask, compare, decide, commit; what has changed."""
        try:
            learnt = self._learnt()
        except FaissbaseError:  # what cannot be embedded must not keep all later turns from being read
            with databases.writing(self._engine) as session:
                databases.lock_conversation(session, self._conversation_id)
                self._claimed(session, should_retry=True)
            raise
        with databases.writing(self._engine) as session:
            databases.lock_conversation(session, self._conversation_id)
            if not self._claimed(session, learnt.found.should_retry):
                return []
            changes = Changes(
                session, self._conversation_id, embedder=self._embedder.name, now=self._now, by="model"
            )
            facts = learnt.found.semantic
            changed = self._carry_out(session, changes, learnt.decisions, learnt.vectors, facts, learnt.known)
            return changed + self._keep(session, changes, learnt.bubbles, learnt.near)

    def _learnt(self) -> _Learnt:
        """What the model says, and where it lies; nothing is changed."""
        found = self._extracted()
        self.has_failed = found.should_retry
        known, decisions = self._decided(found.semantic)
        vectors = self._embedded([each.text or "" for each in decisions if each.text is not None])
        bubbles = list(zip(found.bubbles, self._embedded([each.text for each in found.bubbles]), strict=True))
        near = [
            near_to(self._engine, self._conversation_id, vector, self._now, self._scope)
            for _, vector in bubbles
        ]
        return _Learnt(found, known, decisions, vectors, bubbles, near)

    def _extracted(self) -> Extracted:
        with databases.reading(self._engine) as session:
            summary = last_summary(session, self._conversation_id)
            before = select(Message).where(
                Message.conversation_id == self._conversation_id,
                Message.position < self._pending[0].position,
                *(getattr(Message, name).is_not_distinct_from(getattr(self._scope, name)) for name in _PARTS),
            )
            recent = session.scalars(before.order_by(Message.position.desc()).limit(_RECENT)).all()
        found = extract(
            [turn_of(each) for each in self._pending],
            model=self._model,
            now=self._now,
            # Of a scope, nothing may be told that others have said.
            summary=None if summary is None or self._scope.asked else summary.text,
            recent=[turn_of(each) for each in reversed(recent)],
        )
        _tell(self._conversation_id, found.problems)
        return found

    def _embedded(self, texts: Sequence[str]) -> list[Float32]:
        return list(embedded(self._embedder, texts)) if texts else []

    def _decided(self, facts: Sequence[Fact]) -> tuple[dict[int, int], Sequence[Decision]]:
        """What to do about each fact; and the last change of each memory that it was compared with."""
        if not facts:
            return {}, ()
        store = replica_of(self._engine, self._conversation_id).synced(dimension=self._embedder.dimension)
        vectors = self._embedded([fact.text for fact in facts])
        with databases.reading(self._engine) as session:
            semantic = select(Memory.id).where(
                Memory.conversation_id == self._conversation_id,
                Memory.active,
                Memory.kind == "semantic",
                *owned_by(Memory, self._scope),
            )
            among = set(session.scalars(semantic))
            nearest = [
                [int(each.memory_id) for each in store.ranked(vector, CANDIDATES, among=among)]
                if vector.any()
                else []
                for vector in vectors
            ]
            wanted = select(Memory).where(Memory.id.in_({each for few in nearest for each in few}))
            memories = {memory.id: memory for memory in session.scalars(wanted)}
        candidates = [
            [
                Candidate(each, memories[each].text, memories[each].occurred_at)
                for each in few
                if each in memories
            ]
            for few in nearest
        ]
        decided = decide(facts, candidates, model=self._model)
        _tell(self._conversation_id, decided.problems)
        return {memory.id: memory.seq for memory in memories.values()}, decided.decisions

    def _claimed(self, session: Session, should_retry: bool) -> bool:
        """Mark the turns as read; False where another process has read them meanwhile."""
        ids = [message.id for message in self._pending]
        wanted = select(Message).where(Message.id.in_(ids)).order_by(Message.position)
        now = session.scalars(wanted.with_for_update()).all()
        tries = [(message.id, message.n_tries) for message in self._pending]
        if [(each.id, each.n_tries) for each in now if each.extracted_at is None] != tries:
            return False
        for message in now:
            message.n_tries += 1
            if not should_retry or message.n_tries >= _TRIES_MAX:
                message.extracted_at = self._now
        return True

    def _carry_out(
        self,
        session: Session,
        changes: Changes,
        decisions: Sequence[Decision],
        vectors: Sequence[Float32],
        facts: Sequence[Fact],
        known: dict[int, int],
    ) -> list[dict[str, Any]]:
        changed, remaining = [], iter(vectors)
        touched: dict[int, int] = {}
        for decision in decisions:
            said = self._said(facts[decision.fact].turn)
            vector = next(remaining) if decision.text is not None else None
            memory = self._unchanged(session, decision, known | touched)
            entry = self._done(changes, decision, memory, vector, said)
            if entry is not None:
                changed.append(entry)
            if memory is not None:
                session.refresh(memory)
                touched[memory.id] = memory.seq
        return changed

    def _unchanged(self, session: Session, decision: Decision, known: dict[int, int]) -> Memory | None:
        """The memory that a decision is about, as it was when the model saw it; None where it is not."""
        if decision.memory_id is None:
            return None
        memory = session.get(Memory, decision.memory_id, populate_existing=True)
        is_same = (
            memory is not None
            and memory.active
            and memory.conversation_id == self._conversation_id
            and memory.seq == known.get(memory.id)
        )
        return memory if is_same else None

    def _done(
        self,
        changes: Changes,
        decision: Decision,
        memory: Memory | None,
        vector: Float32 | None,
        said: Message,
    ) -> dict[str, Any] | None:
        if decision.operation == "NOOP" or (decision.operation == "DELETE" and memory is None):
            return None
        if decision.operation == "DELETE" and memory is not None:
            if memory.valid_from is not None and said.occurred_at < memory.valid_from:
                return None  # what was taken back before it was said is said again
            changes.delete(memory, said.occurred_at, "taken back by what was said")
            return entry_of(memory, "DELETE")
        assert vector is not None
        assert decision.text is not None
        if decision.operation == "UPDATE" and memory is not None:
            changes.update(
                memory,
                {"text": decision.text, "embedding": vector, "occurred_at": said.occurred_at},
                said.occurred_at,
            )
            changes.unlink(memory)
            return entry_of(memory, "UPDATE")
        new = New(
            "semantic",
            decision.text,
            vector,
            said.occurred_at,
            said.occurred_at,
            None,
            said.speaker,
            self._scope,
        )
        if decision.operation == "REPLACE" and memory is not None:
            return {**entry_of(changes.replace(memory, new), "REPLACE"), "replaced": memory.id}
        return entry_of(changes.add(new), "ADD")

    def _keep(
        self,
        session: Session,
        changes: Changes,
        bubbles: Sequence[tuple[Bubble, Float32]],
        near: Sequence[dict[int, float]],
    ) -> list[dict[str, Any]]:
        kept: list[tuple[Memory, Float32]] = []
        for (bubble, vector), few in zip(bubbles, near, strict=True):
            if self._is_told(session, bubble):
                continue
            said = self._said(bubble.turn)
            memory = changes.add(
                New(
                    "bubble",
                    bubble.text,
                    vector,
                    said.occurred_at,
                    bubble.occurred_at,
                    bubble.importance,
                    said.speaker,
                    self._scope,
                )
            )
            own = {other.id: cosine(vector, other_vector) for other, other_vector in kept}
            changes.link(memory, few | own)
            kept.append((memory, vector))
        return [entry_of(memory, "ADD") for memory, _ in kept]

    def _is_told(self, session: Session, bubble: Bubble) -> bool:
        """Whether the very same was kept already, when a part of these turns was read before."""
        same = select(func.count()).where(
            Memory.conversation_id == self._conversation_id,
            Memory.kind == "bubble",
            Memory.active,
            Memory.text == bubble.text,
            Memory.occurred_at == bubble.occurred_at,
            *(getattr(Memory, name).is_not_distinct_from(getattr(self._scope, name)) for name in _PARTS),
        )
        return bool(session.scalar(same))

    def _said(self, turn: int | None) -> Message:
        return self._pending[-1 if turn is None else turn]


_PARTS = ("user_id", "agent_id", "session_id")


def scope_of(row: Message | Memory) -> Scope:
    return Scope(row.user_id, row.agent_id, row.session_id)


def turn_of(message: Message) -> Turn:
    """A message as a model is shown it, at the hour of whoever said it."""
    zone = timezone(timedelta(seconds=message.offset_s))
    return Turn(message.content, message.speaker, message.occurred_at.astimezone(zone))


def last_summary(session: Session, conversation_id: str) -> Summary | None:
    """The newest summary of a conversation."""
    wanted = select(Summary).where(Summary.conversation_id == conversation_id)
    return session.scalars(wanted.order_by(Summary.upto.desc()).limit(1)).one_or_none()


def entry_of(memory: Memory, event: str) -> dict[str, Any]:
    """What a caller is told of a memory that was changed."""
    return {
        "memory_id": memory.id,
        "memory": memory.text,
        "type": memory.kind,
        "event": event,
        "importance": memory.importance,
        "occurred_at": memory.occurred_at,
    }


@contextmanager
def _put_off(conversation_id: str) -> Iterator[None]:
    """The turns are kept: an error now would have the caller say them again."""
    try:
        yield
    except FaissbaseError as error:
        _log.warning("conversation %r: put off until the next add: %s", conversation_id, error)


def _tell(conversation_id: str, problems: Sequence[str]) -> None:
    for problem in problems:
        _log.warning("conversation %r: %s", conversation_id, problem)
