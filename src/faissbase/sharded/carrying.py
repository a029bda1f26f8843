"""Records as they are carried from one place to another: in pieces, compared to the bit.

Knows what differs, not when anything is carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import orjson

from faissbase.collection import answers
from faissbase.collection.frozen import ArrivingCollection
from faissbase.collection.inputs import Rows
from faissbase.sharded.collection import ShardedCollection
from faissbase.types import Record

BATCH_BYTES = 16 << 20
ROW_BYTES = 600  # about what id, metadata and document of a row take

Note: TypeAlias = Callable[[str, int, int], None]  # what is done, records so far, records of all


def pieces(n: int, dimension: int) -> Iterator[tuple[int, int]]:
    """From and to of pieces of ``n`` rows that take some MiB each."""
    step = max(1, BATCH_BYTES // (4 * dimension + ROW_BYTES))
    return ((start, min(start + step, n)) for start in range(0, n, step))


def differing(rows: Rows, found: Sequence[Record]) -> Rows:
    """Those rows whose record is not there, or not the same to the bit."""
    there = {record.id: record for record in found}
    kept = [i for i in range(len(rows)) if not _is_same(rows, i, there.get(rows.ids[i]))]
    return rows if len(kept) == len(rows) else taken(rows, kept)


def _is_same(rows: Rows, i: int, record: Record | None) -> bool:
    """Whether a record is what `get` would give of a row."""
    if record is None or record.vector is None or record.document != rows.documents[i]:
        return False
    metadata = orjson.dumps(orjson.loads(rows.metadata_json[i]))
    vector = answers.given_vector(rows.vectors[i], rows.norms[i])
    return orjson.dumps(record.metadata) == metadata and record.vector.tobytes() == vector.tobytes()


def joined(parts: Sequence[Rows]) -> Rows | None:
    """All of them as one; None of nothing."""
    if not parts:
        return None
    return Rows(
        [id for part in parts for id in part.ids],
        np.concatenate([part.vectors for part in parts]),
        [norm for part in parts for norm in part.norms],
        [text for part in parts for text in part.metadata_json],
        [document for part in parts for document in part.documents],
        [checksum for part in parts for checksum in part.checksums],
    )


def taken(rows: Rows, kept: list[int]) -> Rows:
    return Rows(
        [rows.ids[i] for i in kept],
        np.ascontiguousarray(rows.vectors[kept]),
        [rows.norms[i] for i in kept],
        [rows.metadata_json[i] for i in kept],
        [rows.documents[i] for i in kept],
        [rows.checksums[i] for i in kept],
    )


_Target: TypeAlias = "ShardedCollection | ArrivingCollection"


def remove_others(target: _Target, known: Callable[[list[str]], dict[str, int]]) -> int:
    """Remove the records whose ids are not ``known``; how many."""
    others: list[str] = []
    cursor: str | None = None
    while True:
        page = target.scroll(limit=1000, cursor=cursor)
        ids = [record.id for record in page.records]
        there = known(ids)
        others += [id for id in ids if id not in there]
        cursor = page.cursor
        if cursor is None:
            return target.delete(others) if others else 0
