"""zvec: HNSW over int8 codes, refined by the stored vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.systems.interface import EFS, Below, Effort, Key, Kind, Metadata, Place, Rows, Where
from faissbase.types import Float32

_LOAD_ROWS = 1_024  # the most it takes in one call
_M = 32
_EF_CONSTRUCTION = 100
_METRICS = {"cosine": "COSINE", "l2": "L2", "ip": "IP"}
_is_initialised: list[bool] = []


def _module() -> Any:
    """zvec, told once a process to keep its log to errors."""
    import zvec

    if not _is_initialised:
        zvec.init(log_level=zvec.LogLevel.ERROR)
        _is_initialised.append(True)
    return zvec


class Zvec:
    """A collection whose index ``optimize()`` builds."""

    name: ClassVar[str] = "zvec int8"
    kind: ClassVar[Kind] = "database"
    has_filters: ClassVar[bool] = True
    efforts: ClassVar[Sequence[Effort]] = [
        effort
        for ef in EFS
        for effort in (
            Effort(f"ef {ef}", {"ef": ef}),
            Effort(f"ef {ef}, refined", {"ef": ef, "is_using_refiner": True, "scale_factor": 2.0}),
        )
    ]

    def __init__(self, place: Place) -> None:
        self._api = _module()
        path = str(place.folder / "zvec")
        if place.is_new:
            self._rows: Any = self._api.create_and_open(path=path, schema=self._schema(place))
        else:
            self._rows = self._api.open(path)

    def _schema(self, place: Place) -> Any:
        api = self._api
        numbers = api.InvertIndexParam(enable_range_optimization=True)
        graph = api.HnswIndexParam(
            metric_type=getattr(api.MetricType, _METRICS[place.metric]),
            m=_M,
            ef_construction=_EF_CONSTRUCTION,
            quantize_type=api.QuantizeType.INT8,
            use_contiguous_memory=True,
        )
        return api.CollectionSchema(
            name="bench",
            fields=[
                api.FieldSchema("name", api.DataType.STRING),
                api.FieldSchema("group", api.DataType.STRING),
                api.FieldSchema("rank", api.DataType.INT64, index_param=numbers),
                api.FieldSchema("cluster", api.DataType.INT64, index_param=numbers),
            ],
            vectors=[api.VectorSchema("vector", api.DataType.VECTOR_FP32, place.d, index_param=graph)],
        )

    def load(self, rows: Rows) -> None:
        for start in range(0, len(rows.ids), _LOAD_ROWS):
            stop = min(start + _LOAD_ROWS, len(rows.ids))
            docs = [self._doc(rows.ids[row], rows.xb[row], rows.metadatas[row]) for row in range(start, stop)]
            _check(self._rows.insert(docs))
        self._rows.optimize()
        self._rows.flush()

    def _doc(self, id: str, vector: Float32, metadata: Metadata) -> Any:
        return self._api.Doc(id=id, vectors={"vector": vector}, fields=metadata)

    def prepare(self, effort: Effort) -> None:
        """The effort goes with every call."""

    def use_threads(self, n: int) -> None:
        """It has a pool of its own; one-thread measurements are pinned to one core."""

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        query = self._api.Query("vector", vector=q, param=self._api.HnswQueryParam(**effort.values))
        hits = self._rows.query(query, topk=k, filter=_filter(where))
        return [hit.fields["name"] for hit in hits]

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        """It has no call for many queries."""
        return [self.search(q, k, effort) for q in xq]

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        _check(self._rows.upsert([self._doc(id, vector, metadata)]))

    def close(self) -> None:
        self._rows.close()


def _check(statuses: list[Any]) -> None:
    for status in statuses:
        if not status.ok():
            raise RuntimeError(f"zvec: {status}")


def _filter(where: Where | None) -> str | None:
    if where is None:
        return None
    if isinstance(where, Below):
        return f"{where.field} < {where.limit}"
    return f"{where.field} = {where.value}"
