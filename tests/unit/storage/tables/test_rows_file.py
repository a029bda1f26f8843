"""Vectors in one file, their ids, metadata and documents in another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faissbase.errors import NotFoundError
from faissbase.storage.tables import open_reader
from faissbase.types import Batch

ReadAll = Callable[..., Batch]

N = 5
IDS = [f"r{i}" for i in range(N)]


@pytest.fixture
def xb(tmp_path: Path) -> Path:
    path = tmp_path / "xb.npy"
    np.save(path, np.arange(N * 2, dtype=np.float32).reshape(N, 2))
    return path


def jsonl(path: Path, n: int = N) -> Path:
    lines = (
        f'{{"id": "r{i}", "metadata": {{"i": {i}}}, "document": "t{i}", "lang": "en"}}\n' for i in range(n)
    )
    path.write_text("".join(lines))
    return path


def parquet(path: Path, n: int = N) -> Path:
    pq.write_table(pa.table({"id": [f"r{i}" for i in range(n)], "i": list(range(n))}), path)
    return path


def test_the_rows_file_beside_the_vectors_is_found(xb: Path, read_all: ReadAll) -> None:
    jsonl(xb.with_name("xb.npy.rows.jsonl"))
    got = read_all(xb, dimension=2, batch_rows=2)
    assert got.ids == IDS
    assert got.metadatas == [{"i": i, "lang": "en"} for i in range(N)]
    assert got.documents == [f"t{i}" for i in range(N)]


def test_rows_come_from_csv_and_parquet_too(xb: Path, tmp_path: Path, read_all: ReadAll) -> None:
    (tmp_path / "rows.csv").write_text("id,i\n" + "".join(f"r{i},{i}\n" for i in range(N)))
    for rows_path in (tmp_path / "rows.csv", parquet(tmp_path / "rows.parquet")):
        got = read_all(xb, dimension=2, batch_rows=2, rows_path=rows_path)
        assert got.ids == IDS
        assert got.metadatas == [{"i": i} for i in range(N)]
        assert got.documents == [None] * N


def test_both_files_skip_together(xb: Path, tmp_path: Path, read_all: ReadAll) -> None:
    for rows_path in (jsonl(tmp_path / "rows.jsonl"), parquet(tmp_path / "rows.parquet")):
        got = read_all(xb, dimension=2, skip_rows=3, rows_path=rows_path)
        assert got.ids == IDS[3:]
        assert got.vectors.tolist() == [[6, 7], [8, 9]]


def test_fvecs_has_rows_as_well(tmp_path: Path, read_all: ReadAll) -> None:
    (tmp_path / "xb.fvecs").write_bytes((b"\x01\0\0\0" + np.float32(3).tobytes()) * N)
    assert read_all(tmp_path / "xb.fvecs", dimension=1, rows_path=jsonl(tmp_path / "r.jsonl")).ids == IDS


@pytest.mark.parametrize("n", [N - 1, N + 2, 0])
def test_counts_that_differ_are_both_named(xb: Path, tmp_path: Path, n: int) -> None:
    message = rf"got {N} vectors in .*xb\.npy and {n} rows in .*rows\.jsonl"
    reader = open_reader(xb, dimension=2, batch_rows=2, rows_path=jsonl(tmp_path / "rows.jsonl", n))
    with pytest.raises(ValueError, match=message):
        list(reader.batches())


def test_counts_in_headers_are_compared_before_reading(xb: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"got {N} vectors in .* and 7 rows"):
        open_reader(xb, dimension=2, rows_path=parquet(tmp_path / "rows.parquet", 7))


def test_a_rows_file_with_vectors_is_refused(xb: Path, tmp_path: Path, read_all: ReadAll) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "vector": [1, 2]}\n' * N)
    pq.write_table(pa.table({"id": IDS, "vector": [[1.0, 2.0]] * N}), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.parquet"):
        with pytest.raises(ValueError, match="expected rows without"):
            read_all(xb, dimension=2, rows_path=tmp_path / name)


def test_a_rows_file_must_exist_and_go_with_vectors_alone(xb: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.jsonl"):
        open_reader(xb, dimension=2, rows_path=tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="the suffix must be one of"):
        open_reader(xb, dimension=2, rows_path=xb)
    rows = jsonl(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="rows_path goes with"):
        open_reader(rows, dimension=2, rows_path=rows)
