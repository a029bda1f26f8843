"""Parquet and Arrow: column types, nulls, damage, and life without pyarrow."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from faissbase.errors import NotReadyError
from faissbase.storage.tables import open_reader, open_writer, peek_dimension
from faissbase.types import Batch

ReadAll = Callable[..., Batch]

VECTORS = [[1, 2], [3, 4], [5, 6]]


def save(path: Path, table: Any, **options: Any) -> Path:
    """Write a ``pyarrow.Table`` as parquet or as an IPC file, in pieces of two rows."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
        return path
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def table_of(**columns: Any) -> Any:
    return pa.table({"vector": pa.array(VECTORS, pa.list_(pa.float32())), **columns})


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("number", ["float16", "float32", "float64", "int8", "uint8", "int64"])
@pytest.mark.parametrize("kind", ["fixed", "list", "large_list"])
def test_vectors_of_any_list_and_number_type(
    tmp_path: Path, read_all: ReadAll, suffix: str, number: str, kind: str
) -> None:
    value_type = getattr(pa, number)()
    make = {"fixed": lambda: pa.list_(value_type, 2), "list": lambda: pa.list_(value_type)}
    list_type = make.get(kind, lambda: pa.large_list(value_type))()
    values = np.array(VECTORS, dtype=number)
    table = pa.table({"vector": pa.array(list(values), list_type)})
    got = read_all(save(tmp_path / f"a.{suffix}", table), dimension=2, skip_rows=1)
    assert got.vectors.dtype == np.float32
    assert got.vectors.tolist() == VECTORS[1:]
    assert got.ids is None
    assert peek_dimension(tmp_path / f"a.{suffix}") == 2


