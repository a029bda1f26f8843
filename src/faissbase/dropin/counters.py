"""What FAISS counts of the searches of a process, such as ``faiss.cvar.indexIVF_stats``."""

from __future__ import annotations

from typing import Any

import faiss

from faissbase.dropin.refusals import Refused

NAMES = (
    "indexIVF_stats",
    "indexIVFPQ_stats",
    "indexPQ_stats",
    "hnsw_stats",
    "FastScan_stats",
    "IVFFastScan_stats",
    "indexBinaryHash_stats",
    "rabitq_stats",
    "indexPanorama_stats",
    "partition_stats",
)


def counted(name: str, *, is_reset: bool = False) -> dict[str, int | float]:
    """The numbers of one kind of statistics; set to zero first if asked for.

    Raises
    ------
    Refused
        There are none of that name.
    """
    if name not in NAMES:
        raise Refused(f"faiss.cvar.{name} is no statistics of searches")
    found = getattr(faiss.cvar, name)
    if is_reset:
        found.reset()
    return {field: getattr(found, field) for field in fields_of(found)}


def fields_of(statistics: Any) -> list[str]:
    """The names of the numbers that are counted."""
    names = (name for name, kind in vars(type(statistics)).items() if isinstance(kind, property))
    return [
        name for name in names if isinstance(getattr(statistics, name), int | float) and name != "thisown"
    ]
