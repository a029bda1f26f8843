"""What is proposed for a shard can be trained, and what cannot be built is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faissbase.errors import InvalidInputError
from faissbase.sharded import calculate_optimal_nlist, calculate_optimal_nprobe, calculate_optimal_pq_params
from faissbase.sharded.parameters import checked_plan, trainable


@given(st.integers(1, 10**10))
def test_every_list_has_vectors_to_train_it(n: int) -> None:
    nlist = calculate_optimal_nlist(n)
    assert nlist == 1 or nlist * 64 <= n
    assert nlist & (nlist - 1) == 0


def test_lists_grow_with_the_root_of_the_shard() -> None:
    sizes = (10**4, 10**5, 10**6, 10**7, 10**8)
    assert [calculate_optimal_nlist(n) for n in sizes] == [128, 1024, 4096, 16384, 32768]


@given(st.integers(1, 4096), st.floats(0.01, 1.0))
def test_parts_divide_the_dimension(d: int, recall: float) -> None:
    m, nbits = calculate_optimal_pq_params(d, recall)
    assert d % m == 0
    assert nbits == 8


@given(st.integers(1, 4096), st.floats(1.001, 1000))
def test_codes_are_as_small_as_asked(d: int, smaller: float) -> None:
    m, nbits = calculate_optimal_pq_params(d, smaller)
    assert d % m == 0
    if m > 1:
        assert m * nbits * smaller <= 32 * d


def test_more_recall_takes_finer_codes_and_more_lists() -> None:
    parts = [calculate_optimal_pq_params(128, recall)[0] for recall in (0.3, 0.6, 0.75, 0.85, 0.95)]
    assert parts == [8, 16, 32, 64, 128]
    probes = [calculate_optimal_nprobe(4096, recall) for recall in (0.5, 0.8, 0.9, 0.95, 0.99, 1.0)]
    assert probes == sorted(probes)
    assert probes[-1] == 4096


@given(st.integers(1, 10**6), st.floats(0.01, 1.0))
def test_no_more_lists_are_searched_than_there_are(nlist: int, recall: float) -> None:
    assert 1 <= calculate_optimal_nprobe(nlist, recall) <= nlist


@pytest.mark.parametrize("n", [0, -1, 2.5, "many", None, True])
def test_numbers_that_are_none_are_refused(n: Any) -> None:
    for call in (calculate_optimal_nlist, calculate_optimal_nprobe, calculate_optimal_pq_params):
        with pytest.raises(InvalidInputError, match=str(n)):
            call(n)


def test_targets_out_of_range_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"target must be a number above 0, got -1"):
        calculate_optimal_pq_params(128, -1)
    with pytest.raises(InvalidInputError, match=r"recall must be above 0 and at most 1, got 1.5"):
        calculate_optimal_nprobe(128, 1.5)
    with pytest.raises(InvalidInputError, match="65536"):
        calculate_optimal_pq_params(65_536)


def test_what_faiss_cannot_build_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"m=10 does not divide the dimension 128: take one of \[4, 8, 16\]"
    ):
        checked_plan(128, 16, 10, 8)
    with pytest.raises(InvalidInputError, match="nbits must be 1 to 12, got 13"):
        checked_plan(128, 16, 8, 13)
    for nlist, m in ((0, 8), (16, 0)):
        with pytest.raises(InvalidInputError, match="got 0"):
            checked_plan(128, nlist, m, 8)


def test_a_plan_for_too_few_vectors_becomes_smaller_and_says_so() -> None:
    plan = checked_plan(128, 1024, 16, 8)
    assert trainable(plan, 1024) == plan
    small = trainable(plan, 200)
    assert (small.nlist, small.nbits) == (2, 7)
    assert small.changes == ("nlist=2 instead of 1024", "nbits=7 instead of 8")
    with pytest.raises(InvalidInputError, match="2 vectors at least, got 1"):
        trainable(plan, 1)
