"""Qdrant Edge: one shard, int8 codes in memory, re-scored by the stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.systems.interface import EFS, Below, Effort, Key, Kind, Metadata, Place, Rows, Where
from faissbase.types import Float32

_LOAD_ROWS = 4_096
_M = 32
_EF_CONSTRUCTION = 100
_OVERSAMPLING = (1.0, 2.0)
_FIELDS = ("rank", "cluster")
_DISTANCES = {"cosine": "Cosine", "l2": "Euclid", "ip": "Dot"}


class QdrantEdge:
    """A shard with its indexes built by ``optimize()``. Its ids are numbers, so ours are metadata too."""

    name: ClassVar[str] = "Qdrant Edge int8"
    kind: ClassVar[Kind] = "database"
    has_filters: ClassVar[bool] = True
    efforts: ClassVar[Sequence[Effort]] = [
        Effort(f"ef {ef}, oversampling {over:g}", {"ef": ef, "over": over})
        for ef in EFS
        for over in _OVERSAMPLING
    ]

    def __init__(self, place: Place) -> None:
        import qdrant_edge

        self._api: Any = qdrant_edge
        folder = place.folder / "qdrant"
        if place.is_new:
            folder.mkdir()
            self._shard: Any = qdrant_edge.EdgeShard.create(str(folder), self._config(place))
        else:
            self._shard = qdrant_edge.EdgeShard.load(str(folder))
        self._numbers: dict[str, int] = {}

    def _config(self, place: Place) -> Any:
        api = self._api
        return api.EdgeConfig(
            vectors=api.EdgeVectorParams(
                size=place.d, distance=getattr(api.Distance, _DISTANCES[place.metric])
            ),
            hnsw_config=api.HnswIndexConfig(m=_M, ef_construct=_EF_CONSTRUCTION, full_scan_threshold=10),
            quantization_config=api.ScalarQuantizationConfig(
                type=api.ScalarType.Int8, quantile=0.99, memory=api.Memory.Pinned
            ),
            optimizers=api.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1_000),
        )

    def load(self, rows: Rows) -> None:
        api = self._api
        for name in _FIELDS:
            self._shard.update(api.UpdateOperation.create_field_index(name, api.PayloadSchemaType.Integer))
        self._numbers = {id: number for number, id in enumerate(rows.ids)}
        for start in range(0, len(rows.ids), _LOAD_ROWS):
            stop = min(start + _LOAD_ROWS, len(rows.ids))
            points = [
                self._point(rows.ids[row], rows.xb[row], rows.metadatas[row]) for row in range(start, stop)
            ]
            self._shard.update(api.UpdateOperation.upsert_points(points))
        self._shard.optimize()
        self._shard.flush()

    def _point(self, id: str, vector: Float32, metadata: Metadata) -> Any:
        number = self._numbers.setdefault(id, len(self._numbers))
        return self._api.Point(number, vector.tolist(), {"id": id, **metadata})

    def prepare(self, effort: Effort) -> None:
        """The effort goes with every call."""

    def use_threads(self, n: int) -> None:
        """It has a pool of its own; one-thread measurements are pinned to one core."""

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        hits = self._shard.search(
            self._api.SearchRequest(
                query=self._api.Query.Nearest(q.tolist()),
                limit=k,
                filter=self._filter(where),
                params=self._params(effort),
                with_payload=True,
            )
        )
        return [hit.payload["id"] for hit in hits]

    def _params(self, effort: Effort) -> Any:
        api, over = self._api, effort.values["over"]
        codes = api.QuantizationSearchParams(rescore=True, oversampling=over if over > 1 else None)
        return api.SearchParams(hnsw_ef=effort.values["ef"], quantization=codes)

    def _filter(self, where: Where | None) -> Any:
        if where is None:
            return None
        api = self._api
        if isinstance(where, Below):
            condition = api.FieldCondition(where.field, range=api.RangeFloat(lt=where.limit))
        else:
            condition = api.FieldCondition(where.field, match=api.MatchValue(where.value))
        return api.Filter(must=[condition])

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        api, params = self._api, self._params(effort)
        requests = [
            api.QueryRequest(query=api.Query.Nearest(q), limit=k, params=params, with_payload=True)
            for q in xq.tolist()
        ]
        answers = self._shard.query_batch(api.QueryBatchRequest(requests))
        return [[hit.payload["id"] for hit in hits] for hits in answers]

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        """Its write-ahead log holds the point then; `flush` would sync all of the shard's files."""
        self._shard.update(self._api.UpdateOperation.upsert_points([self._point(id, vector, metadata)]))

    def close(self) -> None:
        self._shard.flush()
        self._shard.close()
