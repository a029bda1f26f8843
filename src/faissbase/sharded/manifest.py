"""What a dataset consists of at one version: an immutable list of shards. Knows values and their JSON.

A **shard** is a collection that is never written again: its files, and which of its slots have been replaced
or deleted since.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from faissbase.collection.store import Config
from faissbase.errors import CorruptionError
from faissbase.sharded.bucket import File
from faissbase.storage.totals import Totals
from faissbase.types import METRICS, Metric

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard.

    Attributes
    ----------
    name : str
        Unlike that of any other shard there ever was.
    rows : int
        Records it holds, hidden ones included.
    files : tuple of File
        The files of its collection.
    hidden : File or None
        int64 slots, ascending, whose records are not part of the dataset any more.
    n_hidden : int
    index : str
        FAISS's factory string; ``"Flat"`` where it is searched exactly.
    recall : float or None
        recall@10 that was measured when it was built, at the parameters for the target; None of an exact one.
    """

    name: str
    rows: int
    files: tuple[File, ...]
    hidden: File | None = None
    n_hidden: int = 0
    index: str = "Flat"
    recall: float | None = None

    @property
    def n_alive(self) -> int:
        return self.rows - self.n_hidden

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def keys(self) -> list[str]:
        """Every object that it needs."""
        return [file.key for file in (*self.files, *((self.hidden,) if self.hidden else ()))]


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a dataset.

    Attributes
    ----------
    version : int
        From 1 on, each one higher than the last.
    token : str
        Of the attempt that wrote it: tells a writer whose answer was lost whether it was its own.
    uuid, name, dimension, metric, index_type
        Of the dataset as a collection.
    target_recall : float
        recall@10 that its shards were built for.
    measured_recall : float or None
        Over all shards, on held-out queries, when it was built.
    shards : tuple of Shard
        Oldest first. No id is in two of them, hidden records aside.
    is_deleted : bool
        The dataset ended with this version; one of the same name may follow.
    """

    version: int
    token: str
    uuid: str
    name: str
    dimension: int
    metric: Metric
    index_type: str = "auto"
    target_recall: float = 0.95
    measured_recall: float | None = None
    shards: tuple[Shard, ...] = ()
    is_deleted: bool = False
    format: int = field(default=FORMAT)

    @property
    def n_alive(self) -> int:
        return sum(shard.n_alive for shard in self.shards)

    @property
    def config(self) -> Config:
        """The dataset as a collection."""
        return Config(self.uuid, self.name, self.dimension, self.metric, self.index_type)

    @property
    def totals(self) -> Totals:
        """What the dataset holds."""
        dead = sum(shard.n_hidden for shard in self.shards)
        unindexed = sum(shard.rows for shard in self.shards if shard.index == "Flat")
        size_bytes = sum(shard.size_bytes for shard in self.shards)
        return Totals(self.n_alive, dead, unindexed, size_bytes, len(self.shards))

    def shard(self, name: str) -> Shard | None:
        return next((shard for shard in self.shards if shard.name == name), None)

    def with_shards(self, shards: tuple[Shard, ...]) -> Manifest:
        """The same dataset of other shards, to be committed."""
        return replace(self, shards=shards)

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)


def from_json(content: bytes, where: str) -> Manifest:
    """The manifest in an object, checked.

    Raises
    ------
    CorruptionError
        Not a manifest, or of a newer format.
    """
    try:
        facts = orjson.loads(content)
        if facts["format"] != FORMAT:
            raise CorruptionError(
                f"{where} has format {facts['format']}, this version of faissbase reads {FORMAT}: upgrade it"
            )
        shards = tuple(shard_from(shard) for shard in facts.pop("shards"))
        manifest = Manifest(**facts, shards=shards)
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CorruptionError(f"{where} is no manifest: {error}") from error
    if manifest.metric not in METRICS:
        raise CorruptionError(f"{where} names the metric {manifest.metric!r}")
    return manifest


def shard_from(facts: dict[str, Any]) -> Shard:
    """The shard that ``asdict`` has made a dict of; takes it apart."""
    files = tuple(File(**file) for file in facts.pop("files"))
    hidden = facts.pop("hidden")
    return Shard(**facts, files=files, hidden=None if hidden is None else File(**hidden))
