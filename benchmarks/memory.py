"""Part 6: what an open collection costs in memory, used and unused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faissbase
from benchmarks import places
from benchmarks.figures import Figure, at_most, spread
from benchmarks.process import in_fresh_process

PART = "memory of open collections"
_N = 2_000
_D = 384
_LIMIT_KB = 100


def run(parent: Path) -> Iterator[Figure]:
    """Open 2,000 empty collections in a fresh process, then search some of them."""
    with places.folder_in(parent) as folder:
        with faissbase.connect(folder / "db", durability="relaxed") as db:
            for number in range(_N):
                db.create_collection(f"tenant-{number}", _D)
        seen = in_fresh_process("open_many", folder / "db")
    data = f"{seen['n']:,} empty collections"
    met = at_most(_LIMIT_KB, seen["open_kb"])
    yield Figure(PART, data, "open, not used", "kB each", spread([seen["open_kb"]]), met)
    used = f"{seen['n_used']} of them, searched once"
    yield Figure(PART, data, used, "kB each", spread([seen["used_kb"]]))
    yield Figure(PART, data, f"{used}: anonymous", "kB each", spread([seen["used_anonymous_kb"]]))
