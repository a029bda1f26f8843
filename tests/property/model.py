"""What a collection is, written plainly: a dict of records in the order of their last write, and NumPy.

Distances are computed in float64 from the vectors as they were given; `matches` says what a filter means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import orjson

from faissbase.filters.tree import matches, parse
from faissbase.types import Float32, Metric

# float32 keeps 24 bits: a distance may be wrong by this share of the terms that were added up.
_ROUNDING = 3e-6


@dataclass(frozen=True)
class ModelRecord:
    """One record as it was given; metadata as JSON has it."""

    id: str
    vector: Float32
    metadata: dict[str, Any]
    document: str | None


class Model:
    """The records of one collection."""

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.records: dict[str, ModelRecord] = {}

    def put(self, records: Iterable[ModelRecord]) -> None:
        """Store records; one that replaces another moves to the end."""
        for record in records:
            self.records.pop(record.id, None)
            metadata = orjson.loads(orjson.dumps(record.metadata))
            self.records[record.id] = replace(record, metadata=metadata)

    def update(self, changes: Sequence[ModelChange], *, replaces: bool) -> None:
        """Change parts of records that exist."""
        for change in changes:
            old = self.records[change.id]
            merged = {**({} if replaces else old.metadata), **(change.metadata or {})}
            self.put(
                [
                    ModelRecord(
                        change.id,
                        old.vector if change.vector is None else change.vector,
                        old.metadata if change.metadata is None else merged,
                        old.document if change.document is None else change.document,
                    )
                ]
            )

    def delete(self, ids: Iterable[str]) -> int:
        """Forget records; how many there were."""
        return len([self.records.pop(id) for id in list(ids) if id in self.records])

    def matching(self, where: Mapping[str, Any] | None) -> list[ModelRecord]:
        """The records that match, oldest write first."""
        filter = parse(where)
        return [record for record in self.records.values() if matches(filter, record.metadata)]

    def distances(self, query: Float32, where: Mapping[str, Any] | None) -> dict[str, tuple[float, float]]:
        """For each matching id its distance, and how far float32 may be from it."""
        return {record.id: self.distance(query, record.vector) for record in self.matching(where)}

    def distance(self, query: Float32, vector: Float32) -> tuple[float, float]:
        """Between two vectors as given, with the tolerance of float32."""
        x, y = query.astype(np.float64), vector.astype(np.float64)
        if self.metric == "cosine":
            x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
        if self.metric == "l2":
            exact = float(((x - y) ** 2).sum())
            return exact, _ROUNDING * exact + 1e-30
        return float(x @ y), _ROUNDING * float(np.abs(x) @ np.abs(y)) + 1e-6 * float(self.metric == "cosine")


@dataclass(frozen=True)
class ModelChange:
    """New parts of one record; None leaves a part as it is."""

    id: str
    vector: Float32 | None
    metadata: dict[str, Any] | None
    document: str | None


def words(text: str) -> set[str]:
    """The words of a text of plain ASCII."""
    return set(re.findall(r"[a-z]+", text.lower()))
