"""Stores that fail: a write is whole or not there, what was acknowledged stays, the next call works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.sharded.faulty import FAULTS, FaultyBucket, at, by_chance, nowhere

from faissbase.errors import CorruptionError, FaissbaseError, NotFoundError, UnavailableError
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase

D = 4
State = dict[str, Any]
Write = Callable[[ShardedCollection], object]

WRITES: dict[str, Write] = {
    "upsert": lambda docs: docs.upsert(["a", "b", "new"], vectors(3, 7), [{"n": 1}, {"n": 2}, {"n": 3}]),
    "add": lambda docs: docs.add(["x", "y"], vectors(2, 8)),
    "update": lambda docs: docs.update(["a", "d"], [{"more": True}, {"more": False}]),
    "delete": lambda docs: docs.delete(["b", "d"]),
    "delete by filter": lambda docs: docs.delete(where={"n": {"$gte": 2}}),
    "reset": lambda docs: docs.reset(),
    "optimize": lambda docs: docs.optimize(),
}
CASES = [(operation, fault) for operation, faults in FAULTS.items() for fault in faults if fault != "delay"]


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, D), np.float32)


def state(docs: ShardedCollection) -> State:
    """Everything there is, by id."""
    found = docs.get(include_vectors=True)
    assert len(found) == len({record.id for record in found}) == len(docs)
    return {record.id: (record.metadata, record.document, record.vector.tobytes()) for record in found}  # type: ignore[union-attr]


class World:
    """A dataset of four records in two shards, one of them hidden in part, opened through a faulty bucket."""

    def __init__(self, folder: Path, *, on_disk: bool = False) -> None:
        self.folder = folder
        self.url = (folder / "bucket").as_uri() if on_disk else f"memory://{folder}"
        self.bucket = FaultyBucket(open_bucket(self.url))
        self.db = ShardedDatabase(self.bucket, folder / "cache", refresh_s=0)
        self.docs = self.db.create_collection("docs", D, "l2")
        self.docs.upsert(["a", "b", "c"], vectors(3, 0), [{"n": 1}, {"n": 2}, {"n": 3}])
        self.docs.upsert(["c", "d"], vectors(2, 1), [{"n": 4}, {"n": 5}])

    def fresh_state(self, name: str = "other") -> State:
        """What somebody sees who has seen nothing before, on a machine of their own."""
        with ShardedDatabase(open_bucket(self.url), self.folder / name, refresh_s=0) as db:
            return state(db.get_collection("docs"))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize(("operation", "fault"), CASES)
def test_a_write_that_meets_a_fault_is_whole_or_not_at_all(
    tmp_path: Path, write: str, operation: str, fault: str
) -> None:
    model = World(tmp_path / "model")
    before = state(model.docs)
    calls = dict(model.bucket.calls)
    WRITES[write](model.docs)
    after = model.fresh_state()
    n_calls = model.bucket.calls[operation] - calls[operation]
    model.db.close()
    for nth in range(n_calls):
        world = World(tmp_path / str(nth))
        world.bucket.choose = at(operation, world.bucket.calls[operation] + nth, fault)
        try:
            WRITES[write](world.docs)
            is_acknowledged = True
        except UnavailableError:
            is_acknowledged = False
        world.bucket.choose = nowhere
        found = world.fresh_state()
        assert found in ([after] if is_acknowledged else [before, after]), f"call {nth}"
        world.docs.upsert("later", vectors(1, 9))
        assert set(state(world.docs)) == {*found, "later"}
        world.db.close()


@pytest.mark.parametrize("seed", range(8))
def test_faults_by_chance_lose_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path)
    chance = np.random.default_rng(seed)
    world.bucket.choose = by_chance(seed, 0.15)
    possible = [state(world.docs)]
    for step in range(25):
        name = str(chance.choice(["upsert", "delete", "optimize", "upsert", "many"]))
        ids = [f"i{i}" for i in chance.choice(12, 3, replace=False)]
        x = vectors(3, 100 + step)
        changes = {"upsert": _upserted(ids, x, step), "many": _upserted(ids, x, step)}
        try:
            if name == "delete":
                world.docs.delete(ids)
            elif name == "optimize":
                world.docs.optimize()
            else:
                world.docs.upsert(ids, x, [{"step": step}] * 3)
            is_acknowledged = True
        except UnavailableError:
            is_acknowledged = False
        become = [
            _changed(known, changes.get(name, {}), ids if name == "delete" else []) for known in possible
        ]
        possible = become if is_acknowledged else [*possible, *become]
        chosen, world.bucket.choose = world.bucket.choose, nowhere
        found = world.fresh_state()
        assert found in possible, f"step {step}: {name}"
        possible = [found]
        world.bucket.choose = chosen
    assert world.bucket.n_faults > 3
    world.bucket.choose = nowhere
    world.docs.refresh()
    assert state(world.docs) == possible[0]
    world.db.close()


def _upserted(ids: list[str], x: np.ndarray, step: int) -> State:
    return {id: ({"step": step}, None, row.tobytes()) for id, row in zip(ids, x, strict=True)}


def _changed(known: State, put: State, removed: list[str]) -> State:
    return {id: value for id, value in (known | put).items() if id not in removed}


def test_creating_and_deleting_datasets_is_whole_or_not_at_all(tmp_path: Path) -> None:
    for operation, fault in CASES:
        for nth in range(3):
            bucket = FaultyBucket(open_bucket(f"memory://{tmp_path}/{operation}-{fault}-{nth}"))
            with ShardedDatabase(bucket, tmp_path / "cache", refresh_s=0) as db:
                bucket.choose = at(operation, nth, fault)
                try:
                    db.create_collection("docs", D)
                    assert db.list_collections() == ["docs"]
                except UnavailableError:
                    pass
                bucket.choose = nowhere
                docs = db.get_or_create_collection("docs", D)
                docs.upsert("a", vectors(1, 0))
                bucket.choose = at(operation, bucket.calls[operation] + nth, fault)
                try:
                    db.delete_collection("docs")
                    assert db.list_collections() == []
                except UnavailableError:
                    pass
                bucket.choose = nowhere
                assert len(db.get_or_create_collection("docs", D)) in (0, 1)


def test_a_store_that_is_down_leaves_the_open_version_serving(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.bucket.choose = lambda operation, call: "fail"
    with pytest.raises(UnavailableError):
        world.docs.refresh()
    assert len(world.docs) == len(world.docs.search(vectors(1, 3)[0], k=9)) == 4
    with pytest.raises(UnavailableError):
        world.docs.upsert("e", vectors(1, 4))
    world.bucket.choose = nowhere
    assert world.docs.upsert("e", vectors(1, 4)) == 1
    world.db.close()


# ---- damage --------------------------------------------------------------------------------------


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: dict[str, tuple[Callable[[Path], object], type[FaissbaseError]]] = {
    "flipped": (flipped, CorruptionError),
    "cut": (cut, CorruptionError),
    "missing": (Path.unlink, CorruptionError),
}


def damaged_world(folder: Path, damage: str) -> tuple[str, str]:
    """A dataset with each file of its first shard damaged in turn: the shard, and the key of the file."""
    world = World(folder, on_disk=True)
    shard = world.docs._current[0].shards[0]
    world.db.close()
    key = shard.files[0].key
    path = folder / "bucket" / key
    path.write_bytes(path.read_bytes())  # not the inode that the cache of the writer shares
    DAMAGES[damage][0](path)
    return shard.name, key


def test_an_object_that_is_gone_is_told_with_its_dataset_and_what_to_do(tmp_path: Path) -> None:
    _, key = damaged_world(tmp_path, "missing")
    bucket = open_bucket(str(tmp_path / "bucket"))
    with ShardedDatabase(bucket, tmp_path / "other", refresh_s=0) as db:
        with pytest.raises(CorruptionError) as told:
            db.get_collection("docs")
        with pytest.raises(NotFoundError, match="no collection 'dogs'"):
            db.get_collection("dogs")
    for word in (f"{bucket.url}/{key} is gone", "'docs'", "--replace", f"shards verify {bucket.url} docs"):
        assert word in str(told.value)


def test_what_is_here_serves_though_its_object_is_gone(tmp_path: Path) -> None:
    world = World(tmp_path, on_disk=True)
    before = state(world.docs)
    world.db.close()
    for path in (tmp_path / "bucket" / "docs" / "shards").rglob("*"):
        if path.is_file():
            path.unlink()
    with ShardedDatabase(open_bucket(str(tmp_path / "bucket")), tmp_path / "cache", refresh_s=0) as db:
        assert state(db.get_collection("docs")) == before


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_an_error_that_names_it(tmp_path: Path, damage: str) -> None:
    _, key = damaged_world(tmp_path, damage)
    bucket = open_bucket(str(tmp_path / "bucket"))
    with (
        ShardedDatabase(bucket, tmp_path / "other", refresh_s=0) as db,
        pytest.raises(DAMAGES[damage][1], match=key),
    ):
        db.get_collection("docs")
    assert not list((tmp_path / "other").rglob("records.sqlite")), "nothing of it is kept"


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_object_is_a_flagged_partial_answer_where_allowed(tmp_path: Path, damage: str) -> None:
    shard, key = damaged_world(tmp_path, damage)
    bucket = open_bucket(str(tmp_path / "bucket"))
    with ShardedDatabase(bucket, tmp_path / "other", refresh_s=0, allow_partial=True) as db:
        docs = db.get_collection("docs")
        hits, result = docs.search(vectors(1, 0)[0], k=9), docs.search(vectors(2, 0), k=9)
        assert {hit.id for hit in hits} == {"c", "d"}
        for answer in (hits, result):
            assert not answer.complete
            assert answer.shards_missing == (shard,)
        assert key in docs.stats().shards_missing[shard]
        with pytest.raises(UnavailableError, match=shard):
            docs.upsert("a", vectors(1, 0))  # what it would replace cannot be known
        assert docs.count() == 4  # as the manifest says; all else could not say what is missing
        for ask in (lambda: docs.get("a"), lambda: docs.count({"a": 1}), docs.scroll, docs.verify):
            with pytest.raises(UnavailableError, match=f"{shard} of version .* is missing"):
                ask()
        assert docs.refresh() == docs.version


def test_a_shard_that_comes_back_is_taken_up_by_a_refresh(tmp_path: Path) -> None:
    shard, key = damaged_world(tmp_path, "flipped")
    flipped(tmp_path / "bucket" / key)
    sound = (tmp_path / "bucket" / key).read_bytes()
    flipped(tmp_path / "bucket" / key)
    bucket = open_bucket(str(tmp_path / "bucket"))
    with ShardedDatabase(bucket, tmp_path / "other", refresh_s=0, allow_partial=True) as db:
        docs = db.get_collection("docs")
        assert docs.search(vectors(1, 0)[0]).shards_missing == (shard,)
        (tmp_path / "bucket" / key).write_bytes(sound)
        docs.refresh()
        assert len(docs.search(vectors(1, 0)[0])) == 4
        assert docs.search(vectors(1, 0)[0]).complete


def test_a_damaged_copy_on_this_machine_is_brought_again(tmp_path: Path) -> None:
    world = World(tmp_path, on_disk=True)
    shard = world.docs._current[0].shards[0]
    world.db.close()
    [copy] = (tmp_path / "cache").glob(f"*/{shard.name}/records.sqlite")
    content = copy.read_bytes()
    copy.unlink()  # the inode is the bucket's
    copy.write_bytes(content)
    flipped_header = bytearray(content)
    flipped_header[:100] = bytes(100)
    copy.write_bytes(flipped_header)
    with ShardedDatabase(open_bucket(str(tmp_path / "bucket")), tmp_path / "cache", refresh_s=0) as db:
        assert len(state(db.get_collection("docs"))) == 4
