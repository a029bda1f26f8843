"""Parameters of an IVF-PQ shard, from the number of vectors that it really holds. Pure numbers: no faiss.

What is proposed can always be trained. Recall here is recall@10 of the lists, or of the codes, before any
re-ranking; the tables are the worst of SIFT (d=128) and MiniLM text embeddings (d=384).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from faissbase.ann.coarse import n_lists
from faissbase.collection import inputs
from faissbase.errors import InvalidInputError
from faissbase.types import MAX_DIMENSION

MAX_NBITS = 12
_FLOAT_BITS = 32
_SAMPLE_ROWS_LEAST = 20_000
_MANY_LISTS = 1 << 14

# Probes a √nlist after which a recall was reached; recall 1 is every list.
_PROBES = ((0.0, 0.05), (0.8, 0.6), (0.9, 2.1), (0.95, 4.2), (0.98, 8.0), (0.99, 11.0), (1.0, 16.0))

# Numbers a part of 8 bits may have, for a recall of the codes; the finest there is beyond .89.
_PART_NUMBERS = ((0.5, 16), (0.66, 8), (0.78, 4), (0.88, 2))


def calculate_optimal_nlist(n: int) -> int:
    """Lists for a shard of ``n`` vectors: the power of two nearest to 4 √n, with 64 vectors a list at least.

    Raises
    ------
    InvalidInputError
        ``n`` is not a whole number of 1 or more.

    >>> calculate_optimal_nlist(1_000_000), calculate_optimal_nlist(1_000), calculate_optimal_nlist(1)
    (4096, 8, 1)
    """
    return n_lists(inputs.check_count(n, "n"))


def calculate_optimal_pq_params(dim: int, target: float = 0.8) -> tuple[int, int]:
    """``(m, nbits)``: into how many parts a vector is cut, and the bits of each part's code.

    Parameters
    ----------
    dim : int
        Dimension; m divides it.
    target : float
        Up to 1: the recall@10 of the codes, before re-ranking. Above 1: how many times smaller than float32
        the codes should be. What the dimension's divisors cannot give exactly is met from the better side:
        with more recall, with smaller codes.

    Raises
    ------
    InvalidInputError
        ``dim`` is no dimension, or ``target`` is not above 0.

    >>> calculate_optimal_pq_params(768, 0.78), calculate_optimal_pq_params(768, 32)
    ((192, 8), (96, 8))
    >>> calculate_optimal_pq_params(100, 0.78), calculate_optimal_pq_params(7, 4)
    ((25, 8), (7, 8))
    """
    d = _dimension(dim)
    wanted = inputs.check_positive(target, "target")
    if wanted > 1:
        return _of_size(d, wanted)
    numbers = next((numbers for recall, numbers in _PART_NUMBERS if wanted <= recall), 1)
    return next(m for m in _divisors(d) if m * numbers >= d), 8


def calculate_optimal_nprobe(nlist: int, recall: float = 0.95) -> int:
    """Lists to search so that ``recall`` of the ten nearest lie in them. A start: a built shard is measured.

    It grows with √nlist, and suits text embeddings, which need more probes than SIFT. It is ``nlist`` for
    recall 1, and never more.

    Raises
    ------
    InvalidInputError
        ``nlist`` is not a whole number of 1 or more, or ``recall`` not above 0 and at most 1.

    >>> calculate_optimal_nprobe(1024, 0.9), calculate_optimal_nprobe(1024, 1.0), calculate_optimal_nprobe(1)
    (68, 1024, 1)
    """
    lists = inputs.check_count(nlist, "nlist")
    wanted = inputs.check_fraction(recall, "recall")
    if wanted == 1:
        return lists
    return max(1, min(lists, math.ceil(_probes(wanted) * math.sqrt(lists))))


def training_rows(nlist: int, nbits: int) -> int:
    """Rows that are enough to train so many lists and codes: 100 a list, and 64 above 16,384 lists.

    >>> training_rows(16, 8), training_rows(4096, 8), training_rows(65_536, 8)
    (20000, 409600, 4194304)
    """
    return max(_SAMPLE_ROWS_LEAST, (100 if nlist <= _MANY_LISTS else 64) * nlist, 64 << nbits)


@dataclass(frozen=True, slots=True)
class Plan:
    """nlist, m and nbits of one shard, and what had to be made smaller so that it can be trained."""

    nlist: int
    m: int
    nbits: int
    changes: tuple[str, ...] = ()

    @property
    def factory(self) -> str:
        """FAISS's factory string."""
        return f"IVF{self.nlist},PQ{self.m}x{self.nbits}"


def checked_plan(dim: int, nlist: int, m: int, nbits: int) -> Plan:
    """The plan, if FAISS can build it for some number of vectors.

    Raises
    ------
    InvalidInputError
        m does not divide ``dim``, or nbits is not 1 to 12.
    """
    d = _dimension(dim)
    plan = Plan(
        inputs.check_count(nlist, "nlist"), inputs.check_count(m, "m"), inputs.check_count(nbits, "nbits")
    )
    if plan.nbits > MAX_NBITS:
        raise InvalidInputError(f"nbits must be 1 to {MAX_NBITS}, got {nbits}")
    if d % plan.m:
        near = sorted(sorted(_divisors(d), key=lambda divisor: abs(divisor - plan.m))[:3])
        raise InvalidInputError(f"m={m} does not divide the dimension {d}: take one of {near}")
    return plan


def trainable(plan: Plan, n: int) -> Plan:
    """``plan``, or a smaller one where ``n`` training vectors are too few for its lists or its codes.

    Raises
    ------
    InvalidInputError
        Fewer than two vectors: nothing can be trained.
    """
    if n < 2:
        raise InvalidInputError(f"training needs 2 vectors at least, got {n}")
    nlist, nbits = plan.nlist, plan.nbits
    changes: list[str] = []
    if n < nlist:
        nlist = calculate_optimal_nlist(n)
        changes.append(f"nlist={nlist} instead of {plan.nlist}")
    if n < 1 << nbits:
        nbits = int(math.log2(n))
        changes.append(f"nbits={nbits} instead of {plan.nbits}")
    return Plan(nlist, plan.m, nbits, tuple(changes))


def _of_size(d: int, smaller: float) -> tuple[int, int]:
    """The finest codes that are ``smaller`` times smaller than float32; 4 bits a part where 8 leave none."""
    bits = _FLOAT_BITS * d / smaller
    for nbits in (8, 4):
        m = max((m for m in _divisors(d) if m * nbits <= bits), default=0)
        if m:
            return m, nbits
    return 1, 4


def _dimension(dim: int) -> int:
    d = inputs.check_count(dim, "dim")
    if d > MAX_DIMENSION:
        raise InvalidInputError(f"dim must be 1 to {MAX_DIMENSION}, got {d}")
    return d


def _divisors(d: int) -> list[int]:
    return [m for m in range(1, d + 1) if d % m == 0]


def _probes(recall: float) -> float:
    for (low, low_value), (high, high_value) in pairwise(_PROBES):
        if recall <= high:
            return low_value + (recall - low) / (high - low) * (high_value - low_value)
    return _PROBES[-1][1]
