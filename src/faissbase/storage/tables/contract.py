"""What every record file format agrees on: the request, the reader, the encoder, and their common refusals.

Knows no format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from faissbase.errors import InvalidInputError
from faissbase.types import Batch

BATCH_BYTES = 16 * 2**20
MAX_BATCH_ROWS = 65_536

DEFAULT_ID_COLUMN = "id"
DEFAULT_VECTOR_COLUMN = "vector"
DEFAULT_DOCUMENT_COLUMN = "document"
METADATA_COLUMN = "metadata"


@dataclass(frozen=True, slots=True)
class Request:
    """What to read, and how.

    ``dimension`` is the d every vector must have; None accepts the d of the first vector.
    ``rows_only`` asks for ids, metadata and documents of a file without vectors: ``float32[n, 0]``.
    """

    path: Path
    dimension: int | None
    batch_rows: int
    id_column: str = DEFAULT_ID_COLUMN
    vector_column: str = DEFAULT_VECTOR_COLUMN
    document_column: str = DEFAULT_DOCUMENT_COLUMN
    rows_only: bool = False

    @property
    def asked_for(self) -> set[str]:
        """Columns of ids and documents that have to be there: the usual ones alone may be absent."""
        return {self.id_column, self.document_column} - {DEFAULT_ID_COLUMN, DEFAULT_DOCUMENT_COLUMN}


class Reader(Protocol):
    """A record file. Holds no open file except while `batches` is being iterated.

    Attributes
    ----------
    n_rows : int or None
        Rows in the file, where its header or size tells.
    size_bytes : int
        On disk, rows file included.
    dimension : int or None
        d, where the header tells.
    """

    @property
    def n_rows(self) -> int | None: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def dimension(self) -> int | None: ...
    def batches(self, skip_rows: int = 0) -> Iterator[Batch]:
        """Batches of the rows from ``skip_rows`` on, in file order; none of them is empty.

        Raises
        ------
        InvalidInputError
            The file is damaged, a row does not fit, or there are fewer than ``skip_rows`` rows.
        """
        ...


class Encoder(Protocol):
    """Turns batches into the bytes of one format, on a file that somebody else opens, syncs and names."""

    def write(self, batch: Batch, first_row: int) -> None:
        """Append a batch of at least one row, the first of which is row ``first_row`` of the file."""
        ...

    def finish(self, n_rows: int) -> None:
        """Write what goes last; the file holds ``n_rows`` rows."""
        ...

    def abandon(self) -> None:
        """Let go of the file, which will be removed unfinished."""
        ...


def default_batch_rows(dimension: int) -> int:
    """Rows in about 16 MiB of float32 vectors: at least 1, at most 65,536.

    >>> default_batch_rows(384)
    10922
    """
    return max(1, min(MAX_BATCH_ROWS, BATCH_BYTES // (4 * max(dimension, 1))))


def wrong_dimension(path: Path, row: int, *, expected: int, got: int) -> InvalidInputError:
    """The error for a vector of another length than asked for."""
    return InvalidInputError(f"expected vectors of d={expected}, got d={got} (file {path}, row {row})")


def check_skip(path: Path, skip_rows: int, n_rows: int | None) -> None:
    """Refuse to resume after a row that the file of ``n_rows`` rows (None if not known) does not have."""
    if skip_rows < 0:
        raise InvalidInputError(f"skip_rows must be 0 or more, got {skip_rows}")
    if n_rows is not None and skip_rows > n_rows:
        raise InvalidInputError(f"skip_rows={skip_rows}, but {path} holds {n_rows} rows")
