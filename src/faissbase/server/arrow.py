"""Bodies as Arrow IPC streams: records, queries and hits in columns. Knows pyarrow, which must be installed.

A stream is checked before its values are trusted: no compression or dictionaries, by which few bytes could
stand for many, only known columns, and every offset within its buffer. Vectors never become Python objects.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pyarrow as pa
from pyarrow import types

from faissbase.collection.bounds import TooLarge
from faissbase.errors import InvalidInputError
from faissbase.server.faults import Malformed
from faissbase.types import Float32, Hit

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_MOST_SCHEMA_BYTES = 1 << 20
_MOST_BATCHES = 1000
_MOST_LISTED = 2_000_000
_SHOWN = 80
_SEARCH = b"search"
# Where Message.header and RecordBatch.compression stand in their tables.
_HEADER, _COMPRESSION = 2, 3
_TEXTS = (types.is_string, types.is_large_string)
_BYTES = (*_TEXTS, types.is_binary, types.is_large_binary)
_SCALARS = (types.is_boolean, types.is_integer, types.is_float32, types.is_float64, *_TEXTS)

_Kinds = dict[str, Callable[[Any], bool]]
Columns = tuple[list[str], Any, list[Any], list[str | None]]


def read_records(body: bytes, dimension: int, most_rows: int) -> Columns:
    """Ids, vectors ``float[n, d]``, metadata (JSON text, dict or None) and documents of a stream of records.

    Raises
    ------
    Malformed
        No Arrow IPC stream, or one that is damaged.
    TooLarge
        More than ``most_rows``.
    InvalidInputError
        A column that is missing, unknown or of another type; a null, and in which row.
    """
    columns: _Kinds = {
        "id": _is_text,
        "vector": _is_vector,
        "metadata": _is_metadata,
        "document": _is_document,
    }
    _, batches = _read(body, columns, ("id", "vector"), most_rows)
    ids: list[str] = []
    metadatas: list[Any] = []
    documents: list[str | None] = []
    pieces = []
    for batch in batches:
        first, there = len(ids), batch.schema.names
        nothing: list[Any] = [None] * batch.num_rows
        pieces.append(_vectors(batch.column("vector"), dimension, first))
        ids += _values(_without_nulls(batch.column("id"), "id", first))
        metadatas += _metadatas(batch.column("metadata")) if "metadata" in there else nothing
        documents += _values(batch.column("document")) if "document" in there else nothing
    return ids, _joined(pieces, dimension), metadatas, documents


def read_queries(body: bytes, dimension: int, most_rows: int) -> tuple[Any, bytes]:
    """The vectors of a stream, ``float[nq, d]``, and the JSON text in its schema's metadata, ``search``."""
    schema, batches = _read(body, {"vector": _is_vector}, ("vector",), most_rows)
    pieces, n = [], 0
    for batch in batches:
        pieces.append(_vectors(batch.column("vector"), dimension, n))
        n += batch.num_rows
    return _joined(pieces, dimension), (schema.metadata or {}).get(_SEARCH, b"{}")


def hits(found: Sequence[Sequence[Hit]], include: Sequence[str], vectors: Float32 | None) -> bytes:
    """A stream of one row for each hit; ``vectors`` are theirs, ``float32[n, d]``, where asked for."""
    flat = [hit for each in found for hit in each]
    queries = np.repeat(np.arange(len(found), dtype=np.int32), list(map(len, found)))
    columns = {
        "query": pa.array(queries),
        "id": pa.array([hit.id for hit in flat], pa.string()),
        "score": pa.array([hit.score for hit in flat], pa.float32()),
        "distance": pa.array([hit.distance for hit in flat], pa.float32()),
    }
    if "metadata" in include:
        columns["metadata"] = pa.array([hit.metadata_json for hit in flat], pa.string())
    if "document" in include:
        columns["document"] = pa.array([hit.document for hit in flat], pa.string())
    if vectors is not None:
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    table = pa.table(columns)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return out.getvalue()


# ---- the stream ----------------------------------------------------------------------------------


def _read(body: bytes, columns: _Kinds, needed: tuple[str, ...], most_rows: int) -> tuple[Any, list[Any]]:
    """The schema and the batches of a stream, once nothing about them can do harm."""
    with _reading():
        _check_messages(body)
        stream = pa.ipc.open_stream(body)
        _check_columns(stream.schema, columns, needed)
        batches, n = [], 0
        for batch in stream:
            n += batch.num_rows
            if n > most_rows:
                raise TooLarge(f"{n:,} rows in one request, at most {most_rows:,} are taken")
            batch.validate(full=True)
            batches.append(batch)
    return stream.schema, batches


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except InvalidInputError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise Malformed(f"the body is no Arrow IPC stream that can be read: {error}") from error


def _check_messages(body: bytes) -> None:
    """Refuse, before anything is unpacked, what could unpack to more than the body itself.

    **Source**: Arrow columnar format 1.5, encapsulated messages; only metadata V5, for V4 had another way to
    tell of compression.
    """
    source = pa.BufferReader(body)
    for n, message in enumerate(pa.ipc.MessageReader.open_stream(source)):
        if message.type != ("record batch" if n else "schema"):
            raise InvalidInputError(f"an Arrow body is a schema and its batches, got a {message.type}")
        if message.metadata_version != pa.ipc.MetadataVersion.V5:
            raise InvalidInputError("an Arrow body has the metadata version 5")
        if n == 0 and len(message.metadata) > _MOST_SCHEMA_BYTES:
            raise TooLarge(f"the Arrow schema has more than {_MOST_SCHEMA_BYTES:,} bytes")
        if n > _MOST_BATCHES:
            raise TooLarge(f"an Arrow body has at most {_MOST_BATCHES:,} batches")
        if n and _is_compressed(message.metadata):
            raise InvalidInputError("Arrow's compression is not taken: send a Content-Encoding")
    if source.tell() != len(body) or not body.endswith(_END):
        raise Malformed("the Arrow stream is cut short, or goes on after its end")


