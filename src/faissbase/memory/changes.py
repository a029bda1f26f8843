"""Changes of memories within one transaction, each with its line in the audit trail. Destroys nothing.

What a memory said before stays as a `Version`, what replaces it has a row of its own, what is deleted only
ends. Times here are those at which things became true, not those at which they were noted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, or_, select
from sqlalchemy.orm import Session

from faissbase.errors import ConflictError, NotFoundError
from faissbase.memory.models import Event, Link, Memory, Version
from faissbase.memory.said import ANYBODY, Scope
from faissbase.types import Float32

LINKED_FROM = 0.6
LINKS_MAX = 5


@dataclass(frozen=True, slots=True)
class New:
    """A memory to be. It holds from ``said_at`` on, whenever what it tells of has occurred or will."""

    kind: str
    text: str
    vector: Float32
    said_at: datetime
    occurred_at: datetime
    importance: float | None = None
    speaker: str | None = None
    scope: Scope = ANYBODY


class Changes:
    """What one transaction does to the memories of one conversation, which it has locked."""

    def __init__(
        self, session: Session, conversation_id: str, *, embedder: str, now: datetime, by: str
    ) -> None:
        self._session = session
        self._conversation_id = conversation_id
        self._embedder = embedder
        self._now = now
        self._by = by

    def add(self, new: New, reason: str | None = None, *, ends_at: datetime | None = None) -> Memory:
        """A new memory; one that ``ends_at`` has a moment is history at once."""
        memory = Memory(
            conversation_id=self._conversation_id,
            kind=new.kind,
            text=new.text,
            importance=new.importance,
            speaker=new.speaker,
            occurred_at=new.occurred_at,
            active=ends_at is None,
            valid_from=new.said_at,
            valid_to=ends_at,
            embedding=new.vector,
            embedder=self._embedder,
            user_id=new.scope.user_id,
            agent_id=new.scope.agent_id,
            session_id=new.scope.session_id,
        )
        self._session.add(memory)
        self._session.flush()
        self._note(memory, "ADD", None, memory.text, reason)
        return memory

    def update(
        self, memory: Memory, values: Mapping[str, Any], at: datetime, reason: str | None = None
    ) -> None:
        """Give a memory its next version from ``at`` on; the one before is kept."""
        old_text = memory.text
        starts_at = at if memory.valid_from is None else max(at, memory.valid_from)
        self._session.add(
            Version(
                memory_id=memory.id,
                conversation_id=memory.conversation_id,
                text=memory.text,
                importance=memory.importance,
                occurred_at=memory.occurred_at,
                valid_from=memory.valid_from,
                valid_to=starts_at,
                embedding=memory.embedding,
                embedder=memory.embedder,
            )
        )
        for name, value in values.items():
            setattr(memory, name, value)
        memory.valid_from = starts_at
        if "embedding" in values:
            memory.embedder = self._embedder
        self._session.flush()
        self._note(memory, "UPDATE", old_text, memory.text, reason)

    def replace(self, memory: Memory, new: New, reason: str | None = None) -> Memory:
        """End a memory by the one that takes its place.

        What is older than the memory was true before it, and does not end it.
        """
        began = memory.valid_from
        if began is not None and new.said_at < began:
            return self.add(new, f"was true before memory {memory.id}", ends_at=began)
        added = self.add(new, f"in the place of memory {memory.id}")
        memory.replaced_by = added.id
        self._end(memory, new.said_at)
        self._note(memory, "REPLACE", memory.text, new.text, reason or f"replaced by memory {added.id}")
        return added

    def delete(self, memory: Memory, at: datetime, reason: str | None = None) -> None:
        """End a memory."""
        self._end(memory, at)
        self._note(memory, "DELETE", memory.text, None, reason)

    def link(self, memory: Memory, near: Mapping[int, float]) -> None:
        """Link a memory to the nearest that are near enough, both ways, five at most each."""
        is_free = (
            Memory.id.in_(list(near)),
            Memory.active,
            Memory.conversation_id == self._conversation_id,
            *owned_by(Memory, memory),
        )
        others = set(self._session.scalars(select(Memory.id).where(*is_free))) - {memory.id}
        nearest = sorted(others, key=lambda other: (-near[other], other))
        for other in [each for each in nearest if near[each] >= LINKED_FROM][:LINKS_MAX]:
            if self._has_room(other, near[other]):
                for one, two in ((memory.id, other), (other, memory.id)):
                    self._session.merge(Link(memory_id=one, other_id=two, similarity=near[other]))
        self._session.flush()

    def unlink(self, memory: Memory) -> None:
        """Take back the links of a memory that now says something else."""
        self._session.execute(
            delete(Link).where(or_(Link.memory_id == memory.id, Link.other_id == memory.id))
        )

    def _has_room(self, memory_id: int, similarity: float) -> bool:
        """Whether a memory may have one more link; its weakest gives way to a stronger one."""
        kept = list(
            self._session.scalars(select(Link).where(Link.memory_id == memory_id).order_by(Link.similarity))
        )
        if len(kept) < LINKS_MAX:
            return True
        weakest = kept[0]
        if weakest.similarity >= similarity:
            return False
        pair = (memory_id, weakest.other_id)
        self._session.execute(delete(Link).where(Link.memory_id.in_(pair), Link.other_id.in_(pair)))
        return True

    def _end(self, memory: Memory, at: datetime) -> None:
        memory.active = False
        memory.valid_to = at if memory.valid_from is None else max(at, memory.valid_from)
        self._session.flush()

    def _note(
        self, memory: Memory, event: str, old_text: str | None, new_text: str | None, reason: str | None
    ) -> None:
        self._session.add(
            Event(
                memory_id=memory.id,
                conversation_id=memory.conversation_id,
                event=event,
                old_text=old_text,
                new_text=new_text,
                by=self._by,
                reason=reason,
                happened_at=self._now,
            )
        )


def owned_by(table: type[Memory], owner: Scope | Memory) -> list[ColumnElement[bool]]:
    """The conditions that a row has the same user and agent, or the same lack of them."""
    names = ("user_id", "agent_id")
    return [getattr(table, name).is_not_distinct_from(getattr(owner, name)) for name in names]


def memory_of(session: Session, memory_id: object, conversation_id: str | None = None) -> Memory:
    """The memory of that id, or `NotFoundError`; also where it is of another conversation."""
    is_number = isinstance(memory_id, int) and not isinstance(memory_id, bool) and abs(memory_id) < 1 << 63
    found = session.get(Memory, memory_id) if is_number else None
    if found is None or (conversation_id is not None and found.conversation_id != conversation_id):
        where = "" if conversation_id is None else f" in conversation {conversation_id!r}"
        raise NotFoundError(f"no memory {memory_id!r}{where}")
    return found


def active_memory_of(session: Session, memory_id: object, conversation_id: str | None = None) -> Memory:
    """The same, or `ConflictError` where it has ended."""
    found = memory_of(session, memory_id, conversation_id)
    if not found.active:
        by = f", replaced by memory {found.replaced_by}" if found.replaced_by is not None else ""
        raise ConflictError(f"memory {memory_id!r} has ended{by}: what is history cannot be changed")
    return found
