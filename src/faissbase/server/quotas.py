"""How much a tenant may hold: indexes, records, bytes. What is over is refused before anything is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from faissbase.dropin.facts import names_in, size_bytes
from faissbase.errors import AccessError, CorruptionError, NotFoundError, UnavailableError
from faissbase.server.databases import ServedDatabase
from faissbase.server.settings import Settings

_PATIENCE_S = 30.0
_COUNTED_S = 1.0
_RETRY_AFTER_S = 60.0


class QuotaExceeded(AccessError):
    """The tenant would hold more than it may. To wait alone does not help: something must be deleted."""

    kind = "quota_exceeded"
    retry_after_s = _RETRY_AFTER_S


@dataclass(frozen=True, slots=True)
class _Amount:
    records: int = 0
    bytes: int = 0

    def __add__(self, other: _Amount) -> _Amount:
        return _Amount(self.records + other.records, self.bytes + other.bytes)

    def __sub__(self, other: _Amount) -> _Amount:
        return _Amount(self.records - other.records, self.bytes - other.bytes)


class Usage:
    """What one tenant holds, and what the writes that run now may add to it. Thread-safe.

    ``faiss`` is the folder of its named FAISS indexes, which count too.

    All is counted once a second at most, and always before a write is refused. Between counts a write adds
    as if all of it were new. Where that would be too much, the writes that run are waited for, everything is
    counted, and what the write replaces is looked up.
    """

    def __init__(
        self,
        database: ServedDatabase,
        faiss: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._faiss = faiss
        self._clock = clock
        self._ended = threading.Condition()
        self._n_running = 0
        self._running = self._finished = self._counted = _Amount()
        self._counted_at_s = -_COUNTED_S

    @contextmanager
    def room_for_index(self, settings: Settings) -> Iterator[None]:
        """Make one index more in the block, or `QuotaExceeded`."""
        with self._ended:
            most = settings.max_indexes
            if most and len(self._database.list_collections()) + self._n_faiss() >= most:
                raise QuotaExceeded(f"this tenant has {most:,} indexes, and may have no more")
            if settings.max_tenant_bytes:
                self._count(settings)
                self._check(settings, _Amount(bytes=1))
            yield

    @contextmanager
    def room_for(
        self, settings: Settings, n_records: int, n_bytes: int, n_stored: Callable[[], int]
    ) -> Iterator[None]:
        """Write so many records and bytes in the block, or `QuotaExceeded`.

        ``n_stored`` tells how many of the records are stored already.
        """
        amount = _Amount(n_records, n_bytes)
        with self._ended:
            if self._clock() - self._counted_at_s >= _COUNTED_S:
                self._count(settings)
            try:
                self._check(settings, amount)
            except QuotaExceeded:
                self._ended.wait_for(lambda: not self._n_running, _PATIENCE_S)
                # Counted first: a deletion before what is next makes the write look larger, not smaller.
                self._count(settings)
                amount -= _Amount(n_stored())
                self._check(settings, amount)
            self._n_running += 1
            self._running += amount
        try:
            yield
        finally:
            with self._ended:
                self._n_running -= 1
                self._running -= amount
                self._finished += amount
                self._ended.notify_all()

    def room_bytes(self, settings: Settings, n_bytes: int) -> int:
        """How many bytes more there may be, for a call that brings so many, of which it may keep all."""
        with self._ended:
            if self._clock() - self._counted_at_s >= _COUNTED_S:
                self._count(settings)
            if n_bytes > self._left(settings):
                self._count(settings)
            left = self._left(settings)
            self._finished += _Amount(bytes=n_bytes)
            return left

    def _n_faiss(self) -> int:
        return 0 if self._faiss is None else len(names_in(self._faiss))

    def _left(self, settings: Settings) -> int:
        has = self._counted + self._finished + self._running
        return settings.max_tenant_bytes - has.bytes

    def _check(self, settings: Settings, more: _Amount) -> None:
        has = self._counted + self._finished + self._running
        for what, most, held, added in (
            ("records", settings.max_tenant_vectors, has.records, more.records),
            ("bytes", settings.max_tenant_bytes, has.bytes, more.bytes),
        ):
            if most and added > 0 and held + added > most:
                raise QuotaExceeded(
                    f"this tenant holds {held:,} {what} and may hold {most:,}: {added:,} more are too many"
                )

    def _count(self, settings: Settings) -> None:
        """All indexes together; one that is damaged or was just deleted holds nothing."""
        counted = _Amount()
        for config in self._database.describe_all():
            with suppress(NotFoundError, CorruptionError, UnavailableError):
                totals = self._database.totals(config, is_fresh=bool(settings.max_tenant_bytes))
                counted += _Amount(totals.records, totals.size_bytes)
        if self._faiss is not None:
            counted += _Amount(bytes=size_bytes(self._faiss))
        self._counted, self._finished, self._counted_at_s = counted, _Amount(), self._clock()
