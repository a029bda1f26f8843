"""Vectors of one file with the ids, metadata and documents of another, row by row.

Knows two readers, not their formats.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice, repeat
from pathlib import Path
from typing import Any, TypeAlias

from faissbase.errors import InvalidInputError
from faissbase.storage.tables.contract import Reader
from faissbase.types import Batch

# id, metadata, document
_Row: TypeAlias = tuple[str | None, dict[str, Any], str | None]


class JoinedReader:
    """Row i of ``vectors`` with row i of ``rows``. The counts must agree.

    They are compared here where both headers tell them, otherwise when the last row has been read.
    """

    def __init__(self, vectors: Reader, rows: Reader, *, paths: tuple[Path, Path]) -> None:
        self._vectors = vectors
        self._rows = rows
        self._paths = paths
        self.n_rows = vectors.n_rows
        self.dimension = vectors.dimension
        self.size_bytes = vectors.size_bytes + rows.size_bytes
        if None not in (vectors.n_rows, rows.n_rows) and vectors.n_rows != rows.n_rows:
            raise self._mismatch(rows.n_rows)

    def batches(self, skip_rows: int = 0) -> Iterator[Batch]:
        n_read = skip_rows
        with closing(_one_by_one(self._rows, skip_rows)) as rows:
            for batch in self._vectors.batches(skip_rows):
                taken = list(islice(rows, len(batch.vectors)))
                n_read += len(taken)
                if len(taken) < len(batch.vectors):
                    raise self._mismatch(n_read)
                yield _batch(batch, taken)
            n_more = sum(1 for _ in rows)
        if n_more:
            raise self._mismatch(n_read + n_more)

    def _mismatch(self, n_rows: int | None) -> InvalidInputError:
        vectors, rows = self._paths
        return InvalidInputError(
            f"expected one row for each vector, got {self.n_rows} vectors in {vectors} "
            f"and {n_rows} rows in {rows}"
        )


def _one_by_one(reader: Reader, skip_rows: int) -> Generator[_Row, None, None]:
    for batch in reader.batches(skip_rows):
        yield from zip(batch.ids or repeat(None), batch.metadatas or [], batch.documents or [], strict=False)


def _batch(batch: Batch, rows: list[_Row]) -> Batch:
    ids = [id for id, _, _ in rows if id is not None]
    return Batch(
        vectors=batch.vectors,
        ids=ids or batch.ids,
        metadatas=[metadata for _, metadata, _ in rows],
        documents=[document for _, _, document in rows],
    )
