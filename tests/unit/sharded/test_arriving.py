"""A shard that answers before its vectors are here: the same answers as one that has them, or an error."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.object_stores import BUCKET, s3_server
from tests.unit.sharded.faulty import FaultyBucket, at

from faissbase.collection.frozen import FrozenCollection
from faissbase.errors import CorruptionError, NotFoundError, NotReadyError, UnavailableError
from faissbase.sharded import arriving as arriving_module
from faissbase.sharded import cache as caches
from faissbase.sharded.arriving import MOST_ROWS, ArrivingRows
from faissbase.sharded.bucket import File, ObjectBucket, open_bucket
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.manifest import Shard
from faissbase.sharded.ranges import PIECE_BYTES

N, D = 24_000, 112  # enough numbers for an index, and for pieces that end within a row
_BULK = 1 << 20


class HeldBucket(FaultyBucket):
    """A bucket whose large ranges wait until they are let through; counts the bytes of the small ones."""

    def __init__(self, bucket: ObjectBucket) -> None:
        super().__init__(bucket)
        self.gate = threading.Event()
        self.n_small = self.n_bulk = 0
        self.sent: Callable[[bytes], bytes] = bytes

    def read(self, key: str, start: int, size_bytes: int) -> bytes:
        if size_bytes >= _BULK:
            assert self.gate.wait(60)
            self.n_bulk += 1
        else:
            self.n_small += 1
        return self.sent(super().read(key, start, size_bytes))


class World:
    """One dataset of one shard, opened whole and opened while its vectors are held back."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.bucket = HeldBucket(open_bucket(url))
        self.whole_db = ShardedDatabase(open_bucket(url), folder / "whole", refresh_s=0)
        self.db = ShardedDatabase(self.bucket, folder / "cold", refresh_s=0)
        self.whole = self.whole_db.get_collection("docs")

    def cold(self) -> ShardedCollection:
        return self.db.get_collection("docs")

    def is_whole(self) -> bool:
        return bool(list((self.folder / "cold").glob("*/*/vectors.0.f32")))

    def close(self) -> None:
        self.bucket.gate.set()
        self.db.close()
        self.whole_db.close()


