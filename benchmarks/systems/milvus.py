"""Milvus Lite through pymilvus, which talks to a server in a thread of this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.systems.interface import Below, Effort, Key, Kind, Metadata, Place, Rows, Where, ef_efforts
from faissbase.types import Float32

_LOAD_ROWS = 2_000
_M = 16
_EF_CONSTRUCTION = 200
_EFS = (10, 20, 40, 64, 96, 128, 200, 320, 512)
_FIELDS = ["name", "group", "rank", "cluster"]


class MilvusLite:
    """HNSW over 8-bit codes."""

    name: ClassVar[str] = "Milvus Lite HNSW SQ8"
    kind: ClassVar[Kind] = "database"
    has_filters: ClassVar[bool] = True
    efforts: ClassVar[Sequence[Effort]] = ef_efforts(_EFS)
    index_type: ClassVar[str] = "HNSW_SQ"

    def __init__(self, place: Place) -> None:
        import milvus_lite  # noqa: F401  # without it pymilvus would look for a server
        from pymilvus import MilvusClient

        self._path = str(place.folder / "milvus.db")
        self._client: Any = MilvusClient(self._path)
        self._metric = {"cosine": "COSINE", "l2": "L2", "ip": "IP"}[place.metric]
        if place.is_new:
            self._client.create_collection("bench", schema=self._schema(place))
        else:
            self._client.load_collection("bench")

    def _schema(self, place: Place) -> Any:
        from pymilvus import DataType

        schema: Any = self._client.create_schema()
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=1024)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=place.d)
        schema.add_field("name", DataType.VARCHAR, max_length=1024)
        schema.add_field("group", DataType.VARCHAR, max_length=1024)
        schema.add_field("rank", DataType.INT64)
        schema.add_field("cluster", DataType.INT64)
        return schema

    def load(self, rows: Rows) -> None:
        for start in range(0, len(rows.ids), _LOAD_ROWS):
            stop = min(start + _LOAD_ROWS, len(rows.ids))
            data = [
                {"id": rows.ids[row], "vector": rows.xb[row], **rows.metadatas[row]}
                for row in range(start, stop)
            ]
            self._client.insert("bench", data)
        self._client.flush("bench")
        self._index()

    def _index(self) -> None:
        params: Any = self._client.prepare_index_params()
        params.add_index(
            field_name="vector",
            index_type=self.index_type,
            metric_type=self._metric,
            params={"M": _M, "efConstruction": _EF_CONSTRUCTION},
        )
        for name in ("rank", "cluster"):
            params.add_index(field_name=name, index_type="INVERTED")
        self._client.create_index("bench", params)
        self._client.load_collection("bench")

    def prepare(self, effort: Effort) -> None:
        """The effort goes with every call."""

    def use_threads(self, n: int) -> None:
        """It chooses by itself; one-thread measurements are pinned to one core."""

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        return self._search(q[None], k, effort, _filter(where))[0]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        return self._search(xq, k, effort, "")

    def _search(self, xq: Float32, k: int, effort: Effort, where: str) -> list[list[Key]]:
        answers = self._client.search(
            "bench",
            data=xq.tolist(),
            anns_field="vector",
            limit=k,
            filter=where,
            search_params={"metric_type": self._metric, "params": effort.values},
            output_fields=_FIELDS,
        )
        return [[hit["entity"]["name"] for hit in hits] for hits in answers]

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        self._client.upsert("bench", [{"id": id, "vector": vector, **metadata}])

    def close(self) -> None:
        """Its server goes on writing until it is told to stop."""
        from milvus_lite.server_manager import server_manager_instance

        self._client.close()
        server_manager_instance.release_server(self._path)


def _filter(where: Where | None) -> str:
    if where is None:
        return ""
    if isinstance(where, Below):
        return f"{where.field} < {where.limit}"
    return f"{where.field} == {where.value}"
