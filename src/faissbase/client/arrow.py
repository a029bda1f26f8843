"""Records, queries and hits as Arrow IPC streams. Knows pyarrow, which must be installed."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import orjson
import pyarrow as pa

from faissbase.types import Float32, Metric, Row, SearchResult


def records(ids: list[str], vectors: Float32, metadatas: list[bytes], documents: list[str | None]) -> bytes:
    """A stream of records; ``metadatas`` are JSON texts."""
    columns = {"id": pa.array(ids, pa.string()), "vector": _column(vectors)}
    columns["metadata"] = pa.array(metadatas, pa.string())
    if documents.count(None) < len(documents):
        columns["document"] = pa.array(documents, pa.string())
    return _stream(pa.table(columns))


def queries(vectors: Float32, asked: dict[str, Any]) -> bytes:
    """A stream of queries, and what is asked of each."""
    table = pa.table({"vector": _column(vectors)})
    return _stream(table.replace_schema_metadata({"search": orjson.dumps(asked)}))


def _column(vectors: Float32) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])


def _stream(table: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return cast("bytes", out.getvalue().to_pybytes())


def result(stream: bytes, nq: int, k: int, metric: Metric) -> SearchResult:
    """Hits, sorted by their queries, as arrays; slots are numbers of this answer alone."""
    table = pa.ipc.open_stream(stream).read_all().combine_chunks()
    query = table["query"].to_numpy()
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    ids, metadatas, documents = (table[name].to_pylist() for name in ("id", "metadata", "document"))
    slot_of: dict[str, int] = {}
    flat = [slot_of.setdefault(id, len(slot_of)) for id in ids]
    slots = np.full((nq, k), -1, np.int64)
    distances = np.full((nq, k), np.nan, np.float32)
    slots[query, rank], distances[query, rank] = flat, table["distance"].to_numpy()
    columns = zip(flat, ids, metadatas, documents, strict=True)
    rows = {slot: Row(id, metadata.encode(), document) for slot, id, metadata, document in columns}
    return SearchResult(slots, distances, metric, rows)
