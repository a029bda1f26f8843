"""Indexes of a collection: built, followed, replaced, lost; and the answers meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase
from faissbase.ann.calibrate import Choice
from faissbase.ann.segment import Knobs
from faissbase.collection import planner
from faissbase.collection.collection import LocalCollection
from faissbase.collection.planner import DEFAULT_RECALL
from faissbase.demo.dataset import load_demo
from faissbase.errors import NotFoundError
from faissbase.storage.segments import SegmentFolder
from faissbase.types import Float32

N, LATER, K = 8_000, 3_000, 10


@pytest.fixture(scope="module")
def data() -> tuple[Float32, Float32]:
    """Real vectors: base and held-out questions."""
    demo = load_demo()
    return demo.vectors[: N + LATER], demo.query_vectors


def _ids(first: int, stop: int) -> list[str]:
    return [f"r{i}" for i in range(first, stop)]


def _add(docs: LocalCollection, xb: Float32, first: int, stop: int) -> None:
    metadatas = [{"n": i, "tenth": i % 10, "thousandth": i % 1000} for i in range(first, stop)]
    docs.add(_ids(first, stop), xb[first:stop], metadatas)


@pytest.fixture(scope="module")
def built(data: tuple[Float32, Float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose collection "docs" has an index over all it holds; copy it before writing to it."""
    path = tmp_path_factory.mktemp("built") / "db"
    with faissbase.connect(path) as db:
        docs = db.create_collection("docs", data[0].shape[1])
        _add(docs, data[0], 0, N)
        report = docs.optimize()
        assert (report.slots_indexed, report.segments) == (N, 1)
    return path


@pytest.fixture
def docs(built: Path, tmp_path: Path) -> Iterator[LocalCollection]:
    import shutil

    shutil.copytree(built, tmp_path / "db")
    with faissbase.connect(tmp_path / "db") as db:
        yield db.get_collection("docs")


class _StopWhen(threading.Event):
    """An event that is set when something is so."""

    def __init__(self, is_so: Callable[[], bool]) -> None:
        super().__init__()
        self._is_so = is_so

    def is_set(self) -> bool:
        return self._is_so()


def _recall(docs: LocalCollection, xq: Float32, where: dict[str, object] | None = None) -> float:
    exact = docs.search(xq, K, where, recall=1.0)
    found = docs.search(xq, K, where)
    assert [len(ids) for ids in found.ids] == [len(ids) for ids in exact.ids]
    right = [len(set(a) & set(b)) / len(b) for a, b in zip(found.ids, exact.ids, strict=True)]
    return float(np.mean(right))


