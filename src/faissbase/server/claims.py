"""Names that indexes are being given just now: whoever comes second waits, and then finds what there is.

Collections are made here and FAISS indexes in their tenant's process, so neither can see the other's begin.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from faissbase.errors import UnavailableError

_PATIENCE_S = 60.0


class Claims:
    """Thread-safe; a claim may be given back by another thread than has taken it."""

    def __init__(self, patience_s: float = _PATIENCE_S) -> None:
        self._changed = threading.Condition()
        self._taken: set[tuple[str, str]] = set()
        self._patience_s = patience_s

    def take(self, tenant: str, name: str) -> Callable[[], None]:
        """Have a name for oneself until what this gives is called.

        Raises
        ------
        UnavailableError
            Whoever has it keeps it for too long.
        """
        claim = (tenant, name)
        with self._changed:
            if not self._changed.wait_for(lambda: claim not in self._taken, self._patience_s):
                raise UnavailableError(f"an index {name!r} is being made: try again once that is done")
            self._taken.add(claim)
        return partial(self._give_back, claim)

    @contextmanager
    def held(self, tenant: str, name: str) -> Iterator[None]:
        """`take`, for a block."""
        give_back = self.take(tenant, name)
        try:
            yield
        finally:
            give_back()

    def _give_back(self, claim: tuple[str, str]) -> None:
        with self._changed:
            self._taken.discard(claim)
            self._changed.notify_all()
