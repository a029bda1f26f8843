"""A record file written whole or not at all.

Knows drafts and encoders, no format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

import numpy as np

from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.storage.tables.contract import Encoder
from faissbase.storage.tables.files import Draft, publish, writing
from faissbase.types import Batch

MakeEncoder: TypeAlias = Callable[[BinaryIO, int], Encoder]


class Writer:
    """Writes batches to a temporary file and gives it its name when closed.

    As a context manager it closes on success and discards on an exception. A failed `write` discards too: the
    target stays as it was, and what was written is gone.

    Parameters
    ----------
    targets : sequence of (Path, MakeEncoder)
        Every file that the batches go to, in one folder; the one that readers open comes first.
    dimension : int
        d of every batch.
    """

    def __init__(self, targets: Sequence[tuple[Path, MakeEncoder]], dimension: int) -> None:
        self.n_rows = 0
        self._dimension = dimension
        self._path = targets[0][0]
        self._has_ids: bool | None = None
        self._is_open = True
        self._drafts: list[Draft] = []
        self._encoders: list[Encoder] = []
        try:
            for path, make_encoder in targets:
                draft = Draft(path)
                self._drafts.append(draft)
                with writing(path):
                    self._encoders.append(make_encoder(draft.file, dimension))
        except BaseException:
            self.discard()
            raise

    def write(self, batch: Batch) -> None:
        """Append ``batch``: ``float32[n, d]``, and lists of n items or None.

        Raises
        ------
        InvalidInputError
            Wrong d or list length, ids in some batches only, or a value that the format cannot hold.
        NotReadyError
            The writer is closed.
        UnavailableError
            The disk is full or fails.
        """
        if not self._is_open:
            raise NotReadyError(f"the writer of {self._path} is closed: open a new one")
        try:
            batch = self._checked(batch)
            if len(batch.vectors):
                self._append(batch)
        except BaseException:
            self.discard()
            raise

    def close(self) -> None:
        """Make the file durable and give it its name, in place of an older one. Once is enough."""
        if not self._is_open:
            return
        try:
            with writing(self._path):
                for encoder in self._encoders:
                    encoder.finish(self.n_rows)
                for draft in self._drafts:
                    draft.sync()
        except BaseException:
            self.discard()
            raise
        self._is_open = False
        with writing(self._path):
            publish(self._drafts)

    def discard(self) -> None:
        """Remove what was written; the target stays as it was."""
        self._is_open = False
        for encoder in self._encoders:
            encoder.abandon()
        for draft in self._drafts:
            draft.discard()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._is_open:
            self.discard()

    def _append(self, batch: Batch) -> None:
        with writing(self._path):
            for encoder in self._encoders:
                encoder.write(batch, self.n_rows)
        self.n_rows += len(batch.vectors)

    def _checked(self, batch: Batch) -> Batch:
        vectors = np.ascontiguousarray(batch.vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self._dimension:
            raise InvalidInputError(f"expected vectors of shape (n, {self._dimension}), got {vectors.shape}")
        self._check_lengths(batch, len(vectors))
        if len(vectors):
            self._check_ids(has_ids=batch.ids is not None)
        return dataclasses.replace(batch, vectors=vectors)

    def _check_lengths(self, batch: Batch, n: int) -> None:
        lists = {"ids": batch.ids, "metadatas": batch.metadatas, "documents": batch.documents}
        for name, values in lists.items():
            if values is not None and len(values) != n:
                raise InvalidInputError(f"expected {n} {name}, one for each vector, got {len(values)}")

    def _check_ids(self, *, has_ids: bool) -> None:
        if self._has_ids not in (None, has_ids):
            raise InvalidInputError(
                f"expected ids in all batches of {self._path} or in none, got both kinds (row {self.n_rows})"
            )
        self._has_ids = has_ids
