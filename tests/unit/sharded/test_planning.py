"""Every plan can be built and fits, or says what would; its figures follow from the costs."""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from faissbase.ann import grammar
from faissbase.errors import InvalidInputError
from faissbase.sharded.costs import Line
from faissbase.sharded.default_costs import DEFAULT_COSTS
from faissbase.sharded.forecast import build_cost, query_cost
from faissbase.sharded.planning import (
    LEAST_SHARD_ROWS,
    MAX_SHARD_BYTES,
    MAX_SHARD_ROWS,
    USABLE_SHARE,
    DatasetPlan,
    least_machines,
    plan_dataset,
)
from faissbase.sharded.shards import ShardSpec, shard_spec, shard_specs

GB = 10**9
COUNTS = st.integers(1, 10**10)
DIMENSIONS = st.integers(1, 4096)
MACHINES = st.integers(1, 200)
MEMORY = st.integers(10**6, 10**13)
RECALLS = st.sampled_from([0.5, 0.9, 0.95, 0.98, 0.995, 1.0])


def _plan_or_reason(n: int, d: int, **wanted: Any) -> DatasetPlan | str:
    try:
        return plan_dataset(n, d, **wanted)
    except InvalidInputError as error:
        return str(error)


def _assert_trainable(spec: ShardSpec) -> None:
    parsed = grammar.parse(spec.factory, spec.d)
    assert parsed.min_points <= spec.train_rows <= spec.n or not spec.nlist
    if spec.m:
        assert spec.d % spec.m == 0
        assert spec.train_rows >= grammar.POINTS_PER_CENTROID << spec.nbits
    assert spec.train_rows >= (16 if spec.lists.groups else 64) * spec.nlist
    assert spec.nprobe <= spec.nlist
    assert bool(spec.lists.groups) == ("SQfp16)" in spec.factory)
    assert spec.lists.groups <= spec.nlist


