"""glibc's malloc as we want it: what was freed serves others. Does nothing beside another C library."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_ARENA_MAX = -8


def share_freed_memory() -> None:
    """Keep two arenas: what a thread has freed in its own is of no use to the others.

    **Source**: mallopt(3), ``M_ARENA_MAX``.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def return_freed_memory() -> None:
    """Give back to the system what malloc keeps of what was freed. **Source**: malloc_trim(3)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
