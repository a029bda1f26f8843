"""How many lists, in how many groups: sizes that train, in bounded memory, and are found again."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faissbase.ann.build import Builder
from faissbase.ann.coarse import (
    GROUPS_ASSIGNED,
    LISTS_LEAST,
    Lists,
    groups_probed,
    lists_of,
    n_groups,
    n_lists,
    sample_rows,
)
from faissbase.ann.engine import innermost
from faissbase.ann.grammar import POINTS_PER_CENTROID, parse
from faissbase.ann.spec import resolve


@given(st.integers(1, 10**10), st.integers(1, 65_535))
def test_lists_are_as_many_as_the_rows_and_a_bounded_sample_train(n: int, d: int) -> None:
    lists = lists_of(n, d)
    assert POINTS_PER_CENTROID * lists.nlist <= max(n, POINTS_PER_CENTROID)
    assert bool(lists.groups) == (lists.nlist >= LISTS_LEAST and lists != Lists(n_lists(n)))
    assert lists.groups <= lists.nlist
    parsed = parse(f"{lists.head},Flat", d)
    assert parsed.nlist == lists.nlist
    rows = sample_rows(parsed.good_points, parsed.nlist, d)
    if lists.groups:
        assert 16 * lists.nlist <= rows
        assert 4 * d * rows <= 2 << 30 or rows == 20_000
    assert lists.centroid_bytes(d) > 0


def test_a_million_rows_more_make_no_fewer_lists() -> None:
    found = [lists_of(n, 128).nlist for n in range(100_000, 40_000_000, 100_000)]
    assert found == sorted(found)


@pytest.mark.parametrize("nlist", [1, 2, 100, 2048, 65_536, 1 << 20])
def test_all_lists_are_looked_through_where_all_are_wanted(nlist: int) -> None:
    groups = n_groups(nlist)
    assert groups_probed(nlist, groups) == groups
    lists = Lists(nlist, groups)
    assert lists.compared(groups) == groups + nlist
    assert lists.compared(10**9) == groups + nlist
    assert Lists(nlist).compared(3) == nlist


def test_most_of_the_nearest_lists_are_found_in_few_groups() -> None:
    """Vectors in clusters: what a search finds of the lists, and in which list a vector is kept."""
    rng = np.random.default_rng(0)
    d, n = 24, 40_000
    centers = 3 * rng.standard_normal((500, d), np.float32)
    xb = centers[rng.integers(0, 500, n)] + rng.standard_normal((n, d), np.float32)
    builder = Builder(resolve("IVF1024(IVF64,SQfp16),SQ8", n, d, "l2"), "l2", xb, 0)
    builder.train()
    builder.add(n)
    inner = innermost(builder._index)
    quantizer = faiss.downcast_index(inner.quantizer)
    assert quantizer.nprobe == GROUPS_ASSIGNED
    flat = faiss.IndexFlatL2(d)
    flat.add(quantizer.reconstruct_n(0, 1024))
    near = flat.search(xb[:500], 32)[1]
    kept = quantizer.search(xb[:500], 1)[1][:, 0]
    assert (kept == near[:, 0]).mean() > 0.95
    found = quantizer.search(xb[:500], 32, params=faiss.SearchParametersIVF(nprobe=groups_probed(32, 64)))[1]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(near, found, strict=True)]) > 0.95
