"""About how many bytes the vectors of an object take, wherever they are to be written."""

from __future__ import annotations

from typing import Any

import faiss

_ID_BYTES = 8


def size_of(thing: Any) -> int:
    """About how many bytes the vectors of an index, or of inverted lists, take; of anything else 0."""
    if isinstance(thing, faiss.InvertedLists):
        return int(thing.compute_ntotal()) * (_code_size(thing) + _ID_BYTES)
    try:
        return int(thing.ntotal * thing.sa_code_size())
    except (AttributeError, RuntimeError):
        return 0


def _code_size(lists: Any) -> int:
    if lists.code_size != faiss.InvertedLists.INVALID_CODE_SIZE:
        return int(lists.code_size)
    blocks = faiss.downcast_InvertedLists(lists)
    return -(-int(blocks.block_size) // int(blocks.n_per_block))