def _is_compressed(metadata: Any) -> bool:
    table = memoryview(metadata).cast("B")
    header = _field(table, _int(table, 0, 4), _HEADER)
    return _field(table, header + _int(table, header, 4), _COMPRESSION) > 0


def _field(table: memoryview, at: int, index: int) -> int:
    """Where a field of the FlatBuffers table at ``at`` stands; 0 where it is absent."""
    fields = at - _int(table, at, 4, signed=True)
    entry = 4 + 2 * index
    offset = _int(table, fields + entry, 2) if entry < _int(table, fields, 2) else 0
    return at + offset if offset else 0


def _int(table: memoryview, at: int, size: int, *, signed: bool = False) -> int:
    return int.from_bytes(table[at : at + size], "little", signed=signed)


def _check_columns(schema: Any, columns: _Kinds, needed: tuple[str, ...]) -> None:
    there = schema.names
    unknown = next((name for name in there if name not in columns), None)
    if unknown is not None:
        raise InvalidInputError(f"unknown column {unknown[:_SHOWN]!r}; there are: {', '.join(columns)}")
    missing = next((name for name in needed if name not in there), None)
    if missing is not None:
        raise InvalidInputError(f"the column {missing!r} is missing")
    if len(set(there)) < len(there):
        raise InvalidInputError("a column comes twice")
    for field in schema:
        if not columns[field.name](field.type):
            raise InvalidInputError(f"column {field.name!r} cannot be {str(field.type)[:_SHOWN]}")


# ---- columns -------------------------------------------------------------------------------------


def _is_text(kind: Any) -> bool:
    return any(is_one(kind) for is_one in _TEXTS)


def _is_document(kind: Any) -> bool:
    return bool(types.is_null(kind)) or _is_text(kind)


def _is_metadata(kind: Any) -> bool:
    is_text = types.is_null(kind) or any(is_one(kind) for is_one in _BYTES)
    return is_text or (types.is_struct(kind) and _is_json(kind))


def _is_json(kind: Any) -> bool:
    """Whether values of a type are scalars of JSON, or objects and lists of them; each takes up space."""
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        is_object = 0 < len(fields) == len({field.name for field in fields})
        return is_object and all(_is_json(field.type) for field in fields)
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_json(kind.value_type)
    return any(is_one(kind) for is_one in _SCALARS)


def _is_vector(kind: Any) -> bool:
    is_rows = types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)
    return bool(is_rows and types.is_floating(kind.value_type))


def _without_nulls(column: Any, what: str, first_row: int) -> Any:
    if column.null_count:
        raise InvalidInputError(f"column {what!r}, row {first_row + _first_null(column)} is null")
    return column


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))


def _values(column: Any) -> list[Any]:
    """A list of the column's texts, or bytes, and None."""
    return cast("list[Any]", column.to_numpy(zero_copy_only=False).tolist())


def _vectors(column: Any, dimension: int, first_row: int) -> Any:
    """``float[n, d]``, a view of the body where it is aligned."""
    _without_nulls(column, "vector", first_row)
    _check_widths(column, dimension, first_row)
    flat = column.flatten()
    if flat.null_count:
        row = first_row + _first_null(flat) // dimension
        raise InvalidInputError(f"column 'vector', row {row} holds a null")
    return np.require(flat.to_numpy(), requirements="A").reshape(len(column), dimension)


def _check_widths(column: Any, dimension: int, first_row: int) -> None:
    if types.is_fixed_size_list(column.type):
        widths = np.full(len(column), column.type.list_size)
    else:
        widths = np.diff(column.offsets.to_numpy())
    wrong = np.flatnonzero(widths != dimension)
    if len(wrong):
        where = f"column 'vector', row {first_row + int(wrong[0])}"
        raise InvalidInputError(f"{where}: expected {dimension} values, got {widths[wrong[0]]}")


def _joined(pieces: list[Any], dimension: int) -> Any:
    if len(pieces) == 1:
        return pieces[0]
    return np.concatenate(pieces) if pieces else np.zeros((0, dimension), np.float32)


def _metadatas(column: Any) -> list[Any]:
    if not types.is_struct(column.type):
        is_large = types.is_large_string(column.type) or types.is_large_binary(column.type)
        return _values(column.cast(pa.large_binary() if is_large else pa.binary()))
    if _n_listed(column) > _MOST_LISTED:  # a bit of the body becomes an object
        raise TooLarge(f"column 'metadata': more than {_MOST_LISTED:,} values in lists")
    return cast("list[Any]", column.to_pylist())


def _n_listed(column: Any) -> int:
    """How many values the lists within a column hold, also those of rows that are null."""
    if types.is_struct(column.type):
        return sum(_n_listed(column.field(i)) for i in range(column.type.num_fields))
    if types.is_list(column.type) or types.is_large_list(column.type):
        return len(column.values) + _n_listed(column.values)
    return 0
