"""A dataset of shards over machines: how many, which index, what it costs. Pure numbers: no faiss, no I/O.

>>> plan = plan_dataset(10**9, 768, ram_bytes=64 * 10**9, machines=6, replicas=2, costs=DEFAULT_COSTS)
>>> plan.shards, plan.spec.factory, round(plan.index_bytes / 1e9)
(18, 'RR768,IVF32768_HNSW32,RaBitQfs', 120)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from faissbase.ann.advisor import Rejected
from faissbase.collection import inputs
from faissbase.errors import InvalidInputError
from faissbase.sharded.costs import Costs
from faissbase.sharded.default_costs import DEFAULT_COSTS
from faissbase.sharded.forecast import BuildCost, QueryCost, build_cost, query_cost
from faissbase.sharded.shards import MAX_ROWS, ShardSpec, shard_specs
from faissbase.types import MAX_DIMENSION

MAX_SHARD_ROWS = 100_000_000
MAX_SHARD_BYTES = 256 * 10**9
"""Of float32 vectors: a worker keeps the file while it builds, and what fails is built again."""
LEAST_SHARD_ROWS = 1_000_000
"""Fewer rows are not worth another shard: each costs every query a coarse search and a round trip."""
USABLE_SHARE = 0.8
"""Of a machine's memory, for indexes; the rest is for the system, the process and pages of vectors."""
CORES = 8
EASY_PROBES = 0.25
"""SIFT wants a third to a sixth of the lists that text embeddings do (decision 016)."""

