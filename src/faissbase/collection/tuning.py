"""What searches have taught: by what the effort is multiplied, band of selectivity by band.

Knows shares and factors; not what is searched.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

# Shares of the slots that a filter leaves: an index answers otherwise in each, so recall is told for each.
_EDGES = (0.0, 0.001, 0.01, 0.1, 0.5, 0.999, 1.0)
BANDS: tuple[tuple[float, float], ...] = tuple(pairwise(_EDGES))

UNFILTERED = len(BANDS) - 1
"""The band of searches that a filter leaves all to. Only there less effort is safe: in others, the number of
candidates that must turn up depends on it."""

_UP, _DOWN, _MOST, _LEAST = 1.5, 0.8, 16.0, 0.25


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

    def raise_effort(self, band: int) -> bool:
        """More effort for a band that missed its target; whether there is more."""
        return self._moved(band, min(_MOST, self.factors[band] * _UP))

    def lower_effort(self, band: int) -> bool:
        """Less effort for a band that would meet its target with less; whether that may be."""
        least = _LEAST if band == UNFILTERED else 1.0
        return self._moved(band, max(least, self.factors[band] * _DOWN))

    def _moved(self, band: int, factor: float) -> bool:
        before, self.factors[band] = self.factors[band], factor
        return factor != before

    @property
    def changed(self) -> dict[str, float]:
        """The bands with another effort than the build measured, as people read them."""
        return {
            f"{100 * above:g} to {100 * to:g} %": round(factor, 4)
            for (above, to), factor in zip(BANDS, self.factors, strict=True)
            if factor != 1.0
        }
