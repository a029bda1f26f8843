"""How much a tenant may hold: indexes, records, bytes. What is over is refused before anything is written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from faissbase.database.database import Database
from faissbase.errors import AccessError, CorruptionError, NotFoundError, UnavailableError
from faissbase.server.settings import Settings
from faissbase.storage.totals import Totals

_PATIENCE_S = 30.0
_RETRY_AFTER_S = 60.0


class QuotaExceeded(AccessError):
    """The tenant would hold more than it may. To wait alone does not help: something must be deleted."""

    kind = "quota_exceeded"
    retry_after_s = _RETRY_AFTER_S


class Usage:
    """What one tenant holds, and what the writes that run now may add to it. Thread-safe.

    A write counts as if all of it were new, until that would be too much: then the writes before it are
    waited for, and what it replaces is looked up.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ended = threading.Condition()
        self._n_running = 0
        self._coming_records = 0
        self._coming_bytes = 0

    @contextmanager
    def room_for_index(self, settings: Settings) -> Iterator[None]:
        """Make one index more in the block, or `QuotaExceeded`."""
        with self._ended:
            most = settings.max_indexes
            if most and len(self._database.list_collections()) >= most:
                raise QuotaExceeded(f"this tenant has {most:,} indexes, and may have no more")
            if settings.max_tenant_bytes:
                self._check(settings, 0, 1, is_fresh=True)
            yield

    @contextmanager
    def room_for(
        self, settings: Settings, n_records: int, n_bytes: int, n_stored: Callable[[], int]
    ) -> Iterator[None]:
        """Write so many records and bytes in the block, or `QuotaExceeded`.

        ``n_stored`` tells how many of the records are stored already.
        """
        with self._ended:
            try:
                self._check(settings, n_records, n_bytes)
            except QuotaExceeded:
                n_records = self._checked_anew(settings, n_records, n_bytes, n_stored)
            self._note(1, n_records, n_bytes)
        try:
            yield
        finally:
            with self._ended:
                self._note(-1, -n_records, -n_bytes)
                self._ended.notify_all()

    def _checked_anew(
        self, settings: Settings, n_records: int, n_bytes: int, n_stored: Callable[[], int]
    ) -> int:
        """`_check` once no other write runs; how many of the records are new.

        What is stored is counted after all records were: a deletion in between makes the write look larger.
        """
        self._ended.wait_for(lambda: not self._n_running, _PATIENCE_S)
        held = self._held(is_fresh=bool(settings.max_tenant_bytes))
        n_new = n_records - n_stored()
        self._check_held(settings, held, n_new, n_bytes)
        return n_new

    def _note(self, n_running: int, n_records: int, n_bytes: int) -> None:
        self._n_running += n_running
        self._coming_records += n_records
        self._coming_bytes += n_bytes

    def _check(self, settings: Settings, n_records: int, n_bytes: int, *, is_fresh: bool = False) -> None:
        self._check_held(settings, self._held(is_fresh=is_fresh), n_records, n_bytes)

    def _check_held(self, settings: Settings, held: Totals, n_records: int, n_bytes: int) -> None:
        for what, most, has, more in (
            ("records", settings.max_tenant_vectors, held.records + self._coming_records, n_records),
            ("bytes", settings.max_tenant_bytes, held.size_bytes + self._coming_bytes, n_bytes),
        ):
            if most and more > 0 and has + more > most:
                raise QuotaExceeded(
                    f"this tenant holds {has:,} {what} and may hold {most:,}: {more:,} more are too many"
                )

    def _held(self, *, is_fresh: bool) -> Totals:
        """All indexes together; one that is damaged or was just deleted holds nothing."""
        n_records = n_bytes = 0
        for config in self._database.describe_all():
            with suppress(NotFoundError, CorruptionError, UnavailableError):
                totals = self._database.totals(config, is_fresh=is_fresh)
                n_records += totals.records
                n_bytes += totals.size_bytes
        return Totals(n_records, 0, 0, n_bytes)
