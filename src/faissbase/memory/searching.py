"""Finding memories: similarity, importance and age, filters, moments of the past, and what is linked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from faissbase.memory.models import Link, Memory, Version
from faissbase.memory.replicas import usable_rows
from faissbase.memory.said import ANYBODY, Scope
from faissbase.memory.standing import Standings, seconds_of, standing, weights
from faissbase.memory.store import FAISSVectorStore, Found, MemoryId
from faissbase.types import Float32, Mask

LINKS_A_HIT = 2
APPENDED_MAX = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a search asks for beside its query.

    Attributes
    ----------
    limit : int
    now : datetime
        The moment of the question: age counts from it, and what has ended by then is left out.
    as_of : bool
        ``now`` is past: what held then, not what holds at present.
    """

    limit: int
    now: datetime
    as_of: bool = False
    scope: Scope = ANYBODY
    speakers: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def conditions(self) -> list[ColumnElement[bool]]:
        """Those of scope and speaker, on `Memory`."""
        found = [getattr(Memory, name) == value for name, value in self.scope.asked.items()]
        if self.speakers is not None:
            found.append(Memory.speaker.in_(self.speakers))
        return found

    def mask(self, standings: Standings) -> Mask:
        """Those of time and kind, and that it has not ended."""
        allowed: Mask = standings.ends_s > seconds_of(self.now)
        if self.kinds is not None and len(self.kinds) == 1:
            allowed &= standings.is_episodic == (self.kinds[0] == "bubble")
        if self.since is not None:
            allowed &= standings.occurred_s >= seconds_of(self.since)
        if self.until is not None:
            allowed &= standings.occurred_s < seconds_of(self.until)
        return allowed


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer tells of one memory."""

    memory_id: int
    text: str
    kind: str
    occurred_at: datetime | None


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found, best first, and whatever else may be told of at that moment."""

    found: list[Found] = field(default_factory=list)
    told: Mapping[MemoryId, Told] = field(default_factory=dict)


_TOLD = (Memory.id, Memory.text, Memory.kind, Memory.occurred_at)


def present_hits(
    session: Session, store: FAISSVectorStore, conversation_id: str, query: Float32, wanted: Wanted
) -> Hits:
    """The active memories of the highest score."""
    among = None
    conditions = wanted.conditions
    if conditions:
        owned = select(Memory.id).where(Memory.conversation_id == conversation_id, Memory.active, *conditions)
        among = set(session.scalars(owned))
    found = _ranked(store, query, wanted, among)
    return Hits(found, _told(session, [each.memory_id for each in found]))


def _told(session: Session, ids: Sequence[MemoryId]) -> dict[MemoryId, Told]:
    if not ids:
        return {}
    rows = session.execute(select(*_TOLD).where(Memory.id.in_(ids), Memory.active))
    return {row[0]: Told(*row) for row in rows}


def past_hits(session: Session, dimension: int, conversation_id: str, query: Float32, wanted: Wanted) -> Hits:
    """The memories of the highest score as they were at a moment, read from the database one by one."""
    store = FAISSVectorStore(dimension)
    told: dict[MemoryId, Told] = {}
    for statement in _as_of(conversation_id, wanted):
        rows = usable_rows(session.execute(statement).mappings().all(), dimension)
        if rows:
            standings = [
                standing(row["importance"], row["occurred_at"], is_episodic=row["kind"] == "bubble")
                for row in rows
            ]
            store.add_many(
                [row["id"] for row in rows], np.stack([row["embedding"] for row in rows]), standings
            )
        told |= {
            row["id"]: Told(*(row[name] for name in ("id", "text", "kind", "occurred_at"))) for row in rows
        }
    return Hits(_ranked(store, query, wanted, None), told)


def _as_of(conversation_id: str, wanted: Wanted) -> list[Select[Any]]:
    """What held at the moment: in the versions that memories had, and in the memories as they are."""
    statements = []
    for source in (Version, Memory):
        columns = [source.text, source.embedding, source.importance, source.occurred_at]
        statement = select(Memory.id, Memory.kind, *columns).where(
            Memory.conversation_id == conversation_id,
            or_(source.valid_from.is_(None), source.valid_from <= wanted.now),
            or_(source.valid_to.is_(None), source.valid_to > wanted.now),
            *wanted.conditions,
        )
        if source is Version:
            statement = statement.join(Memory, Memory.id == Version.memory_id)
        else:
            statement = statement.where(or_(Memory.active, Memory.valid_to.is_not(None)))
        statements.append(statement)
    return statements


def _ranked(store: FAISSVectorStore, query: Float32, wanted: Wanted, among: set[int] | None) -> list[Found]:
    if not store.count or not query.any():
        return []
    now_s = seconds_of(wanted.now)
    return store.ranked(
        query, wanted.limit, lambda standings: weights(standings, now_s), among=among, where=wanted.mask
    )


def links_of(
    session: Session, ids: Sequence[MemoryId], conversation_id: str, wanted: Wanted
) -> dict[MemoryId, list[Told]]:
    """What each memory is linked to, the nearest first, of the same conversation and scope."""
    found: dict[MemoryId, list[Told]] = {memory_id: [] for memory_id in ids}
    if not ids:
        return found
    scope = [getattr(Memory, name) == value for name, value in wanted.scope.asked.items()]
    linked = (
        select(Link.memory_id, *_TOLD)
        .join(Memory, Memory.id == Link.other_id)
        .where(Link.memory_id.in_(ids), Memory.conversation_id == conversation_id, *scope)
        .order_by(Link.memory_id, Link.similarity.desc(), Memory.id)
    )
    if not wanted.as_of:
        has_not_ended = or_(Memory.valid_to.is_(None), Memory.valid_to > wanted.now)
        linked = linked.where(Memory.active, has_not_ended)
    for row in session.execute(linked):
        found[row[0]].append(Told(*row[1:]))
    return found


def answer(hits: Hits, links: Mapping[MemoryId, Sequence[Told]]) -> list[dict[str, Any]]:
    """Hits, each with up to two links, and up to three of those linked after them, none twice."""
    results: list[dict[str, Any]] = []
    appended: dict[MemoryId, Told] = {}
    shown = {each.memory_id for each in hits.found}
    for each in hits.found:
        if each.memory_id not in hits.told:  # ended between two statements
            continue
        linked = list(links.get(each.memory_id, ()))[:LINKS_A_HIT]
        results.append(_entry(hits.told[each.memory_id], each.score, [other.memory_id for other in linked]))
        appended |= {other.memory_id: other for other in linked if other.memory_id not in shown}
    for other in list(appended.values())[:APPENDED_MAX]:
        results.append({**_entry(other, 0.0, []), "type": "connected"})
    return results


def _entry(told: Told, score: float, connections: list[int]) -> dict[str, Any]:
    return {
        "memory_id": told.memory_id,
        "memory": told.text,
        "type": told.kind,
        "occurred_at": told.occurred_at,
        "score": score,
        "connections": connections,
    }
