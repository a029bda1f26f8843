"""The advisor: what it proposes fits the memory, can be trained, and says what it costs."""

from __future__ import annotations

import pytest

from faissbase.ann.advisor import needed_bytes, propose
from faissbase.ann.grammar import parse
from faissbase.errors import InvalidInputError

N, D = 1_000_000, 128


@pytest.mark.parametrize(
    ("memory_bytes", "factory"),
    [
        (None, "HNSW16,SQ8"),
        (300_000_000, "HNSW16,SQ8"),
        (200_000_000, "IVF8192(IVF128,SQfp16),SQ8"),
        (60_000_000, "IVF8192(IVF128,SQfp16),PQ64x4fs"),
        (40_000_000, "RR128,IVF8192(IVF128,SQfp16),RaBitQfs"),
        (29_000_000, "IVF8192(IVF128,SQfp16),PQ32x4fs"),
    ],
)
def test_less_memory_means_smaller_codes(memory_bytes: int | None, factory: str) -> None:
    proposal = propose(N, D, "l2", memory_bytes=memory_bytes)
    assert proposal.factory == factory
    if memory_bytes is not None:
        assert needed_bytes(proposal, N, D) <= memory_bytes
    assert factory not in [rejected.factory for rejected in proposal.alternatives]


def test_memory_that_nothing_fits_is_refused_with_the_least_needed() -> None:
    with pytest.raises(
        InvalidInputError, match="need at least 28,542,337 bytes of memory, 1,000 are allowed"
    ):
        propose(N, D, "l2", memory_bytes=1000)


@pytest.mark.parametrize("d", [1, 2, 31, 64, 97, 128, 192, 384, 769, 1536])
@pytest.mark.parametrize("n", [3000, 50_000, 2_000_000])
@pytest.mark.parametrize("parts", [1, 4, 12, 40])
def test_what_is_proposed_can_be_trained(n: int, d: int, parts: int) -> None:
    try:
        proposal = propose(n, d, "l2", memory_bytes=4 * n * d // parts)
    except InvalidInputError:
        return
    assert parse(proposal.factory, d).good_points <= n
    assert proposal.build_cpu_s >= 0
    assert proposal.us_per_query > 0


@pytest.mark.parametrize("d", [96, 128, 200, 384, 768, 1536])
def test_a_graph_keeps_its_bounds_of_memory_and_disk(d: int) -> None:
    proposal = propose(N, d, "l2")
    assert proposal.ram_bytes_per_vector <= 0.6 * 4 * d
    assert proposal.disk_bytes_per_vector <= 0.35 * 4 * d


def test_recall_one_is_exact() -> None:
    assert propose(N, D, "l2", recall=1.0).factory == "Flat"
