"""The shared words: metric, record, hit, result, and the protocol every collection follows.

Knows only values: no storage, no faiss, no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeAlias, TypeGuard, overload

import numpy as np
import numpy.typing as npt
import orjson

from faissbase.errors import NotReadyError

if TYPE_CHECKING:
    import pandas
    import pyarrow

Metric: TypeAlias = Literal["l2", "ip", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "ip", "cosine")

Durability: TypeAlias = Literal["full", "relaxed"]
DURABILITIES: tuple[Durability, ...] = ("full", "relaxed")

Placement: TypeAlias = Literal["folder", "sharded"]

Metadata: TypeAlias = Mapping[str, Any]
Where: TypeAlias = Mapping[str, Any]

Float32: TypeAlias = npt.NDArray[np.float32]
Slots: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

MAX_DIMENSION = 65_535
NAME_RULE = "1 to 128 letters, digits, '.', '_' or '-', starting with a letter or digit"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def is_name(name: object) -> TypeGuard[str]:
    """Whether a collection, an index of FAISS's or a tenant may be called so: see `NAME_RULE`."""
    return isinstance(name, str) and _NAME.match(name) is not None


def score_of(distance: float, metric: Metric) -> float:
    """The score (larger is nearer) of a FAISS distance: ``1 / (1 + distance)`` for l2, else the distance."""
    return 1.0 / (1.0 + distance) if metric == "l2" else distance


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One stored record. ``vector`` is ``float32[d]`` where vectors were asked for, else None."""

    id: str
    metadata: dict[str, Any]
    document: str | None = None
    vector: Float32 | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        mine, theirs = (self.id, self.metadata, self.document), (other.id, other.metadata, other.document)
        if self.vector is None or other.vector is None:
            return mine == theirs and self.vector is other.vector
        return mine == theirs and np.array_equal(self.vector, other.vector)

    __hash__ = None  # type: ignore[assignment]  # holds a dict


@dataclass(frozen=True, slots=True)
class Row:
    """What a hit needs of its record, metadata still encoded."""

    id: str
    metadata_json: bytes
    document: str | None


class Hit:
    """One search hit.

    Attributes
    ----------
    id : str
    score : float
        Larger is nearer. ``1 / (1 + distance)`` for l2, the inner product or cosine otherwise, BM25 for
        text search, the fused rank score for hybrid search.
    distance : float or None
        As FAISS gives it: squared for l2, the inner product for ip and cosine. None for text search,
        and in hybrid search for what was found by its text alone.
    metadata : dict
        Decoded when first read.
    document : str or None
    row : Row
        The record's part, metadata as they are stored.
    """

    __slots__ = ("_metadata", "distance", "row", "score")

    def __init__(self, row: Row, score: float, distance: float | None) -> None:
        self.row = row
        self.score = score
        self.distance = distance
        self._metadata: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def document(self) -> str | None:
        return self.row.document

    @property
    def metadata_json(self) -> bytes:
        """The metadata as they are stored: a JSON object."""
        return self.row.metadata_json

    def with_score(self, score: float) -> Hit:
        """The same record and distance under another score."""
        return Hit(self.row, score, self.distance)

    @property
    def metadata(self) -> dict[str, Any]:
        if self._metadata is None:
            self._metadata = orjson.loads(self.row.metadata_json)
        return self._metadata

    def __repr__(self) -> str:
        numbers = f"score={self.score:.6g}, distance={self.distance}"
        return f"Hit(id={self.id!r}, {numbers}, metadata={self.metadata!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Hit):
            return NotImplemented
        return (self.id, self.score, self.distance, self.metadata, self.document) == (
            other.id,
            other.score,
            other.distance,
            other.metadata,
            other.document,
        )

    __hash__ = None  # type: ignore[assignment]  # holds a dict


def hits_of(slots: list[int], distances: list[float], metric: Metric, rows: Mapping[int, Row]) -> list[Hit]:
    """The hits of one query, from its slots and distances, nearest first; slot −1 is none."""
    scores = distances if metric != "l2" else [score_of(distance, metric) for distance in distances]
    return [
        Hit(rows[slot], score, distance)
        for slot, score, distance in zip(slots, scores, distances, strict=True)
        if slot >= 0
    ]


class SearchResult(Sequence[list[Hit]]):
    """Answers to many queries: ``result[i]`` is the list of hits of query i, nearest first.

    Attributes
    ----------
    ids : list of list of str
        Ragged: a query with fewer than k matches has a shorter list.
    distances, scores : float32[nq, k]
        Padded with NaN where fewer than k records matched.
    metadatas : list of list of dict
        Decoded when first read.
    documents : list of list of (str or None)
    """

    __slots__ = ("_documents", "_ids", "_metadatas", "_metric", "_rows", "distances", "slots")

    def __init__(self, slots: Slots, distances: Float32, metric: Metric, rows: Mapping[int, Row]) -> None:
        self.slots = slots
        self.distances = distances
        self._metric = metric
        self._rows = rows
        self._ids: list[list[str]] | None = None
        self._metadatas: list[list[dict[str, Any]]] | None = None
        self._documents: list[list[str | None]] | None = None

    def __repr__(self) -> str:
        return f"<SearchResult: {len(self)} queries, {self.slots.shape[1]} hits each at most>"

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def rows(self) -> Mapping[int, Row]:
        """What the hits need of their records, by slot."""
        return self._rows

    @property
    def metric(self) -> Metric:
        return self._metric

    @property
    def scores(self) -> Float32:
        one = np.float32(1)
        return one / (one + self.distances) if self._metric == "l2" else self.distances

    @overload
    def __getitem__(self, index: int) -> list[Hit]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Hit]]: ...
    def __getitem__(self, index: int | slice) -> list[Hit] | list[list[Hit]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        slots, distances = self.slots[index].tolist(), self.distances[index].tolist()
        return hits_of(slots, distances, self._metric, self._rows)

    def __iter__(self) -> Iterator[list[Hit]]:
        return (self[i] for i in range(len(self)))

    def by_query(self) -> Iterator[tuple[list[Row], list[float], list[float]]]:
        """Rows, scores and distances of each query, nearest first: what its hits are made of."""
        for slots, distances in zip(self.slots.tolist(), self.distances.tolist(), strict=True):
            if slots and min(slots) < 0:
                distances = [near for near, slot in zip(distances, slots, strict=True) if slot >= 0]
                slots = [slot for slot in slots if slot >= 0]
            scores = [score_of(near, "l2") for near in distances] if self._metric == "l2" else distances
            yield [self._rows[slot] for slot in slots], scores, distances

    def _rows_of(self) -> Iterator[list[Row]]:
        for slots in self.slots.tolist():
            yield [self._rows[slot] for slot in slots if slot >= 0]

    @property
    def ids(self) -> list[list[str]]:
        if self._ids is None:
            self._ids = [[row.id for row in rows] for rows in self._rows_of()]
        return self._ids

    @property
    def metadatas(self) -> list[list[dict[str, Any]]]:
        if self._metadatas is None:
            self._metadatas = [[orjson.loads(row.metadata_json) for row in rows] for rows in self._rows_of()]
        return self._metadatas

    @property
    def documents(self) -> list[list[str | None]]:
        if self._documents is None:
            self._documents = [[row.document for row in rows] for rows in self._rows_of()]
        return self._documents

    def _table(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            name: [] for name in ("query", "rank", "id", "score", "distance", "metadata", "document")
        }
        for query, hits in enumerate(self):
            for rank, hit in enumerate(hits):
                metadata = orjson.dumps(hit.metadata).decode()
                values = (query, rank, hit.id, hit.score, hit.distance, metadata, hit.document)
                for name, value in zip(columns, values, strict=True):
                    columns[name].append(value)
        return columns

    def to_arrow(self) -> pyarrow.Table:
        """One row per hit: query, rank, id, score, distance, metadata (JSON text), document.

        Raises
        ------
        NotReadyError
            pyarrow is not installed (``pip install "faissbase[arrow]"``).
        """
        try:
            import pyarrow as pa
        except ImportError as error:
            raise NotReadyError('to_arrow needs pyarrow: pip install "faissbase[arrow]"') from error
        types = (pa.int64(), pa.int64(), pa.string(), pa.float32(), pa.float32(), pa.string(), pa.string())
        columns = self._table()
        schema = pa.schema(list(zip(columns, types, strict=True)))
        return pa.table(columns, schema=schema)

    def to_pandas(self) -> pandas.DataFrame:
        """The table of `to_arrow` as a data frame (extra ``pandas``)."""
        try:
            import pandas as pd
        except ImportError as error:
            raise NotReadyError('to_pandas needs pandas: pip install "faissbase[pandas]"') from error
        frame: pandas.DataFrame = pd.DataFrame(self._table())
        return frame


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a scroll; ``cursor`` continues it and is None after the last record."""

    records: list[Record]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records on their way in or out of a file: ``vectors`` is ``float32[n, d]``, the lists have n items.

    ``ids`` is None where the file has none: the loader numbers the rows.
    """

    vectors: Float32
    ids: list[str] | None = None
    metadatas: list[dict[str, Any]] | None = None
    documents: list[str | None] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing `verify` found wrong. ``where`` names the file, slot or id."""

    kind: str
    where: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` checked and found; true when nothing is wrong."""

    rows_checked: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What `repair` did. Quarantined records are kept in ``quarantine_path``, one JSON object a line."""

    actions: list[str]
    quarantined_ids: list[str]
    quarantine_path: str | None


class OpenHere:
    """What holds files or connections of this process, and cannot go to another one, nor be copied."""

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is open in this process and cannot be pickled or copied: connect() anew there"
        )


class Collection(Protocol):
    """What the application layers rely on; local and remote collections both follow it."""

    @property
    def name(self) -> str: ...
    @property
    def dimension(self) -> int: ...
    @property
    def metric(self) -> Metric: ...
    @property
    def ntotal(self) -> int: ...
    def __len__(self) -> int: ...
    def add(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int: ...
    def upsert(
        self, ids: Any, vectors: Any, metadatas: Any = None, documents: Any = None, *, progress: bool = False
    ) -> int: ...
    def update(
        self,
        ids: Any,
        metadatas: Any = None,
        documents: Any = None,
        vectors: Any = None,
        *,
        replace: bool = False,
    ) -> int: ...
    def get(
        self,
        ids: Any = None,
        *,
        where: Where | None = None,
        limit: int | None = None,
        include_vectors: bool = False,
    ) -> list[Record]: ...
    def scroll(
        self,
        where: Where | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        include_vectors: bool = False,
    ) -> Page: ...
    def delete(self, ids: Any = None, *, where: Where | None = None) -> int: ...
    def count(self, where: Where | None = None) -> int: ...
    def search(
        self,
        xq: Any,
        k: int = 10,
        where: Where | None = None,
        *,
        recall: float | None = None,
        nprobe: int | None = None,
        ef_search: int | None = None,
        rerank: int | None = None,
    ) -> Any: ...
    def range_search(self, xq: Any, radius: float, where: Where | None = None) -> Any: ...
    def text_search(self, query: str, k: int = 10, where: Where | None = None) -> list[Hit]: ...
    def hybrid_search(self, text: str, vector: Any, k: int = 10, where: Where | None = None) -> list[Hit]: ...
    def reset(self) -> int: ...
