"""What searches have taught: by how much the effort is raised, band of selectivity by band.

Knows shares and factors; not what is searched.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

# Shares of the slots that a filter leaves: an index answers otherwise in each, so recall is told for each.
_EDGES = (0.0, 0.001, 0.01, 0.1, 0.5, 0.999, 1.0)
BANDS: tuple[tuple[float, float], ...] = tuple(pairwise(_EDGES))

_UP, _DOWN, _MOST = 1.5, 1.25, 16.0
_ROOM = 0.02  # a target met by more than this allows less effort


def band_of(share: float) -> int:
    """The band of `BANDS` that a share of selected slots lies in."""
    return min(bisect_left(_EDGES, share, lo=1) - 1, len(BANDS) - 1)


class Tuning:
    """A factor for the effort of each band: 1 where the measurements of the build hold."""

    def __init__(self, factors: Sequence[float] = ()) -> None:
        self.factors = list(factors) if len(factors) == len(BANDS) else [1.0] * len(BANDS)
        # Set by a search that could not tell what its filter does to the index.
        self.wants_filters = False

    def factor(self, share: float) -> float:
        return self.factors[band_of(share)]

    def learn(self, band: int, recall: float, recall_low: float, target: float) -> bool:
        """Raise the effort of a band that missed its target, lower one raised too far; whether it moved."""
        before = self.factors[band]
        if recall < target:
            self.factors[band] = min(_MOST, before * _UP)
        elif recall_low > min(1.0, target + _ROOM) and before > 1.0:
            self.factors[band] = max(1.0, before / _DOWN)
        return self.factors[band] != before

    @property
    def raised(self) -> dict[str, float]:
        """The bands with more effort than the build measured, as people read them."""
        return {
            f"{100 * above:g} to {100 * to:g} %": factor
            for (above, to), factor in zip(BANDS, self.factors, strict=True)
            if factor != 1.0
        }