_MAX_N = 10**13
_MOST_MACHINES = 10_000


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """``n`` vectors of ``d`` numbers in shards over machines, with its forecast.

    Attributes
    ----------
    machines, cores, replicas : int
        Cores of each machine; machines that hold each shard.
    ram_bytes_allowed : int or None
        Of each machine.
    shards, rows_per_shard : int
    shards_per_machine : int
        Copies of shards that a machine holds.
    spec : ShardSpec
        The index of each shard.
    bytes_per_vector : float
        Memory for a vector's code and id.
    index_bytes : int
        Memory for one copy of all indexes, with their coarse quantizers.
    ram_bytes_per_machine, ram_bytes : int
        The same for what a machine holds, and for all replicas.
    vectors_bytes, codes_bytes, records_bytes : int
        What object storage holds, once.
    disk_bytes_per_machine : int
        Of local files, where each machine keeps what it serves.
    build : BuildCost
        Of all shards.
    query : QueryCost
        Of one query in one shard, at ``spec.nprobe``: as text embeddings want.
    query_easy : QueryCost
        The same for data like SIFT, which want a quarter of the lists.
    p50_ms, p50_ms_easy : float
        One query on idle machines: shards searched at once, one a core; rows that do not fit the memory
        that is left are read from disk one after another.
    reason : str
    rejected : tuple of Rejected
    """

    n: int
    d: int
    metric: str
    recall: float
    machines: int
    cores: int
    replicas: int
    ram_bytes_allowed: int | None
    shards: int
    rows_per_shard: int
    shards_per_machine: int
    spec: ShardSpec
    build: BuildCost
    query: QueryCost
    query_easy: QueryCost
    records_bytes: int
    p50_ms: float
    p50_ms_easy: float
    reason: str
    rejected: tuple[Rejected, ...] = ()

    @property
    def bytes_per_vector(self) -> float:
        return self.spec.bytes_per_vector

    @property
    def index_bytes(self) -> int:
        return self.shards * self.spec.ram_bytes

    @property
    def ram_bytes_per_machine(self) -> int:
        return self.shards_per_machine * self.spec.ram_bytes

    @property
    def ram_bytes(self) -> int:
        return self.replicas * self.index_bytes

    @property
    def vectors_bytes(self) -> int:
        return 4 * self.d * self.n

    @property
    def codes_bytes(self) -> int:
        return self.shards * self.spec.file_bytes

    @property
    def storage_bytes(self) -> int:
        return self.vectors_bytes + self.codes_bytes + self.records_bytes

    @property
    def disk_bytes_per_machine(self) -> int:
        return ceil(self.storage_bytes / self.shards * self.shards_per_machine)

    @property
    def build_core_hours(self) -> float:
        return self.build.cpu_s / 3600

    @property
    def build_hours(self) -> float:
        """With every core at work, as far as there are shards for them to work on."""
        return self.build_core_hours / (self.machines * self.cores)

    @property
    def cpu_ms_per_query(self) -> float:
        return self.shards * self.query.cpu_us / 1e3

    @property
    def cpu_ms_per_query_easy(self) -> float:
        return self.shards * self.query_easy.cpu_us / 1e3


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked for, checked."""

    n: int
    d: int
    metric: str
    recall: float
    replicas: int
    ram_bytes: int | None
    rows_per_shard: int | None

    def shards(self, machines: int) -> int:
        """As few as the bounds of a shard allow, the same number for each machine."""
        if self.rows_per_shard is not None:
            return ceil(self.n / self.rows_per_shard)
        most = min(MAX_SHARD_ROWS, MAX_SHARD_BYTES // (4 * self.d))
        least = ceil(self.n / most)
        even = machines * ceil(least / machines)
        return min(even, max(least, self.n // LEAST_SHARD_ROWS, 1))

    def copies(self, machines: int) -> int:
        """Of shards, on the machine that holds most."""
        return ceil(self.shards(machines) * self.replicas / machines)

    def specs(self, machines: int) -> list[ShardSpec]:
        rows = ceil(self.n / self.shards(machines))
        return shard_specs(rows, self.d, self.metric, recall=self.recall)

    @property
    def usable_bytes(self) -> float:
        return float("inf") if self.ram_bytes is None else USABLE_SHARE * self.ram_bytes


def plan_dataset(  # noqa: PLR0913  # what a plan depends on, all by name
    n: int,
    d: int,
    metric: str = "cosine",
    *,
    ram_bytes: int | None = None,
    machines: int = 1,
    cores: int = CORES,
    replicas: int = 1,
    recall: float = 0.95,
    costs: Costs = DEFAULT_COSTS,
    rows_per_shard: int | None = None,
) -> DatasetPlan:
    """How to spread ``n`` vectors of ``d`` numbers over machines, and what that costs.

    Parameters
    ----------
    n, d : int
    metric : {"l2", "ip", "cosine"}
    ram_bytes : int, optional
        Memory of each machine, of which four fifths are used; None for as much as it takes.
    machines, cores : int
        Machines, and cores of each.
    replicas : int
        Machines that hold each shard.
    recall : float
        Recall@10 to reach; 1 asks for exact search.
    costs : Costs
        Measured; see `faissbase.sharded.calibration`.
    rows_per_shard : int, optional
        Where none is given: as many as `MAX_SHARD_ROWS` and `MAX_SHARD_BYTES` allow, in a number of shards
        that is the same for each machine.

    Raises
    ------
    InvalidInputError
        Nothing fits: says how many machines, or how much memory, would do. Or numbers that are none.
    """
    wanted = _checked(n, d, metric, recall, replicas, ram_bytes, rows_per_shard)
    machines, cores = inputs.check_count(machines, "machines"), inputs.check_count(cores, "cores")
    if wanted.replicas > machines:
        raise InvalidInputError(
            f"{wanted.replicas} replicas are {wanted.replicas} machines at least, got {machines}"
        )
    return _largest_codes(wanted, machines, cores, costs)


def _largest_codes(wanted: _Wanted, machines: int, cores: int, costs: Costs) -> DatasetPlan:
    """The plan of the codes of most bytes that fit."""
    specs = wanted.specs(machines)
    rejected: list[Rejected] = []
    for at, spec in enumerate(specs):
        if _fits(wanted, machines, spec):
            plan = _planned(wanted, machines, cores, spec, costs)
            later = _later(wanted, machines, cores, specs[at + 1 :], costs)
            return replace(plan, rejected=(*rejected, *later))
        rejected.append(Rejected(spec.factory, _too_much(wanted, machines, spec)))
    least = min(specs, key=lambda spec: spec.ram_bytes)
    raise InvalidInputError(
        f"nothing holds {wanted.n:,} vectors of d={wanted.d}: "
        f"{least.factory} {_too_much(wanted, machines, least)}"
    )


def least_machines(
    n: int,
    d: int,
    metric: str = "cosine",
    *,
    ram_bytes: int | None = None,
    replicas: int = 1,
    recall: float = 0.95,
    rows_per_shard: int | None = None,
) -> int:
    """The fewest machines for codes that lose no recall once they are re-ranked: RaBitQ or larger.

    Raises
    ------
    InvalidInputError
        No number of machines will do; says what would.
    """
    wanted = _checked(n, d, metric, recall, replicas, ram_bytes, rows_per_shard)
    for codecs in (("Flat", "SQ8", "RaBitQfs"), ("PQfs", "PQ8")):
        for codec in reversed(codecs):
            found = _machines_for(wanted, codec)
            if found is not None:
                return found
    spec = min(wanted.specs(wanted.replicas), key=lambda spec: spec.ram_bytes)
    raise InvalidInputError(
        f"no number of machines holds {n:,} vectors of d={d}: {_too_much(wanted, wanted.replicas, spec)}"
    )


def _checked(
    n: Any, d: Any, metric: str, recall: Any, replicas: Any, ram_bytes: Any, rows_per_shard: Any
) -> _Wanted:
    rows, dimension = inputs.check_count(n, "n"), inputs.check_count(d, "d")
    if rows > _MAX_N:
        raise InvalidInputError(f"n must be at most {_MAX_N:,}, got {rows:,}")
    if dimension > MAX_DIMENSION:
        raise InvalidInputError(f"d must be 1 to {MAX_DIMENSION}, got {dimension}")
    ram = None if ram_bytes is None else inputs.check_count(ram_bytes, "ram_bytes")
    each = None if rows_per_shard is None else min(inputs.check_count(rows_per_shard, "rows_per_shard"), rows)
    if each is not None and each > MAX_ROWS:
        raise InvalidInputError(f"rows_per_shard must be at most {MAX_ROWS:,}, got {each:,}")
    fraction, copies = inputs.check_fraction(recall, "recall"), inputs.check_count(replicas, "replicas")
    return _Wanted(rows, dimension, metric, fraction, copies, ram, each)


def _fits(wanted: _Wanted, machines: int, spec: ShardSpec) -> bool:
    return wanted.copies(machines) * spec.ram_bytes <= wanted.usable_bytes


def _machines_for(wanted: _Wanted, codec: str, m: int | None = None) -> int | None:
    """The fewest machines that hold the smallest code of a kind; None where one shard is too much.

    Above a hundred, up to one in a hundred too many.
    """
    machines, most = wanted.replicas, wanted.shards(_MOST_MACHINES)
    while machines <= _MOST_MACHINES:
        specs = [spec for spec in wanted.specs(machines) if spec.codec == codec and m in (None, spec.m)]
        copies, is_finest = wanted.copies(machines), wanted.shards(machines) >= most
        if not specs and is_finest:
            return None
        if not specs:  # smaller shards may have it: few rows are searched exactly
            machines += 1 + machines // 100
            continue
        spec = specs[-1]
        if copies * spec.ram_bytes <= wanted.usable_bytes:
            return machines
        if copies == 1 and is_finest:
            return None
        needed = ceil(wanted.shards(machines) * wanted.replicas * spec.ram_bytes / wanted.usable_bytes)
        machines = max(machines + 1 + machines // 100, min(needed, 2 * machines))
    return None


def _too_much(wanted: _Wanted, machines: int, spec: ShardSpec) -> str:
    """Why a shard's index does not fit, and what would."""
    needed = wanted.copies(machines) * spec.ram_bytes
    assert wanted.ram_bytes is not None
    more = _machines_for(wanted, spec.codec, spec.m)
    ways = [f"{size(needed / USABLE_SHARE)} a machine"]
    if more is not None:
        ways.insert(0, f"{more:,} machines of {size(wanted.ram_bytes)}")
    return (
        f"needs {size(needed)} of memory a machine, {size(wanted.usable_bytes)} are usable of "
        f"{size(wanted.ram_bytes)}; it fits {' or '.join(ways)}"
    )


