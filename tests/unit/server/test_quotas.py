"""What a tenant holds is counted once a second at most, and before a write is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.conftest import Clock

from faissbase.database.database import Database
from faissbase.server.quotas import QuotaExceeded, Usage
from faissbase.server.settings import Settings

MOST = Settings(max_tenant_vectors=10, max_tenant_bytes=50_000_000)


@pytest.fixture
def database(folder: Path) -> Iterator[Database]:
    with Database(folder, read_only=False, durability="relaxed") as database:
        database.create_collection("docs", 1, "l2").add(["a", "b"], [[1], [2]])
        yield database


@pytest.fixture
def usage(database: Database, clock: Clock) -> Usage:
    return Usage(database, clock=clock)


def write(usage: Usage, n: int, n_stored: int = 0) -> None:
    with usage.room_for(MOST, n, 0, lambda: n_stored):
        pass


def test_what_others_write_is_seen_after_a_second(usage: Usage, folder: Path, clock: Clock) -> None:
    write(usage, 1)
    with Database(folder, read_only=False, durability="relaxed") as other:
        other.get_collection("docs").add(list("cdefghij"), [[1]] * 8)
    write(usage, 1)
    clock.now_s += 1
    with pytest.raises(QuotaExceeded, match="holds 10 records"):
        write(usage, 1)


def test_nothing_is_refused_before_it_was_counted(usage: Usage, database: Database) -> None:
    for _ in range(5):
        write(usage, 8)  # they come to nothing
    with pytest.raises(QuotaExceeded):
        write(usage, 9)
    write(usage, 9, n_stored=1)
    database.get_collection("docs").delete(["a"])
    write(usage, 9)


def test_a_write_that_fails_gives_back_its_room(usage: Usage) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), usage.room_for(MOST, 8, 0, lambda: 0):
            raise ZeroDivisionError


def test_bytes_are_counted(usage: Usage, database: Database) -> None:
    with pytest.raises(QuotaExceeded, match="bytes"), usage.room_for(MOST, 1, 50_000_000, lambda: 0):
        pass
    with usage.room_for(MOST, 1, 1_000_000, lambda: 0):
        pass
