"""Writes the backup that `test_formats` reads: ``python tests/format/make_backup.py``, once a format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import faissbase
from faissbase.storage.sqlite import FORMAT_VERSION
from faissbase.types import METRICS


def main() -> None:
    db = faissbase.connect(":memory:")
    for metric in METRICS:
        docs = db.create_collection(f"docs-{metric}", 4, metric=metric)
        metadatas = [
            {"n": i, "tags": ["odd"] if i % 2 else [], "none": None, "deep": {"x": 0.5}} for i in range(30)
        ]
        docs.add(
            [f"r{i}" for i in range(30)],
            np.arange(4) + np.arange(30)[:, None] + 1.0,
            metadatas,
            [f"document number {i}" for i in range(30)],
        )
        docs.delete([f"r{i}" for i in (0, 10, 20, 25, 29)])
        docs.update("r3", {"n": 33}, "updated document")
    db.backup(Path(__file__).parent / "data" / f"format-{FORMAT_VERSION}.tar")
    db.close()


if __name__ == "__main__":
    main()
