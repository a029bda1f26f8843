"""From n, d, metric, memory and recall to an index: rules measured. Knows numbers, builds nothing.

The measurements behind each rule are in ``docs/decisions/007-advisor-rules.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from faissbase.ann.coarse import (
    CLUSTERING_ROUNDS,
    GROUPS_ASSIGNED,
    LLOYD_ROUNDS,
    groups_probed,
    lists_of,
    n_lists,
    sample_rows,
)
from faissbase.ann.grammar import POINTS_PER_CENTROID, Family
from faissbase.errors import InvalidInputError
from faissbase.types import Metric

EF_CONSTRUCTION = 100
EXACT_NUMBERS = 2_500_000
"""Below so many numbers (n times d) exact search answers about as fast as a graph, and needs no building."""

_LINKS = (32, 24, 16, 12, 8)
_LINK_BYTES_MAX = 1.4  # of d: keeps memory within 0.6 and disk within 1.35 of the float32 bytes
_LEAST_LISTS = 4
_FIXED_BYTES = 1 << 20
_MOST_ROTATED = 2048

# ef_search that reached a recall on three real sets.
_EF = ((0.0, 16.0), (0.9, 24.0), (0.95, 56.0), (0.98, 120.0), (0.99, 200.0), (1.0, 800.0))
_NPROBE = ((0.0, 4.0), (0.9, 6.0), (0.95, 8.0), (0.97, 16.0), (0.99, 32.0), (1.0, 128.0))

_BLAS_NS = 0.03  # a number of a matrix product, one thread
_ASSIGN_NS = 0.057  # a number while vectors are assigned to lists
_EXACT_NS = 0.09  # a number of a half-precision scan
_RERANK_US = 60.0  # 100 true vectors read for re-ranking


@dataclass(frozen=True, slots=True)
class Rejected:
    """An index that was not proposed, and why."""

    factory: str
    reason: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """An index with its forecast.

    Attributes
    ----------
    factory : str
        FAISS's factory string; ``"Flat"`` means: no index, search exactly.
    family : {'flat', 'hnsw', 'ivf', 'codes'}
    parameters : dict
        ``M``, ``ef_construction``, ``nlist``, ``m``, ``nbits``, as far as the family has them.
    ram_bytes_per_vector, disk_bytes_per_vector : float
        What searching keeps in memory, and the segment file; the float32 vectors on disk come on top.
    build_cpu_s : float
        CPU seconds to build.
    us_per_query : float
        One query, one thread, k = 10 at the recall asked.
    reason : str
    alternatives : tuple of Rejected
    """

    factory: str
    family: Family
    parameters: dict[str, Any]
    ram_bytes_per_vector: float
    disk_bytes_per_vector: float
    build_cpu_s: float
    us_per_query: float
    reason: str
    alternatives: tuple[Rejected, ...] = ()

    @property
    def ef_construction(self) -> int:
        """Of HNSW; 0 otherwise."""
        return int(self.parameters.get("ef_construction", 0))


def propose(
    n: int, d: int, metric: Metric, *, memory_bytes: int | None = None, recall: float = 0.95
) -> Proposal:
    """The index for ``n`` vectors of ``d`` numbers, with what it will cost.

    Parameters
    ----------
    n, d : int
    metric : Metric
    memory_bytes : int, optional
        What the index may keep in memory; None for as much as it likes.
    recall : float
        Recall@10 to reach; 1 asks for exact search.

    Raises
    ------
    InvalidInputError
        Nothing fits ``memory_bytes``; says how much the smallest needs.
    """
    if n < 0 or d < 1 or not 0.0 < recall <= 1.0:
        raise InvalidInputError(f"expected n >= 0, d >= 1, 0 < recall <= 1, got {n=}, {d=}, {recall=}")
    if n * d < EXACT_NUMBERS or recall == 1.0:
        return _exact(n, d, recall)
    candidates = list(_candidates(n, d, recall))
    rejected: list[Rejected] = []
    for candidate in candidates:
        needed = needed_bytes(candidate, n, d)
        if memory_bytes is None or needed <= memory_bytes:
            return _with(candidate, (*rejected, *_later(candidates, candidate)))
        rejected.append(Rejected(candidate.factory, f"needs {needed:,} bytes, {memory_bytes:,} are allowed"))
    least = min(needed_bytes(candidate, n, d) for candidate in candidates)
    raise InvalidInputError(
        f"{n:,} vectors of d={d} need at least {least:,} bytes of memory, {memory_bytes:,} are allowed"
    )


def needed_bytes(proposal: Proposal, n: int, d: int) -> int:
    """Memory of the whole index: codes, and the lists' centroids."""
    centroids = lists_of(n, d).centroid_bytes(d) if proposal.family == "ivf" else 0
    return math.ceil(n * proposal.ram_bytes_per_vector) + centroids + _FIXED_BYTES


def _with(proposal: Proposal, alternatives: tuple[Rejected, ...]) -> Proposal:
    values = {name: getattr(proposal, name) for name in proposal.__slots__}
    return Proposal(**(values | {"alternatives": alternatives}))


def _later(candidates: list[Proposal], chosen: Proposal) -> Iterator[Rejected]:
    for other in candidates[candidates.index(chosen) + 1 :]:
        yield Rejected(other.factory, f"about {other.us_per_query:,.0f} µs a query, for less memory")


def _exact(n: int, d: int, recall: float) -> Proposal:
    us = n * d * _EXACT_NS / 1e3
    reason = "recall 1 is asked: exact search"
    if recall < 1.0:
        reason = f"{n * d:,} numbers, fewer than {EXACT_NUMBERS:,}: exact search needs no index"
    return Proposal("Flat", "flat", {}, 2.0 * d, 0.0, 0.0, us, reason)


