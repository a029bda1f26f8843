"""Records as text: JSON lines, CSV and TSV, gzipped or not.

Knows lines and JSON. A record is a set of named fields: id, vector, metadata, document; every other field is
metadata.
"""

from __future__ import annotations

import array
import csv
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from faissbase.errors import InvalidInputError
from faissbase.storage.integers import LEAST, MOST
from faissbase.storage.tables.contract import (
    DEFAULT_ID_COLUMN,
    DEFAULT_VECTOR_COLUMN,
    METADATA_COLUMN,
    Request,
    check_skip,
    wrong_dimension,
)
from faissbase.storage.tables.fields import (
    Refusal,
    check_integers,
    merge_metadata,
    parse_json,
    shown,
)
from faissbase.storage.tables.files import open_binary, reading, size_of
from faissbase.types import Batch, Float32

MAX_LINE_BYTES = 64 * 2**20
MAX_INTEGER_DIGITS = 20  # of an integer of 64 bits
UTF8_BOM = b"\xef\xbb\xbf"

# Names that other databases export vectors under; accepted in JSON lines where no other name is asked for.
VECTOR_ALIASES = ("values", "embedding")

_NUMBERS = frozenset((float, int))
_WORDS: Mapping[str, Any] = {"": None, "null": None, "true": True, "false": False}
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Row:
    id: str | None
    vector: Float32
    metadata: dict[str, Any]
    document: str | None


class _TextReader(ABC, Generic[_Item]):
    """Rows of one file. Whether the file has ids is decided by its first row, and every row must agree."""

    n_rows: int | None = None
    dimension: int | None = None

    def __init__(self, request: Request) -> None:
        self._request = request
        self.size_bytes = size_of(request.path)

    @abstractmethod
    def _items(self, file: BinaryIO) -> Iterator[tuple[int, _Item]]:
        """Line number and still encoded row; blank lines are left out."""

    @abstractmethod
    def _fields(self, item: _Item) -> dict[str, Any]:
        """The named fields of a row."""

    def batches(self, skip_rows: int = 0) -> Iterator[Batch]:
        check_skip(self._request.path, skip_rows, self.n_rows)
        with reading(self._request.path), open_binary(self._request.path) as file:
            items = self._items(file)
            first = next(items, None)
            has_ids = first is not None and self._has_id(*first)
            rest = items if first is None else chain([first], items)
            n_skipped = sum(1 for _ in islice(rest, skip_rows))
            check_skip(self._request.path, skip_rows, n_skipped)
            yield from self._batched(rest, has_ids, skip_rows)

    def _has_id(self, line: int, item: _Item) -> bool:
        name = self._request.id_column
        with self._naming(line):
            has_id = _take_id(self._fields(item), name) is not None
            # Only the usual name may be absent; another one was asked for.
            if not has_id and name != DEFAULT_ID_COLUMN:
                raise Refusal(f"no id under {name!r}")
            return has_id

    def _batched(self, items: Iterator[tuple[int, _Item]], has_ids: bool, first_row: int) -> Iterator[Batch]:
        while rows := [
            self._row(line, item, has_ids) for line, item in islice(items, self._request.batch_rows)
        ]:
            yield self._batch(rows, has_ids, first_row)
            first_row += len(rows)

    def _row(self, line: int, item: _Item, has_ids: bool) -> _Row:
        request = self._request
        with self._naming(line):
            fields = self._fields(item)
            vector = _take_vector(fields, request)
            id = _take_id(fields, request.id_column)
            if (id is not None) != has_ids:
                raise Refusal(
                    "no id, but the first row has one" if has_ids else "an id, but the first row has none"
                )
            document = _take_document(fields, request.document_column)
            return _Row(id, vector, merge_metadata(fields.pop(METADATA_COLUMN, None), fields), document)

    def _batch(self, rows: list[_Row], has_ids: bool, first_row: int) -> Batch:
        self._check_dimension(rows, first_row)
        return Batch(
            vectors=np.stack([row.vector for row in rows]),
            ids=[row.id for row in rows if row.id is not None] if has_ids else None,
            metadatas=[row.metadata for row in rows],
            documents=[row.document for row in rows],
        )

    def _check_dimension(self, rows: list[_Row], first_row: int) -> None:
        request = self._request
        expected = 0 if request.rows_only else request.dimension
        expected = len(rows[0].vector) if expected is None else expected
        for i, row in enumerate(rows):
            if len(row.vector) != expected:
                raise wrong_dimension(request.path, first_row + i, expected=expected, got=len(row.vector))

    @contextmanager
    def _naming(self, line: int) -> Iterator[None]:
        try:
            yield
        except Refusal as refusal:
            raise InvalidInputError(
                f"{refusal} (file {self._request.path}, line {line})"
            ) from refusal.__cause__


