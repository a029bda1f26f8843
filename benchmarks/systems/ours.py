"""faissbase itself. Its only knob is the recall that is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import faissbase
from benchmarks.places import LOAD_ROWS
from benchmarks.systems.interface import Below, Effort, Key, Kind, Metadata, Place, Rows, Where
from faissbase.types import Float32

RECALLS = (
    0.8,
    0.85,
    0.88,
    *(thousandth / 1000 for thousandth in range(900, 975, 5)),
    0.98,
    0.985,
    0.99,
    0.995,
    0.998,
)


class Faissbase:
    """A collection with ``index_type="auto"``; `load` ends when its index is built."""

    name: ClassVar[str] = "faissbase"
    kind: ClassVar[Kind] = "faissbase"
    has_filters: ClassVar[bool] = True
    efforts: ClassVar[Sequence[Effort]] = [
        Effort(f"recall={recall:g}", {"recall": recall}) for recall in RECALLS
    ]

    def __init__(self, place: Place) -> None:
        self._db = faissbase.connect(place.folder / "faissbase")
        if place.is_new:
            self._collection: Any = self._db.create_collection("bench", place.d, place.metric)
        else:
            self._collection = self._db.get_collection("bench")

    def load(self, rows: Rows) -> None:
        for start in range(0, len(rows.ids), LOAD_ROWS):
            piece = slice(start, start + LOAD_ROWS)
            self._collection.add(rows.ids[piece], rows.xb[piece], rows.metadatas[piece])
        self._collection.optimize()

    def settle(self) -> None:
        """Finish what searches have asked of the background: filters are measured once they are used."""
        self._collection.optimize()

    def prepare(self, effort: Effort) -> None:
        """The effort goes with every call."""

    def use_threads(self, n: int) -> None:
        """It chooses by itself; one-thread measurements are pinned to one core."""

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        hits = self._collection.search(q, k=k, where=_where(where), **effort.values)
        return [hit.id for hit in hits if hit.metadata is not None]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        result = self._collection.search(xq, k=k, **effort.values)
        ids: list[list[Key]] = result.ids
        assert len(result.metadatas) == len(ids)
        return ids

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        self._collection.upsert([id], vector, [metadata])

    def close(self) -> None:
        self._db.close()


def _where(where: Where | None) -> dict[str, Any] | None:
    if where is None:
        return None
    if isinstance(where, Below):
        return {where.field: {"$lt": where.limit}}
    return {where.field: where.value}
