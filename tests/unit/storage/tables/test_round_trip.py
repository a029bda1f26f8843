"""What is written reads back equal, in every format that can be written."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faissbase.storage.tables import open_reader, open_writer, peek_dimension
from faissbase.types import Batch

ReadAll = Callable[..., Batch]

WRITABLE = ["npy", "fvecs", "parquet", "arrow", "ipc", "feather", "jsonl", "ndjson", "csv", "tsv"]
TELLS_D_WHEN_EMPTY = {"npy", "parquet", "arrow", "ipc", "feather"}


def write(path: Path, batch: Batch, *, rows_at_once: int = 10) -> None:
    with open_writer(path, dimension=batch.vectors.shape[1]) as writer:
        for start in range(0, len(batch.vectors), rows_at_once):
            rows = slice(start, start + rows_at_once)
            writer.write(
                Batch(
                    batch.vectors[rows],
                    None if batch.ids is None else batch.ids[rows],
                    None if batch.metadatas is None else batch.metadatas[rows],
                    None if batch.documents is None else batch.documents[rows],
                )
            )


def assert_equal(got: Batch, expected: Batch) -> None:
    assert got.vectors.dtype == np.float32
    assert got.vectors.tobytes() == expected.vectors.tobytes()
    assert got.ids == expected.ids
    assert got.metadatas == expected.metadatas
    assert got.documents == expected.documents


@pytest.mark.parametrize("suffix", WRITABLE)
def test_everything_reads_back_equal(tmp_path: Path, batch: Batch, read_all: ReadAll, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    assert_equal(read_all(path), batch)
    assert peek_dimension(path) == 6


def test_bvecs_reads_back_equal(tmp_path: Path, batch: Batch, read_all: ReadAll) -> None:
    vectors = np.random.default_rng(1).integers(0, 256, batch.vectors.shape).astype(np.float32)
    whole = dataclasses.replace(batch, vectors=vectors)
    write(tmp_path / "records.bvecs", whole)
    assert_equal(read_all(tmp_path / "records.bvecs"), whole)


@pytest.mark.parametrize("suffix", [*WRITABLE, "bvecs"])
def test_an_empty_file_reads_back_empty(tmp_path: Path, read_all: ReadAll, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    with open_writer(path, dimension=6):
        pass
    assert list(open_reader(path, dimension=6).batches()) == []
    if suffix in TELLS_D_WHEN_EMPTY:
        assert peek_dimension(path) == 6
    else:
        with pytest.raises(ValueError, match="give the dimension"):
            peek_dimension(path)


@pytest.mark.parametrize("suffix", WRITABLE)
def test_vectors_alone_read_back_without_ids(
    tmp_path: Path, batch: Batch, read_all: ReadAll, suffix: str
) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, Batch(batch.vectors))
    n = len(batch.vectors)
    assert_equal(read_all(path), Batch(batch.vectors, None, [{}] * n, [None] * n))


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("skip_rows", [0, 1, 9, 10, 11, 22, 23])
def test_a_load_resumes_after_any_row(
    tmp_path: Path, batch: Batch, read_all: ReadAll, suffix: str, skip_rows: int
) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    got = read_all(path, skip_rows=skip_rows, batch_rows=4)
    assert np.array_equal(got.vectors, batch.vectors[skip_rows:])
    assert (got.ids or []) == (batch.ids or [])[skip_rows:]
    assert (got.documents or []) == (batch.documents or [])[skip_rows:]


@pytest.mark.parametrize("suffix", WRITABLE)
def test_resuming_after_more_rows_than_there_are_is_refused(
    tmp_path: Path, batch: Batch, suffix: str
) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    with pytest.raises(ValueError, match=r"24.*23 rows"):
        list(open_reader(path, dimension=6).batches(24))
    with pytest.raises(ValueError, match="skip_rows must be 0 or more, got -1"):
        list(open_reader(path, dimension=6).batches(-1))


@pytest.mark.parametrize("suffix", WRITABLE)
def test_batches_hold_at_most_the_rows_asked_for_and_are_never_empty(
    tmp_path: Path, batch: Batch, suffix: str
) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    sizes = [len(piece.vectors) for piece in open_reader(path, dimension=6, batch_rows=4).batches()]
    assert sum(sizes) == 23
    assert min(sizes) >= 1
    assert max(sizes) == 4


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_reader_reads_twice(tmp_path: Path, batch: Batch, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    reader = open_reader(path, dimension=6, batch_rows=5)
    first = [piece.ids for piece in reader.batches()]
    assert [piece.ids for piece in reader.batches()] == first


@pytest.mark.parametrize("suffix", WRITABLE)
def test_another_dimension_is_refused(tmp_path: Path, batch: Batch, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    with pytest.raises(ValueError, match=rf"expected vectors of d=8, got d=6 \(file .*{suffix}, row 0\)"):
        list(open_reader(path, dimension=8).batches())


@pytest.mark.parametrize("suffix", ["npy", "fvecs", "parquet", "arrow"])
def test_the_number_of_rows_is_known_before_reading(tmp_path: Path, batch: Batch, suffix: str) -> None:
    path = tmp_path / f"records.{suffix}"
    write(path, batch)
    reader = open_reader(path, dimension=6)
    assert reader.n_rows == 23
    assert reader.size_bytes >= path.stat().st_size


@pytest.mark.parametrize("suffix", ["npy", "fvecs", "parquet", "arrow"])
def test_values_that_are_not_finite_keep_their_bits(
    tmp_path: Path, batch: Batch, read_all: ReadAll, suffix: str
) -> None:
    vectors = batch.vectors.copy()
    vectors[3] = [np.nan, np.inf, -np.inf, 0, 0, 0]
    path = tmp_path / f"records.{suffix}"
    write(path, dataclasses.replace(batch, vectors=vectors))
    assert read_all(path).vectors.tobytes() == vectors.tobytes()


def test_text_keeps_every_bit_of_random_floats(tmp_path: Path, read_all: ReadAll) -> None:
    bits = np.random.default_rng(3).integers(0, 2**32, (4000, 8), dtype=np.uint32)
    vectors = bits.view(np.float32)
    vectors = vectors[np.isfinite(vectors).all(axis=1)]
    write(tmp_path / "records.jsonl", Batch(vectors), rows_at_once=4000)
    assert read_all(tmp_path / "records.jsonl", dimension=8).vectors.tobytes() == vectors.tobytes()