class JsonlReader(_TextReader[bytes]):
    """JSON lines: one object a line."""

    def _items(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        line = file.readline(MAX_LINE_BYTES + 1).removeprefix(UTF8_BOM)
        number = 1
        while line:
            if len(line) > MAX_LINE_BYTES:
                raise InvalidInputError(
                    f"expected one JSON object a line, got a line over {MAX_LINE_BYTES} bytes "
                    f"(file {self._request.path}, line {number})"
                )
            if not line.isspace():
                yield number, line
            line = file.readline(MAX_LINE_BYTES + 1)
            number += 1

    def _fields(self, item: bytes) -> dict[str, Any]:
        fields = parse_json(item)
        if not isinstance(fields, dict):
            raise Refusal(f"expected a JSON object, got {type(fields).__name__}")
        request = self._request
        check_integers({name: fields[name] for name in fields if name not in _vector_names(request)}, item)
        if request.vector_column == DEFAULT_VECTOR_COLUMN and not request.rows_only:
            _rename_alias(fields)
        return fields


class CsvReader(_TextReader[dict[str, str]]):
    """CSV or TSV with a header; the vector and the metadata are JSON text.

    In every other column empty text is null, a JSON number, ``true``, ``false`` or ``null`` is that value,
    and anything else (``007`` too) stays text. An id is always text. An empty document is none.
    """

    def __init__(self, request: Request, delimiter: str) -> None:
        super().__init__(request)
        self._delimiter = delimiter

    def _items(self, file: BinaryIO) -> Iterator[tuple[int, dict[str, str]]]:
        # A process-wide limit of 128 KiB, which one long vector exceeds; it cannot be set per reader.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_BYTES))
        text = io.TextIOWrapper(file, "utf-8-sig", newline="")
        rows = csv.reader(text, delimiter=self._delimiter, strict=True)
        try:
            header = self._header(next(rows, []))
            for row in rows:
                if row:
                    yield rows.line_num, self._named(header, row, rows.line_num)
        except csv.Error as error:
            raise InvalidInputError(f"{error} (file {self._request.path}, line {rows.line_num})") from error

    def _header(self, header: list[str]) -> list[str]:
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise InvalidInputError(
                f"column names must differ, got {repeated} twice (file {self._request.path})"
            )
        if not self._request.rows_only and self._request.vector_column not in header:
            raise InvalidInputError(
                f"no vector column {self._request.vector_column!r} in {self._request.path}; it has {header}"
            )
        for missing in self._request.asked_for.difference(header):
            raise InvalidInputError(f"no column {missing!r} in {self._request.path}; it has {header}")
        return header

    def _named(self, header: list[str], row: list[str], line: int) -> dict[str, str]:
        if len(row) != len(header):
            raise InvalidInputError(
                f"expected {len(header)} columns as in the header, got {len(row)} "
                f"(file {self._request.path}, line {line})"
            )
        return dict(zip(header, row, strict=True))

    def _fields(self, item: dict[str, str]) -> dict[str, Any]:
        return {name: self._value(name, text) for name, text in item.items()}

    def _value(self, name: str, text: str) -> Any:
        if name == self._request.id_column or name == self._request.document_column:
            return text or None
        if name == self._request.vector_column:
            return parse_json(text) if text else None
        if name == METADATA_COLUMN:
            metadata = parse_json(text) if text else None
            check_integers(metadata, text)
            return metadata
        return value_of_text(text)


def value_of_text(text: str) -> Any:
    """The JSON value of a CSV field; what is no JSON number or word, or too large a number, stays text.

    >>> [value_of_text(text) for text in ("3", "2.5e1", "true", "", "007", "word")]
    [3, 25.0, True, None, '007', 'word']
    """
    if text in _WORDS:
        return _WORDS[text]
    number = _JSON_NUMBER.fullmatch(text)
    if number is None:
        return text
    is_integer = number.group(1) is None and number.group(2) is None
    if is_integer:
        return int(text) if len(text) <= MAX_INTEGER_DIGITS and LEAST <= int(text) <= MOST else text
    value = float(text)
    return value if np.isfinite(value) else text


def _vector_names(request: Request) -> tuple[str, ...]:
    return (request.vector_column, *VECTOR_ALIASES)  # long, and of floats anyway


def _rename_alias(fields: dict[str, Any]) -> None:
    if DEFAULT_VECTOR_COLUMN in fields:
        return
    for alias in VECTOR_ALIASES:
        if alias in fields:
            fields[DEFAULT_VECTOR_COLUMN] = fields.pop(alias)
            return


def _take_vector(fields: dict[str, Any], request: Request) -> Float32:
    name = request.vector_column
    if request.rows_only:
        if name in fields:
            raise Refusal(f"expected rows without vectors, got a field {name!r}")
        return np.empty(0, np.float32)
    if name not in fields:
        raise Refusal(f"no vector under {name!r}; there are {list(fields)}")
    values = fields.pop(name)
    if not isinstance(values, list) or not _NUMBERS.issuperset(map(type, values)):
        raise Refusal(f"expected a list of numbers under {name!r}, got {shown(values)}")
    # Twice as fast as np.array, and a value too large for float32 becomes inf without a warning.
    return np.frombuffer(array.array("f", values), np.float32)


def _take_id(fields: dict[str, Any], name: str) -> str | None:
    id = fields.pop(name, None)
    if id is None or isinstance(id, str):
        return id
    if isinstance(id, int) and not isinstance(id, bool):
        return str(id)
    raise Refusal(f"expected a string or an integer under {name!r}, got {shown(id)}")


def _take_document(fields: dict[str, Any], name: str) -> str | None:
    document = fields.pop(name, None)
    if document is None or isinstance(document, str):
        return document
    raise Refusal(f"expected text or null under {name!r}, got {shown(document)}")
