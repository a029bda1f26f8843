"""FAISSVectorStore: cosine by memory id, exact where small, near enough where large, whole in its file."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.errors import InvalidInputError
from faissbase.memory import FAISSVectorStore
from faissbase.memory.standing import Standing, weights
from faissbase.types import Float32


def clustered(n: int, d: int, seed: int = 3) -> Float32:
    rng = np.random.default_rng(seed)
    turned = rng.standard_normal((32, d))
    centres = rng.standard_normal((50, 32)) * 1.2
    x = (centres[rng.integers(0, 50, n)] + rng.standard_normal((n, 32))) @ turned / 6
    return (x + 0.5 * rng.standard_normal((n, d))).astype(np.float32)


def unit(x: Float32) -> Float32:
    found: Float32 = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return found


def test_the_dimension_is_1536_unless_said() -> None:
    assert FAISSVectorStore().dimension == 1536


def test_search_gives_ids_and_cosines_nearest_first() -> None:
    store = FAISSVectorStore(dimension=2)
    store.add(7, [3, 0])
    store.add("seven", [0, 0.1])
    store.add(8, [-1, 0])
    found = store.search([2, 2], k=3)
    assert [each["memory_id"] for each in found] == [7, "seven", 8]
    assert [each["score"] for each in found] == pytest.approx([0.5**0.5, 0.5**0.5, -(0.5**0.5)])
    assert all(set(each) == {"memory_id", "score"} for each in found)


def test_an_int_and_the_string_of_it_are_two_ids() -> None:
    store = FAISSVectorStore(2)
    store.add(1, [1, 0])
    store.add("1", [0, 1])
    assert store.count == 2
    assert store.remove("1")
    assert store.search([0, 1])[0]["memory_id"] == 1


def test_adding_twice_replaces() -> None:
    store = FAISSVectorStore(2)
    store.add(1, [1, 0])
    store.add(1, [0, 1])
    store.add_many([2, 2], [[1, 1], [-1, 0]])
    assert store.count == 2
    assert [(each["memory_id"], each["score"]) for each in store.search([0, 1])] == [(1, 1.0), (2, 0.0)]


def test_what_is_removed_is_not_found_and_all_else_is() -> None:
    x = clustered(300, 16)
    store = FAISSVectorStore(16)
    store.add_many(range(300), x)
    rng = np.random.default_rng(5)
    gone = set(rng.permutation(300)[:200].tolist())
    for memory_id in gone:
        assert store.remove(memory_id)
        assert not store.remove(memory_id)
    left = np.array(sorted(set(range(300)) - gone))
    assert store.count == 100
    for query in x[:10]:
        order = left[np.argsort(-(unit(x[left]) @ unit(query)), kind="stable")]
        assert [each["memory_id"] for each in store.search(query, k=300)] == order.tolist()


def test_an_empty_store_finds_nothing() -> None:
    assert FAISSVectorStore(4).search([1, 0, 0, 0]) == []


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ([1, 2, 3], "expected embeddings of d=2"),
        ([1, float("nan")], "embedding 0 has a number that is not finite"),
        ([0, 0], "embedding 0 is all zeros"),
        (["a", "b"], "embeddings must be numbers"),
        ([[1, 2], [3, 4]], "expected embeddings of d=2"),
    ],
)
def test_a_bad_embedding_is_refused_and_nothing_is_changed(embedding: Any, message: str) -> None:
    store = FAISSVectorStore(2)
    store.add("kept", [1, 0])
    with pytest.raises(InvalidInputError, match=message):
        store.add("new", embedding)
    with pytest.raises(InvalidInputError, match=message):
        store.search(embedding)
    assert store.count == 1


@pytest.mark.parametrize("memory_id", [None, 1.5, True, (1,)])
def test_an_id_that_is_neither_int_nor_str_is_refused(memory_id: Any) -> None:
    with pytest.raises(InvalidInputError, match="a memory id is an int or a str"):
        FAISSVectorStore(2).add(memory_id, [1, 0])


@pytest.mark.parametrize("k", [0, -1, 2.0, True])
def test_k_below_one_is_refused(k: Any) -> None:
    with pytest.raises(InvalidInputError, match="k must be a whole number from 1 on"):
        FAISSVectorStore(2).search([1, 0], k)


@pytest.mark.parametrize("dimension", [0, -3, 1.5, True, 70_000])
def test_a_dimension_that_cannot_be_is_refused(dimension: Any) -> None:
    with pytest.raises(InvalidInputError, match="dimension must be a whole number from 1 to 65535"):
        FAISSVectorStore(dimension)


def test_what_was_given_is_not_changed() -> None:
    given = np.array([3.0, 4.0], np.float32)
    store = FAISSVectorStore(2)
    store.add(1, given)
    store.search(given)
    assert given.tolist() == [3.0, 4.0]


# ---- large stores --------------------------------------------------------------------------------

N, D = 30_000, 256


@pytest.fixture(scope="module")
def x() -> Float32:
    return clustered(N + 40, D)


@pytest.fixture(scope="module")
def large(x: Float32) -> FAISSVectorStore:
    store = FAISSVectorStore(D)
    rng = np.random.default_rng(11)
    standings = [
        Standing(float(importance), 1e9 - float(days) * 86_400, is_episodic=bool(days > 5))
        for importance, days in zip(rng.uniform(0.3, 1, N), rng.uniform(0, 10, N), strict=True)
    ]
    for start in range(0, N, 7_000):
        stop = min(N, start + 7_000)
        store.add_many(range(start, stop), x[start:stop], standings[start:stop])
    return store


def test_a_large_store_finds_what_an_exact_scan_finds(x: Float32, large: FAISSVectorStore) -> None:
    exact = unit(x[N:]) @ unit(x[:N]).T
    n_found = 0
    for query, cosines in zip(x[N:], exact, strict=True):
        found = large.search(query, k=10)
        assert [each["score"] for each in found] == pytest.approx(
            [cosines[each["memory_id"]] for each in found], abs=1e-5
        )
        n_found += len({each["memory_id"] for each in found} & set(np.argsort(-cosines)[:10].tolist()))
    assert n_found / (10 * len(exact)) >= 0.995


def _recall(x: Float32, queries: Float32) -> float:
    """Of 10, in a store of ``x``; what is as near as the last of the true ones counts."""
    store = FAISSVectorStore(x.shape[1])
    store.add_many(range(len(x)), x)
    n_found = 0
    for query, cosines in zip(queries, unit(queries) @ unit(x).T, strict=True):
        least = np.partition(cosines, len(x) - 10)[len(x) - 10]
        n_found += sum(each["score"] >= least - 1e-6 for each in store.search(query, 10))
    return n_found / (10 * len(queries))


def test_recall_on_data_that_says_little() -> None:
    """Where all are alike, come many times, lie in two tight clusters, or apart from nearly all others."""
    rng = np.random.default_rng(5)
    noise, centres = rng.normal(size=(20_000, D)), rng.normal(size=(500, D))
    few = np.where(np.arange(20_000) < 20, 1, 0)
    data = {
        "equal": np.repeat(centres[:1], 20_000, axis=0),
        "repeated": np.repeat(centres, 40, axis=0),
        "two tight": centres[rng.integers(0, 2, 20_000)] + noise / 100,
        "one apart": centres[few] + noise / 100,
    }
    queries = [0, 7, 19_990]
    found = {name: _recall(x.astype(np.float32), x[queries].astype(np.float32)) for name, x in data.items()}
    assert min(found.values()) >= 0.99, found


@pytest.mark.parametrize("dimension", [1, 2, 8])
def test_a_large_store_of_few_dimensions_is_exact_and_keeps_no_sketches(
    dimension: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faissbase.memory.store._SKETCHED_NUMBERS", 4_000)
    x = np.random.default_rng(3).normal(size=(5_000, dimension)).astype(np.float32)
    assert _recall(x, x[:5]) == 1.0
    found = FAISSVectorStore(dimension)
    found.add_many(range(5_000), x)
    assert found.size_bytes < 2 * x.nbytes


def test_of_equals_the_newest_come_first_however_many_there_are() -> None:
    found = FAISSVectorStore(2)
    standings = [Standing(occurred_s=float(number % 500)) for number in range(2_000)]
    found.add_many(range(2_000), np.ones((2_000, 2)), standings)
    assert [each["memory_id"] for each in found.search([1, 1], 6)] == [499, 999, 1499, 1999, 498, 998]


def test_weights_are_minded_before_anything_is_left_out(x: Float32, large: FAISSVectorStore) -> None:
    exact = unit(x[N:]) @ unit(x[:N]).T
    weighed = weights(large._standings[slice(N)], 1e9)
    n_found = 0
    for query, cosines in zip(x[N:], exact, strict=True):
        scores = weighed.scored(cosines.astype(np.float32))
        found = large.ranked(query, 10, lambda standings: weights(standings, 1e9))
        n_found += len({each.memory_id for each in found} & set(np.argsort(-scores)[:10].tolist()))
    assert n_found / (10 * len(exact)) >= 0.995


def test_one_weighty_memory_far_away_is_found_among_many_light_ones() -> None:
    x = clustered(40_000, 128)
    query = unit(x[0])
    store = FAISSVectorStore(128)
    store.add_many(range(len(x)), x, [Standing(0.01)] * len(x))
    far = int(np.argsort(-(unit(x) @ query))[10_000])
    store.add_many([far], x[far : far + 1], [Standing(1.0)])
    assert store.ranked(query, 1, lambda standings: weights(standings, 0.0))[0].memory_id == far


def test_a_large_store_finds_only_what_is_allowed(x: Float32, large: FAISSVectorStore) -> None:
    allowed = set(range(0, N, 3)) | {"unknown"}
    found = large.ranked(x[N], 10, among=allowed)
    cosines = unit(x[:N:3]) @ unit(x[N])
    assert {each.memory_id for each in found} == {3 * int(at) for at in np.argsort(-cosines)[:10]}
    few = large.ranked(x[N], 10, where=lambda standings: standings.importance > 0.9999)
    assert all(large._standings.importance[large._slots[each.memory_id]] > 0.9999 for each in few)


def test_a_large_store_forgets_and_replaces(x: Float32) -> None:
    store = FAISSVectorStore(D)
    store.add_many(range(N), x[:N])
    for memory_id in range(0, N, 2):
        store.remove(memory_id)
    store.add(1, x[N])
    assert store.count == N // 2
    found = store.search(x[N], k=5)
    assert found[0]["memory_id"] == 1
    assert found[0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert all(each["memory_id"] % 2 for each in found)


# ---- files ---------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path: Path, x: Float32, large: FAISSVectorStore) -> None:
    path = tmp_path / "new" / "store"
    large.save(path)
    loaded = FAISSVectorStore(D)
    assert loaded.load(path)
    assert loaded.count == N
    weigh = lambda standings: weights(standings, 1e9)  # noqa: E731
    assert loaded.ranked(x[N], 20, weigh) == large.ranked(x[N], 20, weigh)
    assert [each.name for each in path.parent.iterdir()] == ["store"]


def test_ids_keep_their_types_in_a_file(tmp_path: Path) -> None:
    store = FAISSVectorStore(2)
    store.add_many([1, "1", "\u00e9"], [[1, 0], [0, 1], [1, 1]])
    store.save(tmp_path / "s")
    loaded = FAISSVectorStore(2)
    assert loaded.load(tmp_path / "s")
    assert (1 in loaded, "1" in loaded, "\u00e9" in loaded) == (True, True, True)


@pytest.mark.parametrize("memory_id", [1 << 127, -(1 << 70), "half \ud800", ""])
def test_an_id_of_any_size_and_sign_is_kept_in_a_file(tmp_path: Path, memory_id: int | str) -> None:
    store = FAISSVectorStore(2)
    store.add(memory_id, [1, 0])
    store.save(tmp_path / "f")
    loaded = FAISSVectorStore(2)
    assert loaded.load(tmp_path / "f")
    assert loaded.search([1, 0]) == [{"memory_id": memory_id, "score": 1.0}]


def test_an_empty_store_is_saved_and_loaded(tmp_path: Path) -> None:
    FAISSVectorStore(3).save(tmp_path / "s")
    loaded = FAISSVectorStore(3)
    loaded.add(1, [1, 0, 0])
    assert loaded.load(tmp_path / "s")
    assert loaded.count == 0


def test_a_file_that_is_missing_or_of_another_dimension_changes_nothing(tmp_path: Path) -> None:
    FAISSVectorStore(3).save(tmp_path / "s")
    store = FAISSVectorStore(2)
    store.add(1, [1, 0])
    assert not store.load(tmp_path / "s")
    assert not store.load(tmp_path / "missing")
    assert store.count == 1


def test_a_damaged_file_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = FAISSVectorStore(4)
    store.add_many(range(3), np.eye(4)[:3])
    store.save(path)
    whole = path.read_bytes()
    fresh = FAISSVectorStore(4)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        assert not fresh.load(path), f"byte {at}"
        path.write_bytes(whole[:at])
        assert not fresh.load(path), f"cut at {at}"
    path.write_bytes(whole)
    assert fresh.load(path)


def test_threads_may_search_while_others_write() -> None:
    store = FAISSVectorStore(32)
    x = clustered(2_000, 32)
    errors: list[BaseException] = []

    def run(work: Any) -> None:
        try:
            for number in range(400):
                work(number)
        except BaseException as error:  # noqa: BLE001  # told by the test
            errors.append(error)

    works = [
        lambda number: store.add(number % 500, x[number]),
        lambda number: store.remove((number * 7) % 500),
        lambda number: [each["score"] for each in store.search(x[number], 5)],
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.count == len(store._slots) == len(set(store._ids))
