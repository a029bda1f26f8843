"""Arguments of the RAG store, checked. Each returns the value as it is used, or says what was wrong."""

from __future__ import annotations

from typing import Any

import numpy as np

from faissbase.collection import inputs
from faissbase.errors import InvalidInputError
from faissbase.types import MAX_DIMENSION, METRICS, Metric, Slots

count = inputs.check_count


def dimension(value: Any) -> int:
    """How many numbers a vector has."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not 1 <= value <= MAX_DIMENSION:
        raise InvalidInputError(f"dimension must be a whole number from 1 to {MAX_DIMENSION}, got {value!r}")
    return int(value)


def metric(value: Any) -> Metric:
    """The metric, whatever the case of its letters."""
    found = next((each for each in METRICS if isinstance(value, str) and each == value.lower()), None)
    if found is None:
        raise InvalidInputError(f"metric must be 'L2', 'IP' or 'cosine', got {value!r}")
    return found


def text(value: Any, name: str) -> str:
    """A string that is not empty."""
    if not isinstance(value, str) or not value:
        raise InvalidInputError(f"{name} must be a string that is not empty, got {value!r}")
    return value


def ids(values: Any) -> Slots:
    """Ids of a store, ``int64[n]``; one number is a list of one."""
    given = [values] if isinstance(values, int | np.integer) else inputs.as_list(values, "ids")
    for position, each in enumerate(given):
        if isinstance(each, bool) or not isinstance(each, int | np.integer):
            raise InvalidInputError(f"ids must be whole numbers, got {each!r} at position {position}")
        if not 0 <= each < 1 << 63:
            raise InvalidInputError(f"id {each} at position {position} is none that add() returns")
    return np.array(given, np.int64)


def number(value: Any, name: str) -> float:
    """A finite number."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not np.isfinite(value):
        raise InvalidInputError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def share(value: Any, name: str) -> float:
    """A number from 0 to 1."""
    found = number(value, name)
    if not 0.0 <= found <= 1.0:
        raise InvalidInputError(f"{name} must be from 0 to 1, got {value!r}")
    return found
