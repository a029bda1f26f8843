"""Embeddings that are computed once for each text: kept in memory, and in a file if one is named.

The file is derived: it can be deleted at any time. It is SQLite, so several processes may share it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from xxhash import xxh3_128_digest

from faissbase.embedding.embedder import Checked, Embedder, EmbedderSource, as_embedder, check_texts
from faissbase.errors import CorruptionError, InvalidInputError, NotReadyError, UnavailableError
from faissbase.types import Float32

_log = logging.getLogger(__name__)

_SCHEMA = """
create table if not exists vectors (
    embedder text not null, hash blob not null, vector blob not null, primary key (embedder, hash)
) without rowid
"""
_BUSY_S = 10.0
_ASKED_AT_ONCE = 500


class CachedEmbedder(Checked):
    """An embedder that asks another one only for texts that it has not seen. Safe to share between threads.

    Parameters
    ----------
    embedder : Embedder, callable or model
        See `as_embedder`.
    capacity : int
        Texts kept in memory; the one used longest ago goes first.
    path : path, optional
        A file that keeps all of them, for later processes. Vectors of several embedders may share it.
        Where it cannot be read or written (locked, full), that is logged, and the embedder is asked.

    Attributes
    ----------
    hits, misses : int
        Texts that were known, and that the embedder was asked for.

    Raises
    ------
    CorruptionError
        The file at ``path`` is no such cache, or is damaged: delete it.

    **Source**: a text is known by its 128-bit XXH3 hash: among 10^12 texts, two share one with probability
    10^-15.
    """

    def __init__(
        self, embedder: EmbedderSource, *, capacity: int = 10_000, path: str | os.PathLike[str] | None = None
    ) -> None:
        if capacity < 1:
            raise InvalidInputError(f"capacity must be 1 or more, got {capacity}")
        self._embedder: Embedder = as_embedder(embedder)
        self._capacity = capacity
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Float32] = OrderedDict()
        self._file = _File(os.path.abspath(path), self._embedder.name) if path is not None else None
        self.hits = self.misses = 0

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def dimension(self) -> int:
        return self._embedder.dimension

    def embed(self, texts: Sequence[str]) -> Float32:
        """One vector a text, ``float32[n, dimension]``. Equal texts are embedded once."""
        asked = check_texts(texts)
        hashes = [xxh3_128_digest(text.encode("utf-8", "surrogatepass")) for text in asked]
        with self._lock:
            known = self._known(hashes)
        missing = {hash: text for hash, text in zip(hashes, asked, strict=True) if hash not in known}
        if missing:
            rows = self._embedder.embed(list(missing.values()))
            # Copies: a row of the array would keep all of it in memory, for as long as one text is kept.
            made = {hash: row.copy() for hash, row in zip(missing, rows, strict=True)}
            known |= made
        with self._lock:
            self.misses += len(missing)
            self.hits += len(asked) - len(missing)
            if missing:
                self._keep(made)
        return (
            np.stack([known[hash] for hash in hashes]) if asked else np.empty((0, self.dimension), np.float32)
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def _known(self, hashes: list[bytes]) -> dict[bytes, Float32]:
        found: dict[bytes, Float32] = {}
        for hash in hashes:
            if (vector := self._kept.get(hash)) is not None:
                self._kept.move_to_end(hash)
                found[hash] = vector
        rest = list({hash for hash in hashes if hash not in found})
        if rest and self._file is not None:
            with _done_without():
                stored = self._file.read(rest, self._embedder.dimension)
                self._remember(stored)
                found |= stored
        return found

    def _keep(self, made: dict[bytes, Float32]) -> None:
        self._remember(made)
        if self._file is not None:
            with _done_without():
                self._file.write(made)

    def _remember(self, vectors: dict[bytes, Float32]) -> None:
        self._kept.update(vectors)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)


@contextmanager
def _done_without() -> Iterator[None]:
    """The file is derived: where it cannot serve now, what a model was paid for is not lost."""
    try:
        yield
    except UnavailableError as error:
        _log.warning("the file of embeddings is done without: %s", error)


class _File:
    """The vectors of one embedder in a SQLite file."""

    def __init__(self, path: str, embedder: str) -> None:
        self._path = path
        self._embedder = embedder
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)
            self._db.execute(_SCHEMA)
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptionError(f"{path} is no cache of embeddings ({error}): delete it") from error

    def read(self, hashes: list[bytes], dimension: int) -> dict[bytes, Float32]:
        found: dict[bytes, Float32] = {}
        for at in range(0, len(hashes), _ASKED_AT_ONCE):
            part = hashes[at : at + _ASKED_AT_ONCE]
            marks = ",".join("?" * len(part))
            statement = f"select hash, vector from vectors where embedder = ? and hash in ({marks})"
            for hash, vector in self._run(statement, [self._embedder, *part]):
                if len(vector) == 4 * dimension:  # a model of the same name, and another size: made again
                    found[hash] = np.frombuffer(vector, "<f4").astype(np.float32)
        return found

    def write(self, vectors: dict[bytes, Float32]) -> None:
        rows = [(self._embedder, hash, vector.astype("<f4").tobytes()) for hash, vector in vectors.items()]
        self._run("begin immediate")
        try:
            self._db.executemany("insert or replace into vectors values (?, ?, ?)", rows)
            self._run("commit")
        except sqlite3.DatabaseError as error:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("rollback")
            raise UnavailableError(f"{self._path}: {error}") from error

    def _run(self, statement: str, values: Sequence[object] = ()) -> list[tuple[bytes, bytes]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.ProgrammingError as error:
            raise NotReadyError(f"the CachedEmbedder of {self._path} is closed: make a new one") from error
        except sqlite3.OperationalError as error:
            raise UnavailableError(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptionError(f"{self._path} is damaged ({error}): delete it") from error

    def close(self) -> None:
        self._db.close()
