"""Other embedded databases, each through its documented fastest way. Imported only when they are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import numpy as np
import orjson

from benchmarks.datasets import Dataset
from faissbase.types import Float32

_COLUMNS = (("section", "TEXT"), ("installed_size", "INTEGER"), ("essential", "BOOLEAN"))


class Chroma:
    """A persistent Chroma collection. Its lists may not be empty and its values not null."""

    def __init__(self, folder: Path) -> None:
        import chromadb
        from chromadb.config import Settings

        self._client: Any = chromadb.PersistentClient(
            str(folder / "chroma"), settings=Settings(anonymized_telemetry=False)
        )
        self._rows: Any = self._client.create_collection(
            "bench", embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    @staticmethod
    def metadatas(metadatas: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same metadata as Chroma takes it."""
        return [
            {key: value for key, value in metadata.items() if value not in (None, [])}
            for metadata in metadatas
        ]

    def add(self, ids: list[str], xb: Float32, metadatas: list[dict[str, Any]]) -> None:
        step = self._client.get_max_batch_size()
        for start in range(0, len(ids), step):
            piece = slice(start, start + step)
            self._rows.add(ids=ids[piece], embeddings=xb[piece], metadatas=metadatas[piece])

    def upsert(self, id: str, vector: Float32 | None, metadata: dict[str, Any]) -> None:
        self._rows.upsert(ids=[id], embeddings=[vector], metadatas=[metadata])


class Lance:
    """A LanceDB table, loaded from Arrow, which it splits over its own threads. It never syncs its files."""

    def __init__(self, folder: Path, schema: Any) -> None:
        import lancedb

        connection: Any = lancedb.connect(folder / "lance")
        self._table: Any = connection.create_table("bench", schema=schema)

    @staticmethod
    def arrow(ids: list[str], xb: Float32, metadatas: list[dict[str, Any]]) -> Any:
        """The records as an Arrow table."""
        import pyarrow as pa

        rows = [{"id": id, **metadata} for id, metadata in zip(ids, metadatas, strict=True)]
        flat = pa.array(np.ascontiguousarray(xb).reshape(-1))
        table: Any = pa.Table.from_pylist(rows)
        return table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, xb.shape[1]))

    def add(self, table: Any) -> None:
        self._table.add(table)

    def upsert(self, table: Any) -> None:
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(table)


class SqliteVec:
    """A sqlite-vec table: the columns that filters use as metadata columns, all of it as JSON beside them.

    Through apsw, as faissbase itself, so both run on one SQLite.
    """

    def __init__(self, folder: Path, d: int) -> None:
        import sqlite_vec

        self._connection = apsw.Connection(str(folder / "vec.sqlite"))
        self._connection.enable_load_extension(True)
        self._connection.load_extension(sqlite_vec.loadable_path())
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS)
        self._connection.execute(
            f"CREATE VIRTUAL TABLE bench USING vec0("
            f"id TEXT PRIMARY KEY, vector float[{d}] distance_metric=cosine, {columns}, +metadata TEXT)"
        )

    def _insert(self, id: str, vector: Float32 | None, metadata: dict[str, Any]) -> None:
        values = [metadata.get(name) for name, _ in _COLUMNS]
        values = [int(value) if isinstance(value, bool) else value for value in values]
        assert vector is not None
        row = (id, vector.tobytes(), *values, orjson.dumps(metadata).decode())
        self._connection.execute("INSERT INTO bench VALUES(?, ?, ?, ?, ?, ?)", row)

    def add(self, dataset: Dataset) -> None:
        with self._connection:
            for id, vector, metadata in zip(dataset.ids, dataset.xb, dataset.metadatas, strict=True):
                self._insert(id, vector, metadata)

    def upsert(self, id: str, vector: Float32 | None, metadata: dict[str, Any]) -> None:
        """vec0 knows no upsert: what stands under the id goes first, in the same transaction."""
        with self._connection:
            self._connection.execute("DELETE FROM bench WHERE id = ?", (id,))
            self._insert(id, vector, metadata)

    def close(self) -> None:
        self._connection.close()


class SqliteRows:
    """A plain SQLite table of ids, vectors and metadata: a durable upsert where nothing can be searched."""

    def __init__(self, folder: Path) -> None:
        self._connection = apsw.Connection(str(folder / "rows.sqlite"))
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("CREATE TABLE bench(id TEXT PRIMARY KEY, vector BLOB, metadata BLOB)")

    def _insert(self, id: str, vector: Float32 | None, metadata: dict[str, Any]) -> None:
        assert vector is not None
        row = (id, vector.tobytes(), orjson.dumps(metadata))
        self._connection.execute("INSERT OR REPLACE INTO bench VALUES(?, ?, ?)", row)

    def add(self, dataset: Dataset) -> None:
        with self._connection:
            for id, vector, metadata in zip(dataset.ids, dataset.xb, dataset.metadatas, strict=True):
                self._insert(id, vector, metadata)

    def upsert(self, id: str, vector: Float32 | None, metadata: dict[str, Any]) -> None:
        self._insert(id, vector, metadata)

    def close(self) -> None:
        self._connection.close()
