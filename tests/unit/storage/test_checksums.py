"""Checksums change with every fact of a row and every bit of a block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.errors import CorruptionError
from faissbase.storage.checksums import (
    BLOCK_BYTES,
    block_checksums,
    block_slots,
    row_checksum,
    row_checksums,
)
from faissbase.storage.vectors import VectorFile

ROW: dict[str, Any] = {
    "id": "a",
    "metadata_json": b'{"n":1}',
    "document": "some text",
    "norm": 1.5,
    "vector": np.arange(4, dtype=np.float32).tobytes(),
}
CHECKSUM_OF_ROW = -9_052_549_425_966_672_491


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("id", "b"),
        ("metadata_json", b'{"n":2}'),
        ("metadata_json", b"{}"),
        ("document", "some texu"),
        ("document", ""),
        ("document", None),
        ("norm", np.nextafter(1.5, 2.0)),
        ("norm", -1.5),
        ("vector", np.arange(1, 5, dtype=np.float32).tobytes()),
    ],
)
def test_a_row_with_another_fact_has_another_checksum(fact: str, value: Any) -> None:
    assert row_checksum(**ROW) != row_checksum(**{**ROW, fact: value})


def test_any_flipped_bit_of_a_vector_changes_the_checksum() -> None:
    vector = bytearray(ROW["vector"])
    seen = {row_checksum(**ROW)}
    for bit in range(8 * len(vector)):
        vector[bit // 8] ^= 1 << bit % 8
        seen.add(row_checksum(**{**ROW, "vector": bytes(vector)}))
        vector[bit // 8] ^= 1 << bit % 8
    assert len(seen) == 8 * len(vector) + 1


def test_a_document_of_no_text_is_not_no_document() -> None:
    assert row_checksum(**{**ROW, "document": ""}) != row_checksum(**{**ROW, "document": None})


def test_text_does_not_slip_from_one_field_into_the_next() -> None:
    one = row_checksum("ab", b"c", None, 1.0, b"")
    assert one != row_checksum("a", b"bc", None, 1.0, b"")


def test_checksums_stay_what_stored_files_hold() -> None:
    assert row_checksum(**ROW) == CHECKSUM_OF_ROW


def test_a_batch_has_the_checksums_of_its_rows_as_signed_numbers() -> None:
    rng = np.random.default_rng(3)
    n = 200
    vectors = rng.standard_normal((n, 5), dtype=np.float32)
    ids, metadata = [f"id{i}" for i in range(n)], [b"{}"] * n
    documents = [None if i % 2 else f"t{i}" for i in range(n)]
    norms = rng.random(n).tolist()
    found = row_checksums(ids, metadata, documents, norms, vectors)
    raw = [vector.tobytes() for vector in vectors]
    assert found == [row_checksum(*row) for row in zip(ids, metadata, documents, norms, raw, strict=True)]
    assert min(found) < 0 < max(found)
    assert all(-(1 << 63) <= checksum < 1 << 63 for checksum in found)


def test_a_batch_of_no_rows_has_no_checksums() -> None:
    assert row_checksums([], [], [], [], np.zeros((0, 5), np.float32)) == []


@pytest.mark.parametrize(
    ("row_bytes", "slots"), [(4, 262_144), (384 * 4, 682), (65_535 * 4, 4), (BLOCK_BYTES + 1, 1)]
)
def test_a_block_spans_whole_slots_of_at_most_a_mebibyte(row_bytes: int, slots: int) -> None:
    assert block_slots(row_bytes) == slots


def test_each_block_has_its_own_checksum(tmp_path: Path) -> None:
    d = 1024
    span = block_slots(4 * d)
    file = VectorFile(tmp_path / "f", d, writable=True, create=True)
    rows = np.random.default_rng(4).standard_normal((3 * span, d), dtype=np.float32)
    file.write(0, rows)
    before = dict(block_checksums(file, 0, 3))
    assert len(set(before.values())) == 3
    assert dict(block_checksums(file, 1, 2)) == {1: before[1]}
    rows.view(np.uint32)[span + 7, 5] ^= 1 << 9
    file.write(0, rows)
    after = dict(block_checksums(file, 0, 3))
    assert [block for block in before if before[block] != after[block]] == [1]
    file.close()


def test_a_block_beyond_the_end_is_damage(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "f", 1024, writable=True, create=True)
    file.write(0, np.zeros((1, 1024), np.float32))
    with pytest.raises(CorruptionError):
        list(block_checksums(file, 0, 1))
    file.close()
