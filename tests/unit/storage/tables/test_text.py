"""JSON lines and CSV: what they accept, and which line they blame."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faissbase.storage.tables import open_reader, open_writer, peek_dimension
from faissbase.types import Batch

ReadAll = Callable[..., Batch]


def read_lines(path: Path, *lines: str, dimension: int = 2) -> list[Batch]:
    path.write_text("\n".join(lines))
    return list(open_reader(path, dimension=dimension).batches())


def test_jsonl_takes_ids_of_both_kinds_other_names_and_other_fields(tmp_path: Path) -> None:
    (batch,) = read_lines(
        tmp_path / "a.jsonl",
        '{"id": "a", "vector": [1, 2.5], "metadata": {"x": 1}, "document": "text", "lang": "en"}',
        "",
        '{"id": 7, "values": [3, 4], "metadata": null}',
        "   ",
        '{"id": "c", "embedding": [5, 6], "n": null}',
    )
    assert batch.ids == ["a", "7", "c"]
    assert batch.vectors.tolist() == [[1, 2.5], [3, 4], [5, 6]]
    assert batch.metadatas == [{"x": 1, "lang": "en"}, {}, {"n": None}]
    assert batch.documents == ["text", None, None]


def test_jsonl_without_ids_has_none(tmp_path: Path) -> None:
    (batch,) = read_lines(tmp_path / "a.jsonl", '{"vector": [1, 2]}', '{"vector": [3, 4]}')
    assert batch.ids is None
    assert batch.documents == [None, None]


def test_columns_of_other_names(tmp_path: Path, read_all: ReadAll) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"key": 1, "emb": [1, 2], "text": "t", "values": [9]}\n')
    names = {"id_column": "key", "vector_column": "emb", "document_column": "text"}
    got = read_all(path, dimension=2, **names)
    assert (got.ids, got.documents, got.metadatas) == (["1"], ["t"], [{"values": [9]}])
    assert peek_dimension(path, "emb") == 2
    with pytest.raises(ValueError, match=r"no id under 'nokey' \(file .*, line 1\)"):
        read_all(path, dimension=2, id_column="nokey", vector_column="emb")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "b", "vector": [1, 2', "not valid JSON"),
        ("[1, 2]", "expected a JSON object, got list"),
        ('{"id": "b"}', r"no vector under 'vector'; there are \['id'\]"),
        ('{"id": "b", "vector": [1, null]}', "expected a list of numbers"),
        ('{"id": "b", "vector": [1, "2"]}', "expected a list of numbers"),
        ('{"id": "b", "vector": [1, true]}', "expected a list of numbers"),
        ('{"id": "b", "vector": [[1, 2]]}', "expected a list of numbers"),
        ('{"id": "b", "vector": "[1, 2]"}', "expected a list of numbers"),
        ('{"id": 1.5, "vector": [1, 2]}', "a string or an integer under 'id', got 1.5"),
        ('{"id": true, "vector": [1, 2]}', "a string or an integer under 'id', got True"),
        ('{"vector": [1, 2]}', "no id, but the first row has one"),
        ('{"id": "b", "vector": [1, 2], "document": 3}', "text or null under 'document', got 3"),
        ('{"id": "b", "vector": [1, 2], "n": [{"x": 100000000000000000000}]}', "0000 exceeds 64 bits"),
        ('{"id": "b", "vector": [1, 2], "metadata": {"n": -9223372036854775809}}', "5809 exceeds 64 bits"),
        ('{"id": "b", "vector": [1, 2], "metadata": [3]}', "expected an object under 'metadata'"),
        ('{"id": "b", "vector": [1, 2], "metadata": {"x": 1}, "x": 2}', r"\['x'\] both inside 'metadata'"),
    ],
)
def test_jsonl_blames_the_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*\(file .*a\.jsonl, line 3\)"):
        read_lines(tmp_path / "a.jsonl", '{"id": "a", "vector": [1, 2]}', "", line)


@pytest.mark.parametrize("vector", ["[]", "[1]", "[1, 2, 3]"])
def test_jsonl_row_of_another_d_is_named(tmp_path: Path, vector: str) -> None:
    d = len(vector.strip("[]").split(",")) if vector != "[]" else 0
    with pytest.raises(ValueError, match=rf"expected vectors of d=2, got d={d} \(file .*, row 1\)"):
        read_lines(tmp_path / "a.jsonl", '{"vector": [1, 2]}', f'{{"vector": {vector}}}')


def test_an_id_after_rows_without_is_refused_when_resuming_too(tmp_path: Path, read_all: ReadAll) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"vector": [1, 2]}\n{"id": "b", "vector": [1, 2]}\n')
    for skip_rows in (0, 1):
        with pytest.raises(ValueError, match="an id, but the first row has none"):
            read_all(path, dimension=2, skip_rows=skip_rows)


@pytest.mark.parametrize("name", ["records.jsonl", "records.ndjson", "records.csv", "records.tsv"])
def test_gzipped_text_reads_like_plain(tmp_path: Path, batch: Batch, read_all: ReadAll, name: str) -> None:
    with open_writer(tmp_path / name, dimension=6) as writer:
        writer.write(batch)
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    got = read_all(packed, skip_rows=2, batch_rows=7)
    assert np.array_equal(got.vectors, batch.vectors[2:])
    assert got.metadatas == (batch.metadatas or [])[2:]
    assert peek_dimension(packed) == 6


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-12], lambda b: b[:40] + b"\0\0\0" + b[43:], lambda b: b"no gzip"]
)
def test_damaged_gzip_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.jsonl.gz"
    lines = "".join(f'{{"vector": [{i}, 2]}}\n' for i in range(2000))
    path.write_bytes(damage(gzip.compress(lines.encode())))
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz is damaged"):
        list(open_reader(path, dimension=2).batches())


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, read_all: ReadAll, name: str) -> None:
    text = {"a.jsonl": '{"id": "x", "vector": [1, 2]}\n', "a.csv": 'id,vector\nx,"[1, 2]"\n'}[name]
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_all(tmp_path / name, dimension=2).ids == ["x"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_text_that_is_not_utf8_is_refused(tmp_path: Path, read_all: ReadAll, name: str) -> None:
    text = {"a.jsonl": b'{"id": "\xff", "vector": [1, 2]}', "a.csv": b'id,vector\n\xff,"[1, 2]"\n'}[name]
    (tmp_path / name).write_bytes(text)
    with pytest.raises(ValueError, match=name):
        read_all(tmp_path / name, dimension=2)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faissbase.storage.tables.text.MAX_LINE_BYTES", 100)
    with pytest.raises(ValueError, match=r"one JSON object a line, got a line over 100 bytes .*line 2\)"):
        read_lines(tmp_path / "a.jsonl", '{"vector": [1, 2]}', " " * 101)


def test_numbers_beyond_float32_become_infinite_for_the_collection_to_refuse(tmp_path: Path) -> None:
    (batch,) = read_lines(tmp_path / "a.jsonl", '{"vector": [1e300, -1e300]}')
    assert batch.vectors.tolist() == [[np.inf, -np.inf]]


def test_csv_values_are_json_where_they_look_it(tmp_path: Path) -> None:
    fields = ["1", "-2.5e3", "true", "false", "null", "", "007", "+1", " 1", "NaN", "1e999", "1" * 30, "0.5x"]
    header = ",".join(["id", "vector", *(f"c{i}" for i in range(len(fields)))])
    (batch,) = read_lines(tmp_path / "a.csv", header, ",".join(["01", '"[1, 2]"', *fields]))
    expected = [1, -2500.0, True, False, None, None, "007", "+1", " 1", "NaN", "1e999", "1" * 30, "0.5x"]
    assert batch.ids == ["01"]
    assert list((batch.metadatas or [{}])[0].values()) == expected
    assert batch.documents == [None]


def test_integers_of_64_bits_stay_integers_and_large_floats_floats(tmp_path: Path) -> None:
    whole = [2**64 - 1, -(2**63), 1234567890123456789]
    (batch,) = read_lines(tmp_path / "a.jsonl", f'{{"id": "a", "vector": [1, 2], "n": {whole}, "x": 1e300}}')
    assert batch.metadatas == [{"n": whole, "x": 1e300}]
    (batch,) = read_lines(
        tmp_path / "a.csv", "id,vector,a,b,c,d", ",".join(["a", '"[1, 2]"', *map(str, whole), str(2**64)])
    )
    assert batch.metadatas == [dict(zip("abcd", [*whole, str(2**64)], strict=True))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b", "expected 2 columns as in the header, got 1"),
        ('b,"[1, 2]",more', "expected 2 columns as in the header, got 3"),
        ('b,"[1, 2"', "not valid JSON"),
        ("b,", "expected a list of numbers under 'vector', got None"),
        ("b,12", "expected a list of numbers under 'vector', got 12"),
        ('"",  [1]', "no id, but the first row has one"),
        ('b,"[1, 2]', "unexpected end of data"),
    ],
)
def test_csv_blames_the_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{message}.*\(file .*a\.csv, line 3\)"):
        read_lines(tmp_path / "a.csv", "id,vector", 'a,"[1, 2]"', line)


@pytest.mark.parametrize("column", ["id_column", "document_column"])
def test_csv_header_without_a_column_that_is_asked_for_lists_what_there_is(
    column: str, tmp_path: Path, read_all: ReadAll
) -> None:
    path = tmp_path / "a.csv"
    path.write_text('key,vector\na,"[1, 2]"\n')
    with pytest.raises(ValueError, match=r"no column 'other' in .*; it has \['key', 'vector'\]"):
        read_all(path, dimension=2, **{column: "other"})


def test_csv_header_without_the_vector_column_lists_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no vector column 'vector' in .*; it has \['id', 'emb'\]"):
        read_lines(tmp_path / "a.csv", "id,emb", 'a,"[1, 2]"')
    with pytest.raises(ValueError, match=r"must differ, got \['id'\] twice"):
        read_lines(tmp_path / "a.csv", "id,id,vector", 'a,a,"[1, 2]"')
    with pytest.raises(ValueError, match=r"it has \[\]"):
        read_lines(tmp_path / "a.csv", "")


def test_csv_fields_longer_than_pythons_default_limit_are_read(tmp_path: Path, read_all: ReadAll) -> None:
    vectors = np.random.default_rng(2).standard_normal((2, 20_000)).astype(np.float32)
    with open_writer(tmp_path / "a.csv", dimension=20_000) as writer:
        writer.write(Batch(vectors))
    assert np.array_equal(read_all(tmp_path / "a.csv", dimension=20_000).vectors, vectors)


def test_csv_reads_an_empty_document_as_none(tmp_path: Path, read_all: ReadAll) -> None:
    with open_writer(tmp_path / "a.csv", dimension=2) as writer:
        writer.write(Batch(np.ones((1, 2), np.float32), ["a"], [{}], [""]))
    assert read_all(tmp_path / "a.csv", dimension=2).documents == [None]
