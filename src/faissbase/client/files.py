"""Files into a collection of a server, and its records into files, piece by piece, for both clients."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from faissbase.client import calls
from faissbase.client.calls import Facts
from faissbase.client.exchange import Forms, Steps
from faissbase.collection.transfer import LoadReport, Source, bar_of, last_of_each_id
from faissbase.errors import InvalidInputError
from faissbase.storage.tables.open import open_writer
from faissbase.types import Batch, Where

_PAGE = 1000


def load(facts: Facts, forms: Forms, source: Source, *, progress: bool) -> Steps[LoadReport]:
    """Upsert every row of a file, batch by batch."""
    started = time.perf_counter()
    reader, n = source.reader(facts.dimension), 0
    with bar_of(f"load {source.path.name}", reader.n_rows, 0, progress) as bar:
        for batch in reader.batches():
            try:
                yield from calls.put(facts, forms, *last_of_each_id(batch, n), mode="upsert")
            except InvalidInputError as error:
                rows = f"rows {n} to {n + len(batch.vectors) - 1}"
                raise InvalidInputError(f"{source.path}, {rows}: {error}") from error
            n += len(batch.vectors)
            bar.update(len(batch.vectors))
    return LoadReport(n, 0, time.perf_counter() - started, n * facts.dimension * 4)


def export(facts: Facts, path: Path, where: Where | None, *, progress: bool) -> Steps[int]:
    """Write the matching records to a file, page by page; the number of them."""
    total = yield from calls.count(facts, where)
    n, cursor = 0, None
    bar, out = bar_of(f"export {path.name}", total, 0, progress), open_writer(path, dimension=facts.dimension)
    with bar, out:
        while True:
            page = yield from calls.scroll(facts, where, _PAGE, cursor, include_vectors=True)
            if page.records:
                vectors = np.stack([record.vector for record in page.records if record.vector is not None])
                ids, metadatas = zip(*((each.id, each.metadata) for each in page.records), strict=True)
                documents = [record.document for record in page.records]
                out.write(Batch(vectors, list(ids), list(metadatas), documents))
            n, cursor = n + len(page.records), page.cursor
            bar.update(len(page.records))
            if cursor is None:
                return n
