"""A batch with every awkward value, and reading a whole file back as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.storage.tables import open_reader
from faissbase.types import Batch

D = 6
N = 23

ReadAll = Callable[..., Batch]


def _concatenated(batches: Iterable[Batch], d: int) -> Batch:
    vectors = [np.empty((0, d), np.float32)]
    ids: list[str] = []
    metadatas: list[dict[str, Any]] = []
    documents: list[str | None] = []
    for batch in batches:
        vectors.append(batch.vectors)
        ids.extend(batch.ids or [])
        metadatas.extend(batch.metadatas or [])
        documents.extend(batch.documents or [])
    return Batch(np.concatenate(vectors), ids or None, metadatas or None, documents or None)


@pytest.fixture
def read_all() -> ReadAll:
    """All rows from ``skip_rows`` on as one batch; other options go to `open_reader`."""

    def read(path: Path | str, *, dimension: int = D, skip_rows: int = 0, **options: Any) -> Batch:
        reader = open_reader(path, dimension=dimension, **options)
        return _concatenated(reader.batches(skip_rows), dimension)

    return read


@pytest.fixture
def batch() -> Batch:
    """23 rows of d=6: floats from the smallest to the largest, all kinds of JSON, texts CSV must quote."""
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((N, D)).astype(np.float32)
    vectors[0] = [0.0, -0.0, 1e-45, 3.4028235e38, -1.1754944e-38, 0.1]
    vectors[1, 0] = np.uint32(0x15AE43FD).view(np.float32)
    metadatas: list[dict[str, Any]] = [{"i": i, "ratio": i / 3, "none": None} for i in range(N)]
    metadatas[2] = {}
    metadatas[3] = {
        "id": "inner",
        "vector": [1, 2],
        "nested": {"a": [True, None, "x"]},
        "ü": "\u2028",
        "n": 2**62,
    }
    documents: list[str | None] = [f"text {i}" for i in range(N)]
    documents[4] = None
    documents[5] = 'a "quoted", line\nand\r\nanother\rone\ttab'
    return Batch(vectors, [f"id-{i}" for i in range(N)], metadatas, documents)
