"""Which memories a new one may be linked to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine, select

from faissbase.memory import databases
from faissbase.memory.changes import LINKED_FROM, LINKS_MAX, owned_by
from faissbase.memory.models import Memory
from faissbase.memory.replicas import replica_of
from faissbase.memory.said import Scope
from faissbase.memory.standing import seconds_of
from faissbase.memory.store import Found
from faissbase.types import Float32

_ASKED = 10 * LINKS_MAX  # some have five links already, nearer ones, and some are of other owners


def near_to(
    engine: Engine, conversation_id: str, vector: Float32, now: datetime, owner: Scope
) -> dict[int, float]:
    """The cosines of the nearest memories of a conversation that are near enough, by id.

    Those of other owners may be among them, but never in the place of the owner's.
    """
    store = replica_of(engine, conversation_id).synced(dimension=len(vector))
    if not store.count or store.dimension != len(vector) or not vector.any():
        return {}

    def nearest(among: set[int] | None = None) -> list[Found]:
        now_s = seconds_of(now)
        found = store.ranked(vector, _ASKED, among=among, where=lambda standings: standings.ends_s > now_s)
        return [each for each in found if each.similarity >= LINKED_FROM]

    found = nearest()
    if len(found) == _ASKED:
        found = nearest(_owned(engine, conversation_id, owner))
    return {int(each.memory_id): each.similarity for each in found}


def _owned(engine: Engine, conversation_id: str, owner: Scope) -> set[int]:
    owned = select(Memory.id).where(
        Memory.conversation_id == conversation_id, Memory.active, *owned_by(Memory, owner)
    )
    with databases.reading(engine) as session:
        return set(session.scalars(owned))


def cosine(one: Float32, other: Float32) -> float:
    """Of two vectors of any length; 0 where one has no direction."""
    lengths = float((one @ one) * (other @ other)) ** 0.5
    return float(one @ other) / lengths if lengths else 0.0
