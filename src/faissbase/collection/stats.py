"""Sizes and debts of a collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import orjson

from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.collection.segments import LiveSegment, spec_of
from faissbase.collection.store import Snapshot, Store
from faissbase.types import Metric


@dataclass(frozen=True, slots=True)
class Served:
    """What is open of a collection.

    Attributes
    ----------
    memory_bytes : int
        What its indexes keep in memory.
    version : int or None
        Of a dataset of shards, the one that is answered from; None of a collection in a folder.
    age_s : float
        How many seconds ago the store was asked for a newer version.
    recall : float or None
        As it was measured when the index was built; 1 where every search is exact.
    """

    memory_bytes: int
    version: int | None = None
    age_s: float = 0.0
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """Sizes and debts of a collection, for people and programs.

    Attributes
    ----------
    slots, tombstones : int
        Rows of the slot file, and how many of them are dead: `optimize` gives those back.
    index : str
        What answers: FAISS's factory string, or ``"exact"`` while there is no index.
    segments, slots_indexed : int
        How many pieces the index has, and how many slots they cover; the rest is searched exactly.
    index_bytes, memory_bytes : int
        The index files, and what index, codes and scans of this process keep in memory beyond mapped files.
    damaged_segments : dict of str to str
        Index files that cannot be used, and why; they are derived and will be built anew.
    measured : dict
        Of an index in one segment, for the default recall: ``recall_low``, ``us_per_query``, ``effort``,
        ``rerank``, ``build_cpu_s``, as far as it was measured when it was built.
    effort_factors : dict of str to float
        What `recall_report` has the effort multiplied by where filters leave so many per cent.
    """

    name: str
    dimension: int
    metric: Metric
    index_type: str
    ntotal: int
    slots: int
    tombstones: int
    generation: int
    vectors_bytes: int
    records_bytes: int
    index: str
    segments: int
    slots_indexed: int
    index_bytes: int
    memory_bytes: int
    damaged_segments: dict[str, str]
    measured: dict[str, float]
    effort_factors: dict[str, float]
    filter_cache_bytes: int
    path: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def recall(self) -> float | None:
        """At least, as it was measured for the default recall; 1 where every search is exact."""
        return self.measured.get("recall_low") if self.segments else 1.0


def stats_of(store: Store, snapshot: Snapshot, filter_cache_bytes: int) -> Stats:
    """What there is at a moment."""
    config, n = store.config, snapshot.view.n
    segments = snapshot.segments
    kinds = list(dict.fromkeys(spec_of(live.row).factory for live in segments))
    return Stats(
        name=config.name,
        dimension=config.dimension,
        metric=config.metric,
        index_type=config.index_type,
        ntotal=snapshot.n_alive,
        slots=n,
        tombstones=n - snapshot.n_alive,
        generation=snapshot.state.generation,
        vectors_bytes=n * config.dimension * 4,
        records_bytes=store.records.size_bytes(),
        index="; ".join(kinds) or "exact",
        segments=len(segments),
        slots_indexed=snapshot.n_indexed,
        index_bytes=sum(live.row.size_bytes for live in segments),
        memory_bytes=sum(live.index.ram_bytes for live in segments) + snapshot.view.half_bytes,
        damaged_segments=store.damaged_segments,
        measured=_measured(segments[0]) if len(segments) == 1 else {},
        effort_factors=store.tuning.changed,
        filter_cache_bytes=filter_cache_bytes,
        path=str(store.folder),
    )


def _measured(live: LiveSegment) -> dict[str, float]:
    choice = live.curve.choice_for(DEFAULT_RECALL) if live.curve else None
    facts = orjson.loads(live.row.facts)
    found = {"build_cpu_s": float(facts["build_cpu_s"])}
    if choice is not None:
        found |= {
            "recall_low": choice.recall_low,
            "us_per_query": choice.us_per_query,
            "effort": choice.knobs.effort,
            "rerank": choice.knobs.rerank,
        }
    return found
