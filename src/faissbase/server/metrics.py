"""What the server counts, in the text format of Prometheus. A tenant sees its own indexes alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
# Name, what it is about, and the field of `Gauges` it shows.
PER_INDEX = (
    ("faissbase_index_records", "Records stored.", "records"),
    ("faissbase_index_tombstones", "Slots of deleted records that compaction would free.", "tombstones"),
    ("faissbase_index_unindexed", "Slots that no index covers yet.", "unindexed"),
    ("faissbase_index_segments", "Parts of the index; shards, where it is in object storage.", "segments"),
    (
        "faissbase_index_recall",
        "Of open indexes, the recall that was measured; 1 where all is exact.",
        "recall",
    ),
    ("faissbase_index_memory_bytes", "Memory that the indexes keep busy.", "memory_bytes"),
    ("faissbase_index_version", "Of open shards, the version that is served.", "version"),
    ("faissbase_index_age_seconds", "Of open shards, since the store was asked for a newer one.", "age_s"),
)

disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is told of one index, but for what is None; ``memory_bytes`` is 0 while its files are not open."""

    name: str
    records: int
    tombstones: int
    unindexed: int
    segments: int
    memory_bytes: int
    recall: float | None = None
    version: int | None = None
    age_s: float | None = None


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "faissbase_requests", "Requests answered.", ("route", "method", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "faissbase_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.n_in_flight = self.n_waiting = 0  # changed by the event loop alone
        for name, about, now in (
            ("in_flight", "Requests being worked on.", lambda: self.n_in_flight),
            ("waiting", "Requests that a thread works on, or that wait for one.", lambda: self.n_waiting),
        ):
            Gauge(f"faissbase_requests_{name}", about, registry=self._registry).set_function(now)
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        known = self._known.get((route, method, status))
        if known is None:  # looking labels up takes longer than counting
            known = self._requests.labels(route, method, str(status)), self._seconds.labels(route)
            self._known[route, method, status] = known
        known[0].inc()
        known[1].observe(seconds)

    def text(self, of_tenant: Iterable[Gauges]) -> bytes:
        """All of it, with the indexes of the tenant that asks."""
        indexes = list(of_tenant)
        lines = []
        for name, about, field in PER_INDEX:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge"]
            values = ((each.name, getattr(each, field)) for each in indexes)
            lines += [f'{name}{{index="{index}"}} {value}' for index, value in values if value is not None]
        return bytes(generate_latest(self._registry)) + "\n".join([*lines, ""]).encode()
