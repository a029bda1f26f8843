"""Chroma: a persistent collection, HNSW over float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.systems.interface import Below, Effort, Key, Kind, Metadata, Place, Rows, Where, ef_efforts
from faissbase.types import Float32

_EFS = (10, 20, 32, 48, 64, 96, 128, 200, 320, 512)
_M = 16
_EF_CONSTRUCTION = 100


class Chroma:
    """Its ``ef_search`` belongs to the collection, and a change shows only once it is opened anew."""

    name: ClassVar[str] = "Chroma"
    kind: ClassVar[Kind] = "database"
    has_filters: ClassVar[bool] = True
    efforts: ClassVar[Sequence[Effort]] = ef_efforts(_EFS)

    def __init__(self, place: Place) -> None:
        self._folder = place.folder / "chroma"
        self._client = _client(self._folder)
        self._ef = 0
        if place.is_new:
            graph = {"space": place.metric, "max_neighbors": _M, "ef_construction": _EF_CONSTRUCTION}
            self._rows: Any = self._client.create_collection(
                "bench", embedding_function=None, configuration={"hnsw": graph}
            )
        else:
            self._rows = self._client.get_collection("bench", embedding_function=None)

    def load(self, rows: Rows) -> None:
        step = self._client.get_max_batch_size()
        for start in range(0, len(rows.ids), step):
            piece = slice(start, start + step)
            self._rows.add(ids=rows.ids[piece], embeddings=rows.xb[piece], metadatas=rows.metadatas[piece])

    def prepare(self, effort: Effort) -> None:
        if self._ef != effort.values["ef"]:
            self._ef = effort.values["ef"]
            self._rows.modify(configuration={"hnsw": {"ef_search": self._ef}})
            self._client.close()
            self._client = _client(self._folder)
            self._rows = self._client.get_collection("bench", embedding_function=None)

    def use_threads(self, n: int) -> None:
        """It chooses by itself; one-thread measurements are pinned to one core."""

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        found = self._rows.query(
            query_embeddings=q[None], n_results=k, where=_where(where), include=["metadatas"]
        )
        ids: list[Key] = found["ids"][0]
        return ids

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        found = self._rows.query(query_embeddings=xq, n_results=k, include=["metadatas"])
        ids: list[list[Key]] = found["ids"]
        return ids

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        self._rows.upsert(ids=[id], embeddings=[vector], metadatas=[metadata])

    def close(self) -> None:
        self._client.close()


def _client(folder: Path) -> Any:
    import chromadb
    from chromadb.config import Settings

    return chromadb.PersistentClient(str(folder), settings=Settings(anonymized_telemetry=False))


def _where(where: Where | None) -> dict[str, Any] | None:
    if where is None:
        return None
    if isinstance(where, Below):
        return {where.field: {"$lt": where.limit}}
    return {where.field: where.value}
