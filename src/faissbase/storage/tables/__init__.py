"""Record files (npy, fvecs, parquet, Arrow, jsonl, csv and kin) as a stream of `Batch`, in constant memory.

Knows files and batches: no collection, no slots, no faiss. Whether values are finite is for the collection to
check.

In messages rows count from 0 and lines from 1.
"""

from __future__ import annotations

from faissbase.storage.tables.contract import Reader, default_batch_rows
from faissbase.storage.tables.open import open_reader, open_writer, peek_dimension
from faissbase.storage.tables.writer import Writer

__all__ = ["Reader", "Writer", "default_batch_rows", "open_reader", "open_writer", "peek_dimension"]
