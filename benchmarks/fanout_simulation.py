"""Queries over shards on many workers, simulated from costs that were measured: knows numbers alone.

A query leaves its router, asks for every shard the replica whose worker has least to do (shards of one
worker in one call), and is answered when the slowest shard is. A worker does one call after the other. A call
that is later than 19 of 20 of its worker's last ones, as routers reckon it, or than ``hedge_s``, is asked
once more of the other replicas, one call in ten at most, of which three may be saved up; what comes second is
done all the same, and not waited for. Routers are as many as it takes, and all hops take as long.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from faissbase.sharded.latencies import Latencies

WORKERS = (1, 2, 4, 8, 16, 32, 64)
_HEDGED_SHARE = 0.1
_HEDGES_AT_ONCE = 3.0
_WARM_SHARE = 0.1
_CLIENTS_A_WORKER = 4
_LOAD = 0.5


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds that were measured.

    Attributes
    ----------
    shard_s : sequence of float
        CPU of a worker for one shard of a query; each time one of these is drawn.
    call_s : float
        CPU of a worker for a call, beside its shards.
    router_s : float
        CPU of a router for a query.
    hop_s : float
        From a router to a worker, or back.
    """

    shard_s: Sequence[float]
    call_s: float = 0.0
    router_s: float = 0.0
    hop_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Tier:
    """Shards on workers, with hedges or without; ``hedge_s`` None for as late as routers find it."""

    shards: int
    workers: int
    replicas: int = 1
    is_hedging: bool = False
    hedge_s: float | None = None

    def holders(self, shard: int) -> tuple[int, ...]:
        """The workers that hold a shard, as far from each other as they go."""
        step = max(1, self.workers // self.replicas)
        return tuple(dict.fromkeys((shard + step * i) % self.workers for i in range(self.replicas)))


@dataclass(slots=True)
class Outcome:
    """What came of a simulation; latencies in seconds, without those of its first queries."""

    latencies: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    n_hedges: int = 0

    @property
    def queries_per_s(self) -> float:
        return (len(self.ended) - 1) / (self.ended[-1] - self.ended[0])

    def quantile(self, share: float) -> float:
        return quantile(self.latencies, share)


def quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(slots=True)
class _Query:
    began: float
    open_shards: set[int]


class _Run:
    """One simulation: what will happen, in the order of time."""

    def __init__(self, tier: Tier, costs: Costs, chance: random.Random) -> None:
        self._tier = tier
        self._costs = costs
        self._chance = chance
        self._coming: list[tuple[float, int, Callable[[float], None]]] = []
        self._n_events = 0
        self._free_at = [0.0] * tier.workers
        self._asked = [0] * tier.workers
        self._hedges_left = _HEDGES_AT_ONCE
        self._usual = Latencies()
        self.on_end: Callable[[float], None] = lambda now: None
        self.outcome = Outcome()

    def at(self, time_s: float, do: Callable[[float], None]) -> None:
        self._n_events += 1  # what comes at one time happens in the order of asking
        heapq.heappush(self._coming, (time_s, self._n_events, do))

    def go(self, n_queries: int) -> Outcome:
        while self._coming and len(self.outcome.ended) < n_queries:
            now, _, do = heapq.heappop(self._coming)
            do(now)
        n_warm = int(_WARM_SHARE * len(self.outcome.latencies))
        del self.outcome.latencies[:n_warm], self.outcome.ended[:n_warm]
        return self.outcome

    def start(self, now: float) -> None:
        """A query reaches its router."""
        query = _Query(now, set(range(self._tier.shards)))
        self.at(now + self._costs.router_s, lambda now: self._ask(query, range(self._tier.shards), now))

    def _ask(self, query: _Query, shards: Iterable[int], now: float, without: int = -1) -> None:
        by_worker: dict[int, list[int]] = {}
        for shard in shards:
            holders = [worker for worker in self._tier.holders(shard) if worker != without]
            if holders:
                busy = {worker: (self._asked[worker], len(by_worker.get(worker, ()))) for worker in holders}
                by_worker.setdefault(min(holders, key=busy.__getitem__), []).append(shard)
        for worker, asked in by_worker.items():
            self._call(query, worker, asked, now, may_hedge=without < 0)

    def _call(self, query: _Query, worker: int, shards: list[int], now: float, *, may_hedge: bool) -> None:
        self._asked[worker] += 1
        self._hedges_left = min(_HEDGES_AT_ONCE, self._hedges_left + _HEDGED_SHARE)
        is_open = [True]

        def arrived(then: float) -> None:
            took = self._costs.call_s + sum(self._chance.choice(self._costs.shard_s) for _ in shards)
            self._free_at[worker] = max(then, self._free_at[worker]) + took
            self.at(self._free_at[worker] + self._costs.hop_s, answered)

        def answered(then: float) -> None:
            is_open[0] = False
            self._asked[worker] -= 1
            self.outcome.calls.append(then - now)
            self._usual.add(worker, then - now)
            self._answered(query, shards, then)

        def late(then: float) -> None:
            has_others = all(len(self._tier.holders(shard)) > 1 for shard in shards)
            if is_open[0] and has_others and self._hedges_left >= 1.0:
                self._hedges_left -= 1.0
                self.outcome.n_hedges += 1
                self._ask(query, [shard for shard in shards if shard in query.open_shards], then, worker)

        self.at(now + self._costs.hop_s, arrived)
        hedge_s = self._usual.p95_s(worker) if self._tier.hedge_s is None else self._tier.hedge_s
        if may_hedge and self._tier.is_hedging and hedge_s is not None:
            self.at(now + hedge_s, late)

    def _answered(self, query: _Query, shards: list[int], now: float) -> None:
        was_open = bool(query.open_shards)
        query.open_shards.difference_update(shards)
        if was_open and not query.open_shards:
            self.outcome.latencies.append(now - query.began)
            self.outcome.ended.append(now)
            self.on_end(now)


def arriving(tier: Tier, costs: Costs, rate: float, n_queries: int, seed: int = 0) -> Outcome:
    """``n_queries`` that come independently of one another, ``rate`` a second on average."""
    chance = random.Random(seed)
    run, now = _Run(tier, costs, chance), 0.0
    for _ in range(n_queries):
        now += chance.expovariate(rate)
        run.at(now, run.start)
    return run.go(n_queries)


def asking(tier: Tier, costs: Costs, clients: int, n_queries: int, seed: int = 0) -> Outcome:
    """So many clients, each of which asks again as soon as it is answered."""
    run = _Run(tier, costs, random.Random(seed))
    run.on_end = run.start
    for _ in range(clients):
        run.at(0.0, run.start)
    return run.go(n_queries)


@dataclass(frozen=True, slots=True)
class Row:
    """What a number of workers would do; times in seconds, at half of what they can."""

    workers: int
    queries_per_s: float
    p50_s: float
    p99_s: float
    p99_unhedged_s: float
    hedged_share: float
    routers: float


def row(shards: int, workers: int, costs: Costs, n_queries: int) -> Row:
    """Two replicas of each shard: how many queries a second, and how long one takes at half of that."""
    plain = Tier(shards, workers, replicas=2)
    most = asking(plain, costs, _CLIENTS_A_WORKER * workers, n_queries).queries_per_s
    unhedged = arriving(plain, costs, _LOAD * most, n_queries)
    hedged = arriving(Tier(shards, workers, 2, is_hedging=True), costs, _LOAD * most, n_queries)
    share = hedged.n_hedges / len(hedged.calls)
    times = hedged.quantile(0.5), hedged.quantile(0.99), unhedged.quantile(0.99)
    return Row(workers, most, *times, share, most * costs.router_s)


def table(shards: int, costs: Costs, n_queries: int) -> list[str]:
    """A line for each number of workers, labelled as simulated."""
    title = f"simulated from these costs: {shards} shards, two replicas, each worker one processor"
    line = "{:<18} {:>9} {:>8} {:>8} {:>14} {:>8} {:>9}"
    lines = [title, line.format("workers", "q/s", "p50 ms", "p99 ms", "p99 unhedged", "hedged", "routers")]
    for workers in WORKERS:
        found = row(shards, workers, costs, n_queries)
        times = (f"{1e3 * each:.2f}" for each in (found.p50_s, found.p99_s, found.p99_unhedged_s))
        told = f"{found.queries_per_s:,.0f}", *times, f"{found.hedged_share:.1%}", f"{found.routers:.1f}"
        lines.append(line.format(f"{workers} (simulated)", *told))
    return lines
