"""What FAISS writes to files, and by which of its functions: one table for the server and its clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss


@dataclass(frozen=True, slots=True)
class Kind:
    """Objects ``of`` a class; ``suffix`` is what the names of FAISS's functions for them end in."""

    name: str
    of: type
    suffix: str

    @property
    def read(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(faiss, f"read_{self.suffix}")
        return found

    @property
    def write(self) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(faiss, f"write_{self.suffix}")
        return found


KINDS = {
    kind.name: kind
    for kind in (
        Kind("index", faiss.Index, "index"),
        Kind("binary", faiss.IndexBinary, "index_binary"),
        Kind("transform", faiss.VectorTransform, "VectorTransform"),
        Kind("quantizer", faiss.ProductQuantizer, "ProductQuantizer"),
    )
}


def kind_of(thing: Any) -> Kind | None:
    """Of which kind an object of FAISS's is; None where it is written with another alone."""
    return next((kind for kind in KINDS.values() if isinstance(thing, kind.of)), None)
