"""One IVF-PQ shard: trained, filled, searched, written and read again."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from faissbase.demo.dataset import load_demo
from faissbase.errors import (
    AlreadyExistsError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.sharded import (
    FaissIndex,
    build_ivfpq_index,
    calculate_optimal_nlist,
    calculate_optimal_pq_params,
    shard_file,
)
from faissbase.types import Float32

_N, _Q = 2_500, 100


@pytest.fixture(scope="module")
def texts() -> Float32:
    """Real text embeddings, ``float32[2600, 384]``; the last hundred are asked."""
    return np.asarray(load_demo().vectors[: _N + _Q], np.float32)


@pytest.fixture(scope="module")
def built(texts: Float32) -> FaissIndex:
    m, nbits = calculate_optimal_pq_params(384, 0.5)
    return build_ivfpq_index(384, calculate_optimal_nlist(_N), m, nbits, "cosine", texts[:_N])


def _recall(found: Any, xb: Float32, xq: Float32, kind: int) -> float:
    exact = faiss.IndexFlat(xb.shape[1], kind)
    exact.add(xb)
    wanted = exact.search(xq, 10)[1]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)]))


def _unit(vectors: Float32) -> Float32:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_proposed_parameters_reach_their_recall_on_text_embeddings(built: FaissIndex, texts: Float32) -> None:
    distances, ids = built.search(texts[_N:], k=10)
    assert distances.shape == ids.shape == (_Q, 10)
    assert (np.diff(distances, axis=1) <= 0).all()
    recall = _recall(ids, _unit(texts[:_N]), _unit(texts[_N:]), faiss.METRIC_INNER_PRODUCT)
    assert recall >= 0.45, recall


def test_an_explicit_nprobe_wins(built: FaissIndex, texts: Float32) -> None:
    few, all_lists = (built.search(texts[_N:], 10, nprobe=nprobe)[1] for nprobe in (1, 10**6))
    truth = (_unit(texts[:_N]), _unit(texts[_N:]), faiss.METRIC_INNER_PRODUCT)
    assert (
        _recall(few, *truth) < _recall(built.search(texts[_N:], 10)[1], *truth) <= _recall(all_lists, *truth)
    )


def test_cosine_ignores_lengths_and_euclidean_does_not(texts: Float32) -> None:
    for name in ("cosine", "angular", "euclidean", "L2"):
        index = build_ivfpq_index(384, 8, 48, 4, name, texts[:1_000] * 3)
        assert index.metric == ("cosine" if name in ("cosine", "angular") else "l2")
        distances, ids = index.search(texts[5] * 3, k=1)
        assert ids[0] == 5
        assert (distances[0] > 0.8) == (index.metric == "cosine") or distances[0] < 5


def test_ids_are_the_callers(texts: Float32) -> None:
    index = FaissIndex(384, 8, 24, 8, "l2")
    index.train(texts[:500])
    ids = np.arange(2_000) * 7 + 10**12
    assert index.add_vectors(texts[:1_000], ids[:1_000]) == 1_000
    assert index.add_vectors(texts[1_000:2_000], ids[1_000:].tolist()) == 1_000
    assert len(index) == index.ntotal == 2_000
    assert index.search(texts[1_500], 1)[1].tolist() == [ids[1_500]]


def test_one_query_is_never_padded_and_many_are(texts: Float32) -> None:
    index = FaissIndex(384, 2, 48, 4, "l2")
    index.train(texts[:100])
    index.add_vectors(texts[:3], [5, 6, 7])
    distances, ids = index.search(texts[0], k=10, nprobe=2)
    assert len(distances) == len(ids) == 3
    assert sorted(ids) == [5, 6, 7]
    padded = index.search(texts[:2], k=10, nprobe=2)[1]
    assert padded.shape == (2, 10)
    assert (padded[:, 3:] == -1).all()


def test_too_few_vectors_train_a_smaller_plan_and_say_so(texts: Float32) -> None:
    with pytest.warns(UserWarning, match="100 training vectors allow nlist=1 instead of 1024 and nbits=6"):
        index = build_ivfpq_index(384, 1024, 48, 8, "cosine", texts[:100])
    assert (index.nlist, index.nbits, index.ntotal) == (1, 6, 100)
    assert index.search(texts[3], 1)[1].tolist() == [3]


@pytest.mark.filterwarnings("ignore:.*training vectors allow")
def test_training_again_goes_by_what_was_asked_for(texts: Float32) -> None:
    index = FaissIndex(384, 32, 24, 6)
    index.train(texts[:20])
    assert (index.nlist, index.nbits) == (1, 4)
    index.train(texts[:500])
    assert (index.nlist, index.nbits) == (32, 6)


def test_ids_that_faiss_took_before_it_failed_are_known(
    texts: Float32, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = FaissIndex(384, 2, 24, 4)
    index.train(texts[:200])
    monkeypatch.setattr("faissbase.sharded.index._ADDED_ROWS", 10)
    with monkeypatch.context() as patch:
        add, calls = index._index.add_with_ids, iter(range(1))

        def failing(*given: Any) -> None:
            if next(calls, None) is None:
                raise MemoryError
            add(*given)

        patch.setattr(index._index, "add_with_ids", failing)
        with pytest.raises(MemoryError):
            index.add_vectors(texts[:20], np.arange(20))
    with pytest.raises(AlreadyExistsError, match="id 0 is in the index"):
        index.add_vectors(texts[:20], np.arange(20))
    index.add_vectors(texts[10:20], np.arange(10, 20))
    assert index.ntotal == 20


def test_a_file_keeps_everything(built: FaissIndex, texts: Float32, tmp_path: Path) -> None:
    path = tmp_path / "shard.faiss"
    built.save_to_file(path)
    again = FaissIndex.load_from_file(path)
    assert repr(again) == repr(built)
    mine, stored = built.search(texts[_N:], 10), again.search(texts[_N:], 10)
    assert np.array_equal(mine[0], stored[0])
    assert np.array_equal(mine[1], stored[1])
    with pytest.raises(AlreadyExistsError, match="id 7 is in the index"):
        again.add_vectors(texts[:1], [7])
    again.add_vectors(texts[_N : _N + 1], [_N])
    assert again.ntotal == _N + 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["shard.faiss"]


def test_faiss_reads_our_file_and_we_read_its_own(built: FaissIndex, texts: Float32, tmp_path: Path) -> None:
    ours, its = tmp_path / "ours.faiss", tmp_path / "its.faiss"
    built.save_to_file(ours)
    plain = faiss.read_index(str(ours))
    assert isinstance(plain, faiss.IndexIVFPQ)
    faiss.write_index(plain, str(its))
    assert np.array_equal(FaissIndex.load_from_file(its).search(texts[0])[1], built.search(texts[0])[1])
    faiss.write_index(faiss.IndexFlatL2(4), str(its))
    with pytest.raises(CorruptionError, match="holds IndexFlatL2, expected IndexIVFPQ"):
        FaissIndex.load_from_file(its)


def _ivfpq(texts: Float32) -> Any:
    index = faiss.index_factory(384, "IVF4,PQ24x4")
    index.do_polysemous_training = False  # takes seconds
    index.train(texts[:400])
    return index


def test_a_file_that_names_another_is_refused_with_a_checksum_and_without(
    texts: Float32, tmp_path: Path
) -> None:
    index, its, ours = _ivfpq(texts), tmp_path / "its.faiss", tmp_path / "ours.faiss"
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, str(tmp_path / "secret"))
    index.replace_invlists(lists)
    index.add(texts[:100])
    faiss.write_index(index, str(its))
    shard_file.write(ours, index)
    for path in (its, ours):
        with pytest.raises(CorruptionError, match="names another file"):
            FaissIndex.load_from_file(path)
    del lists


def test_files_of_faiss_that_cannot_be_used_as_they_are(texts: Float32, tmp_path: Path) -> None:
    path = tmp_path / "its.faiss"
    faiss.write_index(faiss.index_factory(384, "IVF4,PQ24x4"), str(path))
    with pytest.raises(CorruptionError, match="not trained"):
        FaissIndex.load_from_file(path)
    index = _ivfpq(texts)
    index.add(texts[:100])
    index.make_direct_map(True)
    faiss.write_index(index, str(path))
    loaded = FaissIndex.load_from_file(path)
    assert loaded.add_vectors(texts[100:101], [1_000]) == 1


def test_an_index_takes_a_file_in_the_place_of_what_it_holds(texts: Float32, tmp_path: Path) -> None:
    path = tmp_path / "shard.faiss"
    saved = build_ivfpq_index(384, 4, 48, 4, "l2", texts[:500])
    saved.save_to_file(path)
    index = FaissIndex(384, 16, 24, 8, "cosine")
    assert index.load_from_file(path) is index
    assert repr(index) == repr(saved)
    assert index.search(texts[3], 1)[1].tolist() == saved.search(texts[3], 1)[1].tolist()
    other = FaissIndex(128, 16, 16)
    with pytest.raises(InvalidInputError, match="d=384, expected d=128"):
        other.load_from_file(path)
    assert not other.is_trained


def test_damage_is_found_wherever_it_is(tmp_path: Path, texts: Float32) -> None:
    path = tmp_path / "shard.faiss"
    build_ivfpq_index(384, 4, 48, 4, "l2", texts[:500]).save_to_file(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*rng.integers(0, len(whole) - 8, 60).tolist(), 0]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(CorruptionError):
            FaissIndex.load_from_file(path)
    for length in (0, 7, 100, len(whole) // 2):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptionError):
            FaissIndex.load_from_file(path)


def test_a_file_that_cannot_be_written_leaves_the_old_one(built: FaissIndex, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="there is no folder"):
        built.save_to_file(tmp_path / "nowhere" / "shard.faiss")
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(UnavailableError, match="taken"):
        built.save_to_file(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(NotFoundError, match="there is no file"):
        FaissIndex.load_from_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1], InvalidInputError, "expected 2 ids"),
        ([[1, 2]], InvalidInputError, "expected 2 ids"),
        ([1.0, 2.0], InvalidInputError, "whole numbers from 0"),
        (["a", "b"], InvalidInputError, "whole numbers from 0"),
        ([-1, 2], InvalidInputError, "whole numbers from 0"),
        (np.array([1, 2**63], np.uint64), InvalidInputError, "whole numbers from 0"),
        ([5, 5], AlreadyExistsError, "id 5 is given twice"),
        ([5, 100], AlreadyExistsError, "id 100 is in the index"),
    ],
)
def test_wrong_ids_add_nothing(texts: Float32, ids: Any, error: type[Exception], message: str) -> None:
    index = FaissIndex(384, 2, 48, 4, "l2")
    index.train(texts[:100])
    index.add_vectors(texts[:1], [100])
    with pytest.raises(error, match=message):
        index.add_vectors(texts[:2], ids)
    assert index.ntotal == 1


def test_wrong_vectors_and_calls_out_of_turn_are_refused(texts: Float32) -> None:
    index = FaissIndex(384, 2, 48, 4)
    for call in (lambda: index.search(texts[0]), lambda: index.add_vectors(texts[:1], [0])):
        with pytest.raises(NotReadyError, match=r"call train"):
            call()
    with pytest.raises(InvalidInputError, match="expected vectors of d=384, got d=100"):
        index.train(texts[:100, :100])
    with pytest.raises(InvalidInputError, match="row 1 is the zero vector"):
        index.train(np.stack([texts[0], texts[0] * 0]))
    with pytest.raises(InvalidInputError, match="row 0 holds nan"):
        index.train(np.full((3, 384), np.nan, np.float32))
    index.train(texts[:100])
    index.add_vectors(texts[:100], range(100))
    with pytest.raises(NotReadyError, match="the index holds 100 vectors"):
        index.train(texts[:100])
    for k, nprobe in ((0, None), (5, 0), ("5", None), (5, 1.5)):
        with pytest.raises(InvalidInputError):
            index.search(texts[0], k, nprobe)  # type: ignore[arg-type]
    for metric in ("ip", "hamming", "", None):
        with pytest.raises(InvalidInputError, match="cosine, angular, euclidean, l2"):
            FaissIndex(384, 2, 48, 4, metric)  # type: ignore[arg-type]


def test_threads_add_and_search_at_once(texts: Float32) -> None:
    index = FaissIndex(384, 8, 48, 4, "cosine")
    index.train(texts[:1_000])
    faults: list[Exception] = []

    def work(part: int) -> None:
        try:
            for at in range(part * 400, part * 400 + 400, 50):
                index.add_vectors(texts[at : at + 50], range(at, at + 50))
                assert index.search(texts[at], 1, nprobe=8)[1].size == 1
        except Exception as error:  # noqa: BLE001 - told below
            faults.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert index.ntotal == 2_400
