"""Merging shards: what is planned, that nothing is changed by it, and what is written while it runs."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase
from faissbase.errors import AccessError, ConflictError, InvalidInputError, NotReadyError
from faissbase.sharded import compaction, upkeep
from faissbase.sharded.changes import Changes
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.compaction import ON_WRITE, Policy, Stopped, plan
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.group import ShardGroup
from faissbase.sharded.manifest import Manifest, Shard

D = 8
NEVER = Policy(fan_in=1 << 30, hidden_share=1.0)


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


def names(n: int, first: int = 0) -> list[str]:
    return [f"i{i}" for i in range(first, first + n)]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[ShardedDatabase]:
    with opened(tmp_path, "cache") as database:
        yield database


def opened(folder: Path, cache: str) -> ShardedDatabase:
    return faissbase.connect((folder / "bucket").as_uri(), cache=folder / cache, refresh_s=0)


@pytest.fixture
def docs(db: ShardedDatabase, monkeypatch: pytest.MonkeyPatch) -> ShardedCollection:
    """Five shards of 40 records, of which every tenth was replaced by the next shard."""
    monkeypatch.setattr(upkeep, "ON_WRITE", NEVER)
    docs = db.create_collection("docs", D, "cosine")
    for i in range(5):
        ids = names(40, 36 * i)
        docs.upsert(ids, 3 * vectors(40, i), [{"n": i}] * 40, [f"document {id}" for id in ids])
    return docs


def stored(docs: ShardedCollection) -> dict[str, Any]:
    """Every record as it is kept, to the bit."""
    kept = {}
    with docs._now() as (_, group):
        assert isinstance(group, ShardGroup)
        for each in group.shards:
            for rows in each.collection.batches():
                for at, id in enumerate(rows.ids):
                    assert id not in kept
                    fields = rows.norms[at], rows.metadata_json[at], rows.documents[at], rows.checksums[at]
                    kept[id] = (rows.vectors[at].tobytes(), *fields)
    return kept


def answers(docs: ShardedCollection) -> Any:
    xq = vectors(20, 99)
    return docs.search(xq, k=7).ids, [hit.id for hit in docs.search(xq[0], 5, {"n": {"$in": [1, 3]}})]


def test_a_merge_changes_no_bit_of_any_record(docs: ShardedCollection) -> None:
    before, found = stored(docs), answers(docs)
    report = docs.optimize()
    assert (report.shards_before, report.shards_after, report.merges) == (5, 1, 1)
    assert (report.rows_rewritten, report.hidden_dropped, report.version) == (184, 16, docs.version)
    assert (stored(docs), answers(docs), len(docs)) == (before, found, 184)
    assert docs.stats().tombstones == 0
    assert [hit.id for hit in docs.text_search("i100")] == ["i100"]


def test_where_nothing_is_due_nothing_is_written(docs: ShardedCollection) -> None:
    docs.optimize()
    version = docs.version
    report = docs.optimize()
    assert (report.merges, report.rows_rewritten, docs.version) == (0, 0, version)


def test_a_shard_with_many_hidden_rows_is_rewritten_alone(docs: ShardedCollection) -> None:
    docs.optimize()
    docs.delete(names(19))
    assert docs.optimize().hidden_dropped == 19
    docs.delete(names(10, 19))  # a tenth of 165 is not reached
    assert docs.optimize().merges == 0
    assert docs.stats().tombstones == 10


def test_a_shard_of_which_nothing_is_left_vanishes(docs: ShardedCollection) -> None:
    docs.optimize()
    docs.delete(where={"n": {"$gte": 0}})
    assert (len(docs), len(docs.stats().shards), docs.optimize().merges) == (0, 0, 0)


def test_readers_of_the_version_before_go_on(docs: ShardedCollection, tmp_path: Path) -> None:
    with opened(tmp_path, "other") as other:
        reader = other.get_collection("docs")
        before = answers(docs)
        docs.optimize()
        assert answers(reader) == before
        assert reader.refresh() == docs.version
        assert answers(reader) == before


# ---- what is written meanwhile -------------------------------------------------------------------


@pytest.fixture
def in_between(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Have something done between the making of a merged shard and its commit."""

    def arrange(act: Callable[[], object]) -> None:
        original = Changes.shard

        def shard(self: Changes, *arguments: Any) -> Shard:
            made = original(self, *arguments)
            monkeypatch.setattr(Changes, "shard", original)
            act()
            return made

        monkeypatch.setattr(Changes, "shard", shard)

    return arrange


def test_what_is_written_during_a_merge_is_hidden_in_its_outcome(
    docs: ShardedCollection, in_between: Any
) -> None:
    def write() -> None:
        docs.upsert(["i0", "i100", "new"], vectors(3, 50), [{"late": True}] * 3)
        docs.update(["i7"], [{"late": True}])
        docs.delete(["i1", "i101", "nobody"])

    in_between(write)
    before = stored(docs)
    docs.optimize()
    after = stored(docs)
    assert set(after) == {*before, "new"} - {"i1", "i101"}
    changed = {id for id in after if after[id] != before.get(id)}
    assert changed == {"i0", "i100", "i7", "new"}
    assert docs.count({"late": True}) == 4
    assert len(docs) == len(after)


