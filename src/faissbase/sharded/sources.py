"""Rows to build shards from: record files here or in object storage, or a collection. In bounded memory.

A source is a value that other processes get a copy of: each reads the rows that it works on.
"""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import orjson
from xxhash import xxh3_128_hexdigest

from faissbase.collection.frozen import FrozenCollection
from faissbase.collection.inputs import Rows
from faissbase.collection.store import Config
from faissbase.collection.transfer import checked_batch
from faissbase.errors import ConflictError, InvalidInputError, NotFoundError
from faissbase.sharded.bucket import existing_bucket, is_url, open_bucket
from faissbase.storage.files import draft_folder
from faissbase.storage.records import read_meta
from faissbase.storage.tables.open import default_rows_path, open_reader, peek_dimension
from faissbase.types import Batch, Metric

_READ_BYTES = 16 << 20
_SEEKABLE = (".npy", ".npz", ".fvecs", ".bvecs", ".parquet", ".arrow", ".ipc", ".feather")


Range = tuple[int, int]
"""The first row, and the one after the last."""


class Source(Protocol):
    """Rows in a fixed order, read in pieces.

    Attributes
    ----------
    n_rows, dimension : int
    is_distinct : bool
        Whether no two rows can have the same id.
    """

    @property
    def n_rows(self) -> int: ...
    @property
    def dimension(self) -> int: ...
    @property
    def is_distinct(self) -> bool: ...

    def fingerprint(self) -> str:
        """Tells these very rows, read this way, from all others."""
        ...

    def counted(self, work: Path, known: dict[str, Any] | None = None) -> Source:
        """The same with its rows counted and its dimension known.

        ``work`` is for what is downloaded, ``known`` what `counts` has told an earlier run.
        """
        ...

    def counts(self) -> dict[str, Any]:
        """What counting has found, as JSON has it."""
        ...

    def rows(self, ranges: Sequence[Range], metric: Metric, work: Path) -> Iterator[Rows]:
        """The rows in ``ranges``, ascending, checked; of those in a batch with the same id, the last alone.

        Raises
        ------
        InvalidInputError
            A row is wrong: names its file and its number there.
        ConflictError
            They are not what was counted any more.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One record file.

    Attributes
    ----------
    path : str
        Here, or a URL; with the key of an npz after a colon.
    stamp : str
        Size and time of its last change.
    n_rows : int
        -1 until they are counted.
    has_ids : bool
    """

    path: str
    stamp: str
    n_rows: int = -1
    has_ids: bool = True


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns that are not metadata."""

    id: str = "id"
    vector: str = "vector"
    document: str = "document"


@dataclass(frozen=True)
class Files:
    """Record files, one after another. Rows without ids are numbered through all of them, from 0."""

    files: tuple[SourceFile, ...]
    columns: Columns = Columns()
    dimension: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return sum(file.n_rows for file in self.files)

    @property
    def is_distinct(self) -> bool:
        return not any(file.has_ids for file in self.files)

    def fingerprint(self) -> str:
        facts = [[file.path, file.stamp] for file in self.files]
        columns = [self.columns.id, self.columns.vector, self.columns.document]
        return xxh3_128_hexdigest(orjson.dumps([facts, columns]))

    def counted(self, work: Path, known: dict[str, Any] | None = None) -> Files:
        if known is not None:
            found = zip(self.files, known["files"], strict=True)
            files = tuple(replace(file, n_rows=n, has_ids=has_ids) for file, (n, has_ids) in found)
            return replace(self, files=files, dimension=known["dimension"])
        dimension = self.dimension
        counted: list[SourceFile] = []
        for file in self.files:
            with _here(file, self.options, work) as path, _named(file, path):
                dimension = dimension or peek_dimension(path, self.columns.vector)
                n_rows, has_ids = self._count(path, dimension)
                counted.append(replace(file, n_rows=n_rows, has_ids=has_ids))
        return replace(self, files=tuple(counted), dimension=dimension)

    def counts(self) -> dict[str, Any]:
        return {"files": [[file.n_rows, file.has_ids] for file in self.files], "dimension": self.dimension}

    def _count(self, path: Path, dimension: int) -> tuple[int, bool]:
        """Rows of a file, and whether they have ids: by its header where that tells."""
        reader = self._reader(path, dimension)
        n_rows, has_ids = 0, False
        with closing(reader.batches()) as batches:
            for batch in batches:
                has_ids = has_ids or batch.ids is not None
                n_rows += len(batch.vectors)
                if reader.n_rows is not None:
                    return reader.n_rows, has_ids
        return n_rows, has_ids

    def _reader(self, path: Path, dimension: int) -> Any:
        columns = self.columns
        return open_reader(
            path,
            dimension=dimension,
            id_column=columns.id,
            vector_column=columns.vector,
            document_column=columns.document,
        )

    def rows(self, ranges: Sequence[Range], metric: Metric, work: Path) -> Iterator[Rows]:
        for file, at, batch in self._batches(ranges, work):
            yield self._checked(file, at, batch, metric)

    def batches(self, first: int, stop: int, work: Path) -> Iterator[Batch]:
        """Rows ``first`` to ``stop`` as they are in the files, unchecked."""
        return (batch for _, _, batch in self._batches([(first, stop)], work))

    def _batches(self, ranges: Sequence[Range], work: Path) -> Iterator[tuple[SourceFile, int, Batch]]:
        """Each batch with its file and the number of its first row among all rows."""
        begin = 0
        for file in self.files:
            end = begin + file.n_rows
            within = [
                (max(first, begin) - begin, min(stop, end) - begin)
                for first, stop in ranges
                if first < end and stop > begin
            ]
            if within:
                with _here(file, self.options, work) as path, _named(file, path):
                    reader = self._reader(path, self.dimension)
                    for row, batch in self._read(file, reader, within):
                        yield file, begin + row, batch
            begin = end

    def _read(self, file: SourceFile, reader: Any, ranges: list[Range]) -> Iterator[tuple[int, Batch]]:
        """The rows of a file in some ranges, each batch with the number of its first row."""
        if Path(_split_key(file.path)[0]).suffix.lower() in _SEEKABLE:
            for piece in ranges:
                yield from _pass(file, reader, [piece])
        else:  # from the start each time would take longer than all of it once
            yield from _pass(file, reader, ranges)

    def _checked(self, file: SourceFile, at: int, batch: Batch, metric: Metric) -> Rows:
        try:
            return checked_batch(batch, at, self.dimension, metric)
        except InvalidInputError:
            begin = sum(other.n_rows for other in self.files[: self.files.index(file)])
            for i in range(len(batch.vectors)):
                try:
                    checked_batch(_one(batch, i), at + i, self.dimension, metric)
                except InvalidInputError as error:
                    raise _of_row(error, file, at + i - begin) from error
            raise


def _pass(file: SourceFile, reader: Any, ranges: list[Range]) -> Iterator[tuple[int, Batch]]:
    """The rows in some ranges, by reading from the first of them to the last."""
    row, last = ranges[0][0], ranges[-1][1]
    with closing(reader.batches(skip_rows=row)) as batches:
        for batch in batches:
            end = row + len(batch.vectors)
            for first, stop in ranges:
                if first < end and stop > row:
                    start = max(first, row)
                    yield start, _slice(batch, slice(start - row, min(stop, end) - row))
            row = end
            if row >= last:
                return
    raise ConflictError(f"{file.path} ends after row {row}, {file.n_rows:,} rows were counted: start again")


def _of_row(error: InvalidInputError, file: SourceFile, row: int) -> InvalidInputError:
    """An error of a batch of one row, with the row's real number."""
    told = str(error)
    if "row 0" in told:
        return InvalidInputError(f"{file.path}: {told.replace('row 0', f'row {row}', 1)}")
    return InvalidInputError(f"{file.path}, row {row}: {told}")


