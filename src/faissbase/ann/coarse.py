"""Inverted lists of an IVF index: how many, and in groups where they are many. Pure numbers: no faiss.

Comparing a vector with every centroid is most of the work where lists are many, for building and for
searching alike. So the centroids, as half-precision numbers, lie in an IVF index themselves: in groups, about
twice the square root of their number, of which only the nearest are looked through. That pays for shorter
lists, of `ROWS_A_LIST`, of which a query scans fewer rows for the same recall (decision 025).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from faissbase.ann.grammar import MAX_LISTS

LISTS_LEAST = 2048
"""From so many lists on they are found in two levels, and lie in groups where nothing else is said."""
ROWS_A_LIST = 128
"""Less than two blocks of FastScan are not worth entering a list for."""
GROUPS_ASSIGNED = 8
"""Groups that a vector looks through for its list: of 65,536 lists, it finds the nearest for 99 in 100."""

TRAIN_ROWS = 64
"""Training vectors of a list without groups."""
CLUSTERING_ROUNDS, LLOYD_ROUNDS = 10, 2
"""Rounds of k-means, and of what follows two levels of it over all lists (`lists`)."""

_TRAIN_ROWS_GROUPED, _TRAIN_ROWS_POOR = 32, 16
_SAMPLE_ROWS_LEAST = 20_000
_SAMPLE_BYTES = 2 << 30
_ENTRY_BYTES = 16  # of a centroid in a group: its number, and where it is


def n_lists(n: int) -> int:
    """Lists without groups: the power of two nearest to ``4 √n``, and no more than 64 vectors train one.

    >>> n_lists(1_000_000), n_lists(1000)
    (4096, 8)
    """
    if n < TRAIN_ROWS:
        return 1
    wanted = 1 << round(math.log2(4.0 * math.sqrt(n)))
    trainable = 1 << int(math.log2(n / TRAIN_ROWS))
    return min(wanted, trainable)


@dataclass(frozen=True, slots=True)
class Lists:
    """``nlist`` lists, in ``groups`` where there are many; 0 groups are none."""

    nlist: int
    groups: int = 0

    @property
    def head(self) -> str:
        """As a factory string begins."""
        return f"IVF{self.nlist}(IVF{self.groups},SQfp16)" if self.groups else f"IVF{self.nlist}"

    def centroid_bytes(self, d: int) -> int:
        """Memory for the centroids, of ``d`` numbers each."""
        if not self.groups:
            return 4 * d * self.nlist
        return (2 * d + _ENTRY_BYTES) * self.nlist + 4 * d * self.groups

    def compared(self, probed: int) -> float:
        """Centroids that a vector is compared with where it looks through ``probed`` groups."""
        if not self.groups:
            return float(self.nlist)
        return self.groups + min(probed, self.groups) * self.nlist / self.groups


def lists_of(n: int, d: int) -> Lists:
    """The lists for ``n`` vectors of ``d`` numbers: `n_lists`, or in groups where that pays.

    In groups, a list has `ROWS_A_LIST` rows, and there are no more than a sample of two gigabytes trains.

    >>> lists_of(10_000_000, 128).head, lists_of(1_000_000, 768).head, lists_of(100_000, 128).head
    ('IVF65536(IVF512,SQfp16)', 'IVF8192(IVF128,SQfp16)', 'IVF1024')
    """
    nlist = n_lists(n)
    trainable = _SAMPLE_BYTES // (4 * d * _TRAIN_ROWS_POOR)
    if nlist < LISTS_LEAST or trainable < LISTS_LEAST:
        return Lists(nlist)
    wanted = max(LISTS_LEAST, 1 << round(math.log2(n / ROWS_A_LIST)))
    nlist = min(MAX_LISTS, 1 << int(math.log2(trainable)), wanted)
    return Lists(nlist, n_groups(nlist))


def n_groups(nlist: int) -> int:
    """Groups for so many lists: about twice the square root, a power of two."""
    return min(nlist, 2 << round(math.log2(nlist) / 2))


def groups_probed(nprobe: int, groups: int) -> int:
    """Groups to look through for the ``nprobe`` nearest lists: 95 to 99 in 100 of them are found there.

    >>> groups_probed(32, 512), groups_probed(65_536, 512)
    (32, 512)
    """
    return min(groups, nprobe // 2 + 16)


def sample_rows(good_points: int, nlist: int, d: int) -> int:
    """Rows of a sample that an index is trained on, two gigabytes of them at most where lists are many.

    Parameters
    ----------
    good_points : int
        Fewer make poor clusters: 39 for each of the most centroids that are found together.
    nlist, d : int
    """
    rows = max(_SAMPLE_ROWS_LEAST, good_points * TRAIN_ROWS // 39)
    if nlist < LISTS_LEAST:
        return rows
    most = max(_SAMPLE_BYTES // (4 * d), 4 * nlist)
    return max(_SAMPLE_ROWS_LEAST, min(_TRAIN_ROWS_GROUPED * nlist, most))
