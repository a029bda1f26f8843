"""Datasets built from every kind of source: what is in them, what is refused, what is done again."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
import pytest

import faissbase
import faissbase.sharded.build as build_module
from faissbase.errors import AlreadyExistsError, ConflictError, InvalidInputError, NotFoundError
from faissbase.sharded import stages
from faissbase.sharded.bucket import Bucket, open_bucket
from faissbase.sharded.build import BuildReport, Request, build
from faissbase.sharded.codecs import CODECS, index_of
from faissbase.sharded.collection import ShardedCollection
from faissbase.sharded.database import ShardedDatabase
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.executors import InlineExecutor
from faissbase.sharded.ledger import Ledger
from faissbase.sharded.sources import Source, Stored, find_files
from faissbase.sharded.stages import Settings
from faissbase.storage.tables.open import open_writer
from faissbase.types import Batch, Float32

D = 16
T = TypeVar("T")
R = TypeVar("R")


def vectors(n: int, seed: int = 0, d: int = D) -> Float32:
    """Rows around twenty centres, as real embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, d), np.float32)
    noise = np.float32(0.6) * rng.standard_normal((n, d), np.float32)
    found: Float32 = centres[rng.integers(0, 20, n)] + noise
    return found


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return open_bucket(str(tmp_path / "bucket"))