def size(size_bytes: float) -> str:
    """Bytes in decimal units, rounded up so that what is named is enough.

    >>> size(64_000_000_000), size(1_234_567), size(12)
    ('64 GB', '1.24 MB', '12 bytes')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= scale:
            return f"{ceil(size_bytes / scale * 100) / 100:g} {unit}"
    return f"{ceil(size_bytes)} bytes"


def _planned(wanted: _Wanted, machines: int, cores: int, spec: ShardSpec, costs: Costs) -> DatasetPlan:
    shards, one = wanted.shards(machines), build_cost(spec, costs)
    usual = query_cost(spec, costs)
    easy = query_cost(spec, costs, max(1, round(EASY_PROBES * spec.nprobe)))
    build = BuildCost(*(shards * part for part in (one.train_s, one.assign_s, one.encode_s, one.records_s)))
    cold = _cold_share(wanted, machines, spec)
    each = ceil(shards / machines)
    p50, p50_easy = (_p50_ms(query, each, cores, cold, costs) for query in (usual, easy))
    return DatasetPlan(
        wanted.n,
        wanted.d,
        wanted.metric,
        wanted.recall,
        machines,
        cores,
        wanted.replicas,
        wanted.ram_bytes,
        shards,
        spec.n,
        wanted.copies(machines),
        spec,
        build,
        usual,
        easy,
        ceil(wanted.n * costs.record_bytes),
        p50,
        p50_easy,
        _reason(wanted, spec),
    )


def _cold_share(wanted: _Wanted, machines: int, spec: ShardSpec) -> float:
    """Of the vectors that re-ranking reads, those that are not in memory."""
    if not spec.nlist or wanted.ram_bytes is None:
        return 0.0
    copies = wanted.copies(machines)
    free = wanted.ram_bytes - copies * spec.ram_bytes
    return max(0.0, 1.0 - free / (copies * 4.0 * spec.n * spec.d))


def _p50_ms(query: QueryCost, shards: int, cores: int, cold: float, costs: Costs) -> float:
    """One query on idle machines: a core searches one shard after another, and waits for its reads."""
    reads_us = query.rows_read * cold * costs.read_us
    return costs.network_ms + ceil(shards / cores) * (query.cpu_us + reads_us) / 1e3


def _reason(wanted: _Wanted, spec: ShardSpec) -> str:
    if not spec.nlist:
        asked = "recall 1 is asked" if wanted.recall == 1 else f"{spec.n:,} vectors a shard are few"
        return f"{asked}: exact search of the true vectors"
    first = "the codes of most bytes that fit the memory" if wanted.ram_bytes else "no bound on memory"
    reranked = f", {spec.rerank}k candidates re-ranked by the true vectors" if spec.rerank > 1 else ""
    return f"{first}{reranked}"


def _later(
    wanted: _Wanted, machines: int, cores: int, specs: list[ShardSpec], costs: Costs
) -> Iterator[Rejected]:
    for spec in specs:
        plan = _planned(wanted, machines, cores, spec, costs)
        yield Rejected(
            spec.factory,
            f"{size(plan.ram_bytes_per_machine)} a machine would do, for less of each vector: "
            f"{plan.cpu_ms_per_query:,.0f} ms of CPU a query",
        )
