"""Which memories a new one may be linked to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from faissbase.memory.changes import LINKED_FROM, LINKS_MAX
from faissbase.memory.replicas import replica_of
from faissbase.memory.standing import seconds_of
from faissbase.types import Float32

_ASKED = 10 * LINKS_MAX  # some are of other owners


def near_to(engine: Engine, conversation_id: str, vector: Float32, now: datetime) -> dict[int, float]:
    """The cosines of the nearest memories of a conversation that are near enough, by id."""
    store = replica_of(engine, conversation_id).synced(dimension=len(vector))
    if not store.count or store.dimension != len(vector) or not vector.any():
        return {}
    now_s = seconds_of(now)
    found = store.ranked(vector, _ASKED, where=lambda standings: standings.ends_s > now_s)
    return {int(each.memory_id): each.similarity for each in found if each.similarity >= LINKED_FROM}


def cosine(one: Float32, other: Float32) -> float:
    """Of two vectors of any length; 0 where one has no direction."""
    lengths = float((one @ one) * (other @ other)) ** 0.5
    return float(one @ other) / lengths if lengths else 0.0
