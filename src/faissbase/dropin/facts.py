"""What is on disk of a named index, told without opening it. Knows files alone: no faiss."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from faissbase.errors import CorruptionError
from faissbase.types import is_name

FOLDER = ".faiss"  # of a tenant; each index has a folder in it
META = "index.json"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file beside an index says of it."""

    generation: int
    kind: str
    d: int
    ntotal: int
    metric: int
    is_binary: bool
    checksum: int
    size_bytes: int


def is_named(folder: Path) -> bool:
    """Whether there is an index in ``folder``; one that was not written to its end is none."""
    return (folder / META).exists()


def names_in(folder: Path) -> list[str]:
    """The names of the indexes in the folders of ``folder``, which need not be there."""
    try:
        return sorted(each.name for each in folder.iterdir() if is_name(each.name) and is_named(each))
    except FileNotFoundError:
        return []


def read_facts(folder: Path) -> Facts:
    """What an index is, by the file beside it; `CorruptionError` where that cannot be read."""
    try:
        return Facts(**json.loads((folder / META).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CorruptionError(f"{META} of index {folder.name!r} cannot be read: {error}") from error


def size_bytes(folder: Path) -> int:
    """How many bytes the files of all indexes in ``folder`` have."""
    return sum(_sizes(folder))


def _sizes(folder: Path) -> Iterator[int]:
    for name in names_in(folder):
        for file in (folder / name).iterdir():
            try:
                yield file.stat().st_size
            except FileNotFoundError:  # replaced by a later one
                continue
