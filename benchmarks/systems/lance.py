"""LanceDB: a table with one IVF_HNSW_SQ index, refined by the stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from benchmarks.systems.interface import Below, Effort, Key, Kind, Metadata, Place, Rows, Where
from faissbase.types import Float32

_M = 20
_EF_CONSTRUCTION = 150
_ROWS_A_PARTITION = 1 << 20
_EFS = (10, 20, 40, 64, 96, 128, 200, 320, 512)
_REFINES = (None, 2, 4)
_METADATA = ["name", "group", "rank", "cluster"]
_COLUMNS = ["id", *_METADATA, "_distance"]


class Lance:
    """Loaded from Arrow. One partition up to a million rows, as its documentation advises for HNSW."""

    name: ClassVar[str] = "LanceDB HNSW SQ8"
    kind: ClassVar[Kind] = "database"
    has_filters: ClassVar[bool] = True
    efforts: ClassVar[Sequence[Effort]] = [
        Effort(f"ef {ef}, refine {refine or 'off'}", {"ef": ef, "refine": refine})
        for ef in _EFS
        for refine in _REFINES
        if ef >= 10 * (refine or 1)
    ]

    def __init__(self, place: Place) -> None:
        import lancedb

        self._metric = place.metric if place.metric != "ip" else "dot"
        connection: Any = lancedb.connect(place.folder / "lance")
        self._connection = connection
        self._table: Any = None if place.is_new else connection.open_table("bench")

    def load(self, rows: Rows) -> None:
        self._table = self._connection.create_table("bench", data=_arrow(rows))
        self._table.create_index(
            metric=self._metric,
            index_type="IVF_HNSW_SQ",
            num_partitions=1 + len(rows.ids) // _ROWS_A_PARTITION,
            m=_M,
            ef_construction=_EF_CONSTRUCTION,
        )
        self._table.create_scalar_index("rank", index_type="BTREE")
        self._table.create_scalar_index("cluster", index_type="BITMAP")
        self._table.create_scalar_index("id", index_type="BTREE")

    def prepare(self, effort: Effort) -> None:
        """The effort goes with every call."""

    def use_threads(self, n: int) -> None:
        """It chooses by itself; one-thread measurements are pinned to one core."""

    def _query(self, xq: Float32 | list[Float32], k: int, effort: Effort) -> Any:
        query = self._table.search(xq, vector_column_name="vector").distance_type(self._metric)
        query = query.limit(k).ef(effort.values["ef"]).select(_COLUMNS)
        refine = effort.values["refine"]
        return query.refine_factor(refine) if refine else query

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        query = self._query(q, k, effort)
        if where is not None:
            query = query.where(_filter(where), prefilter=True)
        return [row["id"] for row in query.to_list()]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        """Many vectors in one query come back as one table with the number of the query."""
        found: list[list[Key]] = [[] for _ in xq]
        for row in self._query(list(xq), k, effort).to_list():
            found[row["query_index"]].append(row["id"])
        return found

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(_arrow(Rows([id], vector[None], [metadata])))

    def close(self) -> None:
        """Its files are written; it never syncs them."""


def _arrow(rows: Rows) -> Any:
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(rows.xb).reshape(-1))
    columns = {"id": rows.ids}
    for name in _METADATA:
        columns[name] = [metadata[name] for metadata in rows.metadatas]
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, rows.xb.shape[1])
    return pa.table(columns)


def _filter(where: Where) -> str:
    if isinstance(where, Below):
        return f"{where.field} < {where.limit}"
    return f"{where.field} = {where.value}"
