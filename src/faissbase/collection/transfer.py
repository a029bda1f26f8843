"""Records from files and into files, in constant memory. Knows batches; the formats are `storage.tables`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tqdm import tqdm

from faissbase.ann.index_file import IndexReader
from faissbase.collection import inputs
from faissbase.collection.answers import Moment
from faissbase.collection.integrity import checked_rows
from faissbase.collection.writer import Alone, Put, Writer
from faissbase.errors import InvalidInputError
from faissbase.filters.tree import Filter
from faissbase.storage.records import Records
from faissbase.storage.tables.contract import Reader
from faissbase.storage.tables.open import MakeReader, default_rows_path, open_reader, open_writer
from faissbase.storage.tables.raw import split_npz_path
from faissbase.types import Batch, Float32, Metric

_EXPORT_BYTES = 16 << 20


INDEX_FILES: Mapping[str, MakeReader] = {".faiss": IndexReader, ".index": IndexReader}


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did. ``n_resumed`` rows had been committed by an earlier run that was interrupted."""

    n_rows: int
    n_resumed: int
    seconds: float
    vectors_bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """A record file and how to read it; see `storage.tables.open_reader`."""

    path: Path
    rows_path: Path | None = None
    id_column: str = "id"
    vector_column: str = "vector"
    document_column: str = "document"
    batch_rows: int | None = None

    def fingerprint(self) -> str:
        """Tells this very file, read this way, from any other; a changed file is another."""
        vectors, key = split_npz_path(self.path)
        facts: list[object] = [key, self.id_column, self.vector_column, self.document_column]
        for path in (vectors, self.rows_path or default_rows_path(self.path)):
            if path.exists():
                stat = os.stat(path)
                facts += [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
        return orjson.dumps(facts).decode()

    def reader(self, dimension: int) -> Reader:
        """Opened, for batches of its rows."""
        return open_reader(
            self.path,
            dimension=dimension,
            batch_rows=self.batch_rows,
            id_column=self.id_column,
            vector_column=self.vector_column,
            document_column=self.document_column,
            rows_path=self.rows_path,
            more=INDEX_FILES,
        )

    def rows(self, batch: Batch, first_row: int, dimension: int, metric: Metric) -> inputs.Rows:
        """A checked batch that begins with ``first_row``; of rows with one id, the last alone."""
        return _rows(batch, first_row, self, dimension, metric)


def load(
    source: Source,
    writer: Writer,
    records: Records,
    dimension: int,
    metric: Metric,
    *,
    restart: bool = False,
    progress: bool = False,
) -> LoadReport:
    """Upsert every row of a file. Interrupted, it goes on where it stopped when it is called again.

    While one batch is being committed, the next is read and checked.
    """
    started = time.perf_counter()
    reader = source.reader(dimension)
    name = source.fingerprint()
    with records.read_transaction() as transaction:
        n_resumed = 0 if restart else transaction.rows_done(name)
    rows_done = n_resumed
    bar = bar_of(f"load {source.path.name}", reader.n_rows, n_resumed, progress)
    with bar, ThreadPoolExecutor(1, thread_name_prefix="faissbase-load") as commits:
        pending: Future[int] | None = None
        try:
            for batch in reader.batches(skip_rows=n_resumed):
                rows = source.rows(batch, rows_done, dimension, metric)
                rows_done += len(batch.vectors)
                if pending is not None:
                    pending.result()
                pending = commits.submit(writer.run, Put(rows, progress=(name, rows_done)))
                bar.update(len(batch.vectors))
        finally:
            if pending is not None:
                pending.result()
    writer.run(Alone(lambda transaction, *_: _forget(transaction.set_progress, name)))
    n_loaded = rows_done - n_resumed
    return LoadReport(n_loaded, n_resumed, time.perf_counter() - started, n_loaded * dimension * 4)


def _forget(set_progress: Callable[[str, int], None], name: str) -> int:
    set_progress(name, 0)
    return 0


def _rows(batch: Batch, first_row: int, source: Source, dimension: int, metric: Metric) -> inputs.Rows:
    """A checked batch; of rows with one id, the last stays, as if they had been upserted in turn."""
    try:
        return checked_batch(batch, first_row, dimension, metric)
    except InvalidInputError as error:
        rows = f"rows {first_row} to {first_row + len(batch.vectors) - 1}"
        raise InvalidInputError(f"{source.path}, {rows}: {error}") from error


def checked_batch(batch: Batch, first_row: int, dimension: int, metric: Metric) -> inputs.Rows:
    """A batch in stored form, where the rows have no ids numbered from ``first_row`` on; see `_rows`."""
    return inputs.rows_from_input(*last_of_each_id(batch, first_row), dimension, metric)


def last_of_each_id(batch: Batch, first_row: int) -> tuple[list[str], Float32, Any, Any]:
    """Ids, vectors, metadata and documents; rows without ids are numbered from ``first_row`` on."""
    ids = batch.ids or [str(row) for row in range(first_row, first_row + len(batch.vectors))]
    vectors, metadatas, documents = batch.vectors, batch.metadatas, batch.documents
    last = {id: row for row, id in enumerate(ids)}
    if len(last) < len(ids):
        kept = sorted(last.values())
        ids, vectors = [ids[row] for row in kept], vectors[kept]
        metadatas = metadatas and [metadatas[row] for row in kept]
        documents = documents and [documents[row] for row in kept]
    return ids, vectors, metadatas, documents


def export(moment: Moment, path: Path, where: Filter, *, progress: bool = False) -> int:
    """Write the matching records of one moment to a file; the number of them."""
    slots = moment.select(where).slots
    dimension = moment.snapshot.view.d
    step = max(1, _EXPORT_BYTES // (4 * dimension))
    bar = bar_of(f"export {path.name}", len(slots), 0, progress)
    with bar, open_writer(path, dimension=dimension) as out:
        for start in range(0, len(slots), step):
            batch = _batch(moment, slots[start : start + step])
            out.write(batch)
            bar.update(len(batch.vectors))
    return len(slots)


def _batch(moment: Moment, slots: np.ndarray[Any, np.dtype[np.int64]]) -> Batch:
    assert moment.transaction is not None
    rows = checked_rows(moment.transaction, slots, moment.store.vector_file(moment.snapshot.state.generation))
    vectors = _given_vectors(
        moment.snapshot.view.rows(slots), np.array([row.norm for row in rows], np.float32)
    )
    metadatas = [orjson.loads(row.metadata_json) for row in rows]
    return Batch(vectors, [row.id for row in rows], metadatas, [row.document for row in rows])


def _given_vectors(stored: Float32, norms: Float32) -> Float32:
    """`answers.given_vector` of many: to the last bit what `get` tells."""
    scaled = norms != 1.0
    stored[scaled] *= norms[scaled, None]
    return stored


def bar_of(title: str, total: int | None, done: int, progress: bool) -> Any:
    """A progress bar that counts rows."""
    return tqdm(total=total, initial=done, desc=title, unit=" rows", unit_scale=True, disable=not progress)
