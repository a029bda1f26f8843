"""The tables of a conversation memory, for SQLite and PostgreSQL. Knows SQLAlchemy, and no vectors search.

Every change of a memory, by whatever statement, takes the next number of its conversation: triggers see to
it (`faissbase.memory.triggers`), so that an index always knows what it has not seen.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from faissbase.errors import InvalidInputError
from faissbase.memory.standing import USUAL_IMPORTANCE, in_utc
from faissbase.types import Float32

KINDS = ("semantic", "bubble")
_NAME_LENGTH = 255


class UTCDateTime(TypeDecorator[datetime]):
    """A moment, in UTC whatever the database: what has no zone is taken to be in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment = in_utc(value)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else in_utc(value)


class Vector(TypeDecorator[Any]):
    """A vector as its bytes, float32, little-endian."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        if value is None or isinstance(value, bytes):
            return value
        vector = np.asarray(value, "<f4")
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise InvalidInputError(f"an embedding is a row of finite numbers, got shape {vector.shape}")
        return vector.tobytes()

    def process_result_value(self, value: Any, dialect: Dialect) -> Float32 | None:
        return None if value is None else np.frombuffer(bytes(value), "<f4")

    def compare_values(self, x: Any, y: Any) -> bool:
        return x is y or (x is not None and y is not None and np.array_equal(x, y))


# SQLite gives a plain INTEGER key its own number; a BIGINT it would not.
_Number = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """What all tables of a conversation memory share."""


class Fact(Base):
    """What the database says of itself: its own id, its format, its embedder."""

    __tablename__ = "memory_facts"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Conversation(Base):
    """One conversation. ``seq`` is the number of the last change of its memories."""

    __tablename__ = "memory_conversations"

    id: Mapped[str] = mapped_column(String(_NAME_LENGTH), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    n_messages: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")


class _Scoped:
    """Whose it is, beside the conversation."""

    user_id: Mapped[str | None] = mapped_column(String(_NAME_LENGTH), index=True)
    agent_id: Mapped[str | None] = mapped_column(String(_NAME_LENGTH))
    session_id: Mapped[str | None] = mapped_column(String(_NAME_LENGTH))


class Message(_Scoped, Base):
    """One turn, word for word; ``position`` counts them from 1 within the conversation."""

    __tablename__ = "memory_messages"
    # No id is given twice, or what was deleted would be taken for what came after it.
    __table_args__ = (UniqueConstraint("conversation_id", "position"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey(Conversation.id, ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(BigInteger)
    role: Mapped[str] = mapped_column(String(_NAME_LENGTH))
    speaker: Mapped[str] = mapped_column(String(_NAME_LENGTH))
    content: Mapped[str] = mapped_column(Text)
    occurred_at: Mapped[datetime] = mapped_column(UTCDateTime)
    embedding: Mapped[Any] = mapped_column(Vector)
    embedder: Mapped[str] = mapped_column(String(_NAME_LENGTH))
    offset_s: Mapped[int] = mapped_column(Integer, default=0)  # of the zone in which it was said
    extracted_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    n_tries: Mapped[int] = mapped_column(Integer, default=0, server_default="0")


class Memory(_Scoped, Base):
    """One fact (``semantic``) or episode (``bubble``).

    It holds from ``valid_from`` until ``valid_to``. What is no longer ``active`` is never found again, except
    as of a moment at which it held.
    """

    __tablename__ = "memory_memories"
    __table_args__ = (
        Index("memory_memories_by_seq", "conversation_id", "seq"),
        Index("memory_memories_by_stamp", "conversation_id", "active", "stamp"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    conversation_id: Mapped[str] = mapped_column(ForeignKey(Conversation.id, ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16), default="semantic", server_default="semantic")
    text: Mapped[str] = mapped_column(Text)
    importance: Mapped[float | None] = mapped_column(Float)
    speaker: Mapped[str | None] = mapped_column(String(_NAME_LENGTH))
    occurred_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    active: Mapped[bool] = mapped_column(default=True, server_default="1")
    valid_from: Mapped[datetime | None] = mapped_column(UTCDateTime)
    valid_to: Mapped[datetime | None] = mapped_column(UTCDateTime)
    replaced_by: Mapped[int | None] = mapped_column(_Number)
    embedding: Mapped[Any] = mapped_column(Vector)
    embedder: Mapped[str] = mapped_column(String(_NAME_LENGTH), default="", server_default="")
    seq: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    stamp: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")

    @property
    def weight(self) -> float:
        """The importance, 0.5 where it was not set."""
        return USUAL_IMPORTANCE if self.importance is None else self.importance


class Removed(Base):
    """A memory whose row was deleted from a conversation, or moved to another, by change ``seq``."""

    __tablename__ = "memory_removed"

    # Gone with its conversation: one that begins anew under the same id counts from 1 again.
    conversation_id: Mapped[str] = mapped_column(
        ForeignKey(Conversation.id, ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    memory_id: Mapped[int] = mapped_column(_Number)


class Version(Base):
    """What a memory said, from ``valid_from`` until ``valid_to``, before it was updated in place."""

    __tablename__ = "memory_versions"

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    memory_id: Mapped[int] = mapped_column(ForeignKey(Memory.id, ondelete="CASCADE"), index=True)
    conversation_id: Mapped[str] = mapped_column(String(_NAME_LENGTH), index=True)
    text: Mapped[str] = mapped_column(Text)
    importance: Mapped[float | None] = mapped_column(Float)
    occurred_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    valid_from: Mapped[datetime | None] = mapped_column(UTCDateTime)
    valid_to: Mapped[datetime] = mapped_column(UTCDateTime)
    embedding: Mapped[Any] = mapped_column(Vector)
    embedder: Mapped[str] = mapped_column(String(_NAME_LENGTH))


class Event(Base):
    """One line of the audit trail of a memory."""

    __tablename__ = "memory_events"

    id: Mapped[int] = mapped_column(_Number, primary_key=True)
    memory_id: Mapped[int] = mapped_column(ForeignKey(Memory.id, ondelete="CASCADE"), index=True)
    conversation_id: Mapped[str] = mapped_column(String(_NAME_LENGTH), index=True)
    event: Mapped[str] = mapped_column(String(16))
    old_text: Mapped[str | None] = mapped_column(Text)
    new_text: Mapped[str | None] = mapped_column(Text)
    by: Mapped[str] = mapped_column(String(_NAME_LENGTH))
    reason: Mapped[str | None] = mapped_column(Text)
    happened_at: Mapped[datetime] = mapped_column(UTCDateTime)


class Link(Base):
    """Two memories that are about the same; kept both ways, so one column finds them."""

    __tablename__ = "memory_links"

    memory_id: Mapped[int] = mapped_column(ForeignKey(Memory.id, ondelete="CASCADE"), primary_key=True)
    other_id: Mapped[int] = mapped_column(
        ForeignKey(Memory.id, ondelete="CASCADE"), primary_key=True, index=True
    )
    similarity: Mapped[float] = mapped_column(Float)


class Summary(Base):
    """What a conversation was about up to message ``upto``."""

    __tablename__ = "memory_summaries"

    conversation_id: Mapped[str] = mapped_column(
        ForeignKey(Conversation.id, ondelete="CASCADE"), primary_key=True
    )
    upto: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(Text)
    made_at: Mapped[datetime] = mapped_column(UTCDateTime)
