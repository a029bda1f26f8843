"""Records in Arrow columns: parquet, and Arrow IPC (``.arrow``, ``.ipc``, ``.feather``).

Knows pyarrow, which must be installed before this module is imported. Vectors never become Python objects.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from faissbase.errors import InvalidInputError
from faissbase.storage.tables.columns import check_columns, decode, fixed_dimension
from faissbase.storage.tables.contract import (
    DEFAULT_DOCUMENT_COLUMN,
    DEFAULT_ID_COLUMN,
    DEFAULT_VECTOR_COLUMN,
    METADATA_COLUMN,
    Request,
    check_skip,
)
from faissbase.storage.tables.fields import dump_json
from faissbase.storage.tables.files import reading, size_of
from faissbase.types import Batch

IPC_FILE_MAGIC = b"ARROW1"
FEATHER_V1_MAGIC = b"FEA1"
READ_BUFFER_BYTES = 2**20


class _ArrowReader(ABC):
    n_rows: int | None

    def __init__(self, request: Request) -> None:
        self._request = request
        self.size_bytes = size_of(request.path)
        with _reading(request.path):
            schema = self._read_schema()
        check_columns(schema, request)
        self.dimension = (
            None if request.rows_only else fixed_dimension(schema.field(request.vector_column).type)
        )

    @abstractmethod
    def _read_schema(self) -> Any:
        """The ``pyarrow.Schema``; sets ``n_rows``."""

    @abstractmethod
    def _record_batches(self, skip_rows: int) -> Iterator[Any]:
        """``pyarrow.RecordBatch`` of the rows from ``skip_rows`` on."""

    def batches(self, skip_rows: int = 0) -> Iterator[Batch]:
        request = self._request
        check_skip(request.path, skip_rows, self.n_rows)
        row = skip_rows
        with _reading(request.path):
            for table in self._record_batches(skip_rows):
                for start in range(0, table.num_rows, request.batch_rows):
                    piece = table.slice(start, request.batch_rows)
                    yield decode(piece, request, row)
                    row += piece.num_rows


class ParquetReader(_ArrowReader):
    """A parquet file, read as a stream; whole row groups are skipped unread."""

    def _read_schema(self) -> Any:
        with pq.ParquetFile(self._request.path) as file:
            self.n_rows = file.metadata.num_rows
            return file.schema_arrow

    def _record_batches(self, skip_rows: int) -> Iterator[Any]:
        # Otherwise the columns of a row group, which can be the whole file, are held in memory at once.
        with pq.ParquetFile(self._request.path, pre_buffer=False, buffer_size=READ_BUFFER_BYTES) as file:
            groups, n_left = _groups_after(file.metadata, skip_rows)
            tables = file.iter_batches(self._request.batch_rows, row_groups=groups)
            yield from _drop(tables, n_left)


class IpcReader(_ArrowReader):
    """An Arrow IPC file or stream, memory-mapped."""

    def _read_schema(self) -> Any:
        with self._request.path.open("rb") as file:
            magic = file.read(len(IPC_FILE_MAGIC))
        if magic.startswith(FEATHER_V1_MAGIC):
            raise InvalidInputError(
                f"{self._request.path} is a Feather version 1 file: write it again with "
                "pyarrow.feather.write_feather(table, path), which writes version 2"
            )
        self._is_stream = magic != IPC_FILE_MAGIC
        self.n_rows = None if self._is_stream else _count_rows(self._request.path)
        with ExitStack() as stack:
            return self._open(stack).schema

    def _open(self, stack: ExitStack) -> Any:
        source = stack.enter_context(pa.memory_map(str(self._request.path)))
        open_source = pa.ipc.open_stream if self._is_stream else pa.ipc.open_file
        return stack.enter_context(open_source(source))

    def _record_batches(self, skip_rows: int) -> Iterator[Any]:
        with ExitStack() as stack:
            reader = self._open(stack)
            if self._is_stream:
                yield from _drop(reader, skip_rows)
            else:
                tables = (reader.get_batch(i) for i in range(reader.num_record_batches))
                yield from _drop(tables, skip_rows)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    with reading(path):
        try:
            yield
        except (pa.ArrowException, ValueError, OverflowError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise InvalidInputError(f"cannot read {path}: {error}") from error


def _count_rows(path: Path) -> int:
    n_rows: int = pa.dataset.dataset(str(path), format="ipc").count_rows()
    return n_rows


def _groups_after(metadata: Any, skip_rows: int) -> tuple[list[int], int]:
    """Row groups that hold rows from ``skip_rows`` on, and how many rows of the first to drop."""
    for group in range(metadata.num_row_groups):
        n_rows = metadata.row_group(group).num_rows
        if skip_rows < n_rows:
            return list(range(group, metadata.num_row_groups)), skip_rows
        skip_rows -= n_rows
    return [], skip_rows


def _drop(tables: Iterator[Any], n: int) -> Iterator[Any]:
    n_left = n
    for table in tables:
        rest = table.slice(min(n_left, table.num_rows))
        n_left -= table.num_rows - rest.num_rows
        if rest.num_rows:
            yield rest
    if n_left:
        raise InvalidInputError(f"skip_rows={n}, but there are {n - n_left} rows")


class ArrowEncoder:
    """Writes the columns id, vector (fixed-size list of float32), metadata (JSON text) and document.

    ``open_sink`` starts a parquet or IPC file of a given schema on a file.
    """

    def __init__(self, file: BinaryIO, dimension: int, *, open_sink: Callable[[BinaryIO, Any], Any]) -> None:
        self._file = file
        self._dimension = dimension
        self._open_sink = open_sink
        self._sink: Any = None

    def write(self, batch: Batch, first_row: int) -> None:
        self._start(with_ids=batch.ids is not None)
        n = len(batch.vectors)
        numbers = pa.array(batch.vectors.ravel())
        metadatas = [
            dump_json(value, first_row + i).decode() for i, value in enumerate(batch.metadatas or [{}] * n)
        ]
        columns = [
            pa.FixedSizeListArray.from_arrays(numbers, self._dimension),
            pa.array(metadatas, pa.string()),
            pa.array(batch.documents or [None] * n, pa.string()),
        ]
        if batch.ids is not None:
            columns.insert(0, pa.array(batch.ids, pa.string()))
        self._sink.write_batch(pa.record_batch(columns, schema=self._schema))

    def finish(self, n_rows: int) -> None:
        self._start(with_ids=True)
        self._sink.close()

    def abandon(self) -> None:
        # An open parquet writer closes itself when collected, on a file that is no longer there.
        if self._sink is not None:
            with suppress(OSError, ValueError, pa.ArrowException):
                self._sink.close()

    def _start(self, *, with_ids: bool) -> None:
        if self._sink is None:
            self._schema = _schema(self._dimension, with_ids=with_ids)
            self._sink = self._open_sink(self._file, self._schema)


def open_parquet_sink(file: BinaryIO, schema: Any) -> Any:
    """A parquet file without dictionaries, which vectors and ids do not gain from."""
    return pq.ParquetWriter(file, schema, use_dictionary=False)


def open_ipc_sink(file: BinaryIO, schema: Any) -> Any:
    """An Arrow IPC file (not a stream), which can be memory-mapped."""
    return pa.ipc.new_file(file, schema)


def _schema(dimension: int, *, with_ids: bool) -> Any:
    columns = {
        DEFAULT_ID_COLUMN: pa.string(),
        DEFAULT_VECTOR_COLUMN: pa.list_(pa.field("item", pa.float32(), nullable=False), dimension),
        METADATA_COLUMN: pa.string(),
        DEFAULT_DOCUMENT_COLUMN: pa.string(),
    }
    if not with_ids:
        del columns[DEFAULT_ID_COLUMN]
    return pa.schema(list(columns.items()))