def _one(batch: Batch, i: int) -> Batch:
    return _slice(batch, slice(i, i + 1))


def _slice(batch: Batch, part: slice) -> Batch:
    if part == slice(0, len(batch.vectors)):
        return batch
    ids, metadatas, documents = batch.ids, batch.metadatas, batch.documents
    return Batch(
        batch.vectors[part],
        ids and ids[part],
        metadatas and metadatas[part],
        documents and documents[part],
    )


@contextmanager
def _named(file: SourceFile, path: Path) -> Iterator[None]:
    """Errors that name the file as it was given, not the copy that was read."""
    try:
        yield
    except InvalidInputError as error:
        raise InvalidInputError(str(error).replace(os.fspath(path), file.path)) from error


@contextmanager
def _here(file: SourceFile, options: Mapping[str, Any], work: Path) -> Iterator[Path]:
    """The file on this machine, downloaded for the block where it is an object."""
    if not is_url(file.path):
        if _stamp(file.path) != file.stamp:
            raise ConflictError(f"{file.path} was changed since the build began: start again")
        yield Path(file.path)
        return
    url, key = _split_key(file.path)
    folder, _, name = url.rpartition("/")
    bucket = open_bucket(folder, options)
    with draft_folder(work) as draft:
        bucket.fetch(name, draft / name)
        try:
            bucket.fetch(default_rows_path(Path(name)).name, default_rows_path(draft / name))
        except NotFoundError:
            default_rows_path(draft / name).unlink(missing_ok=True)
        yield Path(f"{draft / name}{key}")