def test_what_is_deleted_with_its_whole_shard_during_a_merge_stays_deleted(
    docs: ShardedCollection, in_between: Any
) -> None:
    in_between(lambda: docs.delete(where={"n": {"$gte": 0, "$lt": 4}}))
    assert docs.optimize().merges == 2  # once more, for most of what the first made is hidden
    assert (len(docs), len(stored(docs)), docs.count({"n": 4})) == (40, 40, 40)


@pytest.mark.parametrize("act", ["merge", "reset"])
def test_a_merge_gives_up_where_another_was_first(
    docs: ShardedCollection, in_between: Any, tmp_path: Path, act: str
) -> None:
    with opened(tmp_path, "other") as other:
        rival = other.get_collection("docs")
        in_between(rival.optimize if act == "merge" else rival.reset)
        manifest = docs._manifest
        with pytest.raises(ConflictError, match="5 shards of 'docs' were merged or removed by others first"):
            docs._upkeep._merger.merge(manifest, manifest.shards, int, lambda: False)
        docs.refresh()
        assert stored(docs) == stored(rival)
        assert len(docs) == (184 if act == "merge" else 0)


def test_optimize_ends_well_where_another_was_first(
    docs: ShardedCollection, in_between: Any, tmp_path: Path
) -> None:
    with opened(tmp_path, "other") as other:
        in_between(other.get_collection("docs").optimize)
        assert docs.optimize().merges == 0
        assert (len(docs), docs.optimize().shards_after) == (184, 1)


def test_what_others_have_merged_in_part_is_not_there_twice(
    docs: ShardedCollection, in_between: Any, tmp_path: Path
) -> None:
    with opened(tmp_path, "other") as other:
        rival = other.get_collection("docs")
        shards, before = docs._manifest.shards, stored(docs)
        in_between(lambda: rival._upkeep._merger.merge(rival._manifest, shards[:2], int, lambda: False))
        docs._upkeep._merger.merge(docs._manifest, shards[1:], int, lambda: False)
        assert stored(docs) == before
        assert len(docs) == 184


def test_threads_do_not_merge_the_same_shards(docs: ShardedCollection) -> None:
    merger, manifest = docs._upkeep._merger, docs._manifest
    taken = merger.next(manifest, compaction.ON_DEMAND)
    with merger._claimed(taken[:4]):
        assert merger.next(manifest, compaction.ON_DEMAND) == ()
        with pytest.raises(ConflictError, match="another thread"):
            merger.merge(manifest, taken, int, lambda: False)
    assert merger.next(manifest, compaction.ON_DEMAND) == taken


def test_a_merge_that_is_stopped_changes_nothing(docs: ShardedCollection) -> None:
    version = docs.version
    with pytest.raises(Stopped):
        docs._upkeep._merger.merge(docs._manifest, docs._manifest.shards, int, lambda: True)
    assert docs.refresh() == version
    assert docs.optimize().merges == 1


def test_writes_and_searches_go_on_while_a_thread_merges(docs: ShardedCollection) -> None:
    failures: list[Exception] = []
    done = threading.Event()

    def search() -> None:
        try:
            while not done.is_set():
                assert len(docs.search(vectors(1, 3)[0], k=5)) == 5
                assert len(docs.get(names(20))) == 20
        except Exception as error:  # noqa: BLE001  # told by the thread that asserts
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for i in range(12):
        docs.upsert(names(20), vectors(20, 200 + i), [{"round": i}] * 20)
        docs.optimize(wait=i % 2 == 0)
    done.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert (len(docs), docs.count({"round": 11})) == (184, 20)


# ---- on its own ----------------------------------------------------------------------------------


def test_many_small_writes_leave_few_shards_and_few_open_files(db: ShardedDatabase) -> None:
    docs = db.create_collection("docs", D)
    n_open: list[int] = []
    for i in range(60):
        docs.upsert(names(3, i % 30), vectors(3, i))
        assert len(docs.stats().shards) <= ON_WRITE.fan_in
        n_open.append(len(os.listdir("/proc/self/fd")))
    assert len(docs) == 32
    assert max(n_open[30:]) <= max(n_open[:30]) + 20
    [cache] = db._cache.iterdir()
    assert len(list(cache.glob("*/records.sqlite"))) <= 2 * ON_WRITE.fan_in


