"""Which format a path names, and its reader or writer. Knows suffixes; each format is a module of its own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TypeAlias

from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.storage.tables.contract import (
    DEFAULT_DOCUMENT_COLUMN,
    DEFAULT_ID_COLUMN,
    DEFAULT_VECTOR_COLUMN,
    Encoder,
    Reader,
    Request,
    default_batch_rows,
    wrong_dimension,
)
from faissbase.storage.tables.encoders import BvecsEncoder, CsvEncoder, FvecsEncoder, JsonlEncoder, NpyEncoder
from faissbase.storage.tables.joined import JoinedReader
from faissbase.storage.tables.raw import NpyReader, NpzReader, VecsReader, split_npz_path
from faissbase.storage.tables.text import CsvReader, JsonlReader
from faissbase.storage.tables.writer import MakeEncoder, Writer
from faissbase.types import MAX_DIMENSION

StrPath: TypeAlias = str | os.PathLike[str]
MakeReader: TypeAlias = Callable[[Request], Reader]

ROWS_SUFFIX = ".rows.jsonl"
# Rows files are cut to the batches of the vectors, so a few at a time are enough.
ROWS_AT_ONCE = 1024


def _arrow(suffix: str) -> ModuleType:
    try:
        import pyarrow  # noqa: F401  # only to tell a missing extra from a fault of ours
    except ImportError as error:
        raise NotReadyError(f'{suffix} files need pyarrow: pip install "faissbase[arrow]"') from error
    from faissbase.storage.tables import arrow

    return arrow


def _read_parquet(request: Request) -> Reader:
    reader: Reader = _arrow(".parquet").ParquetReader(request)
    return reader


def _read_ipc(request: Request) -> Reader:
    reader: Reader = _arrow(request.path.suffix).IpcReader(request)
    return reader


def _write_parquet(file: BinaryIO, dimension: int) -> Encoder:
    arrow = _arrow(".parquet")
    encoder: Encoder = arrow.ArrowEncoder(file, dimension, open_sink=arrow.open_parquet_sink)
    return encoder


def _write_ipc(file: BinaryIO, dimension: int) -> Encoder:
    arrow = _arrow(".arrow")
    encoder: Encoder = arrow.ArrowEncoder(file, dimension, open_sink=arrow.open_ipc_sink)
    return encoder


_read_csv = partial(CsvReader, delimiter=",")
_read_tsv = partial(CsvReader, delimiter="\t")

_VECTOR_READERS: Mapping[str, MakeReader] = {
    ".npy": NpyReader,
    ".npz": NpzReader,
    ".fvecs": partial(VecsReader, value_type="<f4"),
    ".bvecs": partial(VecsReader, value_type="u1"),
}
_RECORD_READERS: Mapping[str, MakeReader] = {
    ".parquet": _read_parquet,
    ".arrow": _read_ipc,
    ".ipc": _read_ipc,
    ".feather": _read_ipc,
    ".jsonl": JsonlReader,
    ".jsonl.gz": JsonlReader,
    ".ndjson": JsonlReader,
    ".ndjson.gz": JsonlReader,
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".tsv": _read_tsv,
    ".tsv.gz": _read_tsv,
}
_VECTOR_ENCODERS: Mapping[str, MakeEncoder] = {
    ".npy": NpyEncoder,
    ".fvecs": FvecsEncoder,
    ".bvecs": BvecsEncoder,
}
_RECORD_ENCODERS: Mapping[str, MakeEncoder] = {
    ".parquet": _write_parquet,
    ".arrow": _write_ipc,
    ".ipc": _write_ipc,
    ".feather": _write_ipc,
    ".jsonl": JsonlEncoder,
    ".ndjson": JsonlEncoder,
    ".csv": partial(CsvEncoder, delimiter=","),
    ".tsv": partial(CsvEncoder, delimiter="\t"),
}
_NONE: Mapping[str, MakeReader] = {}
_EXPLAINED = {
    ".faiss": "an index file of FAISS: load it into a collection first",
    ".index": "an index file of FAISS: load it into a collection first",
    ".ivecs": "it holds ids (usually the exact answer of a benchmark), not vectors",
}


def open_reader(
    path: StrPath,
    *,
    dimension: int,
    batch_rows: int | None = None,
    id_column: str = DEFAULT_ID_COLUMN,
    vector_column: str = DEFAULT_VECTOR_COLUMN,
    document_column: str = DEFAULT_DOCUMENT_COLUMN,
    rows_path: StrPath | None = None,
    more: Mapping[str, MakeReader] = _NONE,
) -> Reader:
    """A reader of the record file at ``path``, whose format its suffix names.

    Parameters
    ----------
    path : path
        ``.npy``, ``.npz:key``, ``.fvecs``, ``.bvecs``; ``.parquet``, ``.arrow``, ``.ipc``, ``.feather``;
        ``.jsonl``, ``.ndjson``, ``.csv``, ``.tsv``, each of these four also with ``.gz``.
    dimension : int
        d of every vector.
    batch_rows : int, optional
        Rows in a batch, at most; as many as fill 16 MiB if not given.
    id_column, vector_column, document_column : str
        Where the columns have other names. A column ``metadata`` that holds objects is the metadata; every
        other column is merged into it.
    rows_path : path, optional
        Ids, metadata and documents of the vectors of npy, npz, fvecs or bvecs, row by row: a record file
        without vectors. ``<path>.rows.jsonl`` if not given, where that exists.
    more : mapping, optional
        Readers of further suffixes, of vectors.

    Raises
    ------
    NotFoundError
        No such file.
    InvalidInputError
        Unknown or damaged format, no vector column (the message lists those there are), another d.
    NotReadyError
        The format needs an extra that is not installed.
    """
    _check_dimension(dimension)
    if batch_rows is not None and batch_rows < 1:
        raise InvalidInputError(f"batch_rows must be 1 or more, got {batch_rows}")
    request = Request(
        path=Path(path),
        dimension=dimension,
        batch_rows=batch_rows or default_batch_rows(dimension),
        id_column=id_column,
        vector_column=vector_column,
        document_column=document_column,
    )
    reader = _open(request, None if rows_path is None else Path(rows_path), more)
    if reader.dimension not in (None, dimension):
        raise wrong_dimension(request.path, 0, expected=dimension, got=reader.dimension or 0)
    return reader


def peek_dimension(
    path: StrPath, vector_column: str = DEFAULT_VECTOR_COLUMN, more: Mapping[str, MakeReader] = _NONE
) -> int:
    """d of the vectors in a record file: from its header where it tells, otherwise of the first row.

    Raises
    ------
    InvalidInputError
        As `open_reader`, and for a file without rows whose header does not tell.
    """
    request = Request(Path(path), dimension=None, batch_rows=1, vector_column=vector_column)
    reader = _reader_of(request, more)
    if reader.dimension is not None:
        return reader.dimension
    for batch in reader.batches():
        return int(batch.vectors.shape[1])
    raise InvalidInputError(f"{path} has no rows to tell d from: give the dimension")


def open_writer(path: StrPath, *, dimension: int) -> Writer:
    """A writer of the record file at ``path``, whose format its suffix names; see `Writer`.

    ``.npy``, ``.fvecs`` and ``.bvecs`` hold vectors alone: ids, metadata and documents go to
    ``<path>.rows.jsonl``, which `open_reader` finds by itself. ``.parquet``, ``.arrow``, ``.ipc``,
    ``.feather``, ``.jsonl``, ``.ndjson``, ``.csv`` and ``.tsv`` hold everything. CSV cannot tell an empty
    document from none, and reads none.

    Raises
    ------
    InvalidInputError
        Unknown format.
    NotFoundError
        No such folder.
    NotReadyError
        The format needs an extra that is not installed.
    """
    _check_dimension(dimension)
    target = Path(path)
    suffix = _suffix(target)
    if suffix in _RECORD_ENCODERS:
        return Writer([(target, _RECORD_ENCODERS[suffix])], dimension)
    if suffix in _VECTOR_ENCODERS:
        rows = (default_rows_path(target), partial(JsonlEncoder, rows_only=True))
        return Writer([(target, _VECTOR_ENCODERS[suffix]), rows], dimension)
    raise _unsupported(target, "write", {**_VECTOR_ENCODERS, **_RECORD_ENCODERS})


def _open(request: Request, rows_path: Path | None, more: Mapping[str, MakeReader]) -> Reader:
    reader = _reader_of(request, more)
    of_vectors = {**_VECTOR_READERS, **more}
    if _suffix(request.path) not in of_vectors:
        if rows_path is not None:
            raise InvalidInputError(f"rows_path goes with {list(of_vectors)}, not with {request.path}")
        return reader
    if rows_path is None:
        rows_path = default_rows_path(request.path)
        if not rows_path.exists():
            return reader
    paths = (request.path, rows_path)
    rows = dataclasses.replace(request, path=rows_path, batch_rows=ROWS_AT_ONCE, rows_only=True)
    return JoinedReader(reader, _reader_of(rows, _NONE), paths=paths)


def _reader_of(request: Request, more: Mapping[str, MakeReader]) -> Reader:
    readers = _RECORD_READERS if request.rows_only else {**_VECTOR_READERS, **more, **_RECORD_READERS}
    make = readers.get(_suffix(request.path))
    if make is None:
        raise _unsupported(request.path, "read", readers)
    return make(request)


def _suffix(path: Path) -> str:
    """The suffix that names a format, in lower case: ``.jsonl.gz`` of ``a.b.JSONL.GZ``."""
    name = Path(split_npz_path(path)[0].name.lower())
    return "".join(name.suffixes[-2:]) if name.suffix == ".gz" else name.suffix


def default_rows_path(path: Path) -> Path:
    """Where the ids and metadata of a bare vector file are looked for."""
    return path.with_name(path.name + ROWS_SUFFIX)


def _unsupported(path: Path, verb: str, formats: Mapping[str, Any]) -> InvalidInputError:
    reason = _EXPLAINED.get(_suffix(path)) if verb == "read" else None
    reason = reason or f"the suffix must be one of {', '.join(formats)}"
    return InvalidInputError(f"cannot {verb} {path}: {reason}")


def _check_dimension(dimension: int) -> None:
    if not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidInputError(f"dimension must be 1 to {MAX_DIMENSION}, got {dimension}")
