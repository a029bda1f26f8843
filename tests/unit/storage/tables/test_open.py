"""Which format a path names, and what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from faissbase.errors import InvalidInputError, NotFoundError
from faissbase.storage.tables import default_batch_rows, open_reader, open_writer, peek_dimension


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.faiss", "an index file of FAISS: load it into a collection first"),
        ("a.index", "an index file of FAISS: load it into a collection first"),
        ("a.ivecs", "it holds ids"),
        ("a.xlsx", r"the suffix must be one of \.npy, .*\.parquet, .*\.jsonl\.gz, .*\.csv"),
        ("a", "the suffix must be one of"),
        ("a.gz", "the suffix must be one of"),
        ("a.npy.gz", "the suffix must be one of"),
    ],
)
def test_a_suffix_that_cannot_be_read_says_why(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidInputError, match=message):
        open_reader(tmp_path / name, dimension=2)
    with pytest.raises(InvalidInputError, match=message):
        peek_dimension(tmp_path / name)


@pytest.mark.parametrize("name", ["a.faiss", "a.npz", "a.jsonl.gz", "a.ivecs", "a"])
def test_a_suffix_that_cannot_be_written_lists_those_that_can(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot write .*one of \.npy, \.fvecs, .*\.tsv$"):
        open_writer(tmp_path / name, dimension=2)


@pytest.mark.parametrize("suffix", ["npy", "npz:xb", "fvecs", "bvecs", "parquet", "arrow", "jsonl", "csv.gz"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(NotFoundError, match=r"none\."):
        open_reader(tmp_path / f"none.{suffix}", dimension=2)


def test_a_folder_is_no_record_file(tmp_path: Path) -> None:
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(InvalidInputError, match="not a regular file"):
        open_reader(tmp_path / "a.npy", dimension=2)


def test_suffixes_are_read_in_any_case(tmp_path: Path) -> None:
    with (tmp_path / "A.NPY").open("wb") as file:
        np.save(file, np.ones((2, 3), np.float32))
    assert peek_dimension(str(tmp_path / "A.NPY")) == 3


@pytest.mark.parametrize("dimension", [0, -1, 65_536])
def test_an_impossible_dimension_is_refused(tmp_path: Path, dimension: int) -> None:
    with pytest.raises(InvalidInputError, match=f"dimension must be 1 to 65535, got {dimension}"):
        open_reader(tmp_path / "a.npy", dimension=dimension)
    with pytest.raises(InvalidInputError, match=f"got {dimension}"):
        open_writer(tmp_path / "a.npy", dimension=dimension)


def test_batches_of_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="batch_rows must be 1 or more, got 0"):
        open_reader(tmp_path / "a.npy", dimension=2, batch_rows=0)


@pytest.mark.parametrize(("d", "rows"), [(1, 65_536), (64, 65_536), (384, 10_922), (65_535, 64)])
def test_a_default_batch_is_16_mib(d: int, rows: int) -> None:
    assert default_batch_rows(d) == rows