def _split_key(path: str) -> tuple[str, str]:
    """Path, and the colon and key of an npz; two strings, for `Path` would spoil a URL."""
    stem, found, key = path.rpartition(".npz:")
    return (f"{stem}.npz", f":{key}") if found else (path, "")


def _stamp(path: str) -> str:
    stamps = []
    archive = Path(_split_key(path)[0])
    for each in (archive, default_rows_path(Path(path))):
        if each.exists():
            stat = each.stat()
            stamps.append(f"{stat.st_size}-{stat.st_mtime_ns}")
    return " ".join(stamps)


def find_files(
    patterns: Sequence[str], columns: Columns | None = None, options: Mapping[str, Any] | None = None
) -> Files:
    """The files that paths, URLs and patterns with ``*`` name, in their order; those of a pattern by name.

    Raises
    ------
    NotFoundError
        A pattern fits nothing.
    InvalidInputError
        A folder.
    """
    found = [file for pattern in patterns for file in _matching(pattern, options or {})]
    if not found:
        raise InvalidInputError("give at least one file to build from")
    return Files(tuple(found), columns or Columns(), options=dict(options or {}))


def _matching(pattern: str, options: Mapping[str, Any]) -> list[SourceFile]:
    if pattern.startswith("file://"):
        pattern = pattern.removeprefix("file://")
    if is_url(pattern):
        return _matching_objects(pattern, options)
    archive, key = _split_key(pattern)
    paths = [archive] if os.path.exists(archive) else sorted(glob.glob(archive, recursive=True))
    if not paths:
        raise NotFoundError(f"there is no file {pattern}")
    if os.path.isdir(paths[0]):
        raise InvalidInputError(f"{pattern} is a folder: give its files, as '{pattern}/*.parquet'")
    absolute = [f"{os.path.abspath(path)}{key}" for path in paths if not path.endswith(".rows.jsonl")]
    return [SourceFile(path, _stamp(path)) for path in absolute]


def _matching_objects(pattern: str, options: Mapping[str, Any]) -> list[SourceFile]:
    url, key = _split_key(pattern)
    folder, _, name = url.rpartition("/")
    fitting = [
        stored
        for stored in existing_bucket(folder, options).list("")
        if "/" not in stored.key and fnmatch.fnmatchcase(stored.key, name)
    ]
    found = [
        SourceFile(f"{folder}/{stored.key}{key}", f"{stored.size_bytes}-{stored.modified_at.isoformat()}")
        for stored in fitting
        if not stored.key.endswith(".rows.jsonl")
    ]
    if not found:
        raise NotFoundError(f"there is no object {pattern}")
    return sorted(found, key=lambda file: file.path)


@dataclass(frozen=True)
class Stored:
    """The records of a collection in a folder, at one moment: nobody may change it meanwhile."""

    folder: str
    config: Config
    stamp: tuple[int, int, int] = (-1, -1, -1)
    n_rows: int = -1

    is_distinct = True

    @property
    def dimension(self) -> int:
        return self.config.dimension

    def fingerprint(self) -> str:
        with closing(self._opened()) as collection:
            facts = [self.config.uuid, *collection.stamp()]
        return xxh3_128_hexdigest(orjson.dumps(facts))

    def counted(self, work: Path, known: dict[str, Any] | None = None) -> Stored:
        with closing(self._opened()) as collection:
            return replace(self, stamp=collection.stamp(), n_rows=len(collection))

    def counts(self) -> dict[str, Any]:
        return {"stamp": list(self.stamp), "dimension": self.dimension}

    def rows(self, ranges: Sequence[Range], metric: Metric, work: Path) -> Iterator[Rows]:
        if metric != self.config.metric:
            raise InvalidInputError(f"the collection's metric is {self.config.metric!r}, not {metric!r}")
        step = max(1, _READ_BYTES // (4 * self.dimension))
        with closing(self._opened()) as collection:
            every = collection.matching(None)
            for first, stop in ranges:
                for start in range(first, stop, step):
                    yield collection.stored(every[start : min(start + step, stop)], self.stamp)

    @staticmethod
    def found(folder: Path) -> Stored:
        """The collection whose files are in ``folder``."""
        facts = read_meta(folder)
        kind = (facts["name"], facts["dimension"], facts["metric"], facts["index_type"])
        return Stored(str(folder), Config(facts["uuid"], *kind))

    def _opened(self) -> FrozenCollection:
        return FrozenCollection(Path(self.folder), self.config)