def test_an_index_answers_with_the_recall_asked_for(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    assert docs.explain(data[1][0], K).plan.path == "index"
    assert docs.explain(data[1][0], K, recall=1.0).plan.path == "scan"
    assert _recall(docs, data[1]) >= DEFAULT_RECALL


@pytest.mark.parametrize("where", [{"n": 77}, {"thousandth": 3}, {"tenth": 3}, {"n": {"$gte": 1600}}])
def test_filters_have_all_their_hits_and_the_recall(
    docs: LocalCollection, data: tuple[Float32, Float32], where: dict[str, object]
) -> None:
    assert _recall(docs, data[1][:200], where) >= DEFAULT_RECALL


def test_what_filters_do_is_measured_once_they_are_used(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "_on_work", lambda _: None)
    half: dict[str, object] = {"tenth": {"$lt": 5}}
    assert "index" not in docs.explain(data[1][0], K, half).plan.predicted_ms
    docs.optimize()
    assert "index" in docs.explain(data[1][0], K, half).plan.predicted_ms
    wheres: list[dict[str, object]] = [half, {"tenth": {"$lt": 2}}, {"n": {"$gte": N // 2}}]
    for where in wheres:
        assert _recall(docs, data[1][:200], where) >= DEFAULT_RECALL


def test_optimizing_ends_though_somebody_writes_without_pause(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    _add(docs, data[0], N, N + 100)
    is_over, numbers = threading.Event(), iter(range(1 << 30))

    def write() -> None:
        while not is_over.is_set():
            docs.upsert([f"w{next(numbers) % 50}"], data[0][:1])

    writer = threading.Thread(target=write)
    optimizer = threading.Thread(target=docs.optimize, daemon=True)
    writer.start()
    optimizer.start()
    optimizer.join(60)
    is_ended = not optimizer.is_alive()
    is_over.set()
    writer.join()
    assert is_ended
    assert docs.stats().slots_indexed >= N + 100


def _grow_a_second_segment(docs: LocalCollection, xb: Float32, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the records N to N + 900 in a segment of their own."""
    monkeypatch.setattr("faissbase.collection.building.TAIL_NUMBERS", 900 * xb.shape[1])
    monkeypatch.setattr(docs, "_on_work", lambda _: None)
    _add(docs, xb, N, N + 900)
    assert docs.maintain(threading.Event())
    docs._parts().store.settle()


def test_a_segment_mostly_dead_still_gives_what_is_left(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    _grow_a_second_segment(docs, data[0], monkeypatch)
    assert docs.stats().segments == 2
    left = range(N, N + 900, 5)
    docs.delete([f"r{i}" for i in range(N, N + 900) if i not in left])
    assert "index" in docs.explain(data[1][0], K).plan.predicted_ms
    assert [docs.search(data[0][i], 1)[0].id for i in left] == [f"r{i}" for i in left]
    assert _recall(docs, data[1]) >= DEFAULT_RECALL


def test_a_segment_with_nothing_left_opens_no_query(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    _grow_a_second_segment(docs, data[0], monkeypatch)
    docs.delete(_ids(N, N + 900))
    assert (docs.stats().segments, docs.explain(data[1][0], K).plan.path) == (2, "index")
    n_open = 0
    filled_up = planner._filled_up

    def counting(*given: Any) -> Any:
        nonlocal n_open
        n_open += int(np.count_nonzero(~given[-1]))
        return filled_up(*given)

    monkeypatch.setattr(planner, "_filled_up", counting)
    assert _recall(docs, data[1]) >= DEFAULT_RECALL
    assert n_open < len(data[1]) / 10


def test_one_query_and_many_have_the_distances_of_an_exact_search(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    exact = docs.search(data[1][:50], K, recall=1.0)
    distance_of = [
        dict(zip(ids, row, strict=True)) for ids, row in zip(exact.ids, exact.distances, strict=True)
    ]
    effort = 64  # with a recall, the path that costs least may be another one for a batch than for one
    many = docs.search(data[1][:50], K, ef_search=effort)
    for query in range(50):
        alone = docs.search(data[1][query], K, ef_search=effort)
        assert [hit.id for hit in alone] == many.ids[query]
        for hit in alone:
            assert hit.distance == distance_of[query].get(hit.id, hit.distance)


def test_what_is_written_later_is_found_at_once(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    xb = data[0]
    docs.add(["new"], xb[N : N + 1])
    assert docs.search(xb[N], 1)[0].id == "new"
    docs.upsert(["r5"], xb[N + 1 : N + 2])
    assert docs.search(xb[N + 1], 1)[0].id == "r5"
    assert docs.search(xb[5], 1)[0].id != "r5"
    stats = docs.stats()
    assert (stats.slots_indexed, stats.slots) == (N, N + 2)


def test_what_is_deleted_never_comes_back(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    gone = {hit.id for query in data[1][:50] for hit in docs.search(query, 3)}
    docs.delete(sorted(gone))
    for query in data[1][:50]:
        hits = docs.search(query, K)
        assert len(hits) == K
        assert not gone & {hit.id for hit in hits}
    assert _recall(docs, data[1][:200]) >= DEFAULT_RECALL


def test_queries_in_a_hole_find_what_is_left(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    """Where all that is near was deleted, a graph searched around the dead would find a half of the rest."""
    xq = data[1][:10]
    near = {id for ids in docs.search(xq, 250, recall=1.0).ids for id in ids}
    docs.delete(sorted(near))
    assert docs.explain(xq[0], K).plan.path == "index"
    assert _recall(docs, xq) >= DEFAULT_RECALL
    assert _recall(docs, data[1]) >= DEFAULT_RECALL


def test_maintenance_builds_a_long_tail_in(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "_on_work", lambda _: None)
    _add(docs, data[0], N, N + LATER)
    assert docs.maintain(threading.Event())
    docs._parts().store.settle()
    stats = docs.stats()
    assert (stats.slots_indexed, stats.slots) == (N + LATER, N + LATER)
    assert _recall(docs, data[1]) >= DEFAULT_RECALL


def test_another_connection_takes_up_the_index_and_only_one_builds(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docs, "_on_work", lambda _: None)
    root = Path(docs.stats().path).parents[1]
    with faissbase.connect(root) as other:
        theirs = other.get_collection("docs")
        monkeypatch.setattr(theirs, "_on_work", lambda _: None)
        assert theirs.stats().slots_indexed == N
        _add(docs, data[0], N, N + LATER)
        with SegmentFolder(Path(docs.stats().path)).building() as is_ours:
            assert is_ours
            assert theirs.maintain(threading.Event()) is False
        docs.optimize()
        theirs.search(data[1][0], K)  # has the new segment opened in the background
        assert theirs.optimize().slots_indexed == N + LATER
        assert theirs.explain(data[1][0], K).plan.path == "index"


def _segment(docs: LocalCollection) -> Path:
    [path] = (Path(docs.stats().path) / "segments").glob("*.faiss")
    return path


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_index_is_left_out_and_built_anew(
    docs: LocalCollection, data: tuple[Float32, Float32], damage: str
) -> None:
    path = _segment(docs)
    docs.release()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.unlink()  # a thread may still read what is mapped: a file cut short under it would end the process
    if damage != "missing":
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    [problem] = docs.verify().problems
    assert (problem.kind, problem.where) == ("segment", path.name)
    assert docs.explain(data[1][0], K).plan.path == "scan"
    assert list(docs.stats().damaged_segments) == [path.name]
    assert docs.optimize().slots_indexed == N
    assert docs.stats().damaged_segments == {}
    assert docs.verify().ok
    assert _recall(docs, data[1]) >= DEFAULT_RECALL


def test_repair_leaves_a_damaged_index_out(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    path = _segment(docs)
    docs.release()
    path.unlink()
    path.write_bytes(b"not an index")
    report = docs.repair()
    assert report.actions == ["left out 1 damaged index files: they will be built anew"]
    assert docs.verify().ok
    assert docs.stats().segments == 0
    assert docs.search(data[0][7], 1)[0].id == "r7"


def test_reset_and_compaction_leave_no_index_of_what_was(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    docs.delete(where={"n": {"$lt": 1000}})
    assert docs.optimize().slots_indexed == N - 1000
    assert docs.search(data[0][1500], 1)[0].id == "r1500"
    docs.reset()
    assert docs.stats().segments == 0
    docs.add(["other"], data[0][N : N + 1])
    assert [hit.id for hit in docs.search(data[0][0], K)] == ["other"]


def test_a_build_that_is_stopped_goes_on_from_what_it_has_published(
    data: tuple[Float32, Float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.collection.building._CHECKPOINT_SLOTS_MIN", 4_000)
    monkeypatch.setattr("faissbase.ann.build._CHUNK_ROWS", 1_000)

    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", data[0].shape[1])
        monkeypatch.setattr(docs, "_on_work", lambda _: None)
        _add(docs, data[0], 0, N)
        docs.maintain(_StopWhen(lambda: docs.stats().slots_indexed > 0))
        assert docs.stats().slots_indexed == 4_000
        assert _recall(docs, data[1][:100]) >= DEFAULT_RECALL
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.get_collection("docs")
        assert docs.stats().slots_indexed == 4_000
        assert docs.optimize().slots_indexed == N
        assert _recall(docs, data[1]) >= DEFAULT_RECALL


def test_a_build_whose_collection_is_deleted_meanwhile_tells_of_that_alone(
    data: tuple[Float32, Float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faissbase.connect(tmp_path / "db") as db, faissbase.connect(tmp_path / "db") as other:
        docs = db.create_collection("docs", data[0].shape[1])
        monkeypatch.setattr(docs, "_on_work", lambda _: None)
        _add(docs, data[0], 0, N)

        def deleted() -> bool:
            if any((tmp_path / "db").glob("*/*/segments/*.draft")):
                other.delete_collection("docs")
            return False

        with pytest.raises(NotFoundError, match="deleted"):
            docs.maintain(_StopWhen(deleted))


def test_a_build_that_is_stopped_while_it_is_measured_leaves_nothing(
    data: tuple[Float32, Float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "db"

    with faissbase.connect(folder) as db:
        docs = db.create_collection("docs", data[0].shape[1])
        monkeypatch.setattr(docs, "_on_work", lambda _: None)
        _add(docs, data[0], 0, N)
        docs.maintain(_StopWhen(lambda: any(folder.glob("*/*/segments/*.draft"))))
        assert docs.stats().slots_indexed == 0
        assert list(folder.glob("*/*/segments/*")) == []
        assert docs.optimize().slots_indexed == N


def test_a_full_disk_is_told_and_leaves_nothing(
    data: tuple[Float32, Float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(index: object, path: str, flags: int) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("Error in void faiss::write_HNSW(...): 989 != 20000 (No space left on device)")

    folder = tmp_path / "db"
    with faissbase.connect(folder) as db:
        docs = db.create_collection("docs", data[0].shape[1])
        monkeypatch.setattr(docs, "_on_work", lambda _: None)
        _add(docs, data[0], 0, N)
        with monkeypatch.context() as patch:
            patch.setattr("faissbase.ann.files.faiss.write_index", fail)
            with pytest.raises(faissbase.UnavailableError, match="No space left"):
                docs.optimize()
        assert list(folder.glob("*/*/segments/*")) == []
        assert docs.search(data[0][7], 1)[0].id == "r7"
        assert docs.optimize().slots_indexed == N


def test_knobs_of_another_index_are_refused(docs: LocalCollection, data: tuple[Float32, Float32]) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="nprobe=3 is no knob"):
        docs.search(data[1][0], K, nprobe=3)
    with pytest.raises(faissbase.InvalidInputError, match="nprobe=3 is no knob"):
        docs.search(data[1][0], K, {"n": -1}, nprobe=3)  # nothing matches
    with pytest.raises(faissbase.InvalidInputError, match="not both"):
        docs.search(data[1][0], K, recall=0.9, ef_search=10)
    assert len(docs.search(data[1][0], K, ef_search=10, rerank=1)) == K


@pytest.mark.parametrize(
    ("index_type", "knob"),
    [
        ("HNSW", "ef_search"),
        ("IVF4_HNSW8,Flat", "nprobe"),
        ("IVF4,Flat", "nprobe"),
        ("IVF64(IVF16,SQfp16),Flat", "nprobe"),
    ],
)
def test_an_effort_beyond_all_there_is_looks_at_all_there_is(index_type: str, knob: str) -> None:
    vectors = np.random.default_rng(0).random((300, 8), np.float32)
    with faissbase.connect(":memory:") as db:
        docs = db.create_collection("docs", 8, "l2", index_type)
        docs.add(_ids(0, 300), vectors)
        docs.optimize()
        exact = docs.search(vectors[:5], K, recall=1.0).ids
        effort: dict[str, Any] = {knob: 10**12}
        assert docs.search(vectors[:5], K, **effort).ids == exact


def test_the_recall_report_leaves_out_questions_with_knobs_of_another_index() -> None:
    vectors = np.random.default_rng(0).random((300, 8), np.float32)
    with faissbase.connect(":memory:") as db:
        docs = db.create_collection("docs", 8, "l2", "HNSW")
        docs.add(_ids(0, 300), vectors)
        docs.search(vectors[0], K, nprobe=3)  # no index yet, and no use for it
        docs.search(vectors[0], K)
        docs.optimize()
        report = docs.recall_report()
        assert (report.n_sampled, report.n_measured) == (2, 1)


def test_the_recall_report_measures_real_questions(
    docs: LocalCollection, data: tuple[Float32, Float32]
) -> None:
    assert "nothing was asked" in str(docs.recall_report())
    for query in data[1][:60]:
        docs.search(query, K)
        docs.search(query, K, {"tenth": 3})
    report = docs.recall_report()
    assert report.n_measured == 120
    assert [band.n_queries for band in report.bands] == [60, 60]
    assert report.recall >= DEFAULT_RECALL
    assert all(band.recall_low <= band.recall <= band.recall_high for band in report.bands)


def test_what_a_segment_leaves_open_is_answered_exactly_though_the_tail_has_enough(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(docs, data[0], N, N + 100)
    unsure = Knobs(effort=64, rerank=2, least=1_000_000)
    monkeypatch.setattr(
        "faissbase.ann.curve.Curve.choice_for", lambda *_, **__: Choice(unsure, 0.99, 1.0, 1.0)
    )
    everything: dict[str, object] = {"n": {"$lt": N + 99}}
    assert docs.explain(data[1][0], K, everything).plan.path == "index"
    assert _recall(docs, data[1][:50], everything) == 1.0
    assert [hit.id for hit in docs.search(data[1][0], K, everything)] == (
        docs.search(data[1][:1], K, everything, recall=1.0).ids[0]
    )


def test_an_index_that_was_measured_on_a_busy_machine_is_searched(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs, slow_us = Knobs(effort=64, rerank=2), 1e6
    for pace, path in ((1.0, "scan"), (1e6, "index")):
        choice = Choice(knobs, 0.99, slow_us, pace=pace)
        with monkeypatch.context() as patch:
            patch.setattr("faissbase.ann.curve.Curve.choice_for", lambda *_, found=choice, **__: found)
            docs.release()
            assert docs.explain(data[1][0], K).plan.path == path


def test_a_missed_recall_raises_the_effort_and_is_remembered(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    easy = Knobs(effort=10, rerank=1)
    monkeypatch.setattr("faissbase.ann.curve.Curve.choice_for", lambda *_, **__: Choice(easy, 0.99, 1.0, 1.0))
    for query in data[1][:100]:
        docs.search(query, K)
    assert _recall(docs, data[1][:100]) < DEFAULT_RECALL
    report = docs.recall_report(budget_s=60.0)
    assert report.recall >= DEFAULT_RECALL
    assert docs.stats().effort_factors == {"99.9 to 100 %": report.bands[0].effort_factor}
    assert _recall(docs, data[1][:100]) >= DEFAULT_RECALL
    docs.release()
    assert docs.stats().effort_factors == {"99.9 to 100 %": report.bands[0].effort_factor}


def test_effort_that_real_questions_do_not_need_is_saved_and_that_is_remembered(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    hard = Knobs(effort=400, rerank=2)
    monkeypatch.setattr("faissbase.ann.curve.Curve.choice_for", lambda *_, **__: Choice(hard, 0.99, 1.0, 1.0))
    for query in data[1][:100]:
        docs.search(query, K)
    report = docs.recall_report(budget_s=60.0)
    [band] = report.bands
    assert band.effort_factor < 0.8
    assert report.recall >= DEFAULT_RECALL
    assert docs.explain(data[1][0], K).plan.knobs[0].effort < 320
    assert _recall(docs, data[1][100:200]) >= DEFAULT_RECALL - 0.01  # other questions than it was tuned with
    docs.release()
    assert docs.stats().effort_factors == {"99.9 to 100 %": round(band.effort_factor, 4)}


def test_questions_whose_effort_was_given_do_not_hide_that_others_miss(
    docs: LocalCollection, data: tuple[Float32, Float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    easy = Knobs(effort=10, rerank=1)
    monkeypatch.setattr("faissbase.ann.curve.Curve.choice_for", lambda *_, **__: Choice(easy, 0.99, 1.0, 1.0))
    for query in data[1][:60]:
        docs.search(query, K)
    for query in data[1][:100]:
        docs.search(query, K, ef_search=200, rerank=2)
    [band] = docs.recall_report(budget_s=60.0).bands
    assert band.effort_factor > 1.0
    assert _recall(docs, data[1][:60]) >= DEFAULT_RECALL


@pytest.mark.parametrize(("n_asked", "where"), [(63, None), (100, {"n": {"$gte": N // 10}})])
def test_effort_is_not_saved_by_few_questions_nor_where_a_filter_leaves_out(
    docs: LocalCollection,
    data: tuple[Float32, Float32],
    monkeypatch: pytest.MonkeyPatch,
    n_asked: int,
    where: dict[str, object] | None,
) -> None:
    hard = Knobs(effort=400, rerank=2)
    monkeypatch.setattr("faissbase.ann.curve.Curve.choice_for", lambda *_, **__: Choice(hard, 0.99, 1.0, 1.0))
    for query in data[1][:n_asked]:
        docs.search(query, K, where)
    assert docs.recall_report(budget_s=60.0).bands[0].effort_factor == 1.0
    assert docs.stats().effort_factors == {}


def test_a_memory_budget_has_smaller_codes_built_or_is_refused(
    data: tuple[Float32, Float32], tmp_path: Path
) -> None:
    budget = 2_500_000
    with faissbase.connect(tmp_path / "db", memory_budget=budget) as db:
        docs = db.create_collection("docs", data[0].shape[1])
        _add(docs, data[0], 0, N)
        docs.optimize()
        stats = docs.stats()
        assert stats.index.startswith("IVF")
        assert stats.memory_bytes <= budget
        assert (
            _recall(docs, data[1]) >= DEFAULT_RECALL - 0.01
        )  # the questions are not those it was measured with
    with faissbase.connect(tmp_path / "db", memory_budget=1_000) as db:
        docs = db.get_collection("docs")
        _add(docs, data[0], N, N + 10)
        with pytest.raises(faissbase.InvalidInputError, match="need at least"):
            docs.optimize()


def test_an_index_that_was_named_is_built_and_trained_on_what_is_there(
    data: tuple[Float32, Float32], tmp_path: Path
) -> None:
    with faissbase.connect(tmp_path / "db") as db:
        docs = db.create_collection("docs", data[0].shape[1], index_type="IVF64,PQ96x4fs")
        docs.add(_ids(0, 30), data[0][:30])
        with pytest.raises(faissbase.NotReadyError, match="vectors to train"):
            docs.train()
        assert docs.search(data[0][3], 1)[0].id == "r3"  # exact until there are enough
        assert docs.stats().index == "exact"
        _add(docs, data[0], 30, N)
        with pytest.raises(faissbase.NotReadyError, match="vectors to train"):
            docs.train(data[0][:20])
        docs.train(data[0][N : N + 2_600])
        assert docs.stats().slots_indexed == N
        docs.optimize()
        assert docs.stats().index == "IVF64,PQ96x4fs"
        assert _recall(docs, data[1]) >= DEFAULT_RECALL
        assert len(docs.search(data[1][0], K, nprobe=2, rerank=4)) == K
