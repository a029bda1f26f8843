"""What is refused of an Arrow stream before its values become objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.e2e.server.arrow_bodies import damaged, records, stream_of

from faissbase.collection.bounds import TooLarge
from faissbase.errors import InvalidInputError
from faissbase.server import arrow

N, D = 6, 4
N_DAMAGED = 1000


def read(table: Any, most_rows: int = 10_000, **options: Any) -> arrow.Columns:
    return arrow.read_records(stream_of(table, **options), D, most_rows)


def test_vectors_are_a_view_of_the_body() -> None:
    body = stream_of(records(N, D))
    _, vectors, _, _ = arrow.read_records(body, D, N)
    assert (vectors.shape, vectors.dtype) == ((N, D), np.float32)
    assert np.shares_memory(vectors, np.frombuffer(body, np.uint8))


def test_more_rows_than_allowed_are_refused_whatever_their_batches() -> None:
    read(records(N, D), N, batch_rows=2)
    with pytest.raises(TooLarge, match="at most 5"):
        read(records(N, D), N - 1, batch_rows=2)


def test_lists_of_more_values_than_allowed_are_refused() -> None:
    bits = pa.array([True] * 3_000_000)
    lists = pa.ListArray.from_arrays(pa.array([0, *[len(bits)] * N], pa.int32()), bits)
    for column in (lists, pa.StructArray.from_arrays([lists], ["b"])):
        body = stream_of(records(N, D, metadata=pa.StructArray.from_arrays([column], ["a"])))
        assert len(body) < 400_000
        with pytest.raises(TooLarge, match="values in lists"):
            arrow.read_records(body, D, N)


def test_more_batches_than_allowed_are_refused() -> None:
    assert len(read(records(1000, D), batch_rows=1)[0]) == 1000
    with pytest.raises(TooLarge, match="batches"):
        read(records(1001, D), batch_rows=1)


def test_a_schema_of_more_bytes_than_allowed_is_refused() -> None:
    read(records(N, D).replace_schema_metadata({"x": "y" * 1_000_000}))
    with pytest.raises(TooLarge, match="schema"):
        read(records(N, D).replace_schema_metadata({"x": "y" * 1_100_000}))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compression_is_refused_before_anything_is_unpacked(compression: str) -> None:
    unpacked_before = pa.total_allocated_bytes()
    body = stream_of(records(N, D, document=pa.array(["x" * 10_000_000] * N)), compression=compression)
    with pytest.raises(InvalidInputError, match="compression"):
        arrow.read_records(body, D, N)
    assert pa.total_allocated_bytes() - unpacked_before < 10_000_000


def test_the_metadata_version_that_hides_compression_is_refused() -> None:
    version = pa.ipc.MetadataVersion.V4
    with pytest.raises(InvalidInputError, match="version 5"):
        read(records(N, D), metadata_version=version)


@pytest.mark.parametrize("batch_rows", [None, 2])
def test_damage_is_refused_or_read(batch_rows: int | None) -> None:
    n_read = 0
    for body in damaged(stream_of(records(N, D), batch_rows=batch_rows), N_DAMAGED, seed=3):
        try:
            ids, vectors, metadatas, documents = arrow.read_records(body, D, N)
        except InvalidInputError:
            continue
        assert len(ids) == len(vectors) == len(metadatas) == len(documents)
        n_read += 1
    assert 0 < n_read < N_DAMAGED
