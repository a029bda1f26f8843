"""What a sharded collection tells of itself. Values that print readably."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from faissbase.collection.answers import Explanation
from faissbase.sharded.group import Group
from faissbase.sharded.manifest import Manifest
from faissbase.types import Metric


@dataclass(frozen=True, slots=True)
class ShardStats:
    """One shard: ``hidden`` of its ``rows`` were replaced or deleted since it was made."""

    name: str
    rows: int
    hidden: int
    index: str
    recall: float | None
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ShardedStats:
    """Versions, shards and sizes of a sharded collection.

    Attributes
    ----------
    version : int
        That is answered from.
    placement : str
        ``"sharded"``.
    shards : tuple of ShardStats
    shards_missing : dict of str to str
        Shards that could not be opened, and why.
    size_bytes : int
        Of all objects of this version.
    memory_bytes : int
        What indexes and codes keep in the memory of this process.
    """

    name: str
    dimension: int
    metric: Metric
    index_type: str
    ntotal: int
    version: int
    url: str
    target_recall: float
    measured_recall: float | None
    shards: tuple[ShardStats, ...]
    shards_missing: dict[str, str]
    tombstones: int
    size_bytes: int
    memory_bytes: int
    placement: str = field(default="sharded")

    @staticmethod
    def of(manifest: Manifest, url: str, group: Group) -> ShardedStats:
        shards = tuple(
            ShardStats(shard.name, shard.rows, shard.n_hidden, shard.index, shard.recall, shard.size_bytes)
            for shard in manifest.shards
        )
        return ShardedStats(
            manifest.name,
            manifest.dimension,
            manifest.metric,
            manifest.index_type,
            manifest.n_alive,
            manifest.version,
            url,
            manifest.target_recall,
            manifest.measured_recall,
            shards,
            dict(group.missing),
            sum(shard.hidden for shard in shards),
            sum(shard.size_bytes for shard in shards),
            sum(stats.memory_bytes for stats in group.stats().values()),
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShardedExplanation:
    """How a search was run, shard by shard. Prints readably.

    Attributes
    ----------
    version : int
    shards : dict of str to Explanation
    shards_missing : dict of str to str
    """

    version: int
    shards: Mapping[str, Explanation]
    shards_missing: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"version {self.version}, {len(self.shards)} shards"]
        for name, explanation in self.shards.items():
            lines.append(f"shard {name}: {explanation}")
        lines += [f"shard {name}: missing, {reason}" for name, reason in self.shards_missing.items()]
        return "\n".join(lines)