def _candidates(n: int, d: int, recall: float) -> Iterator[Proposal]:
    """All that can be trained, the fastest first."""
    yield _graph(n, d, recall)
    if n_lists(n) < _LEAST_LISTS:
        return
    yield _lists(n, d, recall, "SQ8", {}, 1.05 * (d + 8))
    m = n_parts(d, d // 2)
    if m:
        yield _lists(n, d, recall, f"PQ{m}x4fs", {"m": m, "nbits": 4}, 1.05 * (m / 2 + 8))
    yield _lists(n, d, recall, "RaBitQfs", {"nbits": 1}, 1.05 * (d / 8 + 16))
    m = n_parts(d, d // 4)
    if m:
        yield _lists(n, d, recall, f"PQ{m}x4fs", {"m": m, "nbits": 4}, 1.05 * (m / 2 + 8))


def _graph(n: int, d: int, recall: float) -> Proposal:
    m = n_links(d)
    graph = 8.0 * m + 16.0
    growth = math.log(max(n, 2)) / math.log(50_000)
    build_us = (60.0 + 0.25 * d + 2.2 * m) * growth
    us = _interpolated(_EF, recall) * (0.45 + 0.0033 * d) * max(1.0, growth) ** 2
    parameters = {"M": m, "ef_construction": EF_CONSTRUCTION}
    reason = "a graph over 8-bit codes, re-ranked by the true vectors: the fastest that fits"
    return Proposal(f"HNSW{m},SQ8", "hnsw", parameters, d + graph, graph, n * build_us / 1e6, us, reason)


def _lists(
    n: int, d: int, recall: float, code: str, sizes: dict[str, int], bytes_per_vector: float
) -> Proposal:
    lists = lists_of(n, d)
    nlist = lists.nlist
    nprobe = min(float(nlist), _interpolated(_NPROBE, recall) * math.sqrt(nlist / n_lists(n)))
    rounds, round_ns = (LLOYD_ROUNDS, _ASSIGN_NS) if lists.groups else (CLUSTERING_ROUNDS, _BLAS_NS)
    assigned = d * lists.compared(GROUPS_ASSIGNED)
    train_s = sample_rows(POINTS_PER_CENTROID * nlist, nlist, d) * assigned * rounds * round_ns / 1e9
    build_s = train_s + n * (assigned * _ASSIGN_NS / 1e9 + 3e-6)
    code_ns = _EXACT_NS * d * bytes_per_vector / (2.0 * d)
    coarse = d * lists.compared(groups_probed(round(nprobe), lists.groups))
    us = (coarse * 0.2 + nprobe * (n / nlist) * code_ns) / 1e3 + _RERANK_US
    reason = (
        "inverted lists of codes in memory, re-ranked by the true vectors on disk: memory allows no graph"
    )
    parameters = {"nlist": nlist, **sizes}
    factory = rotated(f"{lists.head},{code}", d)
    return Proposal(factory, "ivf", parameters, bytes_per_vector, bytes_per_vector, build_s, us, reason)


def rotated(factory: str, d: int) -> str:
    """The factory string with a random rotation in front, where its codes want one.

    One bit a number says little where a few numbers carry most of the distance: on SIFT, rotation brings
    recall@10 of RaBitQ's codes from .40 to .58. Text embeddings neither gain nor lose. Above 2,048 numbers
    there is none: to find a rotation takes as long as the cube of their number.

    >>> rotated("IVF64,RaBitQfs", 128), rotated("IVF64,SQ8", 128)
    ('RR128,IVF64,RaBitQfs', 'IVF64,SQ8')
    """
    return f"RR{d},{factory}" if "RaBitQ" in factory and d <= _MOST_ROTATED else factory


def _interpolated(table: tuple[tuple[float, float], ...], recall: float) -> float:
    for (low, low_value), (high, high_value) in pairwise(table):
        if recall <= high:
            return low_value + (recall - low) / (high - low) * (high_value - low_value)
    return table[-1][1]


def n_links(d: int) -> int:
    """M of HNSW: as many links as keep memory and disk within their bounds.

    >>> n_links(384), n_links(128)
    (32, 16)
    """
    return next((m for m in _LINKS if 8 * m + 16 <= _LINK_BYTES_MAX * d), _LINKS[-1])


def n_parts(d: int, most: int) -> int:
    """The largest m up to ``most`` that divides d; 0 where that leaves parts of more than 16 numbers.

    >>> n_parts(384, 192), n_parts(769, 384)
    (192, 0)
    """
    m = next((m for m in range(most, 0, -1) if d % m == 0), 0)
    return m if 16 * m >= d else 0


def sized(template: str, n: int, d: int) -> str | None:
    """A factory string with M, nlist and m filled in, ``"IVF,PQ"`` for instance; None where n is too few."""
    head, _, code = template.rpartition(",")
    if head == "HNSW":
        return f"HNSW{n_links(d)},{code}"
    if head == "IVF" and n_lists(n) < _LEAST_LISTS:
        return None
    filled = _code(code, n, d)
    if filled is None:
        return None
    return rotated(f"{lists_of(n, d).head},{filled}" if head else filled, d)


def _code(code: str, n: int, d: int) -> str | None:
    if code not in ("PQ", "PQfs"):
        return code
    nbits, most = (8, max(1, d // 4)) if code == "PQ" else (4, max(1, d // 2))
    if n < POINTS_PER_CENTROID << nbits:
        return None
    m = n_parts(d, most) or next(m for m in range(most, 0, -1) if d % m == 0)
    return f"PQ{m}" if code == "PQ" else f"PQ{m}x4fs"