def vectors() -> np.ndarray:
    rng = np.random.default_rng(5)
    centers = 4 * rng.standard_normal((60, D), np.float32)
    return centers[rng.integers(0, 60, N)] + rng.standard_normal((N, D), np.float32)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Vectors of 10 MiB beside an IVF index, their records with metadata, in a store that is not a folder."""
    folder = tmp_path_factory.mktemp("arriving")
    url = f"memory://{folder}"
    with ShardedDatabase(open_bucket(url), folder / "cache", refresh_s=0) as db:
        docs = db.create_collection("docs", D, "l2", index_type="IVF64,SQ8")
        docs.upsert([f"i{i}" for i in range(N)], vectors(), [{"n": i} for i in range(N)])
        docs.delete(["i3", "i4"])
        assert [shard.index for shard in docs.manifest.shards] == ["IVF64,SQ8"]
    return url


@pytest.fixture
def world(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    whole = World(url, tmp_path)
    monkeypatch.setattr(caches.Cache, "_late", _late_above_a_mebibyte(caches.Cache._late))
    yield whole
    whole.close()


def _late_above_a_mebibyte(late: Callable[..., Any]) -> Callable[..., Any]:
    def changed(cache: caches.Cache, shard: Any) -> Any:
        cache._waits_bytes = _BULK
        return late(cache, shard)

    return changed


def queries(n: int) -> np.ndarray:
    return vectors()[:n] + np.random.default_rng(6).standard_normal((n, D), np.float32) / 4


def near(found: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.distance) for hit in found]


def test_searches_are_answered_from_a_few_rows(world: World) -> None:
    cold = world.cold()
    for query in queries(20):
        assert near(cold.search(query, k=10)) == near(world.whole.search(query, k=10))
    assert cold.search(queries(5), k=3).ids == world.whole.search(queries(5), k=3).ids
    assert not world.is_whole()
    assert world.bucket.n_bulk == 0
    assert 0 < world.bucket.n_small < 2000


def test_a_version_is_asked_for_once_before_the_first_answer(world: World) -> None:
    world.cold().search(queries(1)[0], k=3)
    asked = {operation: world.bucket.calls[operation] for operation in ("list", "get", "size")}
    assert asked == {"list": 1, "get": 1, "size": 1}


ASKED: dict[str, Callable[[ShardedCollection], Any]] = {
    "a small filter": lambda docs: near(docs.search(queries(1)[0], 5, {"n": {"$lt": 30}})),
    "a filter with holes": lambda docs: near(
        docs.search(queries(1)[0], 5, {"n": {"$in": [*range(0, N, 999)]}})
    ),
    "a batch with a filter": lambda docs: docs.search(queries(40), 5, {"n": {"$lt": 50}}).ids,
    "records": lambda docs: [
        (each.id, each.metadata, np.asarray(each.vector).tobytes())
        for each in docs.get(["i7", "i23999", "i12000"], include_vectors=True)
    ],
    "records without vectors": lambda docs: [each.id for each in docs.get(["i1", "i2"])],
    "a page": lambda docs: [
        np.asarray(each.vector).tobytes() for each in docs.scroll(limit=50, include_vectors=True).records
    ],
    "how many": lambda docs: (len(docs), docs.count({"n": {"$gte": 100}})),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_needs_few_rows_does_not_wait_for_all(world: World, what: str) -> None:
    found = ASKED[what](world.cold())
    assert found
    assert found == ASKED[what](world.whole)
    assert world.bucket.n_bulk == 0


WAITING: dict[str, Callable[[ShardedCollection], Any]] = {
    "an exact search": lambda docs: near(docs.search(queries(1)[0], 5, recall=1.0)),
    "an exact batch": lambda docs: docs.search(queries(50), 5, recall=1.0).ids,
    "a radius": lambda docs: near(docs.range_search(queries(1)[0], 60.0)),
    "a wide filter, exactly": lambda docs: near(
        docs.search(queries(1)[0], 5, {"n": {"$lt": N // 2}}, recall=1.0)
    ),
    "a large batch": lambda docs: docs.search(queries(600), 10).ids,
    "every record": lambda docs: [
        np.asarray(each.vector).tobytes() for each in docs.get(include_vectors=True)
    ],
    "verify": lambda docs: docs.verify().ok,
}


@pytest.mark.parametrize("what", WAITING)
def test_what_needs_all_rows_waits_for_them(world: World, what: str) -> None:
    cold, found = world.cold(), []
    asking = threading.Thread(target=lambda: found.append(WAITING[what](cold)))
    asking.start()
    asking.join(0.2)
    assert not found
    world.bucket.gate.set()
    asking.join(60)
    assert found == [WAITING[what](world.whole)]
    assert world.is_whole()


def test_rows_come_in_the_background_and_stay(world: World) -> None:
    cold = world.cold()
    cold.search(queries(1)[0])
    world.bucket.gate.set()
    [shard] = cold.frozen_shards().values()
    shard._newest().view.need_all()
    assert world.is_whole()
    n_reads = world.bucket.calls["read"]
    assert near(cold.search(queries(9)[8])) == near(world.whole.search(queries(9)[8]))
    with ShardedDatabase(world.bucket, world.folder / "cold", refresh_s=0) as again:
        docs = again.get_collection("docs")
        assert near(docs.search(queries(3)[2], recall=1.0)) == near(
            world.whole.search(queries(3)[2], recall=1.0)
        )
        assert docs.verify().ok
    assert world.bucket.calls["read"] == n_reads
    assert not list((world.folder / "cold").glob("*/.faissbase-draft-*/rows"))


def test_a_cold_shard_that_is_closed_leaves_nothing_behind(world: World) -> None:
    cold = world.cold()
    cold.search(queries(1)[0])
    world.bucket.gate.set()
    world.db.close()
    for thread in threading.enumerate():
        if thread.name == "faissbase-arriving":
            thread.join(60)
    assert not list((world.folder / "cold").glob("*/.faissbase-draft-*"))
    with pytest.raises(NotReadyError):
        cold.search(queries(1)[0])


def test_a_cold_shard_is_taken_up_by_another_process_later(world: World) -> None:
    world.cold().search(queries(1)[0])
    with ShardedDatabase(open_bucket(world.url), world.folder / "cold", refresh_s=0) as other:
        docs = other.get_collection("docs")
        assert near(docs.search(queries(1)[0], recall=1.0)) == near(
            world.whole.search(queries(1)[0], recall=1.0)
        )


def test_the_plan_tells_what_waiting_costs(world: World) -> None:
    cold = world.cold()
    [before] = cold.explain(queries(1)[0]).shards.values()
    assert before.plan.path == "index"
    assert before.plan.predicted_ms["wide scan"] > 50
    world.bucket.gate.set()
    [shard] = cold.frozen_shards().values()
    shard._newest().view.need_all()
    [after] = cold.explain(queries(1)[0]).shards.values()
    assert after.plan.predicted_ms["wide scan"] < 50


# ---- a store that fails --------------------------------------------------------------------------


def test_a_row_that_is_torn_or_fails_is_asked_for_again(world: World) -> None:
    cold = world.cold()
    for fault in ("tear", "fail"):
        world.bucket.choose = at("read", world.bucket.calls["read"], fault)
        assert [each.id for each in cold.get(["i500" if fault == "tear" else "i9000"])] != []
        assert world.bucket.n_faults > 0
        world.bucket.n_faults = 0


def test_a_row_of_other_bytes_is_never_believed(world: World) -> None:
    cold = world.cold()
    world.bucket.sent = lambda content: bytes([content[0] ^ 1]) + content[1:]
    with pytest.raises(CorruptionError, match="record 'i77' in slot 77 is damaged"):
        cold.get(["i77"])
    world.bucket.sent = bytes
    assert cold.get(["i77"])[0].id == "i77"
    assert near(cold.search(queries(1)[0])) == near(world.whole.search(queries(1)[0]))


def test_a_whole_of_other_bytes_is_never_believed(world: World) -> None:
    cold = world.cold()
    expected = near(world.whole.search(queries(1)[0]))
    world.bucket.sent = lambda content: bytes(len(content)) if len(content) >= _BULK else content
    assert near(cold.search(queries(1)[0])) == expected
    world.bucket.gate.set()
    with pytest.raises(CorruptionError, match="is damaged: expected checksum"):
        cold.search(queries(1)[0], recall=1.0)
    with pytest.raises(CorruptionError, match="is damaged: expected checksum"):
        cold.search(queries(1)[0])
    assert not world.is_whole()


class _AtOnce:
    """A thread that has ended when it is started."""

    def __init__(self, target: Callable[..., None], args: tuple[Any, ...], **_: object) -> None:
        self.start = lambda: target(*args)


def test_a_store_that_is_down_for_a_while_is_an_error_until_it_is_back(world: World) -> None:
    cold = world.cold()
    cold.search(queries(1)[0])
    world.bucket.choose = lambda operation, call: "fail" if operation == "read" else None
    world.bucket.gate.set()
    for ask in (lambda: cold.get(["i9999"]), lambda: cold.search(queries(1)[0], recall=1.0)):
        with pytest.raises(UnavailableError, match="refused by a fault"):
            ask()
    with pytest.MonkeyPatch.context() as patch:  # the next try in the background fails before it is looked at
        patch.setattr(arriving_module, "threading", SimpleNamespace(Thread=_AtOnce))
        assert near(cold.search(queries(1)[0])) == near(world.whole.search(queries(1)[0]))
    world.bucket.choose = lambda operation, call: None
    exact = near(cold.search(queries(2)[1], recall=1.0))
    assert exact == near(world.whole.search(queries(2)[1], recall=1.0))
    assert world.is_whole()


def test_rows_that_cannot_be_had_do_not_have_the_rest_fetched_again(world: World) -> None:
    world.bucket.size = lambda key: 1  # type: ignore[method-assign]
    with pytest.raises(CorruptionError, match="expected 10752000 bytes, got 1"):
        world.cold()
    assert world.bucket.calls["download"] == 3  # records, codes, hidden slots


@pytest.mark.parametrize(("damage", "told"), [("gone", "k is gone"), ("short", "k is damaged")])
def test_an_object_that_cannot_be_the_rows_is_refused_when_opened(
    tmp_path: Path, damage: str, told: str
) -> None:
    bucket = open_bucket(f"memory://{tmp_path}")
    content = np.arange(2 * PIECE_BYTES, dtype=np.uint8).tobytes()
    if damage == "short":
        bucket.create("k", content[:-4])
    cache = caches.Cache(tmp_path / "cache", bucket, waits_bytes=0)
    shard = Shard("s", 1, (File("vectors.0.f32", "k", len(content), "00"),), index="IVF4,SQ8")
    with pytest.raises(CorruptionError, match=told):
        cache.arrival(shard, 4)


def test_rows_whose_object_is_gone_meanwhile_are_an_error_that_names_it(world: World) -> None:
    cold = world.cold()

    def vanished(key: str, start: int, size_bytes: int) -> bytes:
        raise NotFoundError("there is no such object")

    world.bucket.read = vanished  # type: ignore[method-assign]
    with pytest.raises(CorruptionError, match=r"vectors\.0\.f32 is gone, which dataset 'docs' needs"):
        cold.search(queries(1)[0], 5)


def test_a_cold_shard_over_s3_answers_as_the_whole_one(tmp_path: Path) -> None:
    pytest.importorskip("moto.server")
    with s3_server() as options:
        url = f"s3://{BUCKET}/prod"
        cold_cache = tmp_path / "cold"
        with ShardedDatabase(open_bucket(url, options), tmp_path / "whole", refresh_s=0) as whole:
            docs = whole.create_collection("docs", D, "l2", index_type="IVF64,SQ8")
            docs.upsert([f"i{i}" for i in range(N)], vectors())
            expected = [near(docs.search(query, 5)) for query in queries(3)]
            [shard] = docs.manifest.shards
            cache = caches.Cache(cold_cache, open_bucket(url, options), waits_bytes=0)
            config = docs.config
        folder = cache.ready(shard)
        assert not (folder / "vectors.0.f32").exists()
        cold = FrozenCollection(folder, config, arriving=lambda: cache.arrival(shard, D))
        assert [near(cold.search(query, 5)) for query in queries(3)] == expected
        assert cold.verify().ok
        assert (folder / "vectors.0.f32").stat().st_size == 4 * D * N
        cold.close()


# ---- the rows alone ------------------------------------------------------------------------------


def arriving_rows(folder: Path) -> tuple[np.ndarray, HeldBucket, ArrivingRows, np.ndarray]:
    """Rows, the bucket that holds them back, what brings them, and the file as it fills."""
    rows = np.random.default_rng(1).standard_normal((40_000, 33)).astype(np.float32)
    source = folder / "rows"
    source.write_bytes(rows.tobytes())
    bucket = HeldBucket(open_bucket(f"memory://{folder}"))
    file = bucket.upload(source, "vectors.0.f32", "k")
    (folder / "shard").mkdir()
    arriving = ArrivingRows(bucket, file, folder / "shard", 33)
    return rows, bucket, arriving, np.memmap(arriving.path, np.float32, "r").reshape(-1, 33)


def test_the_first_rows_that_are_needed_come_before_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[int] = []
    original = HeldBucket.read

    def read(bucket: HeldBucket, key: str, start: int, size_bytes: int) -> bytes:
        order.append(start)
        return original(bucket, key, start, size_bytes)

    monkeypatch.setattr(HeldBucket, "read", read)
    monkeypatch.setattr(arriving_module, "_HEAD_START_S", 600.0)
    rows, bucket, arriving, _ = arriving_rows(tmp_path)
    arriving.check_with(lambda slots, found: np.testing.assert_array_equal(rows[slots], found))
    bucket.gate.set()
    arriving.begin()
    arriving.need([30_000])
    arriving.need_all()
    assert order[:2] == [30_000 * 33 * 4, 0]
    arriving.close()


@pytest.mark.parametrize("ended", ["need_all", "close"])
def test_nobody_waits_for_the_head_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: str) -> None:
    monkeypatch.setattr(arriving_module, "_HEAD_START_S", 600.0)
    _, bucket, arriving, _ = arriving_rows(tmp_path)
    bucket.gate.set()
    arriving.begin()
    if ended == "need_all":
        arriving.need_all()
    coming = arriving._coming()
    arriving.close()
    assert coming.exception(60) is None or ended == "close"


def test_what_was_believed_is_not_written_over(tmp_path: Path) -> None:
    rows, bucket, arriving, mapped = arriving_rows(tmp_path)
    arriving.check_with(lambda slots, found: np.testing.assert_array_equal(rows[slots], found))
    wanted = np.arange(3, 40_000, 777)
    arriving.need(wanted)
    bucket.sent = lambda content: bytes(len(content))
    bucket.gate.set()
    with pytest.raises(CorruptionError, match="expected checksum"):
        arriving.need_all()
    np.testing.assert_array_equal(mapped[wanted], rows[wanted])
    assert not mapped[4].any()
    arriving.close()


def test_what_is_not_believed_is_not_written_either(tmp_path: Path) -> None:
    """Damaged rows that come after the whole, and before somebody has looked at them, spoil nothing."""
    rows, bucket, arriving, _ = arriving_rows(tmp_path)

    def check(slots: np.ndarray, found: np.ndarray) -> None:
        if (rows[slots] != found).any():
            raise CorruptionError("other rows")

    def late_and_damaged(content: bytes) -> bytes:
        if len(content) >= _BULK:
            return content
        bucket.gate.set()
        arriving.need_all()
        return bytes(len(content))

    arriving.check_with(check)
    bucket.sent = late_and_damaged
    with pytest.raises(CorruptionError, match="other rows"):
        arriving.need([39_000])
    assert (tmp_path / "shard" / "vectors.0.f32").read_bytes() == rows.tobytes()
    arriving.need([39_000])
    arriving.close()


def test_any_order_of_needs_brings_the_rows_that_were_stored(tmp_path: Path) -> None:
    rows, bucket, arriving, mapped = arriving_rows(tmp_path)
    wrong: list[Any] = []
    arriving.check_with(lambda slots, found: wrong.extend(slots[(rows[slots] != found).any(axis=1)]))
    arriving.begin()

    def ask(seed: int) -> None:
        chance = np.random.default_rng(seed)
        for step in range(60):
            if (seed, step) == (0, 30):
                bucket.gate.set()
            slots = chance.integers(-2, 40_002, chance.integers(1, 60))
            arriving.need(slots)
            inside = slots[(slots >= 0) & (slots < 40_000)]
            wrong.extend(inside[(mapped[inside] != rows[inside]).any(axis=1)])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arriving.need(range(MOST_ROWS + 1))  # which may be there before the last ones are
    arriving.need_all()
    assert arriving.is_whole
    assert not wrong
    assert (tmp_path / "shard" / "vectors.0.f32").read_bytes() == rows.tobytes()
    arriving.close()