class Building:
    """Builds in a temporary folder."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder = folder
        self.bucket = bucket

    def __call__(
        self,
        source: Source,
        *,
        rows: int | None = 1000,
        replace: bool = False,
        executor: Any = None,
        queries: Any = None,
        **settings: Any,
    ) -> BuildReport:
        wanted = Settings(**{"metric": "l2", **settings})
        request = Request("docs", wanted, rows_per_shard=rows, is_replacing=replace, queries=queries)
        return build(request, source, self.bucket, self.folder / "work", executor or InlineExecutor())

    def ledger(self, source: Source, *, rows: int = 1000, **settings: Any) -> Ledger:
        request = Request("docs", Settings(**{"metric": "l2", **settings}), rows_per_shard=rows)
        return Ledger(self.bucket, "docs", request.fingerprint(source))


@pytest.fixture
def building(tmp_path: Path, bucket: Bucket) -> Building:
    return Building(tmp_path, bucket)


@pytest.fixture
def opened(tmp_path: Path, bucket: Bucket) -> Iterator[Callable[[], ShardedCollection]]:
    """Opens the dataset anew each time."""
    databases: list[ShardedDatabase] = []

    def open_dataset() -> ShardedCollection:
        cache = tmp_path / f"cache{len(databases)}"
        db = faissbase.connect(bucket.url, cache=cache, refresh_s=0)
        databases.append(db)
        return db.get_collection("docs")

    yield open_dataset
    for db in databases:
        db.close()


def npy(folder: Path, *matrices: np.ndarray) -> Source:
    for i, matrix in enumerate(matrices):
        np.save(folder / f"x{i}.npy", matrix)
    return find_files([str(folder / f"x{i}.npy") for i in range(len(matrices))])


# ---- sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["npy", "fvecs", "parquet", "arrow", "jsonl", "csv"])
def test_files_of_records_keep_ids_metadata_and_documents(
    suffix: str, tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    x = vectors(100)
    for i, (first, stop) in enumerate([(0, 60), (60, 100)]):
        with open_writer(tmp_path / f"part{i}.{suffix}", dimension=D) as out:
            ids = [f"i{j}" for j in range(first, stop)]
            metadatas = [{"n": j} for j in range(first, stop)]
            out.write(Batch(x[first:stop], ids, metadatas, [f"text {j}" for j in range(first, stop)]))
    report = building(find_files([str(tmp_path / f"part*.{suffix}")]), rows=30)
    assert (report.n_rows, report.shards, report.n_replaced) == (100, 4, 0)
    docs = opened()
    found = docs.get([f"i{j}" for j in range(100)], include_vectors=True)
    assert [record.metadata["n"] for record in found] == list(range(100))
    assert [record.document for record in found] == [f"text {j}" for j in range(100)]
    assert np.array_equal(np.stack([record.vector for record in found]), x)  # type: ignore[misc]


def test_bare_vectors_are_numbered_through_all_files(
    tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    x = np.round(np.abs(vectors(90)) * 20)
    np.savez(tmp_path / "a.npz", xb=x[:40])
    with open(tmp_path / "b.bvecs", "wb") as out:
        for row in x[40:].astype(np.uint8):
            out.write(np.int32(D).tobytes() + row.tobytes())
    source = find_files([f"{tmp_path / 'a.npz'}:xb", str(tmp_path / "b.bvecs")])
    assert building(source, rows=35).shards == 3
    docs = opened()
    assert docs.search(x, k=1).distances.max() == 0
    found = docs.get([str(i) for i in range(90)], include_vectors=True)
    assert np.array_equal(np.stack([record.vector for record in found]), x)  # type: ignore[misc]


def test_objects_are_downloaded(
    tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    x = vectors(50)
    npy(tmp_path, x[:20], x[20:])
    raw = open_bucket("memory://raw-of-test")
    for i in range(2):
        raw.upload(tmp_path / f"x{i}.npy", "", f"x{i}.npy")
    (tmp_path / "ids").write_text("".join(f'{{"id": "a{i}"}}\n' for i in range(20)))
    raw.upload(tmp_path / "ids", "", "x0.npy.rows.jsonl")
    source = find_files(["memory://raw-of-test/x*.npy"])
    building(source, rows=15)
    assert [record.id for record in opened().get(["a3", "20", "49"])] == ["a3", "20", "49"]
    assert not list((tmp_path / "work").glob(".faissbase*"))


def test_a_collection_is_kept_record_by_record(
    tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    with faissbase.connect(tmp_path / "data") as db:
        mine = db.create_collection("mine", D)
        ids = [f"i{i}" for i in range(200)]
        mine.upsert(ids, 3 * vectors(200), [{"n": i} for i in range(200)], [f"t {i}" for i in range(200)])
        mine.delete(ids[:50])
        mine.upsert(ids[100:110], vectors(10, 5))
        source = Stored.found(Path(mine.stats().path))
        building(source, rows=60, metric="cosine")
        wanted, docs = mine.get(ids, include_vectors=True), opened()
        found = docs.get(ids, include_vectors=True)
    assert [(r.id, r.metadata, r.document) for r in found] == [(r.id, r.metadata, r.document) for r in wanted]
    for mine_, theirs in zip(wanted, found, strict=True):
        assert np.array_equal(mine_.vector, theirs.vector)  # type: ignore[arg-type]
    assert len(docs) == 150


def test_a_collection_that_changes_meanwhile_is_a_conflict(tmp_path: Path, building: Building) -> None:
    with faissbase.connect(tmp_path / "data") as db:
        mine = db.create_collection("mine", D, metric="l2")
        mine.upsert([f"i{i}" for i in range(50)], vectors(50))
        counted = Stored.found(Path(mine.stats().path)).counted(tmp_path)
        mine.delete("i7")
    with pytest.raises(ConflictError, match="changed meanwhile"):
        list(counted.rows([(0, 10)], "l2", tmp_path))


def test_a_file_that_changes_meanwhile_is_a_conflict(tmp_path: Path) -> None:
    source = npy(tmp_path, vectors(50)).counted(tmp_path)
    np.save(tmp_path / "x0.npy", vectors(60))
    with pytest.raises(ConflictError, match=r"x0\.npy was changed"):
        list(source.rows([(0, 10)], "l2", tmp_path))


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_ranges_are_read_as_they_lie_in_the_files(suffix: str, tmp_path: Path) -> None:
    x = vectors(100)
    for i, (first, stop) in enumerate([(0, 30), (30, 90), (90, 100)]):
        with open_writer(tmp_path / f"part{i}.{suffix}", dimension=D) as out:
            out.write(Batch(x[first:stop]))
    for rows in tmp_path.glob("*.rows.jsonl"):
        rows.unlink()
    source = find_files([str(tmp_path / f"part*.{suffix}")]).counted(tmp_path)
    ranges = [(3, 5), (28, 33), (50, 51), (89, 100)]
    pieces = list(source.rows(ranges, "l2", tmp_path))
    wanted = [row for first, stop in ranges for row in range(first, stop)]
    assert [id for piece in pieces for id in piece.ids] == [str(row) for row in wanted]
    assert np.array_equal(np.concatenate([piece.vectors for piece in pieces]), x[wanted])


def test_a_long_file_is_read_in_little_memory(tmp_path: Path) -> None:
    n, d = 12_000, 2048
    np.save(tmp_path / "x0.npy", np.ones((n, d), np.float32))
    source = find_files([str(tmp_path / "x0.npy")]).counted(tmp_path)
    tracemalloc.start()
    try:
        n_read = sum(len(rows) for rows in source.rows([(0, n)], "l2", tmp_path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_read == n
    assert peak < 60 << 20  # a batch has 16 MiB, the file 94


# ---- what is wrong -------------------------------------------------------------------------------


def test_another_dimension_in_the_third_file_is_told_at_once(tmp_path: Path, building: Building) -> None:
    source = npy(tmp_path, vectors(20), vectors(20), vectors(20, d=D + 1))
    with pytest.raises(InvalidInputError, match=rf"d={D}, got d={D + 1} \(file .*x2\.npy"):
        building(source, executor=Refusing())
    assert Dataset(building.bucket, "docs").latest() is None


def test_a_number_that_is_none_is_told_with_its_file_and_row(tmp_path: Path, building: Building) -> None:
    x = np.ones((70_010, 4), np.float32)
    x[70_000, 2] = np.nan
    source = npy(tmp_path, np.ones((10, 4), np.float32), x)
    with pytest.raises(InvalidInputError, match=r"x1\.npy: row 70000 holds nan at position 2"):
        building(source, rows=50_000)
    assert Dataset(building.bucket, "docs").latest() is None


def test_a_line_that_is_wrong_is_told_with_its_file_and_row(tmp_path: Path, building: Building) -> None:
    lines = [f'{{"id": "a{i}", "vector": [1, {i}], "$x": 1}}\n' for i in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(line.replace('"$x"', '"x"') for line in lines[:2]) + lines[2])
    with pytest.raises(InvalidInputError, match=r"a\.jsonl.* row 2.*\$x"):
        building(find_files([str(tmp_path / "a.jsonl")]))


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no file .*nix-\*\.npy"):
        find_files([str(tmp_path / "nix-*.npy")])
    with pytest.raises(InvalidInputError, match="is a folder"):
        find_files([str(tmp_path)])
    open_bucket("memory://nix-of-test").create("x.npy", b"")
    with pytest.raises(NotFoundError, match="no object memory://nix-of-test/nix"):
        find_files(["memory://nix-of-test/nix.npy"])


def test_an_empty_source_is_refused(tmp_path: Path, building: Building) -> None:
    with pytest.raises(InvalidInputError, match="no rows"):
        building(npy(tmp_path, np.empty((0, D), np.float32)))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"codec": "zip"}, "codec 'zip' is none of auto, flat"),
        ({"metric": "l1"}, "metric must be one of"),
        ({"recall": 1.5}, "recall must be above 0"),
        ({"codec": "IVF4,PQ5"}, "PQ5"),  # 5 does not divide the dimension
        ({"rows": 0}, "rows_per_shard"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    settings: dict[str, Any], told: str, tmp_path: Path, building: Building
) -> None:
    with pytest.raises(InvalidInputError, match=told):
        building(npy(tmp_path, vectors(50)), executor=Refusing(), **settings)
    assert Dataset(building.bucket, "docs").latest() is None


class Refusing(InlineExecutor):
    """For builds that must end before there is anything to run."""

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        raise AssertionError(f"{task.__name__} was run")


# ---- the same id again ---------------------------------------------------------------------------


def records(folder: Path, ids: Sequence[str], x: Float32) -> Source:
    """Several files, so that one shard is made of several batches."""
    for first in range(0, len(ids), 40):
        with open_writer(folder / f"rows{first:03d}.parquet", dimension=D) as out:
            rows = range(first, min(first + 40, len(ids)))
            out.write(Batch(x[rows], [ids[i] for i in rows], [{"row": i} for i in rows]))
    return find_files([str(folder / "rows*.parquet")])


@pytest.mark.parametrize("hashes", ["sound", "colliding"])
def test_of_rows_with_one_id_the_last_one_stays(
    hashes: str,
    tmp_path: Path,
    building: Building,
    opened: Callable[[], ShardedCollection],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if hashes == "colliding":
        monkeypatch.setattr(stages, "hashes_of", lambda ids: np.array([len(id) for id in ids], np.uint64))
    rng = np.random.default_rng(3)
    ids = [f"i{i}" for i in rng.integers(0, 150, 400)]
    model = {id: row for row, id in enumerate(ids)}
    x = vectors(400)
    report = building(records(tmp_path, ids, x), rows=90)
    assert (report.n_rows, report.n_replaced) == (len(model), 400 - len(model))
    docs = opened()
    assert len(docs) == len(model)
    assert {record.id: record.metadata["row"] for record in docs.get()} == model
    for id, row in list(model.items())[:20]:
        [hit] = docs.search(x[row], k=1)
        assert (hit.id, hit.distance) == (id, 0.0)


def test_a_shard_that_is_replaced_whole_is_left_out(
    tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    ids = [f"i{i}" for i in range(50)] * 2
    report = building(records(tmp_path, ids, vectors(100)), rows=50)
    assert (report.shards, report.n_rows) == (1, 50)
    assert opened().get(["i7"])[0].metadata["row"] == 57


# ---- the index and its recall --------------------------------------------------------------------


def test_shards_of_equal_size_share_one_training(tmp_path: Path, building: Building) -> None:
    report = building(npy(tmp_path, vectors(9001)), rows=3100, codec="sq8")
    manifest = Dataset(building.bucket, "docs").newest()
    assert [shard.rows for shard in manifest.shards] == [3000, 3000, 3001]
    assert {shard.index for shard in manifest.shards} == {"IVF32,SQ8"}
    assert report.recall.n_queries == 256
    assert manifest.measured_recall == report.recall.mean
    assert report.recall.low <= report.recall.mean <= report.recall.high  # type: ignore[operator]
    assert report.recall.mean >= 0.95  # type: ignore[operator]
    assert not list(building.bucket.list("docs/builds"))
    assert not list(building.bucket.list("docs/quantizers"))


def test_shards_go_on_from_the_same_lists(tmp_path: Path, building: Building) -> None:
    building(npy(tmp_path, vectors(6000)), rows=3000, codec="sq8")
    lists = []
    for shard in Dataset(building.bucket, "docs").newest().shards:
        file = next(file for file in shard.files if file.path.startswith("segments"))
        building.bucket.download(file, tmp_path / "index")
        index = faiss.read_index(str(tmp_path / "index"))
        lists.append(faiss.downcast_index(index.quantizer).reconstruct_n(0, 32))
        (tmp_path / "index").unlink()
    assert np.array_equal(*lists)


def test_a_run_that_another_one_has_overtaken_publishes_nothing(tmp_path: Path, building: Building) -> None:
    source = npy(tmp_path, vectors(100))

    class Overtaken(InlineExecutor):
        def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
            yield from super().run(task, items)
            if task is stages.build_shard:
                building.ledger(source, rows=25).remove()

    with pytest.raises(ConflictError, match="another run"):
        building(source, rows=25, executor=Overtaken())
    assert Dataset(building.bucket, "docs").latest() is None


def test_measured_recall_is_that_of_the_published_dataset(
    tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    x = vectors(6000)
    report = building(npy(tmp_path, x), rows=3000, codec="pqfs", recall=0.8)
    docs, queries = opened(), vectors(300, 0)  # of the same centres
    exact, found = (
        docs.search(queries, k=10, recall=1.0),
        [docs.search(query, k=10, recall=0.8) for query in queries],
    )
    pairs = zip(exact.ids, found, strict=True)
    recall = np.mean([len(set(ids) & {hit.id for hit in hits}) / 10 for ids, hits in pairs])
    assert recall >= 0.8
    assert report.recall.mean is not None
    assert report.recall.mean >= 0.8


def test_effort_and_recall_are_measured_with_real_queries_where_they_are_given(
    tmp_path: Path, building: Building, opened: Callable[[], ShardedCollection]
) -> None:
    x = vectors(6000)
    near = x[:300] + np.float32(0.01)  # as easy as questions can be
    efforts = []
    for queries in (None, near):
        report = building(npy(tmp_path, x), rows=6000, codec="IVF64,SQ8", replace=True, queries=queries)
        assert report.recall.mean is not None
        assert report.recall.mean >= 0.95
        with opened()._now() as (_, group):
            [shard] = group.shards  # type: ignore[attr-defined]
            efforts.append(shard.collection.curve().knobs_for(0.95).effort)
    assert report.recall.n_queries == 150  # the other half has told the effort
    assert efforts[1] < efforts[0]


@pytest.mark.parametrize(
    ("queries", "told"),
    [(np.ones((99, D)), "99 queries are too few"), (np.ones((100, D + 1)), f"{D + 1}")],
)
def test_queries_that_cannot_be_measured_with_are_refused_before_any_work(
    queries: Any, told: str, tmp_path: Path, building: Building
) -> None:
    with pytest.raises(InvalidInputError, match=told):
        building(npy(tmp_path, vectors(500)), executor=Refusing(), queries=queries)
    assert Dataset(building.bucket, "docs").latest() is None


@pytest.mark.parametrize("codec", list(CODECS))
def test_every_codec_is_built_and_reaches_its_target(tmp_path: Path, building: Building, codec: str) -> None:
    report = building(npy(tmp_path, vectors(10_000)), rows=10_000, codec=codec, recall=0.9)
    assert report.recall.mean >= 0.9  # type: ignore[operator]
    wanted = index_of(codec, 10_000, D, "l2").factory
    assert report.index == wanted
    assert (wanted == "Flat") == (codec == "flat")


def test_few_rows_are_searched_exactly(tmp_path: Path, building: Building) -> None:
    report = building(npy(tmp_path, vectors(1)), rows=10)
    assert (report.index, report.recall.mean) == ("Flat", None)
    report = building(npy(tmp_path, vectors(25)), rows=10, replace=True)
    assert (report.index, report.recall.mean) == ("Flat", 1.0)


POOR: dict[str, Any] = {"codec": "IVF4,PQ1x4", "rows": 1500}


def test_below_the_target_nothing_is_published_and_it_says_what_would_do(
    tmp_path: Path, building: Building
) -> None:
    source = npy(tmp_path, np.random.default_rng(0).standard_normal((3000, D), np.float32))
    with pytest.raises(InvalidInputError, match="not published: recall@10 is") as refused:
        building(source, recall=0.99, **POOR)
    assert "--codec rabitq, or --codec sq8, or --codec flat, or --recall 0." in str(refused.value)
    assert Dataset(building.bucket, "docs").latest() is None
    ledger = building.ledger(source, recall=0.99, **POOR)
    names = [ledger.read(f"shard-0000{i}")["shard"]["name"] for i in range(2)]  # type: ignore[index]
    lower = float(str(refused.value).rpartition("--recall ")[2].split(",")[0])
    report = building(source, recall=lower, **POOR)
    assert report.n_resumed == 2
    assert [shard.name for shard in Dataset(building.bucket, "docs").newest().shards] == names
    assert report.recall.mean >= lower  # type: ignore[operator]


# ---- what is there already -----------------------------------------------------------------------


@pytest.mark.parametrize("was_there", [False, True])
def test_nobody_sees_a_dataset_that_is_not_whole(
    tmp_path: Path, building: Building, *, was_there: bool
) -> None:
    dataset = Dataset(building.bucket, "docs")
    if was_there:
        dataset.create(D, "l2")
        dataset.delete()
    before = dataset.versions()
    report = building(records(tmp_path, [f"i{i % 90}" for i in range(100)], vectors(100)), rows=25)
    assert dataset.versions() == [*before, report.version] == [*before, len(before) + 1]
    first = dataset.newest()
    assert (first.n_alive, len(first.shards)) == (90, 4)
    assert (first.target_recall, first.measured_recall) == (0.95, report.recall.mean)


def test_a_dataset_with_records_is_refused_before_any_work(tmp_path: Path, building: Building) -> None:
    source = npy(tmp_path, vectors(50))
    building(source)
    with pytest.raises(AlreadyExistsError, match="'docs' exists already, with 50 records"):
        building(source, executor=Refusing())
    report = building(npy(tmp_path, vectors(60)), replace=True)
    assert (report.version, report.n_rows) == (2, 60)


def test_an_empty_dataset_of_the_same_kind_is_filled(tmp_path: Path, building: Building) -> None:
    Dataset(building.bucket, "docs").create(D, "l2")
    assert building(npy(tmp_path, vectors(50))).n_rows == 50


def test_a_dataset_of_another_kind_is_not_replaced(tmp_path: Path, building: Building) -> None:
    building(npy(tmp_path, vectors(50)))
    with pytest.raises(AlreadyExistsError, match="is of d=16 and metric 'l2', not of d=16 and 'cosine'"):
        building(npy(tmp_path, vectors(50)), replace=True, metric="cosine", executor=Refusing())
    with pytest.raises(AlreadyExistsError, match="not of d=8"):
        building(npy(tmp_path, vectors(50, d=8)), replace=True, executor=Refusing())


class Failing(InlineExecutor):
    """Stops after so many shards."""

    def __init__(self, after: int) -> None:
        self.after = after

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        for i, result in super().run(task, items):
            yield i, result
            if task is stages.build_shard and i + 1 == self.after:
                raise KeyboardInterrupt


class Elsewhere(InlineExecutor):
    """Workers whose files the driver does not see; it goes on when one that has ended was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[int] = []
        self.is_told = threading.Event()

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        is_building: Any = task is stages.build_shard
        moved: Any = items
        if is_building:
            moved = [replace(each, progress=self.folder / "there") for each in moved]
        for i, result in super().run(task, moved):
            self.is_told.clear()
            yield i, result
            assert not is_building or self.is_told.wait(30)

    def show(self, stage: str, done: int, total: int) -> None:
        if stage == "building" and done > max(self.told, default=0):
            self.told.append(done)
            self.is_told.set()


