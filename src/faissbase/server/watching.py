"""Routes for those who look after the server: health, metrics, and the description of all routes."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal, Protocol

from faissbase.collection.stats import Served
from faissbase.collection.store import Config
from faissbase.errors import CorruptionError, NotFoundError, UnavailableError
from faissbase.server import access, backups, indexes, searches, vectors
from faissbase.server.databases import ServedDatabase
from faissbase.server.metrics import Gauges
from faissbase.server.openapi import document
from faissbase.server.operations import Call, Operation
from faissbase.wire import Health


class Watched(Protocol):
    """What tells how a server is."""

    @property
    def is_stopping(self) -> bool: ...

    def age_s(self) -> float | None: ...

    def is_folder_there(self) -> bool: ...


def health(server: Watched) -> Health:
    age_s = server.age_s()
    told_s = None if age_s is None else round(age_s, 3)
    status = _status(server)
    return Health(status, live=True, ready=status == "ok", age_s=told_s)


def _status(server: Watched) -> Literal["ok", "stopping", "no_data"]:
    if server.is_stopping:
        return "stopping"
    return "ok" if server.is_folder_there() else "no_data"


def metrics(call: Call) -> bytes:
    database = call.tenants.database(call.key.tenant)
    found = []
    for config in database.describe_all():
        if call.key.may_use((config.name, config.uuid)):
            try:
                found.append(_gauges(database, config))
            except (NotFoundError, CorruptionError, UnavailableError):  # deleted meanwhile, or damaged
                continue
    return call.metrics.text(found)


def _gauges(database: ServedDatabase, config: Config) -> Gauges:
    totals, served = database.totals(config), database.served(config) or _NOTHING_OPEN
    return Gauges(
        config.name,
        totals.records,
        totals.tombstones,
        totals.unindexed,
        totals.segments,
        served.memory_bytes,
        served.recall,
        served.version,
        None if served.version is None else round(served.age_s, 3),
    )


_NOTHING_OPEN = Served(memory_bytes=0)


def openapi(_: Call) -> dict[str, Any]:
    return _document()


@cache
def _document() -> dict[str, Any]:
    modules = (indexes, searches, vectors, access, backups)
    return document([op for each in modules for op in each.OPERATIONS] + [*OPERATIONS], OPEN_OPERATIONS)


OPEN_OPERATIONS = (
    Operation(("GET",), "/health", "read", "Whether it lives and takes requests", health, Health),
    Operation(("GET",), "/health/live", "read", "Whether it lives", health, Health),
    Operation(("GET",), "/health/ready", "read", "Whether it takes requests; 503 where not", health, Health),
)
OPERATIONS = (
    Operation(
        ("GET",),
        "/metrics",
        "read",
        "Counters, in the format of Prometheus",
        metrics,
        bytes,
        is_about_data=False,
    ),
    Operation(("GET",), "/openapi.json", "read", "This description", openapi, dict, is_about_data=False),
)
