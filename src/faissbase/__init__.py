"""FAISS made into a database: string ids, metadata, filters, durable writes, exact answers, in one folder.

>>> import faissbase
>>> db = faissbase.connect(":memory:")
>>> docs = db.create_collection("docs", dimension=3)
>>> docs.upsert(ids=["a", "b"], vectors=[[1, 0, 0], [0, 1, 0]], metadatas=[{"n": 1}, {"n": 2}])
2
>>> [hit.id for hit in docs.search([0.9, 0.1, 0], k=1, where={"n": {"$lt": 2}})]
['a']
"""

from typing import TYPE_CHECKING, Any

from faissbase._version import __version__
from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    ConflictError,
    CorruptionError,
    FaissbaseError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.types import Collection, Hit, Page, Record, RepairReport, SearchResult, VerifyReport

if TYPE_CHECKING:
    from faissbase.collection.answers import Explanation
    from faissbase.collection.care import OptimizeReport
    from faissbase.collection.recall import RecallReport
    from faissbase.collection.stats import Stats
    from faissbase.connecting import aconnect, connect
    from faissbase.database.backup import restore
    from faissbase.database.catalog import repair_catalog
    from faissbase.database.database import Database

__all__ = [
    "AccessError",
    "AlreadyExistsError",
    "Collection",
    "ConflictError",
    "CorruptionError",
    "Database",
    "Explanation",
    "FaissbaseError",
    "Hit",
    "InternalError",
    "InvalidInputError",
    "NotFoundError",
    "NotReadyError",
    "OptimizeReport",
    "Page",
    "RecallReport",
    "Record",
    "RepairReport",
    "SearchResult",
    "Stats",
    "UnavailableError",
    "VerifyReport",
    "__version__",
    "aconnect",
    "connect",
    "repair_catalog",
    "restore",
]

# Imported at first use: these need faiss, and the application layers can be imported without it.
_MODULE_OF = {
    "Database": "faissbase.database.database",
    "Explanation": "faissbase.collection.answers",
    "OptimizeReport": "faissbase.collection.care",
    "RecallReport": "faissbase.collection.recall",
    "Stats": "faissbase.collection.stats",
    "aconnect": "faissbase.connecting",
    "connect": "faissbase.connecting",
    "repair_catalog": "faissbase.database.catalog",
    "restore": "faissbase.database.backup",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'faissbase' has no attribute {name!r}")
    from importlib import import_module

    found = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