def test_tensors_are_vectors_too(tmp_path: Path, read_all: ReadAll) -> None:
    array = pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(VECTORS, np.float32))
    path = save(tmp_path / "a.arrow", pa.table({"vector": array}))
    assert read_all(path, dimension=2).vectors.tolist() == VECTORS


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_other_columns_become_json_metadata(tmp_path: Path, read_all: ReadAll, suffix: str) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9, 10)
    instant = datetime.datetime(2024, 5, 6, 7, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    columns = {
        "n": pa.array([1, None, 3]),
        "name": pa.array(["a", None, "c"]).dictionary_encode(),
        "at": pa.array([moment] * 3, pa.timestamp("ns")),
        "utc": pa.array([instant] * 3, pa.timestamp("us", tz="Europe/Berlin")),
        "day": pa.array([moment.date()] * 3),
        "price": pa.array([Decimal("1.50"), Decimal("2.00"), None]),
        "tags": pa.array([["x"], [], None]),
        "nested": pa.array([{"a": {"b": [moment.date()]}}, None, {"a": None}]),
        "pairs": pa.array([[("k", moment.date())], [], None], pa.map_(pa.string(), pa.date32())),
        "half": pa.array(np.array([0.5, 1, 2], np.float16)),
        "nothing": pa.nulls(3),
    }
    got = read_all(save(tmp_path / f"a.{suffix}", table_of(**columns)), dimension=2)
    first, second, third = got.metadatas or []
    assert first == {
        "n": 1,
        "name": "a",
        "at": "2024-05-06T07:08:09.000010",
        "utc": "2024-05-06T05:00:00+00:00",
        "day": "2024-05-06",
        "price": 1.5,
        "tags": ["x"],
        "nested": {"a": {"b": ["2024-05-06"]}},
        "pairs": {"k": "2024-05-06"},
        "half": 0.5,
        "nothing": None,
    }
    assert (second["n"], second["name"], second["nested"], second["tags"]) == (None, None, None, [])
    assert (second["pairs"], third["pairs"]) == ({}, None)
    assert (second["price"], third["price"], third["tags"]) == (2, None, None)


@pytest.mark.parametrize(
    "metadata",
    [
        pa.array(['{"a": 1}', None, "{}"]),
        pa.array(['{"a": 1}', None, "{}"], pa.large_string()),
        pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    ],
)
def test_a_metadata_column_of_objects_is_the_metadata(
    tmp_path: Path, read_all: ReadAll, metadata: Any
) -> None:
    path = save(tmp_path / "a.arrow", table_of(metadata=metadata, more=pa.array([1, 2, 3])))
    assert read_all(path, dimension=2).metadatas == [{"a": 1, "more": 1}, {"more": 2}, {"more": 3}]


def test_a_metadata_column_of_structs_is_the_metadata(tmp_path: Path, read_all: ReadAll) -> None:
    path = save(tmp_path / "a.arrow", table_of(metadata=pa.array([{"a": 1}, None, {"a": None}])))
    assert read_all(path, dimension=2).metadatas == [{"a": 1}, {}, {"a": None}]


def test_a_metadata_column_of_numbers_is_one_field_of_it(tmp_path: Path, read_all: ReadAll) -> None:
    path = save(tmp_path / "a.arrow", table_of(metadata=pa.array([1, 2, 3])))
    assert read_all(path, dimension=2).metadatas == [{"metadata": 1}, {"metadata": 2}, {"metadata": 3}]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"metadata": pa.array(["{}", "{}", "no JSON"])}, r"not valid JSON.*row 2\)"),
        ({"metadata": pa.array(["{}", "[1]", "{}"])}, r"expected an object.*row 1\)"),
        ({"metadata": pa.array(['{"x": 1}'] * 3), "x": pa.array([1, 2, 3])}, r"\['x'\] both inside.*row 0\)"),
        ({"id": pa.array(["a", None, "c"])}, r"the id is null \(file .*, row 1\)"),
        ({"id": pa.array([1.0, 2.0, 3.0])}, "column 'id' of .* is double; expected strings or integers"),
        ({"document": pa.array([1, 2, 3])}, "column 'document' of .* is int64; expected strings"),
        ({"blob": pa.array([b"x"] * 3)}, r"column 'blob' of .* is binary; .*drop the column or cast it"),
        ({"deep": pa.array([[b"x"]] * 3)}, "column 'deep'"),
        ({"vector": pa.array([[1.0, 2], None, [1, 2]])}, r"the vector is null \(file .*, row 1\)"),
        ({"vector": pa.array([[1.0, 2], [1, 2], [1, None]])}, r"a null among the numbers.*row 2\)"),
        (
            {"vector": pa.array([[1.0, 2], [1, 2], [1]])},
            r"expected vectors of d=2, got d=1 \(file .*, row 2\)",
        ),
        ({"vector": pa.array(["[1]"] * 3)}, "column 'vector' of .* is string; expected lists of numbers"),
        ({"vector": pa.array([["1"]] * 3)}, "column 'vector'"),
        ({"vector": pa.array([[True]] * 3)}, "column 'vector'"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_what_does_not_fit_is_refused_by_row_or_column(
    tmp_path: Path, read_all: ReadAll, columns: dict[str, Any], message: str, suffix: str
) -> None:
    path = save(tmp_path / f"a.{suffix}", table_of(**columns))
    with pytest.raises(ValueError, match=message):
        read_all(path, dimension=2)


def test_fixed_size_vectors_that_are_null_are_refused(tmp_path: Path, read_all: ReadAll) -> None:
    table = pa.table({"vector": pa.array([[1, 2], [3, 4], None], pa.list_(pa.float32(), 2))})
    with pytest.raises(ValueError, match=r"the vector is null .*row 2\)"):
        read_all(save(tmp_path / "a.arrow", table), dimension=2)
    # Older pyarrow refuses such a parquet column itself, without the row.
    with pytest.raises(ValueError, match=r"the vector is null .*row 2\)|a\.parquet: Expected all lists"):
        read_all(save(tmp_path / "a.parquet", table), dimension=2)


def test_ids_may_be_integers_and_columns_may_have_other_names(tmp_path: Path, read_all: ReadAll) -> None:
    table = table_of(key=pa.array([7, 8, 9]), text=pa.array(["a", None, "c"])).rename_columns(
        ["emb", "key", "text"]
    )
    path = save(tmp_path / "a.parquet", table)
    names = {"id_column": "key", "vector_column": "emb", "document_column": "text"}
    got = read_all(path, dimension=2, **names)
    assert (got.ids, got.documents, got.metadatas) == (["7", "8", "9"], ["a", None, "c"], [{}, {}, {}])
    with pytest.raises(
        ValueError, match=r"expected a column 'vector' in .*; it has \['emb', 'key', 'text'\]"
    ):
        read_all(path, dimension=2)
    with pytest.raises(ValueError, match="expected a column 'nokey'"):
        read_all(path, dimension=2, vector_column="emb", id_column="nokey")
    with pytest.raises(
        ValueError, match=r"expected a column 'notext' in .*; it has \['emb', 'key', 'text'\]"
    ):
        read_all(path, dimension=2, vector_column="emb", document_column="notext")


def test_repeated_column_names_are_refused(tmp_path: Path, read_all: ReadAll) -> None:
    table = table_of(a=pa.array([1, 2, 3]), b=pa.array([1, 2, 3])).rename_columns(["vector", "a", "a"])
    with pytest.raises(ValueError, match=r"column names must differ|duplicate field names"):
        read_all(save(tmp_path / "a.arrow", table), dimension=2)


def test_a_stream_reads_and_resumes_like_a_file(tmp_path: Path, batch: Batch, read_all: ReadAll) -> None:
    table = pa.table({"id": batch.ids, "vector": list(batch.vectors)})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    got = read_all(tmp_path / "a.arrow", skip_rows=7)
    assert got.ids == (batch.ids or [])[7:]
    assert np.array_equal(got.vectors, batch.vectors[7:])
    assert open_reader(tmp_path / "a.arrow", dimension=6).n_rows is None
    with pytest.raises(ValueError, match="skip_rows=24, but there are 23 rows"):
        read_all(tmp_path / "a.arrow", skip_rows=24)


def test_compressed_ipc_tells_its_rows(tmp_path: Path) -> None:
    path = save(tmp_path / "a.arrow", table_of(), options=pa.ipc.IpcWriteOptions(compression="zstd"))
    assert open_reader(path, dimension=2).n_rows == 3


def test_feather_version_1_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1\0\0\0\0")
    with pytest.raises(ValueError, match="version 1"):
        open_reader(tmp_path / "a.feather", dimension=2)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-5], lambda b: b"", lambda b: b"something else entirely" * 9]
)
def test_damaged_columns_are_refused_by_name(
    tmp_path: Path, read_all: ReadAll, damage: Callable[[bytes], bytes], suffix: str
) -> None:
    path = save(tmp_path / f"a.{suffix}", table_of())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"a\.{suffix}"):
        read_all(path, dimension=2)


def test_without_pyarrow_arrow_formats_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.parquet", table_of())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        NotReadyError, match=r'\.parquet files need pyarrow: pip install "faissbase\[arrow\]"'
    ):
        open_reader(path, dimension=2)
    with pytest.raises(NotReadyError, match=r"\.arrow files need pyarrow"):
        open_writer(tmp_path / "b.arrow", dimension=2)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.parquet"]


def test_importing_tables_does_not_import_pyarrow() -> None:
    code = "import sys, faissbase.storage.tables; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
