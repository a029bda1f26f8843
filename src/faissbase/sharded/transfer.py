"""Records from files into shards, a shard at a time, and from shards into files.

How far a load has come is an object beside the dataset, made after each shard: what was committed just before
an interruption is upserted once more, which changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from xxhash import xxh3_128_hexdigest

from faissbase.collection.inputs import Rows
from faissbase.collection.transfer import LoadReport, Source
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.changes import Changes
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.group import Group
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.paging import pages_of
from faissbase.storage.tables.open import open_writer
from faissbase.types import Batch, Page, Where

SHARD_BYTES = 256 << 20
_PAGE = 1000


def loads_folder(name: str) -> str:
    """Where it is kept how far loads have come."""
    return f"{name}/loads"


class _Marks:
    """How far the load of one file into one dataset has come."""

    def __init__(self, bucket: Bucket, manifest: Manifest, source: Source) -> None:
        digest = xxh3_128_hexdigest((manifest.uuid + source.fingerprint()).encode())
        self._bucket = bucket
        self._folder = f"{loads_folder(manifest.name)}/{digest}"

    def rows_done(self) -> int:
        numbers = (stored.key.rpartition("/")[2] for stored in self._bucket.list(self._folder))
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def set(self, rows_done: int) -> None:
        self._bucket.create(f"{self._folder}/{rows_done:020d}", b"")

    def remove(self) -> None:
        self._bucket.delete([stored.key for stored in self._bucket.list(self._folder)])


def load(
    source: Source, changes: Changes, dataset: Dataset, *, restart: bool = False, progress: bool = False
) -> LoadReport:
    """Upsert every row of a file. Interrupted, it goes on where it stopped when it is called again."""
    started = time.perf_counter()
    base = changes.newest()
    reader, marks = source.reader(base.dimension), _Marks(dataset.bucket, base, source)
    if restart:
        marks.remove()
    n_resumed = marks.rows_done()
    title = f"load {source.path.name}"
    with tqdm(
        total=reader.n_rows,
        initial=n_resumed,
        desc=title,
        unit=" rows",
        unit_scale=True,
        disable=not progress,
    ) as bar:
        rows_done = n_resumed
        loading = _Loading(source, base, reader.batches(skip_rows=n_resumed), n_resumed, bar)
        while not loading.is_done():
            ids: list[str] = []
            changes.put_rows(loading.shard(ids), ids, base)
            rows_done = loading.rows_done
            marks.set(rows_done)
    marks.remove()
    n_loaded = rows_done - n_resumed
    return LoadReport(n_loaded, n_resumed, time.perf_counter() - started, n_loaded * base.dimension * 4)


class _Loading:
    """The batches of a file, as many at a time as go into one shard."""

    def __init__(
        self, source: Source, base: Manifest, batches: Iterator[Batch], rows_done: int, bar: Any
    ) -> None:
        self._source = source
        self._base = base
        self._batches = batches
        self._bar = bar
        self.rows_done = rows_done

    def is_done(self) -> bool:
        """Whether the file has no more; looks one batch ahead."""
        first = next(self._batches, None)
        if first is None:
            return True
        self._batches = chain([first], self._batches)
        return False

    def shard(self, ids: list[str]) -> Iterator[Rows]:
        """The batches of the next shard, checked; their ids are added to ``ids``."""
        n_bytes = 0
        for batch in self._batches:
            rows = self._source.rows(batch, self.rows_done, self._base.dimension, self._base.metric)
            ids += rows.ids
            n_bytes += rows.vectors.nbytes + sum(map(len, rows.metadata_json))
            n_bytes += sum(len(document) for document in rows.documents if document)
            yield rows
            self.rows_done += len(batch.vectors)
            self._bar.update(len(batch.vectors))
            if n_bytes >= SHARD_BYTES:
                return


def export(
    group: Group, manifest: Manifest, path: Path, where: Where | None, *, progress: bool = False
) -> int:
    """Write the matching records of one version to a file, in constant memory; the number of them."""
    n = 0
    total = manifest.n_alive if where is None else None
    title = f"export {path.name}"
    with (
        tqdm(total=total, desc=title, unit=" rows", unit_scale=True, disable=not progress) as bar,
        open_writer(path, dimension=manifest.dimension) as out,
    ):
        for page in pages_of(group, where, _PAGE, True):
            if page.records:
                out.write(_batch(page))
            n += len(page.records)
            bar.update(len(page.records))
    return n


def _batch(page: Page) -> Batch:
    records = page.records
    vectors = np.stack([record.vector for record in records if record.vector is not None])
    ids, metadatas = [record.id for record in records], [record.metadata for record in records]
    return Batch(vectors, ids, metadatas, [record.document for record in records])
