"""Temporary folders on a real disk, and collections in them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faissbase
from benchmarks.datasets import Dataset

LOAD_ROWS = 16_384


@contextmanager
def folder_in(parent: Path) -> Iterator[Path]:
    """A new folder in ``parent`` that is removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="faissbase-bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def settle() -> None:
    """Let the disk finish what earlier measurements left to be written."""
    os.sync()


def fill(collection: Any, dataset: Dataset) -> None:
    """Store every record with its metadata, without its document."""
    for start in range(0, len(dataset.ids), LOAD_ROWS):
        piece = slice(start, start + LOAD_ROWS)
        collection.add(dataset.ids[piece], dataset.xb[piece], dataset.metadatas[piece])


def make(folder: Path, dataset: Dataset) -> None:
    """A database in ``folder`` with one filled collection, ``bench``."""
    with faissbase.connect(folder) as db:
        fill(db.create_collection("bench", dataset.d, dataset.metric, "Flat"), dataset)


@contextmanager
def reopened(folder: Path) -> Iterator[Any]:
    """The collection that `make` made, opened anew: nothing of it is in this process's memory."""
    with faissbase.connect(folder) as db:
        yield db.get_collection("bench")
