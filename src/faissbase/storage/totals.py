"""How much a collection holds, by its records file alone: nothing else is opened, and nothing stays open.

Remembered as long as the counter of commits stands still, whoever commits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from faissbase.errors import NotFoundError
from faissbase.storage import sqlite
from faissbase.storage.commits import settled_in
from faissbase.storage.records import FILE_NAME, ReadTransaction
from faissbase.storage.sqlite import sqlite_errors

_MOST_KNOWN = 100_000


@dataclass(frozen=True, slots=True)
class Totals:
    """``unindexed`` counts the slots after the last segment; ``size_bytes`` all files of the folder.

    ``segments`` are the parts of its index; of a dataset in object storage, the shards.
    """

    records: int
    tombstones: int
    unindexed: int
    size_bytes: int
    segments: int


class Tally:
    """The totals of any number of collections. Thread-safe; of two that read at once either may be kept."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, Totals]] = {}

    def of(self, folder: Path, *, is_fresh: bool = False) -> Totals:
        """What the collection in ``folder`` holds; ``is_fresh`` looks at the sizes of its files anew.

        Raises
        ------
        NotFoundError
            It was deleted.
        CorruptionError
            The file cannot be read.
        """
        settled = settled_in(folder)  # asked first: what is committed after it counts as new
        known = self._known.get(folder)
        if known is not None and known[0] == settled:
            return replace(known[1], size_bytes=_size_bytes(folder)) if is_fresh else known[1]
        totals = _read(folder)
        if settled is not None:
            if len(self._known) >= _MOST_KNOWN:
                self._known = {}
            self._known[folder] = settled, totals
        return totals


@contextmanager
def _reading(folder: Path) -> Iterator[ReadTransaction]:
    path = folder / FILE_NAME
    with sqlite_errors(path):
        connection = sqlite.connect(path, read_only=True)
        try:
            connection.execute("BEGIN")
            yield ReadTransaction(connection)
        finally:
            connection.close()


def _read(folder: Path) -> Totals:
    with _reading(folder) as transaction:
        state = transaction.state()
        segments = transaction.segments(state)
    if state.is_deleted:
        raise NotFoundError(f"the collection in {folder} was deleted")
    n_indexed = segments[-1].stop_slot if segments else 0
    # Tombstones are numbered from 1 on, one for each dead slot.
    return Totals(
        state.next_slot - state.last_seq,
        state.last_seq,
        state.next_slot - n_indexed,
        _size_bytes(folder),
        len(segments),
    )


def _size_bytes(folder: Path) -> int:
    """All files in it and in its folders, those of indexes among them."""
    n_bytes = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    n_bytes += _size_bytes(Path(entry.path))
                else:
                    n_bytes += entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:  # a file, or all of it, was removed meanwhile
        pass
    return n_bytes


def count_stored(folder: Path, ids: Sequence[str]) -> int:
    """How many of these ids the collection in ``folder`` holds."""
    if not ids:
        return 0
    with _reading(folder) as transaction:
        return len(transaction.slots_of(ids))