def test_shards_that_other_machines_have_built_are_told(tmp_path: Path, bucket: Bucket) -> None:
    source, executor = npy(tmp_path, vectors(100)), Elsewhere(tmp_path)
    request = Request("docs", Settings("l2"), rows_per_shard=25)
    build(request, source, bucket, tmp_path / "work", executor, progress=executor.show)
    assert executor.told == [25, 50, 75, 100]


def test_an_interrupted_build_goes_on(tmp_path: Path, building: Building) -> None:
    source = npy(tmp_path, vectors(100))
    with pytest.raises(KeyboardInterrupt):
        building(source, rows=25, executor=Failing(2))
    ledger = building.ledger(source, rows=25)
    first = ledger.read("shard-00001")["shard"]["name"]  # type: ignore[index]
    report = building(source, rows=25)
    assert (report.n_resumed, report.n_rows) == (2, 100)
    assert Dataset(building.bucket, "docs").newest().shards[1].name == first


def test_a_build_goes_on_with_the_shards_it_began_with(
    tmp_path: Path, building: Building, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = npy(tmp_path, vectors(100))
    monkeypatch.setattr(build_module, "SHARD_ROWS", 25)
    with pytest.raises(KeyboardInterrupt):
        building(source, rows=None, executor=Failing(2))
    monkeypatch.setattr(build_module, "SHARD_ROWS", 50)  # as another version of faissbase may have it
    report = building(source, rows=None)
    assert (report.shards, report.n_resumed, report.n_rows) == (4, 2, 100)


def test_shards_whose_objects_are_gone_are_built_again(tmp_path: Path, building: Building) -> None:
    source = npy(tmp_path, vectors(100))
    with pytest.raises(KeyboardInterrupt):
        building(source, rows=25, executor=Failing(3))
    recorded = building.ledger(source, rows=25).read("shard-00001")
    assert recorded is not None
    building.bucket.delete([recorded["shard"]["files"][0]["key"]])
    report = building(source, rows=25)
    assert (report.n_resumed, report.n_rows) == (2, 100)
    assert Dataset(building.bucket, "docs").newest().shards[1].name != recorded["shard"]["name"]
