"""Shards behind workers: the answers of one process, whichever worker is slow, gone or damaged."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.shard_workers import FixedRoutes, ThreadWorker

import faissbase
from faissbase.errors import CorruptionError, InvalidInputError, UnavailableError
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.fanout import Tally
from faissbase.sharded.group import ShardGroup
from faissbase.sharded.router import RoutedGroup
from faissbase.sharded.worker import Call, Reply, ShardServer, WorkerGoneError
from faissbase.types import Record

D, N_SHARDS, N = 16, 4, 60
WORKERS = ("a", "b", "c", "d")


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[ShardedCollection]:
    """240 records in four shards; the 20 of the last are doubles of others, so that distances tie."""
    with faissbase.connect((tmp_path / "bucket").as_uri(), cache=tmp_path / "local", refresh_s=0) as db:
        docs = db.create_collection("docs", D, metric="l2")
        for i in range(N_SHARDS):
            ids = [f"i{j}" for j in range(i * N, (i + 1) * N)]
            x = vectors(N, i) if i < N_SHARDS - 1 else np.concatenate([vectors(20, 0), vectors(N - 20, i)])
            metadatas = [{"n": j, "even": j % 2 == 0} for j in range(i * N, (i + 1) * N)]
            docs.upsert(ids, x, metadatas, [f"word{j % 7} of shard {i}" for j in range(N)])
        docs.delete(["i3", "i70"])
        yield docs


class Tier:
    """Four workers, each of which holds two of the shards, and a collection that asks them."""

    def __init__(self, tmp_path: Path, local: ShardedCollection, replicas: int = 2) -> None:
        bucket = open_bucket((tmp_path / "bucket").as_uri())
        self.workers = {name: ThreadWorker(name, bucket, tmp_path / f"cache-{name}") for name in WORKERS}
        self.shards = local._current[0].shards
        places = [tuple(WORKERS[(i + j) % len(WORKERS)] for j in range(replicas)) for i in range(N_SHARDS)]
        placed = {shard.name: places[i % N_SHARDS] for i, shard in enumerate(self.shards)}
        self.routes = FixedRoutes(list(self.workers.values()), placed)
        self.tally = Tally(time.monotonic)
        self._made: list[ShardedDatabase] = []
        self._url, self._cache = bucket.url, tmp_path / "client"

    def collection(self, *, allow_partial: bool = False, timeout_s: float = 10.0) -> ShardedCollection:
        db = ShardedDatabase(
            open_bucket(self._url),
            self._cache,
            refresh_s=0,
            groups=lambda name: (
                lambda manifest, before: RoutedGroup(
                    manifest, self.routes, self.tally, allow_partial=allow_partial, timeout_s=timeout_s
                )
            ),
        )
        self._made.append(db)
        return db.get_collection("docs")

    def close(self) -> None:
        for db in self._made:
            db.close()
        for worker in self.workers.values():
            worker.close()


@pytest.fixture
def tier(tmp_path: Path, local: ShardedCollection) -> Iterator[Tier]:
    made = Tier(tmp_path, local)
    yield made
    made.close()


def test_answers_are_those_of_one_process(local: ShardedCollection, tier: Tier) -> None:
    far = tier.collection()
    xq = np.concatenate([vectors(10, 9), vectors(5, 0)])
    where = {"n": {"$lt": 150}, "even": True}
    for k, filter in ((7, None), (300, None), (5, where)):
        here, there = local.search(xq, k, filter), far.search(xq, k, filter)
        assert here.ids == there.ids
        np.testing.assert_array_equal(here.distances, there.distances)
        assert [list(far.search(q, k, filter)) for q in xq] == [list(local.search(q, k, filter)) for q in xq]
    assert far.range_search(xq, 30.0).ids == local.range_search(xq, 30.0).ids
    assert list(far.text_search("word3", 50)) == list(local.text_search("word3", 50))
    assert list(far.hybrid_search("word3", xq[0])) == list(local.hybrid_search("word3", xq[0]))
    assert far.count(where) == local.count(where) == 75 - 1
    assert [each.id for each in far.get(["i5", "i3", "i200"])] == ["i5", "i200"]
    assert scrolled(far) == scrolled(local)
    assert set(far.explain(xq, 5).shards) == {shard.name for shard in tier.shards}
    assert far.stats().tombstones == 2
    assert far.verify().rows_checked == local.verify().rows_checked


def test_searches_that_come_together_are_fewer_calls_with_the_same_answers(
    local: ShardedCollection, tier: Tier
) -> None:
    far, xq = tier.collection(), vectors(96, 9)
    far.search(xq[0], 7)
    for worker in tier.workers.values():
        worker.fault = lambda call: time.sleep(0.01)
    n_before = tier.tally.n_calls
    found: list[list[str]] = [[]] * len(xq)

    def ask(i: int) -> None:
        found[i] = [hit.id for hit in far.search(xq[i], 7 if i % 8 else 5)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(xq))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = local.search(xq, 7).ids
    assert found == [ids if i % 8 else ids[:5] for i, ids in enumerate(expected)]
    n_each = len(tier.workers)  # asked side by side
    assert tier.tally.n_calls - n_before < len(xq) * n_each / 3


def test_many_kinds_of_searches_are_asked_each_by_itself(local: ShardedCollection, tier: Tier) -> None:
    far, q = tier.collection(), vectors(1, 9)[0]
    for k in range(1, 40):
        assert list(far.search(q, k)) == list(local.search(q, k))
    group = far._current[1]
    assert isinstance(group, RoutedGroup)
    assert len(group._kinds) == 16


def test_a_worker_computes_on_as_many_cores_as_it_was_given(
    tmp_path: Path, local: ShardedCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, n_now, most = threading.Lock(), 0, dict.fromkeys(("search_one", "stats"), 0)

    def counted(name: str) -> Callable[..., Any]:
        whole = getattr(ShardGroup, name)

        def run(*args: Any) -> Any:
            nonlocal n_now
            with lock:
                n_now += 1
                most[name] = max(most[name], n_now)
            time.sleep(0.01)
            try:
                return whole(*args)
            finally:
                with lock:
                    n_now -= 1

        return run

    server = ShardServer(
        open_bucket((tmp_path / "bucket").as_uri()),
        tmp_path / "two",
        life="",
        node="",
        now=time.monotonic,
        cores=2,
    )
    names = tuple(shard.name for shard in local._current[0].shards)
    calls = {
        "search_one": Call("docs", local.version, names, "search_one", (vectors(1, 9)[0], 5, None, {})),
        "stats": Call("docs", local.version, names, "stats"),
    }
    for name, call in calls.items():
        monkeypatch.setattr(ShardGroup, name, counted(name))
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _, call=call: server.answer(call), range(24)))
        assert [reply.error for reply in replies] == [None] * 24
    server.close()
    assert most["search_one"] == 2
    assert most["stats"] > 2  # it reads and waits: searches are not held up


def scrolled(docs: ShardedCollection) -> list[str]:
    found: list[Record] = []
    cursor: str | None = None
    while True:
        page = docs.scroll({"even": False}, limit=17, cursor=cursor)
        found += page.records
        cursor = page.cursor
        if cursor is None:
            return [record.id for record in found]


def test_writes_go_through_and_are_found(local: ShardedCollection, tier: Tier) -> None:
    far = tier.collection()
    tier.routes.placed = Everywhere()
    far.upsert(["new", "i5"], vectors(2, 50))
    assert far.delete(where={"n": {"$gte": 230}}) == 10
    assert (far.search(vectors(2, 50), 1).ids, len(far)) == ([["new"], ["i5"]], 238 - 10 + 1)
    assert local.refresh() == far.version
    assert local.search(vectors(9, 9), 300).ids == far.search(vectors(9, 9), 300).ids


class Everywhere(dict[str, tuple[str, ...]]):
    """Every shard, of whatever version, on every worker."""

    def get(self, shard: str, default: object = None) -> tuple[str, ...]:
        return WORKERS


def test_a_worker_that_is_gone_is_replaced_and_told(local: ShardedCollection, tier: Tier) -> None:
    far = tier.collection()
    tier.workers["b"].kill()
    xq = vectors(5, 9)
    assert far.search(xq, 7).ids == local.search(xq, 7).ids
    assert set(tier.routes.doubted) == {"b"}
    assert tier.tally.n_retries == 1


def test_a_worker_that_ends_in_the_middle_is_replaced(local: ShardedCollection, tier: Tier) -> None:
    def ending(call: Call) -> object:
        raise WorkerGoneError("killed")

    tier.workers["c"].fault = ending
    far, xq = tier.collection(), vectors(5, 9)
    assert [list(far.search(q, 7)) for q in xq] == [list(local.search(q, 7)) for q in xq]


@pytest.mark.parametrize(
    "nonsense",
    [
        lambda call: "nonsense",
        lambda call: Reply(call.version + 1, call.shards, []),
        lambda call: Reply(call.version, call.shards[:0], []),
        lambda call: Reply(call.version, call.shards, {"no": "hits"}),
        lambda call: Reply(call.version, call.shards, [1, 2]),
    ],
)
def test_nonsense_is_not_taken_for_an_answer(
    local: ShardedCollection, tier: Tier, nonsense: Callable[[Call], object]
) -> None:
    tier.workers["a"].fault = nonsense
    far, q = tier.collection(), vectors(1, 9)[0]
    assert list(far.search(q, 7)) == list(local.search(q, 7))
    assert "a" in tier.routes.doubted


def test_a_worker_that_hangs_is_helped_and_then_avoided(local: ShardedCollection, tier: Tier) -> None:
    is_over = threading.Event()
    far, xq = tier.collection(), vectors(40, 9)
    for q in xq:  # so that it is known what is slow
        far.search(q, 7)
    tier.workers["a"].fault = lambda call: is_over.wait(10) and None
    try:
        began = time.monotonic()
        assert [list(far.search(q, 7)) for q in xq] == [list(local.search(q, 7)) for q in xq]
        assert time.monotonic() - began < 8
        assert tier.tally.n_hedges > 0
        assert len([call for call in tier.workers["a"].calls if call.method == "search_one"]) < 60
    finally:
        is_over.set()


def test_hedges_are_one_call_in_ten_at_most_and_few_are_saved_up() -> None:
    tally = Tally(time.monotonic)
    for _ in range(1000):
        tally.began("a")
    assert sum(tally.may_hedge() for _ in range(100)) == 3
    n_hedges = 0
    for _ in range(1000):
        tally.began("a")
        n_hedges += tally.may_hedge()
    assert 90 <= n_hedges <= 100


def test_a_damaged_shard_is_answered_by_the_other_replica(local: ShardedCollection, tier: Tier) -> None:
    name = tier.shards[1].name
    far, xq = tier.collection(), vectors(5, 9)
    damaged = tier.workers["b"].server

    def refused(dataset: str, version: int, shards: object) -> dict[str, CorruptionError]:
        damaged_open(dataset, version, [each for each in shards if each != name])  # type: ignore[attr-defined]
        return {name: CorruptionError("checksum")} if name in shards else {}  # type: ignore[operator]

    damaged_open = damaged.open
    damaged.open = refused  # type: ignore[method-assign, assignment]
    assert far.search(xq, 7).ids == local.search(xq, 7).ids
    tier.workers["c"].kill()
    with pytest.raises(UnavailableError, match=f"shard {name} .* gone"):
        far.search(xq, 7)


def test_what_nobody_can_answer_is_an_error_or_told(tmp_path: Path, local: ShardedCollection) -> None:
    tier = Tier(tmp_path, local, replicas=1)
    try:
        strict, partial = tier.collection(), tier.collection(allow_partial=True)
        tier.workers["c"].kill()
        gone = [shard.name for shard in tier.shards if tier.routes.placed[shard.name] == ("c",)]
        q = vectors(1, 9)
        for call in (lambda: strict.search(q[0]), lambda: strict.search(q), lambda: strict.text_search("of")):
            with pytest.raises(UnavailableError, match=f"shard {gone[0]} of version"):
                call()
        answers: list[Any] = [partial.search(q[0]), partial.search(q), partial.text_search("of")]
        for answer in answers:
            assert (answer.complete, answer.shards_missing) == (False, tuple(gone))
        lost = {f"i{j}" for j in range(2 * N, 3 * N)}
        assert {hit.id for hit in partial.search(q[0], 500)} == {r.id for r in local.get(where={})} - lost
        assert list(partial.explain(q, 5).shards_missing) == gone
        with pytest.raises(UnavailableError):
            partial.count({"even": True})  # a number cannot say that something is missing
    finally:
        tier.close()


def test_an_answer_that_does_not_come_is_an_error_in_time(tier: Tier) -> None:
    is_over = threading.Event()
    for worker in tier.workers.values():
        worker.fault = lambda call: is_over.wait(10) and None
    try:
        with pytest.raises(UnavailableError, match="no answer in time"):
            tier.collection(timeout_s=0.3).search(vectors(1, 9)[0])
    finally:
        is_over.set()


def test_a_wrong_call_is_not_tried_elsewhere(tier: Tier) -> None:
    def refusing(call: Call) -> object:
        return Reply(call.version, call.shards, error=InvalidInputError("a filter that is wrong"))

    for worker in tier.workers.values():
        worker.fault = refusing
    with pytest.raises(InvalidInputError, match="a filter that is wrong"):
        tier.collection().search(vectors(1, 9)[0])
    assert tier.tally.n_retries == 0


class Askers:
    """Eight threads that ask until they are told to stop; ``wrong`` is what came back wrong, or an error."""

    def __init__(self, far: ShardedCollection, xq: np.ndarray, truth: list[list[str]]) -> None:
        self.wrong: list[object] = []
        self.is_over = threading.Event()
        self._asked = [0] * 8
        self._far, self._xq, self._truth = far, xq, truth
        self._threads = [threading.Thread(target=self._run, args=(part,)) for part in range(8)]
        for thread in self._threads:
            thread.start()

    def _run(self, part: int) -> None:
        try:
            while not self.is_over.is_set():
                for i in range(part, 64, 8):
                    if [hit.id for hit in self._far.search(self._xq[i], 7)] != self._truth[i]:
                        self.wrong.append(i)
                    self._asked[part] += 1
        except faissbase.FaissbaseError as error:
            self.wrong.append(error)

    def have_gone_on(self) -> bool:
        """Wait until nobody waits any more for what was asked before."""
        before, until_s = list(self._asked), time.monotonic() + 60
        while any(now < was + 2 for now, was in zip(self._asked, before, strict=True)):
            if self.wrong or time.monotonic() > until_s:
                return False
            self.is_over.wait(0.002)
        return True

    def stop(self) -> None:
        self.is_over.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("seed", range(3))
def test_no_query_is_lost_while_one_worker_at_a_time_fails(
    local: ShardedCollection, tier: Tier, seed: int
) -> None:
    """Again and again another worker has a fault, once nobody waits for the last one."""
    random_ = random.Random(seed)
    xq = vectors(64, 9)
    askers = Askers(tier.collection(), xq, local.search(xq, 7).ids)
    faults: dict[str, Any] = {"slow": lambda call: time.sleep(0.05), "nonsense": lambda call: 7, "gone": None}
    for _ in range(20):
        worker = tier.workers[random_.choice(WORKERS)]
        kind = random_.choice(["gone", "slow", "nonsense"])
        worker.is_gone, worker.fault = kind == "gone", faults[kind]
        askers.is_over.wait(0.05)
        worker.fault = None
        if kind == "gone":
            worker.restart()
        if not askers.have_gone_on():
            break
    askers.stop()
    assert askers.wrong == []
    assert tier.tally.n_retries > 0


def test_versions_are_switched_under_load_and_never_mixed(local: ShardedCollection, tier: Tier) -> None:
    """Each version moves all records by one: an answer of two versions would show two distances."""
    tier.routes.placed = Everywhere()
    far = tier.collection()
    ids, x = [f"i{j}" for j in range(4 * N)], np.zeros((4 * N, D), np.float32)
    far.upsert(ids, x)
    is_over = threading.Event()
    wrong: list[object] = []
    seen: set[float] = set()

    def asking() -> None:
        while not is_over.is_set():
            try:
                distances = {hit.distance for hit in far.search(np.zeros(D, np.float32), 4 * N)}
            except faissbase.FaissbaseError as error:
                wrong.append(error)
                return
            seen.update(distances)
            if len(distances) != 1:
                wrong.append(distances)

    threads = [threading.Thread(target=asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for version in range(1, 6):
        x[:, 0] = version
        with faissbase.connect(tier._url, cache=tier._cache, refresh_s=0) as db:
            db.get_collection("docs").upsert(ids, x)
        far.refresh()
    is_over.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(seen) > 1
