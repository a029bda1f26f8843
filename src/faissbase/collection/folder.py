"""A new, empty collection: what it may be, and its files. Knows nothing of the others there are."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np

from faissbase.ann.spec import check_index_type
from faissbase.collection.store import Config, vectors_path
from faissbase.errors import InvalidInputError
from faissbase.storage import records
from faissbase.storage.vectors import VectorFile
from faissbase.types import MAX_DIMENSION, METRICS, NAME_RULE, Metric, is_name


def make_files(folder: Path, tenant: str, config: Config, *, is_lasting: bool = True) -> None:
    """Put the files of an empty collection into a folder that is there and empty.

    ``is_lasting`` is whether they are to survive a crash of the machine from now on.
    """
    facts: dict[str, object] = {
        "uuid": config.uuid,
        "tenant": tenant,
        "name": config.name,
        "dimension": config.dimension,
    }
    facts |= {"metric": config.metric, "index_type": config.index_type}
    records.create_file(folder, facts, "FULL" if is_lasting else "OFF")
    VectorFile(vectors_path(folder, 0), config.dimension, writable=True, create=True).close()


def check_name(name: object, what: str = "collection name") -> str:
    """``name`` itself, where it may name something."""
    if not is_name(name):
        raise InvalidInputError(f"{what} must be {NAME_RULE}, got {name!r}")
    return name


def new_config(name: str, dimension: int, metric: Metric, index_type: str) -> Config:
    """What a new collection is to be, checked.

    Raises
    ------
    InvalidInputError
        No name, no dimension, no metric, or no index type for that metric and dimension.
    """
    check_name(name)
    is_whole = isinstance(dimension, int | np.integer) and not isinstance(dimension, bool)
    if not is_whole or not 1 <= dimension <= MAX_DIMENSION:
        raise InvalidInputError(
            f"dimension must be a whole number from 1 to {MAX_DIMENSION}, got {dimension!r}"
        )
    if metric not in METRICS:
        raise InvalidInputError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    return Config(
        uuid.uuid4().hex, name, int(dimension), metric, check_index_type(index_type, metric, int(dimension))
    )
