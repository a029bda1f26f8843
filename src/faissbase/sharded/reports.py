"""What a sharded collection tells of itself. Values that print readably."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from faissbase.collection.answers import Explanation
from faissbase.sharded.compaction import Merged
from faissbase.sharded.group import Group
from faissbase.sharded.manifest import Manifest
from faissbase.types import Metric, SearchResult

_FLAT = "Flat"


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
    slots, tombstones : int
        Rows of all shards, and how many of them count no more.
    index : str
        FAISS's factory strings, or ``"exact"`` while no shard has an index.
    slots_indexed : int
        Rows of the shards that have one.
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
    slots: int
    tombstones: int
    index: str
    slots_indexed: int
    size_bytes: int
    memory_bytes: int
    placement: str = field(default="sharded")

    @staticmethod
    def of(manifest: Manifest, url: str, group: Group) -> ShardedStats:
        shards = tuple(
            ShardStats(shard.name, shard.rows, shard.n_hidden, shard.index, shard.recall, shard.size_bytes)
            for shard in manifest.shards
        )
        kinds = dict.fromkeys(shard.index for shard in shards if shard.index != _FLAT)
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
            slots=sum(shard.rows for shard in shards),
            tombstones=sum(shard.hidden for shard in shards),
            index="; ".join(kinds) or "exact",
            slots_indexed=sum(shard.rows for shard in shards if shard.index != _FLAT),
            size_bytes=sum(shard.size_bytes for shard in shards),
            memory_bytes=sum(stats.memory_bytes for stats in group.stats().values()),
        )

    @staticmethod
    def of_dict(facts: Mapping[str, Any]) -> ShardedStats:
        """What `as_dict` has made."""
        shards = tuple(ShardStats(**each) for each in facts["shards"])
        return ShardedStats(**{**facts, "shards": shards})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class ShardedPlan:
    """The plans of all shards as one: ``path`` is ``"several"`` where they differ."""

    path: str
    n_slots: int
    n_matching: int
    predicted_ms: dict[str, float]
    target: float


def _summed(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}


@dataclass(frozen=True, slots=True)
class ShardedOptimizeReport:
    """What `ShardedCollection.optimize` did.

    Attributes
    ----------
    version : int
        The newest that was seen at its end.
    slots_before, slots_after : int
        Rows of all shards, hidden ones included.
    shards_before, shards_after : int
    rows_rewritten : int
        Records that were read and written again.
    hidden_dropped : int
        Replaced and deleted rows that are in no shard any more.
    merges : int
        How many shards were made.
    """

    version: int
    slots_before: int
    slots_after: int
    shards_before: int
    shards_after: int
    rows_rewritten: int
    hidden_dropped: int
    merges: int

    @staticmethod
    def of(before: Manifest, after: Manifest, merged: Sequence[Merged]) -> ShardedOptimizeReport:
        return ShardedOptimizeReport(
            after.version,
            sum(shard.rows for shard in before.shards),
            sum(shard.rows for shard in after.shards),
            len(before.shards),
            len(after.shards),
            sum(each.rows for each in merged),
            sum(each.hidden_dropped for each in merged),
            len(merged),
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
    result : SearchResult
        The answer, of all shards.
    """

    version: int
    shards: Mapping[str, Explanation]
    shards_missing: Mapping[str, str]
    result: SearchResult = field(repr=False)

    @property
    def plan(self) -> ShardedPlan:
        """All shards together."""
        plans = [each.plan for each in self.shards.values()]
        paths = {plan.path for plan in plans}
        return ShardedPlan(
            paths.pop() if len(paths) == 1 else SEVERAL if paths else "none",
            sum(plan.n_slots for plan in plans),
            sum(plan.n_matching for plan in plans),
            _summed([plan.predicted_ms for plan in plans]),
            max((plan.target for plan in plans), default=1.0),
        )

    @property
    def times_ms(self) -> dict[str, float]:
        """Of each step, the times of all shards together."""
        return _summed([each.times_ms for each in self.shards.values()])

    def __str__(self) -> str:
        lines = [f"version {self.version}, {len(self.shards)} shards"]
        for name, explanation in self.shards.items():
            lines.append(f"shard {name}: {explanation}")
        lines += [f"shard {name}: missing, {reason}" for name, reason in self.shards_missing.items()]
        return "\n".join(lines)
