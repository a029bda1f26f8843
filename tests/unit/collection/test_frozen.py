"""Collections that are never written again, of which some slots are hidden: as if they were not there."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.collection.frozen import FreshCollection, FrozenCollection
from faissbase.collection.inputs import rows_from_input
from faissbase.collection.store import Config
from faissbase.errors import AccessError, CorruptionError

D = 8
CONFIG = Config("u", "docs", D, "cosine", "auto")
HIDDEN = np.array([3, 4, 17, 39], np.int64)
ODD = {"odd": True}


def vectors(n: int, seed: int = 0) -> np.ndarray:
    return 2 * np.random.default_rng(seed).standard_normal((n, D), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty records, i0 to i39, in slots of their numbers."""
    ids = [f"i{i}" for i in range(40)]
    metadatas = [{"n": i, "odd": i % 2 == 1} for i in range(40)]
    fresh = FreshCollection(tmp_path, CONFIG)
    fresh.put(rows_from_input(ids, vectors(40), metadatas, [f"word{i} all" for i in range(40)], D, "cosine"))
    fresh.close()
    return tmp_path


def alive(hidden: np.ndarray) -> list[int]:
    return [i for i in range(40) if i not in hidden]


def answers(docs: FrozenCollection) -> dict[str, Any]:
    xq = vectors(5, 9)
    return {
        "one": [hit.id for hit in docs.search(xq[0], k=40)],
        "many": docs.search(xq, k=12).ids,
        "filtered": docs.search(xq, k=40, where=ODD).ids,
        "few": [hit.id for hit in docs.search(xq[0], k=3, where={"n": {"$in": [3, 4, 5]}})],
        "range": docs.range_search(xq, -1.0).ids,
        "text": sorted(hit.id for hit in docs.text_search("all", k=40)),
        "both": sorted(hit.id for hit in docs.hybrid_search("word17 all", xq[0], k=40)),
        "counts": (len(docs), docs.count(), docs.count(ODD), docs.count({"n": {"$lt": 5}})),
        "records": [record.id for record in docs.get()],
        "by id": [record.id for record in docs.get(["i3", "i5", "i39", "nobody"])],
        "slots": docs.slots_of(["i3", "i5", "i39", "nobody"]),
        "matching": docs.matching(ODD).tolist(),
        "page": [record.id for record in docs.scroll(ODD, limit=3).records],
    }


def expected(hidden: np.ndarray) -> dict[str, Any]:
    """The same of NumPy."""
    x, xq, there = vectors(40), vectors(5, 9), alive(hidden)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near = [[i for i in np.argsort(-(unit @ q), kind="stable") if i in there] for q in xq]
    odd = [i for i in there if i % 2]
    return {
        "one": named(near[0]),
        "many": [named(row[:12]) for row in near],
        "filtered": [named(i for i in row if i in odd) for row in near],
        "few": named(i for i in near[0] if i in (3, 4, 5)),
        "range": [named(row) for row in near],
        "text": sorted(named(there)),
        "both": sorted(named(there)),
        "counts": (len(there), len(there), len(odd), len([i for i in there if i < 5])),
        "records": named(there),
        "by id": named(i for i in (3, 5, 39) if i in there),
        "slots": {f"i{i}": i for i in (3, 5, 39) if i in there},
        "matching": odd,
        "page": named(odd[:3]),
    }


def named(numbers: Any) -> list[str]:
    return [f"i{i}" for i in numbers]


@pytest.mark.parametrize("hidden", [HIDDEN[:0], HIDDEN, np.arange(40), np.arange(1, 40)])
def test_what_is_hidden_is_in_no_answer(folder: Path, hidden: np.ndarray) -> None:
    docs = FrozenCollection(folder, CONFIG, hidden)
    assert answers(docs) == expected(hidden)
    assert answers(docs) == expected(hidden), "nor in what was remembered"
    docs.close()


