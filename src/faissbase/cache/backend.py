"""Vectors by key, searched exactly, with a value each: the backend that semantic caches are built on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from faissbase.cache.opening import open_collection, open_database
from faissbase.cache.values import JsonValues, ObjectValues, Values
from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.storage.malloc import return_freed_memory
from faissbase.types import Collection, Metric, Where

_COLLECTION = "cache"
_VALUE = "value"


class FAISSBackend:
    """Exact inner product over the vectors of a cache. Thread-safe.

    Parameters
    ----------
    dim : int
        Numbers a vector has.
    normalize : bool
        Search and store copies of unit length, so that scores are cosines in [−1, 1]; the zero vector, which
        has no direction, is refused. Otherwise scores are the inner products as they are.
    path : path, optional
        A folder that keeps it all: an `add` that has returned is on the device, and several processes may
        share the folder. Values are JSON there. Without it everything is in memory, values being any objects.

    Raises
    ------
    ImportError
        faiss is not installed; the message has the line that installs it.

    Examples
    --------
    >>> backend = FAISSBackend(dim=2)
    >>> backend.add("greeting", [3.0, 4.0], {"value": "hello", "lang": "en"})
    >>> backend.search([4.0, 3.0], top_k=1)
    [('greeting', 0.96...)]
    >>> backend.get_value("greeting"), backend.search([1.0, 0.0], where={"lang": "de"})
    ('hello', [])
    >>> backend.close()
    """

    def __init__(
        self, dim: int, normalize: bool = True, *, path: str | os.PathLike[str] | None = None
    ) -> None:
        self.dim = dim
        self.normalize = normalize
        self._values: Values = ObjectValues() if path is None else JsonValues()
        self._database = open_database(path, "FAISSBackend")
        metric: Metric = "cosine" if normalize else "ip"
        self._open: Collection | None = open_collection(
            self._database, _COLLECTION, dim, metric, "IndexFlatIP"
        )

    def __enter__(self) -> FAISSBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._collection)

    def add(self, key: str, vector: Any, metadata: Mapping[str, Any]) -> None:
        """Keep a vector and its metadata under ``key``, in the place of what was there.

        ``metadata["value"]`` is what `get_value` returns; the other fields are JSON, and what ``where`` of
        `search` looks at.

        Raises
        ------
        InvalidInputError
            Wrong d, not finite, a zero vector, or metadata that cannot be kept; nothing was changed.
        """
        if not isinstance(metadata, Mapping):
            raise InvalidInputError(f"metadata must be a dict, got {type(metadata).__name__}")
        row = self._as_row(vector)
        with self._values.writing():
            previous = self._texts(key)
            stored = {**metadata, _VALUE: self._values.encode(metadata.get(_VALUE))}
            try:
                self._collection.upsert([key], row, [stored])
            except BaseException:
                self._values.forget([stored[_VALUE]])
                raise
            self._values.forget(previous)

    def search(self, vector: Any, top_k: int = 1, *, where: Where | None = None) -> list[tuple[str, float]]:
        """The ``top_k`` nearest keys with their scores, nearest first, and so many wherever so many match."""
        hits = self._collection.search(self._as_row(vector)[0], top_k, where)
        if not self.normalize:
            return [(hit.id, float(hit.score)) for hit in hits]
        # The product of two unit vectors in float32 may be a rounding error above 1.
        return [(hit.id, min(1.0, max(-1.0, float(hit.score)))) for hit in hits]

    def get_value(self, key: str) -> Any | None:
        """What was given as ``metadata["value"]``; None where there is no such key."""
        while texts := self._texts(key):
            try:
                return self._values.decode(texts[0])
            except KeyError:  # replaced since the record was read: read it again
                continue
        return None

    def delete(self, key: str) -> None:
        """Remove a key, its vector and its value; one that is not there is passed over."""
        with self._values.writing():
            texts = self._texts(key)
            self._collection.delete([key])
            self._values.forget(texts)

    def clear(self) -> None:
        """Remove everything. The memory and the room on disk come back, and new keys can be added."""
        with self._values.writing():
            self._collection.reset()
            self._values.forget_all()
            len(self._collection)  # a new moment, which lets go of the mapping of the old one
        return_freed_memory()

    def close(self) -> None:
        """Let go of files and memory; again is no error."""
        with self._values.writing():
            self._open = None
            self._database.close()
            self._values.forget_all()

    @property
    def _collection(self) -> Collection:
        if self._open is None:
            raise NotReadyError("the FAISSBackend is closed: make a new one")
        return self._open

    def _texts(self, key: str) -> list[str]:
        return [record.metadata[_VALUE] for record in self._collection.get([key])]

    def _as_row(self, vector: Any) -> Any:
        """One vector as a row; a row of one vector, as embedders give it, is taken as well."""
        array = np.asarray(vector)
        if array.size != self.dim or array.ndim not in (1, 2):
            raise InvalidInputError(f"expected one vector of d={self.dim}, got shape {array.shape}")
        return array.reshape(1, self.dim)
