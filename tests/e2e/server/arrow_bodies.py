"""Arrow bodies for tests: a table of records, its stream, and what a damaged one looks like."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

ARROW = "application/vnd.apache.arrow.stream"
HEADERS = {"content-type": ARROW}
_WORDS = (0, 1, -1, 255, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 1 << 40)


def stream_of(table: Any, *, batch_rows: int | None = None, **options: Any) -> bytes:
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as stream:
        stream.write_table(table, max_chunksize=batch_rows)
    return bytes(out.getvalue().to_pybytes())


def vector_column(vectors: Any) -> Any:
    """A fixed-size list column, of the type that the array has."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.asarray(vectors).ravel()), len(vectors[0]))


def records(n: int, d: int, **columns: Any) -> Any:
    """A table of n records; ``columns`` take the place of its own, or None takes one away."""
    vectors = np.random.default_rng(n).standard_normal((n, d)).astype(np.float32)
    own: dict[str, Any] = {
        "id": pa.array([f"r{i} é" for i in range(n)]),
        "vector": vector_column(vectors),
        "metadata": pa.array([None if i % 3 == 0 else f'{{"n": {i}}}' for i in range(n)], pa.string()),
        "document": pa.array([None if i % 2 else f"text {i}" for i in range(n)], pa.string()),
    }
    return pa.table({name: column for name, column in {**own, **columns}.items() if column is not None})


def damaged(body: bytes, n: int, seed: int) -> Iterator[bytes]:
    """``n`` copies of a body with bits, bytes, words or lengths changed, or parts left out."""
    chance = random.Random(seed)
    for _ in range(n):
        found = bytearray(body)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            _damage(found, chance)
        yield bytes(found)


def _damage(body: bytearray, chance: random.Random) -> None:
    at, size = chance.randrange(len(body) - 8), chance.choice((2, 4, 8))
    how = chance.choice(("bit", "byte", "word", "word", "step", "step", "cut"))
    if how == "bit":
        body[at] ^= 1 << chance.randrange(8)
    elif how == "byte":
        body[at] = chance.randrange(256)
    elif how == "cut":
        keep = chance.randrange(64, max(65, len(body)))
        del body[keep : chance.choice((len(body), keep + 8))]
    else:
        at -= at % size if how == "word" else 0
        was = int.from_bytes(body[at : at + size], "little")
        value = chance.choice(_WORDS) if how == "word" else was + chance.choice((-8, -4, -1, 1, 4, 8, 64))
        body[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")
