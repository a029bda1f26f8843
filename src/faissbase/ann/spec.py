"""What ``index_type`` may say, checked against the metric. Knows names, builds nothing."""

from __future__ import annotations

from faissbase.errors import InvalidInputError
from faissbase.types import Metric

EXACT_TYPES = {
    "auto": None,
    "Flat": None,
    "IndexFlat": None,
    "IndexFlatL2": ("l2",),
    "IndexFlatIP": ("ip", "cosine"),
}


def check_index_type(index_type: str, metric: Metric) -> str:
    """``index_type`` itself, where this version can serve it with that metric.

    Raises
    ------
    InvalidInputError
        Unknown, not available yet, or meant for another metric.
    """
    if index_type not in EXACT_TYPES:
        known = ", ".join(EXACT_TYPES)
        raise InvalidInputError(f"index_type {index_type!r} is not available, use one of: {known}")
    metrics = EXACT_TYPES[index_type]
    if metrics is not None and metric not in metrics:
        raise InvalidInputError(f"index_type {index_type!r} searches by {metrics[0]}, not by {metric!r}")
    return index_type
