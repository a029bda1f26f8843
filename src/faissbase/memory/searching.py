"""Finding memories: similarity, importance and age, filters, moments of the past, and what is linked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Engine, Row, Select, bindparam, select

from faissbase.memory import databases
from faissbase.memory.models import Link, Memory
from faissbase.memory.replicas import replica_of
from faissbase.memory.said import ANYBODY, Scope
from faissbase.memory.standing import Standings, seconds_of, weights
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

    def admits(self, told: Told) -> bool:
        """Whether what is told of a memory meets every filter: scope, speaker, kind and time."""
        is_asked = all(getattr(told, name) == value for name, value in self.scope.asked.items())
        is_said = self.speakers is None or told.speaker in self.speakers
        if not is_asked or not is_said or (self.kinds is not None and told.kind not in self.kinds):
            return False
        if self.since is None and self.until is None:
            return True
        at = told.occurred_at
        return at is not None and not (
            (self.since is not None and at < self.since) or (self.until is not None and at >= self.until)
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What may be told of one memory, and whether it may."""

    memory_id: int
    text: str
    kind: str
    occurred_at: datetime | None
    speaker: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    conversation_id: str = ""
    active: bool = True
    valid_to: datetime | None = None

    def may_be_told(self, conversation_id: str, wanted: Wanted) -> bool:
        """Whether it is of the conversation, meets the filters, and has not ended."""
        has_ended = not self.active or (self.valid_to is not None and self.valid_to <= wanted.now)
        return self.conversation_id == conversation_id and not has_ended and wanted.admits(self)


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found, best first, and whatever else may be told of at that moment."""

    found: list[Found] = field(default_factory=list)
    told: Mapping[MemoryId, Told] = field(default_factory=dict)


_AT_ONCE = 16
"""Ids in one statement: as many always, so that nothing of it is made anew for each search."""

_MEMORIES, _LINKS = Memory.__table__.c, Link.__table__.c
_COLUMNS = [_MEMORIES["id" if each.name == "memory_id" else each.name] for each in fields(Told)]
_IDS: list[BindParameter[Any]] = [bindparam(f"id_{number}") for number in range(_AT_ONCE)]
_TELL = select(*_COLUMNS).where(_MEMORIES.id.in_(_IDS))
_LINKED = (
    select(_LINKS.memory_id, *_COLUMNS)
    .where(_LINKS.memory_id.in_(_IDS), _MEMORIES.id == _LINKS.other_id)
    .order_by(_LINKS.similarity.desc(), _LINKS.other_id)
)
_NOTES_MAX = 20_000


class Notes:
    """What was read of memories and links, as of one version of the database; forgotten with the next."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._version: tuple[int, int] | None = None
        self._told: dict[MemoryId, Told] = {}
        self._linked: dict[MemoryId, list[Told]] = {}

    def told(self, ids: Collection[MemoryId], version: tuple[int, int] | None) -> dict[MemoryId, Told]:
        """What there is to tell of memories, by id."""
        with self._lock:
            self._turn_to(version)
            for row in self._read(_TELL, [each for each in ids if each not in self._told]):
                self._told[row.id] = Told(*tuple(row))
            return {each: self._told[each] for each in ids if each in self._told}

    def linked(
        self, ids: Collection[MemoryId], version: tuple[int, int] | None
    ) -> dict[MemoryId, list[Told]]:
        """What each memory is linked to, the nearest first."""
        with self._lock:
            self._turn_to(version)
            missing = [each for each in ids if each not in self._linked]
            self._linked |= {each: [] for each in missing}
            for row in self._read(_LINKED, missing):
                self._linked[row.memory_id].append(Told(*tuple(row)[1:]))
            return {each: self._linked[each] for each in ids}

    def _read(self, statement: Select[Any], ids: Sequence[MemoryId]) -> list[Row[Any]]:
        if not ids:
            return []
        found: list[Row[Any]] = []
        with databases.connected(self._engine) as connection:
            for start in range(0, len(ids), _AT_ONCE):
                some = list(ids[start : start + _AT_ONCE])
                some += some[-1:] * (_AT_ONCE - len(some))
                values = {each.key: id for each, id in zip(_IDS, some, strict=True)}
                found += connection.execute(statement, values).all()
        return found

    def _turn_to(self, version: tuple[int, int] | None) -> None:
        is_full = len(self._told) + len(self._linked) > _NOTES_MAX
        if version is None or version != self._version or is_full:
            self._told, self._linked, self._version = {}, {}, version


def present_hits(engine: Engine, notes: Notes, conversation_id: str, query: Float32, wanted: Wanted) -> Hits:
    """The active memories of the highest score."""
    replica = replica_of(engine, conversation_id)
    version = replica.version  # before the store: what is noted is never older than what was found
    store = replica.synced(dimension=len(query), version=version)
    among = None
    conditions = wanted.conditions
    if conditions:
        owned = select(Memory.id).where(Memory.conversation_id == conversation_id, Memory.active, *conditions)
        with databases.reading(engine) as session:
            among = set(session.scalars(owned))
    found = ranked(store, query, wanted, among=among)
    told = notes.told([each.memory_id for each in found], version)
    return Hits(found, {each: one for each, one in told.items() if one.may_be_told(conversation_id, wanted)})


def ranked(
    store: FAISSVectorStore,
    query: Float32,
    wanted: Wanted,
    *,
    among: set[int] | None = None,
    where: Callable[[Standings], Mask] | None = None,
) -> list[Found]:
    """The best of a store by similarity, importance and age; ``where`` instead of what is wanted alone."""
    if not store.count or not query.any():
        return []
    now_s = seconds_of(wanted.now)
    return store.ranked(
        query,
        wanted.limit,
        lambda standings: weights(standings, now_s),
        among=among,
        where=where or wanted.mask,
    )


def links_of(
    notes: Notes, engine: Engine, hits: Hits, conversation_id: str, wanted: Wanted
) -> dict[MemoryId, list[Told]]:
    """What each hit is linked to, the nearest first, of the same conversation, within the filters."""
    version = replica_of(engine, conversation_id).version
    linked = notes.linked([each.memory_id for each in hits.found], version)
    if wanted.as_of:  # as they were then
        return {
            memory_id: [
                told
                for other in others
                if (told := hits.told.get(other.memory_id)) is not None and wanted.admits(told)
            ]
            for memory_id, others in linked.items()
        }
    return {
        memory_id: [other for other in others if other.may_be_told(conversation_id, wanted)]
        for memory_id, others in linked.items()
    }


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
