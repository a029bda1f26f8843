"""What memories said at moments of the past: every version with when it held, kept between questions.

A conversation's history is read from the database once, and again when anything of it has changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from sqlalchemy import Engine, Select, func, or_, select
from sqlalchemy.orm import Session

from faissbase.memory import databases
from faissbase.memory.models import Memory, Version
from faissbase.memory.replicas import replica_of, usable_rows
from faissbase.memory.searching import Hits, Told, Wanted, ranked
from faissbase.memory.standing import FOREVER, Standings, seconds_of, standing
from faissbase.memory.store import FAISSVectorStore, Found, MemoryId
from faissbase.types import Float32, Mask

_ROWS_AT_ONCE = 2_000
_MOST_BYTES = 1 << 30

Seconds = npt.NDArray[np.float64]
# Of all memories of a conversation, how many there are and the sum of their stamps, which change with them;
# and of their versions, how many there are and the last.
Print = tuple[int, int, int, int]


@dataclass(slots=True)
class _History:
    """Versions by their place: what each told, from when and until when; in the store, its vector."""

    found_as: Print
    database: tuple[int, int] | None
    store: FAISSVectorStore
    told: list[Told] = field(default_factory=list)
    begins_s: Seconds = field(default_factory=lambda: np.empty(0))
    ends_s: Seconds = field(default_factory=lambda: np.empty(0))
    places: dict[MemoryId, list[int]] = field(default_factory=dict)

    def held(self, wanted: Wanted) -> Mask:
        """Which versions held at the moment asked for, of the scope and the speakers."""
        now_s = seconds_of(wanted.now)
        held: Mask = (self.begins_s <= now_s) & (now_s < self.ends_s)
        if wanted.scope.asked or wanted.speakers is not None:
            held[held] = [wanted.admits(self.told[place]) for place in np.flatnonzero(held).tolist()]
        return held


class Past:
    """The histories of conversations of one database. Any number of threads may ask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _History] = OrderedDict()

    def hits(self, conversation_id: str, query: Float32, wanted: Wanted) -> Hits:
        """The memories of the highest score as they were at a moment."""
        history = self._history(conversation_id, len(query))
        held = history.held(wanted)

        def where(standings: Standings) -> Mask:
            return wanted.mask(standings) & held

        found = [
            Found(history.told[int(each.memory_id)].memory_id, each.similarity, each.score)
            for each in ranked(history.store, query, wanted, where=where)
        ]
        return Hits(found, _Held(history, held))

    def _history(self, conversation_id: str, dimension: int) -> _History:
        with self._lock:
            database = replica_of(self._engine, conversation_id).version
            known = self._kept.get(conversation_id)
            if known is None or database is None or known.database != database:
                with databases.reading(self._engine) as session:
                    found_as = _print_of(session, conversation_id)
                    if known is None or known.found_as != found_as:
                        known = _read(session, conversation_id, dimension, found_as)
                known.database = database
            self._kept[conversation_id] = known
            self._kept.move_to_end(conversation_id)
            while (
                len(self._kept) > 1
                and sum(each.store.size_bytes for each in self._kept.values()) > _MOST_BYTES
            ):
                self._kept.popitem(last=False)
            return known


@dataclass(frozen=True, slots=True)
class _Held(Mapping[MemoryId, Told]):
    """What may be told at that moment, by memory."""

    history: _History
    held: Mask

    def __getitem__(self, memory_id: MemoryId) -> Told:
        for place in self.history.places[memory_id]:
            if self.held[place]:
                return self.history.told[place]
        raise KeyError(memory_id)

    def __iter__(self) -> Iterator[MemoryId]:
        return (memory_id for memory_id in self.history.places if memory_id in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _print_of(session: Session, conversation_id: str) -> Print:
    memories = select(func.count(), func.coalesce(func.sum(Memory.stamp), 0)).where(
        Memory.conversation_id == conversation_id
    )
    versions = select(func.count(), func.coalesce(func.max(Version.id), 0)).where(
        Version.conversation_id == conversation_id
    )
    n, stamps = session.execute(memories).one()
    n_versions, last = session.execute(versions).one()
    return int(n), int(stamps), int(n_versions), int(last)


def _read(session: Session, conversation_id: str, dimension: int, found_as: Print) -> _History:
    history = _History(found_as, None, FAISSVectorStore(dimension))
    begins: list[float] = []
    ends: list[float] = []
    for statement in _all_of(conversation_id):
        for rows in session.execute(statement).mappings().partitions(_ROWS_AT_ONCE):
            usable = usable_rows(rows, dimension)
            first = len(history.told)
            for place, row in enumerate(usable, first):
                history.told.append(Told(*(row[name] for name in _TOLD)))
                history.places.setdefault(row["id"], []).append(place)
            begins += [seconds_of(row["valid_from"], -np.inf) for row in usable]
            ends += [seconds_of(row["valid_to"], FOREVER) for row in usable]
            if usable:
                vectors = np.stack([row["embedding"] for row in usable])
                standings = [
                    standing(row["importance"], row["occurred_at"], is_episodic=row["kind"] == "bubble")
                    for row in usable
                ]
                history.store.add_many(range(first, len(history.told)), vectors, standings)
    history.begins_s, history.ends_s = np.array(begins), np.array(ends)
    return history


_TOLD = ("id", "text", "kind", "occurred_at", "speaker", "user_id", "agent_id", "session_id")


def _all_of(conversation_id: str) -> Iterator[Select[tuple[object, ...]]]:
    """The versions that memories had, and the memories as they are; but none whose end nobody knows."""
    whose = (Memory.speaker, Memory.user_id, Memory.agent_id, Memory.session_id)
    for source in (Version, Memory):
        columns = (source.text, source.importance, source.occurred_at, source.valid_from, source.valid_to)
        statement = select(Memory.id, Memory.kind, source.embedding, *columns, *whose).where(
            Memory.conversation_id == conversation_id
        )
        if source is Version:
            yield statement.join(Version, Memory.id == Version.memory_id).order_by(Version.id)
        else:
            yield statement.where(or_(Memory.active, Memory.valid_to.is_not(None))).order_by(Memory.id)
