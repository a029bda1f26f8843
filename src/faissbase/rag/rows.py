"""What a store holds, row by row, and changes of it. Knows nothing of locks or files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from faissbase.ann.resident import Resident
from faissbase.errors import CorruptionError, InvalidInputError
from faissbase.filters.columns import Columns
from faissbase.filters.tree import Everything, Filter
from faissbase.rag import saved
from faissbase.types import Float32, Mask, Metric, Slots

# What comes of facts that are there and checksummed, but that no store has ever had.
_NOT_OURS = (InvalidInputError, OSError, LookupError, TypeError, ValueError, AttributeError)

Found = tuple[Float32, Slots, list[dict[str, Any]]]

# How users of FAISS name what `faissbase.ann.spec` calls otherwise.
_NAMES = {"FlatL2": "IndexFlatL2", "FlatIP": "IndexFlatIP", "IVFFlat": "IVF_FLAT"}


@dataclass(frozen=True, slots=True)
class Rows:
    """In the order of adding: row i has ``ids[i]``, which ascend, and ``metadata[i]``, JSON objects."""

    resident: Resident
    ids: Slots
    metadata: list[bytes]
    columns: Columns = field(default_factory=Columns)

    @classmethod
    def none(cls, dimension: int, metric: Metric, index_type: str) -> Rows:
        """Nothing yet."""
        resident = Resident(dimension, metric, _NAMES.get(index_type, index_type))
        return cls(resident, np.empty(0, np.int64), [])

    @classmethod
    def loaded(cls, folder: Path, facts: saved.Facts, *, rebuild_index: bool) -> Rows:
        """What is saved in ``folder``; `CorruptionError` where that is damaged."""
        try:
            return cls._opened(folder, facts, rebuild_index)
        except _NOT_OURS as error:
            raise CorruptionError(
                f"the store in {folder} is damaged, or was written by others: {error}"
            ) from error

    @classmethod
    def _opened(cls, folder: Path, facts: saved.Facts, rebuild_index: bool) -> Rows:
        contents = saved.read(folder, facts)
        path = None if rebuild_index else saved.index_path(folder, facts)
        kind = (facts.metric, _NAMES.get(facts.index_type, facts.index_type))
        if path is None:
            resident = Resident.over(contents.vectors, facts.dimension, *kind)
        elif facts.index is None:
            raise CorruptionError(f"{path} is an index of which {saved.MANIFEST} tells nothing")
        else:
            resident = Resident.restored(contents.vectors, *kind, path, facts.factory, facts.index)
        return cls(resident, contents.ids, contents.metadata_json)

    def extended(self, vectors: Float32, ids: Slots, metadata: list[bytes]) -> Rows:
        """With more of them, all or none; these rows must not be used any more."""
        all_ids = np.concatenate([self.ids, ids])
        self.resident.append(vectors)
        self.metadata.extend(metadata)
        return Rows(self.resident, all_ids, self.metadata, self.columns)

    def buried(self, found: Slots) -> Rows:
        """Without some, whose metadata go; these rows must not be used any more."""
        self.resident.bury(found)
        for row in found.tolist():
            self.metadata[row] = b"{}"
        return Rows(self.resident, self.ids, self.metadata)  # columns have kept what is to go

    def compacted(self) -> Rows:
        """The same without what was buried. These stay as they are."""
        resident, kept = self.resident.compacted()
        return Rows(resident, self.ids[kept], [self.metadata[row] for row in kept.tolist()])

    def rows_of(self, ids: Slots) -> Slots:
        """The rows of those ids that are there, in the order of the ids."""
        if not len(self.ids):
            return np.empty(0, np.int64)
        places = np.searchsorted(self.ids, ids)
        places[places == len(self.ids)] = 0
        found: Slots = places[(self.ids[places] == ids) & self.resident.alive[places]]
        return found

    def mask(self, where: Filter) -> Mask:
        """Which rows match and are there, ``bool[n]``."""

        def read(first: int, stop: int) -> Iterator[tuple[int, bytes]]:
            return ((row, self.metadata[row]) for row in range(first, stop))

        return self.columns.mask(where, self.resident.n, read) & self.resident.alive

    def search(
        self, queries: Float32, k: int, where: Filter, least_score: float | None, recall: float
    ) -> list[Found]:
        """For each query what `FAISSVectorStore.search` returns."""
        mask = None if isinstance(where, Everything) else self.mask(where)
        distances, rows = self.resident.search(queries, k, mask=mask, recall=recall)
        return [
            self._aligned(*self._near_enough(*one, least_score)) for one in zip(distances, rows, strict=True)
        ]

    def _near_enough(self, distances: Float32, rows: Slots, least: float | None) -> tuple[Float32, Slots]:
        if least is None:
            return distances, rows
        is_near = (1.0 / (1.0 + distances) if self.resident.metric == "l2" else distances) >= least
        return distances[is_near], rows[is_near]

    def _aligned(self, distances: Float32, rows: Slots) -> Found:
        return distances, self.ids[rows], [orjson.loads(self.metadata[row]) for row in rows.tolist()]

    def facts(self, index_type: str, next_id: int) -> saved.Facts:
        """What is said of them in a folder, but for the files."""
        resident = self.resident
        kind = (resident.d, resident.metric, index_type, resident.n, next_id)
        return saved.Facts(*kind, 0, {}, resident.spec.factory, resident.facts())

    def contents(self) -> saved.Contents:
        """What is written into a folder."""
        write_index = None if self.resident.facts() is None else self.resident.write_index
        return saved.Contents(self.resident.vectors, self.ids, self.metadata, write_index)