@given(COUNTS, DIMENSIONS, MEMORY, MACHINES, st.integers(1, 3), RECALLS)
@settings(max_examples=300, deadline=None)
def test_a_plan_holds_every_vector_in_the_memory_there_is_or_says_what_would(
    n: int, d: int, ram: int, machines: int, replicas: int, recall: float
) -> None:
    plan = _plan_or_reason(n, d, ram_bytes=ram, machines=machines, replicas=replicas, recall=recall)
    if isinstance(plan, str):
        assert "it fits" in plan or "replicas are" in plan
        return
    _assert_trainable(plan.spec)
    assert plan.shards * plan.rows_per_shard >= n > (plan.shards - 1) * plan.rows_per_shard
    assert plan.rows_per_shard <= MAX_SHARD_ROWS
    assert 4 * d * plan.rows_per_shard <= MAX_SHARD_BYTES
    assert plan.shards == 1 or plan.rows_per_shard >= min(LEAST_SHARD_ROWS, MAX_SHARD_BYTES // (8 * d))
    assert plan.ram_bytes_per_machine <= USABLE_SHARE * ram
    assert plan.shards_per_machine * machines >= plan.shards * replicas
    assert plan.storage_bytes >= 4 * n * d
    assert 0 < plan.cpu_ms_per_query_easy <= plan.cpu_ms_per_query
    assert 0 < plan.p50_ms_easy <= plan.p50_ms


@given(COUNTS, DIMENSIONS, MACHINES, MEMORY, st.floats(1, 100))
@settings(max_examples=200, deadline=None)
def test_more_memory_never_takes_smaller_codes(n: int, d: int, machines: int, ram: int, more: float) -> None:
    small = _plan_or_reason(n, d, ram_bytes=ram, machines=machines)
    if isinstance(small, str):
        return
    large = plan_dataset(n, d, ram_bytes=int(ram * more), machines=machines)
    assert large.bytes_per_vector >= small.bytes_per_vector
    assert large.shards == small.shards


@given(COUNTS, DIMENSIONS, st.integers(10**8, 10**12), st.integers(1, 3))
@example(11_273_605, 1, 10**8, 3)  # exact search of smaller shards takes less than the codes of larger ones
@settings(max_examples=100, deadline=None)
def test_the_fewest_machines_hold_it(n: int, d: int, ram: int, replicas: int) -> None:
    try:
        machines = least_machines(n, d, ram_bytes=ram, replicas=replicas)
    except InvalidInputError:
        machines = 0
    if not machines:
        assert isinstance(_plan_or_reason(n, d, ram_bytes=ram, machines=500, replicas=replicas), str)
        return
    plan = plan_dataset(n, d, ram_bytes=ram, machines=machines, replicas=replicas)
    assert plan.machines == machines >= replicas


@given(st.integers(1, 60_000), st.integers(1, 4096))
@settings(max_examples=200, deadline=None)
def test_every_shard_has_indexes_that_can_be_trained_from_large_codes_to_small(n: int, d: int) -> None:
    specs = shard_specs(n, d)
    for spec in specs:
        _assert_trainable(spec)
    sizes = [spec.bytes_per_vector for spec in specs]
    assert sizes == sorted(sizes, reverse=True)
    assert (specs[0].factory == "Flat") == (n * d < 2_500_000 or n < 256)


# Prime, odd and even dimensions, and the least rows at which each kind of code is proposed.
@pytest.mark.parametrize(
    ("n", "d"), [(256, 9_800), (625, 4_001), (20_000, 127), (10_000, 250), (13_200, 192)]
)
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_what_is_proposed_is_trained_and_found_again_by_faiss(n: int, d: int, metric: str) -> None:
    xb = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    xb /= np.linalg.norm(xb, axis=1, keepdims=True)
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    for spec in shard_specs(n, d, metric):
        index = faiss.index_factory(d, spec.factory, kind)
        lists = faiss.downcast_index(faiss.extract_index_ivf(index))
        lists.cp.niter = 1
        if hasattr(lists, "pq"):
            lists.pq.cp.niter = 1
        if hasattr(lists, "do_polysemous_training"):
            lists.do_polysemous_training = False
        index.train(xb[: spec.train_rows])
        index.add(xb)
        lists.nprobe = spec.nprobe
        _, found = index.search(xb[:5], 10 * spec.rerank)
        assert (found == np.arange(5)[:, None]).any(axis=1).all(), spec.factory
        assert lists.nlist == spec.nlist
        if not spec.factory.endswith("fs"):
            assert lists.code_size == spec.code_bytes


def test_faiss_knows_every_kind_of_large_shard() -> None:
    for n, d in ((1_000_000, 128), (100_000_000, 768)):
        for spec in shard_specs(n, d):
            whole = faiss.index_factory(d, spec.factory)
            index = faiss.extract_index_ivf(whole)
            assert index.nlist == spec.nlist
            assert faiss.downcast_index(index.quantizer).nlist == spec.lists.groups
            assert index.cp.niter == 10


def _billion() -> DatasetPlan:
    return plan_dataset(10**9, 768, ram_bytes=64 * GB, machines=6, replicas=2)


def test_a_billion_vectors_are_planned_about_as_on_paper() -> None:
    plan = _billion()
    assert plan.spec.codec == "RaBitQfs"
    assert 115 * GB <= plan.index_bytes <= 125 * GB
    assert 3_070 * GB <= plan.storage_bytes <= 3_500 * GB
    assert least_machines(10**9, 768, ram_bytes=64 * GB, replicas=2) in (5, 6)
    assert 5 <= plan.build_core_hours <= 210  # the estimate compares every row with every centroid
    # On paper 40, for data like SIFT and one quantizer for all: 18 quantizers and measured codes cost more.
    assert 40 <= plan.cpu_ms_per_query_easy <= 40 * 6
    assert plan.cpu_ms_per_query_easy < plan.cpu_ms_per_query < 1_000


def test_a_billion_small_vectors_too() -> None:
    plan = plan_dataset(10**9, 128, ram_bytes=64 * GB, machines=2, replicas=2)
    assert 30 * GB <= plan.index_bytes <= 45 * GB
    assert 35 / 5 <= plan.build_core_hours <= 35 * 2
    assert 7 <= plan.cpu_ms_per_query_easy <= 7 * 8


def test_what_fits_nothing_names_machines_and_memory_that_do() -> None:
    refused = str(_plan_or_reason(10**9, 768, ram_bytes=8 * GB, machines=4))
    named = re.search(r"it fits (\d+) machines of 8 GB or ([\d.]+) GB a machine", refused)
    assert named is not None
    machines, ram_bytes = int(named[1]), ceil(float(named[2]) * GB)
    assert plan_dataset(10**9, 768, ram_bytes=8 * GB, machines=machines).spec.codec == "PQ8"
    assert isinstance(_plan_or_reason(10**9, 768, ram_bytes=8 * GB, machines=machines - 1), str)
    assert plan_dataset(10**9, 768, ram_bytes=ram_bytes, machines=4).spec.codec == "PQ8"


def test_larger_codes_say_what_they_would_take() -> None:
    reasons = {other.factory.rpartition(",")[2]: other.reason for other in _billion().rejected}
    assert "it fits 9 machines of 64 GB" in reasons["PQ384x4fs"]
    assert plan_dataset(10**9, 768, ram_bytes=64 * GB, machines=9, replicas=2).spec.codec == "PQfs"
    assert plan_dataset(10**9, 768, ram_bytes=64 * GB, machines=8, replicas=2).spec.codec == "RaBitQfs"
    assert "ms of CPU a query" in reasons["PQ192x4fs"]


def test_rows_per_shard_are_what_was_asked() -> None:
    plan = plan_dataset(10**8, 64, machines=3, rows_per_shard=7_000_000)
    assert (plan.shards, plan.shards_per_machine) == (15, 5)
    with pytest.raises(InvalidInputError, match="rows_per_shard must be at most"):
        plan_dataset(10**12, 8, rows_per_shard=10**12)


def test_few_rows_are_one_shard_and_exact() -> None:
    plan = plan_dataset(1_000, 64, machines=6, replicas=2)
    assert (plan.shards, plan.spec.factory, plan.query.rows_read) == (1, "Flat", 0)
    assert plan.codes_bytes == 0


def test_recall_one_scans_true_vectors_in_memory_that_holds_them() -> None:
    plan = plan_dataset(10**7, 100, recall=1.0, ram_bytes=64 * GB)
    assert (plan.spec.factory, plan.bytes_per_vector) == ("Flat", 400)
    with pytest.raises(InvalidInputError, match="it fits"):
        plan_dataset(10**8, 100, recall=1.0, ram_bytes=8 * GB)


def test_more_recall_probes_more_lists_and_re_ranks_more() -> None:
    reranks = {spec.factory.split(",")[-1]: spec.rerank for spec in shard_specs(10**6, 128)}
    assert reranks == {"SQ8": 1, "PQ64x4fs": 4, "RaBitQfs": 16, "PQ32x4fs": 16, "PQ8x8": 16}
    specs = [
        shard_spec(10**7, 128, ram_bytes=360_000_000, recall=recall) for recall in (0.9, 0.95, 0.99, 0.999)
    ]
    assert [spec.rerank for spec in specs] == [16, 16, 32, 64]
    probes = [spec.nprobe for spec in specs]
    assert probes == sorted(probes)


def test_figures_follow_the_costs() -> None:
    spec = shard_spec(10**7, 128, ram_bytes=360_000_000)
    assign, grouped = DEFAULT_COSTS.assign, DEFAULT_COSTS.grouped_assign
    twice = replace(
        DEFAULT_COSTS,
        assign=Line(2 * assign.base, 2 * assign.slope),
        grouped_assign=Line(2 * grouped.base, 2 * grouped.slope),
    )
    once, more = build_cost(spec, DEFAULT_COSTS), build_cost(spec, twice)
    assert more.assign_s == pytest.approx(2 * once.assign_s)
    assert more.train_s == pytest.approx(2 * once.train_s)
    assert more.encode_s == once.encode_s
    assert once.cpu_s == pytest.approx(once.train_s + once.assign_s + once.encode_s + once.records_s)
    cost = query_cost(spec, DEFAULT_COSTS)
    assert cost.cpu_us == pytest.approx(cost.coarse_us + cost.scan_us + cost.rerank_us + cost.answer_us)
    assert cost.rows_read == 160
    assert cost.rerank_us == pytest.approx(160 * DEFAULT_COSTS.rerank.at(128) / 1e3)
    assert query_cost(spec, DEFAULT_COSTS, 1).codes_scanned < cost.codes_scanned <= spec.n
    assert query_cost(spec, DEFAULT_COSTS, spec.nlist).codes_scanned == spec.n


def test_a_second_replica_costs_memory_and_no_cpu() -> None:
    one, two = (plan_dataset(10**8, 128, machines=4, replicas=r) for r in (1, 2))
    assert two.ram_bytes == 2 * one.ram_bytes
    assert two.cpu_ms_per_query == one.cpu_ms_per_query
    assert two.storage_bytes == one.storage_bytes


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n": 0}, "n must be a whole number of 1 or more, got 0"),
        ({"n": 10**14}, "n must be at most"),
        ({"d": 70_000}, "d must be 1 to 65535, got 70000"),
        ({"metric": "hamming"}, "metric must be one of l2, ip, cosine, got 'hamming'"),
        ({"recall": 1.5}, "recall must be above 0 and at most 1"),
        ({"ram_bytes": 0}, "ram_bytes must be"),
        ({"machines": 0}, "machines must be"),
        ({"cores": 0}, "cores must be"),
        ({"machines": 2, "replicas": 3}, "3 replicas are 3 machines at least, got 2"),
        ({"rows_per_shard": 0}, "rows_per_shard must be"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(changed: dict[str, int], told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        plan_dataset(**({"n": 1000, "d": 8} | changed))  # type: ignore[arg-type]  # wrong on purpose


def test_a_shard_beyond_its_memory_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nothing fits a shard of 1,000,000 vectors of d=128"):
        shard_spec(1_000_000, 128, ram_bytes=1_000)
    with pytest.raises(InvalidInputError, match="use more shards"):
        shard_spec(10**11, 8)
