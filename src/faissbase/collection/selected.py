"""Slots that a search may return, in each form that a path of the search wants. Knows arrays only."""

from __future__ import annotations

import numpy as np

from faissbase.ann.flat import Subset
from faissbase.ann.segment import Selector
from faissbase.types import Mask, Slots


class Selection:
    """Slots that may be returned. ``mask`` is ``bool[n]``, or None where every slot may."""

    def __init__(self, mask: Mask | None, n: int, count: int) -> None:
        self.mask = mask
        self.n = n
        self.count = count
        self._subset: Subset | None = None
        self._selector: Selector | None = None

    @property
    def selector(self) -> Selector | None:
        """The mask as an index takes it, or None where every slot may be returned; made once."""
        if self._selector is None and self.mask is not None:
            self._selector = Selector(self.mask)
        return self._selector

    @property
    def subset(self) -> Subset:
        """The slots as an exact search takes them; made once."""
        if self._subset is None:
            self._subset = Subset(np.arange(self.n) if self.mask is None else np.flatnonzero(self.mask))
        return self._subset

    @property
    def slots(self) -> Slots:
        """The slots themselves, ascending."""
        return self.subset.slots
