"""The simulated fan-out against what can be computed: queues, the slowest of many, hedges, saturation."""

from __future__ import annotations

import random

import pytest
from benchmarks.fanout_simulation import Costs, Outcome, Tier, arriving, asking, row, table


def mean(outcome: Outcome) -> float:
    return sum(outcome.latencies) / len(outcome.latencies)


def test_one_query_at_a_time_takes_the_sum_of_its_parts() -> None:
    costs = Costs([0.004], call_s=0.001, router_s=0.0005, hop_s=0.0002)
    found = asking(Tier(shards=3, workers=1), costs, clients=1, n_queries=50)
    assert found.latencies == pytest.approx([0.0005 + 2 * 0.0002 + 0.001 + 3 * 0.004] * 45)
    assert found.queries_per_s == pytest.approx(1 / 0.0139)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_worker_of_constant_service_is_a_queue_m_d_1(load: float) -> None:
    """**Source**: Pollaczek (1930), Khinchin (1932): the mean wait is ρ s / 2 (1 − ρ)."""
    found = arriving(Tier(shards=1, workers=1), Costs([1.0]), rate=load, n_queries=20_000)
    assert mean(found) == pytest.approx(1 + load / (2 * (1 - load)), rel=0.04)


def test_one_worker_of_exponential_service_is_a_queue_m_m_1() -> None:
    chance = random.Random(1)
    drawn = [chance.expovariate(1.0) for _ in range(100_000)]
    scale = len(drawn) / sum(drawn)
    found = arriving(Tier(1, 1), Costs([scale * each for each in drawn]), rate=0.5, n_queries=20_000)
    assert mean(found) == pytest.approx(1 / (1 - 0.5), rel=0.04)


def test_a_query_is_as_slow_as_its_slowest_shard() -> None:
    """The mean of the largest of n exponential times is the nth harmonic number."""
    chance = random.Random(2)
    costs = Costs([chance.expovariate(1.0) for _ in range(100_000)])
    found = asking(Tier(shards=8, workers=8), costs, clients=1, n_queries=10_000)
    assert mean(found) == pytest.approx(sum(1 / i for i in range(1, 9)), rel=0.02)


def test_workers_without_variance_serve_in_proportion_to_their_number() -> None:
    costs = Costs([0.01])
    rates = [asking(Tier(8, workers), costs, 8 * workers, 4000).queries_per_s for workers in (1, 2, 4, 8)]
    assert rates == pytest.approx([12.5, 25, 50, 100], rel=0.02)


def test_a_hedge_brings_the_answer_of_the_other_replica() -> None:
    costs = Costs([1.0] * 49 + [100.0])
    plain, hedged = (
        arriving(Tier(1, 2, 2, is_hedging, hedge_s=1.5), costs, rate=0.0005, n_queries=10_000)
        for is_hedging in (False, True)
    )
    assert plain.quantile(0.99) == 100.0
    assert hedged.quantile(0.99) == 2.5  # asked again at 1.5
    assert hedged.n_hedges / 10_000 == pytest.approx(1 / 50, rel=0.1)


def test_what_is_late_is_learnt_from_each_worker() -> None:
    # One call in two hundred is a hundred times as long.
    costs = Costs([1.0 + i / 1000 for i in range(199)] + [100.0])
    plain, hedged = (
        arriving(Tier(4, 4, 2, is_hedging), costs, rate=0.001, n_queries=5000) for is_hedging in (False, True)
    )
    assert plain.quantile(0.99) == 100.0
    assert hedged.quantile(0.99) < 10.0


def test_no_more_than_one_call_in_ten_is_hedged() -> None:
    found = arriving(Tier(1, 2, 2, is_hedging=True, hedge_s=0.5), Costs([1.0]), rate=0.1, n_queries=5000)
    assert found.n_hedges <= 0.1 * len(found.calls) + 3


def test_replicas_are_on_different_workers_and_evenly_spread() -> None:
    held = [worker for shard in range(64) for worker in Tier(64, 16, replicas=2).holders(shard)]
    assert {held.count(worker) for worker in range(16)} == {8}
    assert Tier(4, 1, replicas=2).holders(3) == (0,)


def test_the_table_says_that_it_is_simulated_and_grows_with_workers() -> None:
    costs = Costs([0.001, 0.002], call_s=0.0003, router_s=0.0004, hop_s=0.0003)
    few, many = (row(64, workers, costs, 400) for workers in (2, 16))
    assert many.queries_per_s > 5 * few.queries_per_s
    assert few.p50_s <= few.p99_s
    lines = table(4, costs, 60)
    assert len(lines) == 9
    assert all("simulated" in each for each in (lines[0], *lines[2:]))
