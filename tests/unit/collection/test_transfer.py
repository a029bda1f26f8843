"""Loading and exporting through a collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import faissbase
from faissbase.collection.collection import LocalCollection
from faissbase.collection.transfer import Source
from faissbase.collection.writer import Put, Writer

D = 8


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[LocalCollection]:
    with faissbase.connect(tmp_path / "data", durability="relaxed") as db:
        yield db.create_collection("docs", D, metric="cosine")


def _fill(docs: LocalCollection, n: int = 100) -> np.ndarray[Any, np.dtype[np.float32]]:
    vectors = np.random.default_rng(1).standard_normal((n, D)).astype(np.float32)
    docs.add(
        [f"r{i}" for i in range(n)],
        vectors,
        [{"n": i, "tags": ["a", "b"][: i % 3]} for i in range(n)],
        [f"text {i}" if i % 2 else None for i in range(n)],
    )
    return vectors


@pytest.mark.parametrize("suffix", ["npy", "fvecs", "parquet", "arrow", "jsonl", "csv"])
def test_export_then_load_gives_the_same_records(docs: LocalCollection, tmp_path: Path, suffix: str) -> None:
    _fill(docs)
    path = tmp_path / f"out.{suffix}"
    assert docs.export(path) == 100
    before = docs.get(where={}, include_vectors=True)
    with faissbase.connect(tmp_path / "other") as other:
        copy = other.create_collection("copy", D, metric="cosine")
        report = copy.load_file(path)
        assert (report.n_rows, report.n_resumed) == (100, 0)
        after = copy.get(where={}, include_vectors=True)
    assert [r.id for r in after] == [r.id for r in before]
    assert [(r.metadata, r.document) for r in after] == [(r.metadata, r.document) for r in before]
    for old, new in zip(before, after, strict=True):
        assert new.vector is not None
        assert old.vector is not None
        np.testing.assert_allclose(new.vector, old.vector, rtol=1e-6)


def test_export_writes_vectors_to_the_last_bit_as_get_gives_them(
    docs: LocalCollection, tmp_path: Path
) -> None:
    _fill(docs)
    docs.export(tmp_path / "out.npy")
    given = np.stack(
        [record.vector for record in docs.get(include_vectors=True) if record.vector is not None]
    )
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), given)


def test_export_writes_only_what_matches(docs: LocalCollection, tmp_path: Path) -> None:
    _fill(docs)
    assert docs.export(tmp_path / "few.jsonl", where={"n": {"$lt": 7}}) == 7


def test_rows_without_ids_are_numbered(docs: LocalCollection, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(D, dtype=np.float32))
    docs.load_file(tmp_path / "v.npy", batch_rows=3)
    assert [r.id for r in docs.get(where={})] == [str(i) for i in range(D)]


def test_an_interrupted_load_goes_on_where_it_stopped(
    docs: LocalCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(2).standard_normal((50, D)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    run, commits = Writer.run, []

    def stop_at_the_third(writer: Writer, change: Any) -> int:
        commits.append(change)
        if len(commits) == 3:
            raise KeyboardInterrupt
        return run(writer, change)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "run", stop_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            docs.load_file(tmp_path / "v.npy", batch_rows=10)
    assert len(docs) == 20
    report = docs.load_file(tmp_path / "v.npy", batch_rows=10)
    assert (report.n_rows, report.n_resumed) == (30, 20)
    assert len(docs) == 50
    assert docs.stats().tombstones == 0
    again = docs.load_file(tmp_path / "v.npy")
    assert (again.n_rows, again.n_resumed) == (50, 0)
    assert len(docs) == 50


def test_a_changed_file_is_loaded_from_its_start(
    docs: LocalCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.eye(D, dtype=np.float32))
    run = Writer.run

    def only_the_first(writer: Writer, change: Any) -> int:
        if isinstance(change, Put) and change.progress and change.progress[1] > 4:
            raise KeyboardInterrupt
        return run(writer, change)

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "run", only_the_first)
        with pytest.raises(KeyboardInterrupt):
            docs.load_file(path, batch_rows=4)
    np.save(path, 2 * np.eye(D, dtype=np.float32)[:6])
    report = docs.load_file(path, batch_rows=4)
    assert (report.n_rows, report.n_resumed) == (6, 0)


def test_of_rows_with_one_id_the_last_stays(docs: LocalCollection, tmp_path: Path) -> None:
    path = tmp_path / "twice.jsonl"
    path.write_text(
        '{"id": "a", "vector": [1,0,0,0,0,0,0,0], "n": 1}\n'
        '{"id": "b", "vector": [0,1,0,0,0,0,0,0], "n": 2}\n'
        '{"id": "a", "vector": [0,0,1,0,0,0,0,0], "n": 3}\n'
    )
    docs.load_file(path)
    assert [(r.id, r.metadata["n"]) for r in docs.get(["a", "b"])] == [("a", 3), ("b", 2)]


def test_a_bad_row_is_named_with_its_file_and_nothing_of_its_batch_is_stored(
    docs: LocalCollection, tmp_path: Path
) -> None:
    vectors = np.eye(D, dtype=np.float32)
    vectors[5, 2] = np.nan
    np.save(tmp_path / "v.npy", vectors)
    with pytest.raises(faissbase.InvalidInputError, match=r"v\.npy, rows 4 to 7: row 1 holds nan"):
        docs.load_file(tmp_path / "v.npy", batch_rows=4)
    assert len(docs) == 4


def test_wrong_dimension_stores_nothing(docs: LocalCollection, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    with pytest.raises(faissbase.InvalidInputError, match="d=8, got d=3"):
        docs.load_file(tmp_path / "v.npy")
    assert len(docs) == 0


def test_every_key_of_an_archive_is_a_file_of_its_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.eye(D), y=2 * np.eye(D))
    np.savez(tmp_path / "b.npz", x=np.eye(D))
    prints = {Source(tmp_path / name).fingerprint() for name in ("a.npz:x", "a.npz:y", "b.npz:x")}
    assert len(prints) == 3


def test_a_changed_rows_file_is_another_source(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(D))
    before = Source(tmp_path / "v.npy").fingerprint()
    (tmp_path / "v.npy.rows.jsonl").write_text('{"id": "a"}\n')
    assert Source(tmp_path / "v.npy").fingerprint() != before
