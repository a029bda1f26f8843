"""Batches into bytes: npy, fvecs, bvecs, JSON lines and CSV.

Knows the bytes of each format, not where they go nor when they are safe.
"""

from __future__ import annotations

import array
import csv
import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import orjson

from faissbase.errors import InvalidInputError
from faissbase.storage.tables.contract import (
    DEFAULT_DOCUMENT_COLUMN,
    DEFAULT_ID_COLUMN,
    DEFAULT_VECTOR_COLUMN,
    METADATA_COLUMN,
)
from faissbase.storage.tables.fields import dump_json
from faissbase.types import Batch, Float32

NPY_HEADER_BYTES = 128
INT32_BYTES = 4


class _FileEncoder:
    """On a plain file nothing goes last unless the format says so, and there is nothing to let go of."""

    def __init__(self, file: BinaryIO, dimension: int) -> None:
        self._file = file
        self._dimension = dimension

    def finish(self, n_rows: int) -> None:
        """Nothing goes last."""

    def abandon(self) -> None:
        """Nothing to let go of."""


class NpyEncoder(_FileEncoder):
    """Writes float32 C-order npy. The header has a fixed size and is written again with the final count."""

    def __init__(self, file: BinaryIO, dimension: int) -> None:
        super().__init__(file, dimension)
        file.write(_npy_header(0, dimension))

    def write(self, batch: Batch, first_row: int) -> None:
        self._file.write(batch.vectors.astype("<f4", copy=False).data)

    def finish(self, n_rows: int) -> None:
        self._file.seek(0)
        self._file.write(_npy_header(n_rows, self._dimension))
        self._file.seek(0, os.SEEK_END)


class FvecsEncoder(_FileEncoder):
    """Writes int32 d and d float32 for each row."""

    def write(self, batch: Batch, first_row: int) -> None:
        rows = np.empty((len(batch.vectors), 1 + self._dimension), "<f4")
        rows[:, 0].view("<i4")[:] = self._dimension
        rows[:, 1:] = batch.vectors
        self._file.write(rows.data)


class BvecsEncoder(_FileEncoder):
    """Writes int32 d and d uint8 for each row; refuses every other value."""

    def write(self, batch: Batch, first_row: int) -> None:
        vectors = batch.vectors
        fits = (vectors >= 0) & (vectors <= 255) & (vectors == np.floor(vectors))
        if not fits.all():
            row, column = np.argwhere(~fits)[0]
            raise InvalidInputError(
                f"bvecs holds integers from 0 to 255, got {vectors[row, column]} "
                f"(row {first_row + row}): write fvecs or npy"
            )
        rows = np.empty((len(vectors), INT32_BYTES + self._dimension), np.uint8)
        rows[:, :INT32_BYTES] = np.array([self._dimension], "<i4").view(np.uint8)
        rows[:, INT32_BYTES:] = vectors
        self._file.write(rows.data)


def _npy_header(n_rows: int, dimension: int) -> bytes:
    magic = b"\x93NUMPY\x01\x00"
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_rows}, {dimension}), }}"
    length = NPY_HEADER_BYTES - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"


class JsonlEncoder(_FileEncoder):
    """Writes one JSON object a line: id, vector, metadata, document; without the vector as a rows file."""

    def __init__(self, file: BinaryIO, dimension: int, *, rows_only: bool = False) -> None:
        super().__init__(file, dimension)
        self._rows_only = rows_only

    def write(self, batch: Batch, first_row: int) -> None:
        if not self._rows_only:
            _check_finite(batch.vectors, first_row)
        for i, fields in enumerate(_fields_of(batch)):
            if self._rows_only:
                del fields["vector"]
            else:
                fields["vector"] = orjson.Fragment(_vector_json(batch.vectors[i]))
            self._file.write(dump_json(fields, first_row + i) + b"\n")


class CsvEncoder(_FileEncoder):
    """Writes a header and the columns id, vector, metadata, document.

    A document of no characters looks like none and reads back as none.
    """

    def __init__(self, file: BinaryIO, dimension: int, *, delimiter: str) -> None:
        super().__init__(file, dimension)
        self._delimiter = delimiter
        self._has_header = False

    def write(self, batch: Batch, first_row: int) -> None:
        _check_finite(batch.vectors, first_row)
        rows: list[list[str | None]] = []
        for i, fields in enumerate(_fields_of(batch)):
            fields["vector"] = _vector_json(batch.vectors[i]).decode()
            fields["metadata"] = dump_json(fields["metadata"], first_row + i).decode()
            rows.append(list(fields.values()))
        self._write_header(with_ids=batch.ids is not None)
        self._write_lines(rows)

    def finish(self, n_rows: int) -> None:
        self._write_header(with_ids=True)

    def _write_header(self, *, with_ids: bool) -> None:
        if not self._has_header:
            ids = [DEFAULT_ID_COLUMN] if with_ids else []
            self._write_lines([[*ids, DEFAULT_VECTOR_COLUMN, METADATA_COLUMN, DEFAULT_DOCUMENT_COLUMN]])
            self._has_header = True

    def _write_lines(self, rows: list[list[str | None]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self._delimiter).writerows(rows)
        self._file.write(text.getvalue().encode())


def _fields_of(batch: Batch) -> Iterator[dict[str, Any]]:
    for i in range(len(batch.vectors)):
        fields: dict[str, Any] = {} if batch.ids is None else {DEFAULT_ID_COLUMN: batch.ids[i]}
        fields[DEFAULT_VECTOR_COLUMN] = None
        fields[METADATA_COLUMN] = {} if batch.metadatas is None else batch.metadatas[i]
        fields[DEFAULT_DOCUMENT_COLUMN] = None if batch.documents is None else batch.documents[i]
        yield fields


def _vector_json(vector: Float32) -> bytes:
    text = orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY)
    # The shortest digits of a float32, read as a double and rounded again, can give its neighbour
    # (7.038531e-26 does); the digits of the double it equals cannot.
    back = np.frombuffer(array.array("f", orjson.loads(text)), np.float32)
    if np.array_equal(back.view(np.uint32), vector.view(np.uint32)):
        return text
    return orjson.dumps(vector.astype(np.float64), option=orjson.OPT_SERIALIZE_NUMPY)


def _check_finite(vectors: Float32, first_row: int) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = first_row + int(np.argmin(finite))
        raise InvalidInputError(
            f"JSON has no NaN or infinity, but the vector of row {row} has one: write npy or parquet"
        )
