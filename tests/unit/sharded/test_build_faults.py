"""Builds over a store that fails: what is published is whole and right, and the next run goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.built_shards import D, reported, rows, told
from tests.unit.sharded.faulty import FAULTS, Choose, FaultyBucket, at, by_chance, nowhere

from faissbase.errors import AlreadyExistsError, UnavailableError
from faissbase.sharded import build as build_module
from faissbase.sharded import ledger
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.build import BuildReport, Request, build
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.executors import InlineExecutor
from faissbase.sharded.sources import Source, find_files
from faissbase.sharded.stages import Settings
from faissbase.storage.tables.open import open_writer
from faissbase.types import Batch

SHARDS, REPEATED = 3, 40
ROWS_OF = {"flat": 300, "sq8": 4800}  # an index takes so many rows to train, and a second of measuring
MOST_RUNS = 12


@dataclass(frozen=True)
class Wanted:
    """What is built, and what an undisturbed build reports, publishes, and asks of the store."""

    codec: str
    source: Source
    report: dict[str, Any]
    seen: dict[str, Any]
    calls: dict[str, int]


class World:
    """A store that fails for the driver and its workers, and is looked at by who sees no faults."""

    def __init__(self, folder: Path, codec: str, source: Source, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.codec, self.source = folder, codec, source
        self.url = f"memory://{folder}"
        self.bucket = FaultyBucket(open_bucket(self.url))
        patch.setattr(ledger, "open_bucket", lambda url, options: self.bucket)  # what workers open

    def build(self, *, replace: bool = False) -> BuildReport:
        settings, rows = Settings("l2", self.codec), ROWS_OF[self.codec] // SHARDS
        request = Request("docs", settings, rows_per_shard=rows, is_replacing=replace)
        return build(request, self.source, self.bucket, self.folder / "work", InlineExecutor())

    def seen(self) -> dict[str, Any] | None:
        """All of what is published, with every checksum compared; None where nothing is."""
        bucket = open_bucket(self.url)
        manifest = Dataset(bucket, "docs").latest()
        if manifest is None:
            return None
        x = rows(64)
        with ShardedDatabase(bucket, self.folder / f"cache{self.bucket.calls}", refresh_s=0) as db:
            docs = db.get_collection("docs")
            assert docs.verify().ok
            found = docs.search(x, k=5)
            rows_of = {record.id: record.metadata["row"] for record in docs.get()}
        return {
            "shards": [told(shard) for shard in manifest.shards],
            "recall": (manifest.target_recall, manifest.measured_recall),
            "answers": (found.ids, found.distances.tolist()),
            "rows": rows_of,
        }


def wanted(codec: str, folder: Path) -> Wanted:
    """Of rows of which some come again with the same id, in another shard."""
    n = ROWS_OF[codec]
    with open_writer(folder / "rows.parquet", dimension=D) as out:
        ids = [f"i{i if i < n - REPEATED else i - n + REPEATED}" for i in range(n)]
        out.write(Batch(rows(n), ids, [{"row": i} for i in range(n)]))
    source = find_files([str(folder / "rows.parquet")])
    with pytest.MonkeyPatch.context() as patch:
        world = World(folder, codec, source, patch)
        report = reported(world.build())
        calls = dict(world.bucket.calls)
        seen = world.seen()
    assert seen is not None
    assert (report["n_rows"], report["n_replaced"]) == (len(seen["rows"]), REPEATED)
    return Wanted(codec, source, report, seen, calls)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Wanted:
    return wanted("flat", tmp_path_factory.mktemp("flat"))


def outlast(world: World, choose: Choose, seen: dict[str, Any]) -> BuildReport:
    """Build again and again while the store fails, then once without faults; nothing half is ever seen."""
    world.bucket.choose = choose
    for _ in range(MOST_RUNS):
        try:
            return world.build()
        except UnavailableError:
            assert world.seen() in (None, seen)
    world.bucket.choose = nowhere
    return world.build()


@pytest.mark.parametrize("seed", range(8))
def test_faults_by_chance_delay_a_build_and_change_nothing(
    seed: int, flat: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_chance(seed, flat, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_faults_by_chance_change_nothing_of_an_index(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sq8 = wanted("sq8", tmp_path)
    assert {shard[2] for shard in sq8.seen["shards"]} == {"IVF16,SQ8"}
    check_chance(seed, sq8, tmp_path / "faulty", monkeypatch)


def check_chance(seed: int, whole: Wanted, folder: Path, patch: pytest.MonkeyPatch) -> None:
    world = World(folder, whole.codec, whole.source, patch)
    assert reported(outlast(world, by_chance(seed, 0.08 + 0.02 * seed), whole.seen)) == whole.report
    assert world.bucket.n_faults > 0
    assert world.seen() == whole.seen


CASES = [("create", "ambiguous"), ("create", "fail"), ("upload", "tear"), ("download", "fail")]
assert all(fault in FAULTS[operation] for operation, fault in CASES)


def down_after(operation: str, nth: int, bucket: FaultyBucket) -> Choose:
    """The store does the nth call of an operation, tells nobody, and answers nothing from then on."""

    def choose(called: str, call: int) -> str | None:
        if (called, call) == (operation, nth):
            return "ambiguous"
        return "fail" if bucket.calls[operation] > nth else None

    return choose


@pytest.mark.parametrize("operation", ["create", "upload", "delete"])
def test_a_store_that_is_gone_after_any_write_leaves_a_build_to_go_on_with(
    operation: str, flat: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_published = 0
    for nth in range(flat.calls[operation]):
        world = World(tmp_path / str(nth), flat.codec, flat.source, monkeypatch)
        world.bucket.choose = down_after(operation, nth, world.bucket)
        try:
            assert reported(world.build()) == flat.report  # all that is left to do is to clean up
        except UnavailableError:
            n_published += world.seen() is not None
            assert world.seen() in (None, flat.seen)
            world.bucket.choose = nowhere
            again = world.build()
            assert reported(again) == flat.report, f"call {nth}"
        assert world.seen() == flat.seen, f"call {nth}"
    assert n_published == (1 if operation == "create" else 0), "the manifest, whose answer was lost"


@pytest.mark.parametrize(("operation", "fault"), CASES)
def test_one_fault_anywhere_delays_a_build_and_changes_nothing(
    operation: str, fault: str, flat: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in range(flat.calls[operation]):
        world = World(tmp_path / str(nth), flat.codec, flat.source, monkeypatch)
        assert reported(outlast(world, at(operation, nth, fault), flat.seen)) == flat.report, f"call {nth}"
        assert world.seen() == flat.seen, f"call {nth}"


def test_what_this_build_has_published_is_not_made_anew(
    flat: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run was ended after its commit. Once others have written to the dataset, it is theirs, too."""
    world = World(tmp_path, flat.codec, flat.source, monkeypatch)
    monkeypatch.setattr(build_module._Run, "clean_up", lambda run: None)
    first = world.build()
    assert (first.version, first.n_resumed) == (1, 0)
    for replace in (False, True):
        again = world.build(replace=replace)
        assert asdict(again) | {"seconds": 0.0} == asdict(first) | {"n_resumed": SHARDS, "seconds": 0.0}
    with ShardedDatabase(open_bucket(world.url), tmp_path / "cache", refresh_s=0) as db:
        db.get_collection("docs").upsert(["new"], rows(1))
    with pytest.raises(AlreadyExistsError, match="'docs' exists already"):
        world.build()
    assert world.build(replace=True).version == 3
