"""What the approximate benchmark asks of every system, in words that all of them can follow.

Knows only values: no database is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from faissbase.types import Float32, Metric

Kind: TypeAlias = Literal["faissbase", "database", "library"]
Metadata: TypeAlias = dict[str, Any]
Key: TypeAlias = "str | int"  # libraries know row numbers only


@dataclass(frozen=True, slots=True)
class Below:
    """Records whose whole number ``field`` is smaller than ``limit``."""

    field: str
    limit: int


@dataclass(frozen=True, slots=True)
class Equal:
    """Records whose whole number ``field`` is ``value``."""

    field: str
    value: int


Where: TypeAlias = "Below | Equal"


@dataclass(frozen=True, slots=True)
class Effort:
    """One setting of a system's own search parameters; dearer ones come later in its list."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Rows:
    """Records to load. Every metadata has the fields ``name``, ``group`` (text), ``rank``, ``cluster``."""

    ids: list[str]
    xb: Float32
    metadatas: list[Metadata]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system keeps its files, what vectors it gets, and whether it starts empty."""

    folder: Path
    d: int
    metric: Metric
    is_new: bool = True


class System(Protocol):
    """One system under test. Its constructor takes a `Place` and opens or makes what is there.

    Attributes
    ----------
    name : str
    kind : "faissbase", "database" or "library"
        A library returns row numbers: no ids, no metadata, and nothing is safe before `close`.
    has_filters : bool
    efforts : sequence of Effort
        Cheapest first.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    has_filters: ClassVar[bool]
    efforts: ClassVar[Sequence[Effort]]

    def __init__(self, place: Place) -> None: ...

    def load(self, rows: Rows) -> None:
        """Store everything; returns when it is on the disk and indexed."""

    def prepare(self, effort: Effort) -> None:
        """Called, untimed, before searches of one effort: what a user would set once and leave."""

    def use_threads(self, n: int) -> None:
        """Called in each thread that will search: how many threads one call may use there."""

    def search(self, q: Float32, k: int, effort: Effort, where: Where | None = None) -> list[Key]:
        """The keys of the k nearest, nearest first, once their metadata have been read too."""

    def search_batch(self, xq: Float32, k: int, effort: Effort) -> list[list[Key]]:
        """The same for many queries in one call, where the system has such a call."""

    def upsert(self, id: str, vector: Float32, metadata: Metadata) -> None:
        """Store or replace one record."""

    def close(self) -> None:
        """Write what is not yet written and let go of the files."""


def disk_bytes(folder: Path) -> int:
    """What the files in ``folder`` take on the disk, holes in sparse files left out."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def ef_efforts(values: Sequence[int], name: str = "ef") -> list[Effort]:
    """One effort for each length of the candidate list."""
    return [Effort(f"{name} {value}", {"ef": value}) for value in values]


EFS = (10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 200, 256, 320, 400, 512)
