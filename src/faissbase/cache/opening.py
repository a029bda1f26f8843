"""Where a cache keeps its records: in memory, in or in a folder."""

from __future__ import annotations

import os
from typing import Any

from faissbase.types import Metric

INSTALL = "needs faiss: pip install faiss-cpu"


def open_database(path: str | os.PathLike[str] | None, what: str) -> Any:
    """The folder, or one in memory, as a database.

    Raises
    ------
    ImportError
        faiss is not installed; ``what`` names who needs it.
    """
    try:
        from faissbase.connecting import connect
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "faissbase":
            raise
        module = error.name or "faiss"
        line = INSTALL if module.startswith("faiss") else f"needs {module}: pip install {module}"
        raise ImportError(f"{what} {line}", name=error.name) from error
    return connect(":memory:" if path is None else path)


def open_collection(database: Any, name: str, dimension: int, metric: Metric, index_type: str) -> Any:
    """The collection of that name, made where there is none; the database is closed where it is another."""
    try:
        return database.get_or_create_collection(name, dimension, metric, index_type)
    except BaseException:
        database.close()
        raise
