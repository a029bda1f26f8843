"""Arrow columns into batches. Knows column types, not files. Vectors never become Python objects."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from faissbase.errors import InvalidInputError
from faissbase.storage.tables.contract import METADATA_COLUMN, Request, wrong_dimension
from faissbase.storage.tables.fields import Refusal, check_integers, merge_metadata, parse_json
from faissbase.types import Batch, Float32


def check_columns(schema: Any, request: Request) -> None:
    """Refuse a ``pyarrow.Schema`` that lacks a column asked for or has one that records cannot hold."""
    names = schema.names
    if len(set(names)) != len(names):
        raise InvalidInputError(f"column names must differ, got {names} (file {request.path})")
    if request.rows_only == (request.vector_column in names):
        wanted = "expected rows without" if request.rows_only else "expected"
        raise InvalidInputError(
            f"{wanted} a column {request.vector_column!r} in {request.path}; it has {names}"
        )
    for missing in request.asked_for.difference(names):
        raise InvalidInputError(f"expected a column {missing!r} in {request.path}; it has {names}")
    for field in schema:
        _check_type(field, request)


def _check_type(field: Any, request: Request) -> None:
    kind = _storage_type(field.type)
    if field.name == request.vector_column:
        is_right, wanted = _is_vector(kind), "lists of numbers"
    elif field.name == request.id_column:
        is_right, wanted = _is_text(kind) or pa.types.is_integer(kind), "strings or integers"
    elif field.name == request.document_column:
        is_right, wanted = _is_text(kind) or pa.types.is_null(kind), "strings"
    else:
        is_right, wanted = not _holds_bytes(kind), "values that JSON has (drop the column or cast it)"
    if not is_right:
        raise InvalidInputError(f"column {field.name!r} of {request.path} is {field.type}; expected {wanted}")


def _storage_type(kind: Any) -> Any:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _storage(column: Any) -> Any:
    return column.storage if isinstance(column.type, pa.BaseExtensionType) else column


def _is_vector(kind: Any) -> bool:
    types = pa.types
    if not (types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind)):
        return False
    return bool(types.is_floating(kind.value_type) or types.is_integer(kind.value_type))


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _holds_bytes(kind: Any) -> bool:
    kind = _storage_type(kind)
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if "binary" in str(kind).split("[")[0] and not pa.types.is_nested(kind):
        return True
    return any(_holds_bytes(kind.field(i).type) for i in range(kind.num_fields))


def fixed_dimension(kind: Any) -> int | None:
    """d of a vector column where its type tells."""
    kind = _storage_type(kind)
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None


def decode(table: Any, request: Request, first_row: int) -> Batch:
    """The batch in a ``pyarrow.RecordBatch`` whose first row is row ``first_row`` of the file.

    Dates and times become ISO texts (instants in UTC), durations seconds, decimals numbers; null stays None.
    """
    special = {request.id_column, request.vector_column, request.document_column}
    others = [name for name in table.schema.names if name not in special]
    vectors = np.empty((table.num_rows, 0), np.float32)
    if not request.rows_only:
        vectors = _vectors(_storage(table.column(request.vector_column)), request, first_row)
    return Batch(
        vectors=vectors,
        ids=_ids(table, request, first_row),
        metadatas=_metadatas(table.select(others), request, first_row),
        documents=_documents(table, request),
    )


def _vectors(column: Any, request: Request, first_row: int) -> Float32:
    _refuse_nulls(column, "vector", request, first_row)
    n = len(column)
    if pa.types.is_fixed_size_list(column.type):
        lengths = np.full(n, column.type.list_size)
    else:
        lengths = np.diff(column.offsets.to_numpy())
    expected = int(lengths[0]) if request.dimension is None else request.dimension
    wrong = np.flatnonzero(lengths != expected)
    if wrong.size:
        row = int(wrong[0])
        raise wrong_dimension(request.path, first_row + row, expected=expected, got=int(lengths[row]))
    values = column.flatten()
    if values.null_count:
        row = first_row + _first_null(values) // expected
        raise InvalidInputError(f"a null among the numbers of a vector (file {request.path}, row {row})")
    with np.errstate(over="ignore"):
        return np.array(values.to_numpy(zero_copy_only=False), dtype=np.float32).reshape(n, expected)


def _refuse_nulls(column: Any, what: str, request: Request, first_row: int) -> None:
    if column.null_count:
        row = first_row + _first_null(column)
        raise InvalidInputError(f"the {what} is null (file {request.path}, row {row})")


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))


def _ids(table: Any, request: Request, first_row: int) -> list[str] | None:
    if request.id_column not in table.schema.names:
        return None
    column = _storage(table.column(request.id_column))
    _refuse_nulls(column, "id", request, first_row)
    ids: list[str] = column.cast(pa.string()).to_pylist()
    return ids


def _documents(table: Any, request: Request) -> list[str | None]:
    if request.document_column not in table.schema.names:
        return [None] * table.num_rows
    documents: list[str | None] = (
        _storage(table.column(request.document_column)).cast(pa.string()).to_pylist()
    )
    return documents


def _metadatas(table: Any, request: Request, first_row: int) -> list[dict[str, Any]]:
    names = list(table.schema.names)
    columns = [_json_values(column) for column in table.columns]
    if METADATA_COLUMN not in names or not _is_object(table.schema.field(METADATA_COLUMN).type):
        return _dicts(names, columns, table.num_rows)
    position = names.index(METADATA_COLUMN)
    del names[position]
    objects = columns.pop(position)
    beside = _dicts(names, columns, table.num_rows)
    return [
        _merged(value, other, request, first_row + i)
        for i, (value, other) in enumerate(zip(objects, beside, strict=True))
    ]


def _is_object(kind: Any) -> bool:
    return _is_text(kind) or bool(pa.types.is_struct(kind) or pa.types.is_map(kind))


def _dicts(names: list[str], columns: list[list[Any]], n: int) -> list[dict[str, Any]]:
    if not names:
        return [{} for _ in range(n)]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _merged(value: Any, beside: dict[str, Any], request: Request, row: int) -> dict[str, Any]:
    try:
        if isinstance(value, str):
            parsed = parse_json(value)
            check_integers(parsed, value)
            value = parsed
        return merge_metadata(value, beside)
    except Refusal as refusal:
        raise InvalidInputError(f"{refusal} (file {request.path}, row {row})") from refusal


def _json_values(column: Any) -> list[Any]:
    column = _storage(column)
    kind = column.type
    if pa.types.is_timestamp(kind):
        # Python's datetime ends at microseconds; one zone keeps the texts in the order of the instants.
        column = column.cast(pa.timestamp("us", tz="UTC" if kind.tz else None), safe=False)
    elif pa.types.is_float16(kind):
        column = column.cast(pa.float32())
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(kind):
        values = [None if value is None else dict(value) for value in values]
    is_plain = pa.types.is_primitive(kind) and not pa.types.is_temporal(kind)
    return values if is_plain or _is_text(kind) else [_json_value(value) for value in values]


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, list):
        # Only a map inside another type comes as pairs.
        is_map = bool(value) and isinstance(value[0], tuple)
        return _json_value(dict(value)) if is_map else [_json_value(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value.item() if isinstance(value, np.generic) else value