def test_what_is_too_much_for_a_write_is_merged_by_a_thread(
    db: ShardedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_WRITE_BYTES", 0)
    docs = db.create_collection("docs", D)
    for i in range(ON_WRITE.fan_in):
        docs.upsert(names(1, i), vectors(1, i))
    thread = docs._upkeep._thread
    if thread is not None:
        thread.join()
    assert (len(docs), len(docs.stats().shards)) == (ON_WRITE.fan_in, 1)


def test_a_closed_collection_merges_no_more(docs: ShardedCollection) -> None:
    docs.close()
    docs._upkeep.start(compaction.ON_DEMAND)
    assert docs._upkeep._thread is None
    with pytest.raises(NotReadyError, match="closed"):
        docs.optimize()


def test_a_read_only_collection_is_not_merged(docs: ShardedCollection, tmp_path: Path) -> None:
    url = (tmp_path / "bucket").as_uri()
    with (
        faissbase.connect(url, cache=tmp_path / "r", refresh_s=0, read_only=True) as db,
        pytest.raises(AccessError, match="read-only"),
    ):
        db.get_collection("docs").optimize()


def test_train_checks_what_it_is_given(docs: ShardedCollection) -> None:
    docs.train()
    docs.train(vectors(5))
    with pytest.raises(InvalidInputError, match="d=8"):
        docs.train(np.zeros((2, 9)))


# ---- the policy ----------------------------------------------------------------------------------


def manifest_of(*rows: int, hidden: dict[int, int] | None = None) -> Manifest:
    gone = hidden or {}
    shards = tuple(Shard(str(i), n, (), n_hidden=gone.get(i, 0)) for i, n in enumerate(rows))
    return Manifest(1, "", "", "docs", 256, "l2", shards=shards)


def chosen(manifest: Manifest, policy: Policy, busy: set[str] | None = None) -> list[int]:
    return [int(shard.name) for shard in plan(manifest, policy, busy or set())]


KIB = 1  # rows of d=256 are of 1 KiB
POLICY = Policy(fan_in=3, hidden_share=0.25, tier_bytes=64 << 10, growth=4, largest_bytes=4 << 20)


def test_a_tier_that_is_full_is_merged_with_all_that_is_smaller() -> None:
    assert chosen(manifest_of(1, 2), POLICY) == []
    assert chosen(manifest_of(1, 2, 3), POLICY) == [0, 1, 2]
    assert chosen(manifest_of(100, 1, 120, 900, 200), POLICY) == [0, 1, 2, 4]
    assert chosen(manifest_of(1, 2, 3), POLICY, busy={"1"}) == []


def test_what_is_large_is_left_alone_unless_it_is_hidden() -> None:
    assert chosen(manifest_of(2500, 2500, 2500, 2500), POLICY) == []
    assert chosen(manifest_of(2500, 2500, hidden={1: 600}), POLICY) == []
    assert chosen(manifest_of(2500, 2500, hidden={1: 700}), POLICY) == [1]
    assert chosen(manifest_of(1500, 1500, 1500, 1500), POLICY) == [0, 1]


def test_a_small_shard_is_not_rewritten_for_a_few_hidden_rows() -> None:
    assert chosen(manifest_of(3, hidden={0: 2}), ON_WRITE) == []
    assert chosen(manifest_of(3000, hidden={0: 1500}), ON_WRITE) == []
    assert chosen(manifest_of(3000, hidden={0: 1501}), ON_WRITE) == [0]


def test_records_are_rewritten_as_often_as_the_logarithm_of_their_number() -> None:
    policy = Policy(fan_in=4, hidden_share=0.5, tier_bytes=8 << 10, growth=4, largest_bytes=1 << 40)
    for n, most in ((500, 12), (3_000, 16)):
        rows: list[int] = []
        rewritten = most_shards = 0
        for _ in range(n):
            rows.append(4)
            while found := chosen(manifest_of(*rows), policy):
                rewritten += sum(rows[i] for i in found)
                merged = sum(rows[i] for i in found)
                rows = [merged, *(n for i, n in enumerate(rows) if i not in found)]
            most_shards = max(most_shards, len(rows))
        assert rewritten / (4 * n) < most
        assert most_shards < 4 * 8


def test_optimize_waits_for_what_another_thread_is_merging(docs: ShardedCollection) -> None:
    ids = [f"m{i}" for i in range(200)]
    docs.add(ids, np.random.default_rng(3).random((len(ids), docs.dimension), dtype=np.float32))
    docs.delete(ids[::2])
    is_merging, may_go_on = threading.Event(), threading.Event()

    def hold(phase: str, done: int, total: int) -> None:
        is_merging.set()
        may_go_on.wait(30)

    first = threading.Thread(target=lambda: docs.optimize(progress=hold))
    reports: list[Any] = []
    second = threading.Thread(target=lambda: reports.append(docs.optimize()))
    first.start()
    assert is_merging.wait(30)
    second.start()
    second.join(0.2)
    assert not reports
    may_go_on.set()
    first.join(30)
    second.join(30)
    assert [report.slots_after for report in reports] == [docs.ntotal]
    assert docs.stats().slots == docs.ntotal