def test_hiding_more_leaves_the_one_before_as_it_was(folder: Path) -> None:
    first = FrozenCollection(folder, CONFIG, HIDDEN[:1])
    assert answers(first) == expected(HIDDEN[:1])
    second = first.hiding(HIDDEN)
    third = second.hiding(np.arange(20))
    for docs, hidden in ((third, np.arange(20)), (first, HIDDEN[:1]), (second, HIDDEN)):
        assert answers(docs) == expected(hidden)
    third.close()


def test_a_long_row_of_twins_that_nobody_asked_opens(folder: Path) -> None:
    docs = first = FrozenCollection(folder, CONFIG)
    for _ in range(3_000):
        docs = docs.hiding(HIDDEN)
    assert answers(docs) == expected(HIDDEN)
    assert first.is_open
    docs.close()


def test_twins_answer_at_the_same_time(folder: Path) -> None:
    sets = [HIDDEN[:1], HIDDEN, np.arange(10), np.arange(0, 40, 2)]
    first = FrozenCollection(folder, CONFIG, sets[0])
    first.count()
    twins = [first, *(first.hiding(hidden) for hidden in sets[1:])]
    wrong: list[int] = []

    def ask(i: int) -> None:
        for _ in range(10):
            if answers(twins[i]) != expected(sets[i]):
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    first.close()


def test_batches_are_what_is_stored_to_the_bit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from faissbase.collection import frozen

    docs = FrozenCollection(folder, CONFIG, HIDDEN)
    whole = list(docs.batches())
    monkeypatch.setattr(frozen, "_BATCH_BYTES", 64)  # two vectors, or less than two other parts
    parts = list(docs.batches())
    assert len(whole) == 1
    assert 18 < len(parts) < 36
    for field in ("ids", "norms", "metadata_json", "documents", "checksums"):
        joined = [value for rows in parts for value in getattr(rows, field)]
        assert joined == getattr(whole[0], field)
    assert np.concatenate([rows.vectors for rows in parts]).tobytes() == whole[0].vectors.tobytes()
    sound = rows_from_input(
        whole[0].ids,
        vectors(40)[alive(HIDDEN)],
        [{"n": i, "odd": i % 2 == 1} for i in alive(HIDDEN)],
        [f"word{i} all" for i in alive(HIDDEN)],
        D,
        "cosine",
    )
    assert (whole[0].checksums, whole[0].norms) == (sound.checksums, sound.norms)
    assert docs.rows_at(HIDDEN[:2]).ids == ["i3", "i4"], "hidden ones can be read where they are asked for"
    assert docs.rows_of(["i5", "i3", "i0"]).ids == ["i0", "i5"]
    assert len(docs.rows_of([])) == 0
    docs.close()


def test_verify_reads_hidden_records_too(folder: Path) -> None:
    docs = FrozenCollection(folder, CONFIG, HIDDEN)
    assert docs.verify().rows_checked == 40
    [slots] = folder.glob("vectors.*.f32")
    with open(slots, "r+b") as file:
        file.seek(4 * D * 3)
        file.write(b"\xff")
    assert [problem.kind for problem in docs.verify().problems]
    docs.close()


def test_slots_that_are_not_there_cannot_be_hidden(folder: Path) -> None:
    with pytest.raises(CorruptionError, match="none of the 40 slots"):
        FrozenCollection(folder, CONFIG, np.array([40])).count()


def test_a_frozen_collection_takes_no_writes(folder: Path) -> None:
    docs = FrozenCollection(folder, CONFIG, HIDDEN)
    with pytest.raises(AccessError, match="read-only"):
        docs.upsert("x", vectors(1))
    docs.close()


def test_a_fresh_collection_ends_with_its_last_slot_and_knows_its_dead(tmp_path: Path) -> None:
    fresh = FreshCollection(tmp_path, CONFIG)
    for ids in (["a", "b", "c"], ["b", "d"]):
        fresh.put(rows_from_input(ids, vectors(len(ids)), None, None, D, "cosine"))
    assert fresh.dead_slots().tolist() == [1]
    fresh.close()
    [slots] = tmp_path.glob("vectors.*.f32")
    assert slots.stat().st_size == 5 * 4 * D
    docs = FrozenCollection(tmp_path, CONFIG)
    assert [record.id for record in docs.get()] == ["a", "c", "b", "d"]
    docs.close()
