"""What building and searching one shard costs, from `Costs`. Pure numbers: no faiss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from faissbase.ann.coarse import CLUSTERING_ROUNDS, GROUPS_ASSIGNED, LLOYD_ROUNDS, groups_probed
from faissbase.sharded.costs import Costs
from faissbase.sharded.shards import ShardSpec

# Lists near a query are longer than the average: 1.0 to 1.2 times (decision 017).
IMBALANCE = 1.15
K = 10
"""Hits a query whose cost is forecast."""

_PQ_ROUNDS = 25
_PQ_POINTS = 256


@dataclass(frozen=True, slots=True)
class BuildCost:
    """CPU seconds of one thread."""

    train_s: float
    assign_s: float
    encode_s: float
    records_s: float

    @property
    def cpu_s(self) -> float:
        return self.train_s + self.assign_s + self.encode_s + self.records_s


@dataclass(frozen=True, slots=True)
class QueryCost:
    """CPU microseconds of one thread, and the rows that re-ranking reads."""

    coarse_us: float
    scan_us: float
    rerank_us: float
    answer_us: float
    codes_scanned: float
    rows_read: int

    @property
    def cpu_us(self) -> float:
        return self.coarse_us + self.scan_us + self.rerank_us + self.answer_us


def build_cost(spec: ShardSpec, costs: Costs) -> BuildCost:
    """What a shard of ``spec`` costs to build."""
    n, d, lists = spec.n, spec.d, spec.nlist
    records = n * costs.record_us / 1e6
    if not lists:
        return BuildCost(0.0, 0.0, 0.0, records)
    train_ns = costs.train_ratio * spec.train_rows * _clustering_ns(spec, costs) + _codebook_ns(spec, costs)
    encode_ns = n * costs.codecs[spec.codec].encode.at(d)
    return BuildCost(train_ns / 1e9, n * _assign_ns(spec, costs) / 1e9, encode_ns / 1e9, records)


def query_cost(spec: ShardSpec, costs: Costs, nprobe: int | None = None) -> QueryCost:
    """What one query for ten hits costs in a shard of ``spec``, with its nprobe or another."""
    codec = costs.codecs[spec.codec]
    if not spec.nlist:
        return QueryCost(0.0, spec.n * codec.scan.at(4 * spec.d) / 1e3, 0.0, costs.search_us, spec.n, 0)
    probes = min(spec.nlist, spec.nprobe if nprobe is None else nprobe)
    codes = min(float(spec.n), probes * spec.n / spec.nlist * IMBALANCE)
    coarse_ns = spec.nlist * costs.coarse.at(spec.d)
    if groups := spec.lists.groups:
        inside = spec.lists.compared(groups_probed(probes, groups)) - groups
        coarse_ns = groups * costs.coarse.at(spec.d) + inside * costs.grouped.at(spec.d)
    scan_ns = probes * codec.probe.at(spec.d) + codes * codec.scan.at(spec.compared_bytes)
    scan_ns += codec.start.at(spec.d)
    rows = min(spec.n, K * spec.rerank)
    rerank_us = rows * costs.rerank.at(spec.d) / 1e3
    return QueryCost(coarse_ns / 1e3, scan_ns / 1e3, rerank_us, costs.search_us, codes, rows)


def _clustering_ns(spec: ShardSpec, costs: Costs) -> float:
    """What finding the lists takes of each training row: in all lists, or in two levels and then in all."""
    if not spec.lists.groups:
        return CLUSTERING_ROUNDS * spec.nlist * costs.assign.at(spec.d)
    levels_ns = (CLUSTERING_ROUNDS + 1) * math.sqrt(spec.nlist) * costs.assign.at(spec.d)
    return levels_ns + LLOYD_ROUNDS * _assign_ns(spec, costs)


def _assign_ns(spec: ShardSpec, costs: Costs) -> float:
    """One vector to its list."""
    if groups := spec.lists.groups:
        inside = spec.lists.compared(GROUPS_ASSIGNED) - groups
        return groups * costs.assign.at(spec.d) + inside * costs.grouped_assign.at(spec.d)
    return spec.nlist * costs.assign.at(spec.d)


def _codebook_ns(spec: ShardSpec, costs: Costs) -> float:
    """k-means of the parts of a product quantizer."""
    if not spec.m:
        return 0.0
    words = 1 << spec.nbits
    points = min(spec.train_rows, _PQ_POINTS * words)
    return _PQ_ROUNDS * points * words * spec.m * costs.assign.at(spec.d / spec.m)
