"""npy, npz, fvecs and bvecs: types, orders and damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.storage.tables import open_reader, peek_dimension
from faissbase.types import Batch, Float32

ReadAll = Callable[..., Batch]


def numbers(n: int = 9, d: int = 6) -> Float32:
    return np.random.default_rng(5).integers(0, 100, (n, d)).astype(np.float32)


def fvecs(vectors: Float32) -> bytes:
    d = np.array([vectors.shape[1]], "<i4").tobytes()
    return b"".join(d + row.tobytes() for row in vectors)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u1", "i4", "u8", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_any_number_type_and_order_becomes_float32(
    tmp_path: Path, read_all: ReadAll, dtype: str, order: Any
) -> None:
    np.save(tmp_path / "xb.npy", np.array(numbers(), dtype=dtype, order=order))
    got = read_all(tmp_path / "xb.npy", batch_rows=4)
    assert got.vectors.dtype == np.float32
    assert got.vectors.flags.c_contiguous
    assert np.array_equal(got.vectors, numbers())
    assert got.ids is None
    assert got.metadatas is None


def test_a_batch_is_the_callers_to_change(tmp_path: Path, read_all: ReadAll) -> None:
    np.save(tmp_path / "xb.npy", numbers())
    for piece in open_reader(tmp_path / "xb.npy", dimension=6).batches():
        piece.vectors[:] = 0
    assert np.array_equal(read_all(tmp_path / "xb.npy").vectors, numbers())


def test_float64_too_large_becomes_infinite_for_the_collection_to_refuse(
    tmp_path: Path, read_all: ReadAll
) -> None:
    np.save(tmp_path / "xb.npy", np.full((1, 6), 1e300))
    assert np.isinf(read_all(tmp_path / "xb.npy").vectors).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(6, np.float32), r"2-D array of vectors, got shape \(6,\)"),
        (np.zeros((2, 3, 6), np.float32), "2-D"),
        (np.zeros((2, 6), np.complex64), "floats or integers, got complex64"),
        (np.zeros((2, 6), np.bool_), "floats or integers, got bool"),
        (np.array([["a"]]), "floats or integers"),
        (np.array([[None]], dtype=object), "cannot be|can't be|memory-mapped"),
    ],
)
def test_npy_that_holds_no_vectors_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    np.save(tmp_path / "xb.npy", array)
    with pytest.raises(ValueError, match=message):
        open_reader(tmp_path / "xb.npy", dimension=6)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"PK" + b[2:], lambda b: b""]
)
def test_damaged_npy_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "xb.npy"
    np.save(path, numbers())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"xb\.npy"):
        open_reader(path, dimension=6)


def test_npz_needs_a_key(tmp_path: Path, read_all: ReadAll) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, xb=numbers(), xq=numbers(2))
    with pytest.raises(ValueError, match=r"data\.npz:key"):
        open_reader(path, dimension=6)
    with pytest.raises(ValueError, match=r"no key 'xt'; it has \['xb', 'xq'\]"):
        open_reader(f"{path}:xt", dimension=6)
    assert np.array_equal(read_all(f"{path}:xb", batch_rows=2, skip_rows=3).vectors, numbers()[3:])
    assert peek_dimension(f"{path}:xq") == 6


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", numbers())
    (tmp_path / "plain.npy").rename(tmp_path / "plain.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 but not a zip")
    for name in ("plain", "bad"):
        with pytest.raises(ValueError, match=rf"{name}\.npz"):
            open_reader(tmp_path / f"{name}.npz:xb", dimension=6)


def test_fvecs_of_the_published_layout(tmp_path: Path, read_all: ReadAll) -> None:
    (tmp_path / "xb.fvecs").write_bytes(fvecs(numbers()))
    assert np.array_equal(read_all(tmp_path / "xb.fvecs", batch_rows=2).vectors, numbers())
    assert peek_dimension(tmp_path / "xb.fvecs") == 6


def test_bvecs_of_the_published_layout(tmp_path: Path, read_all: ReadAll) -> None:
    rows = numbers().astype(np.uint8)
    (tmp_path / "xb.bvecs").write_bytes(b"".join(b"\x06\0\0\0" + row.tobytes() for row in rows))
    assert np.array_equal(read_all(tmp_path / "xb.bvecs", batch_rows=2).vectors, numbers())


def test_fvecs_cut_short_is_refused_before_reading(tmp_path: Path) -> None:
    (tmp_path / "xb.fvecs").write_bytes(fvecs(numbers())[:-3])
    with pytest.raises(ValueError, match="249 bytes are not a whole number of rows of 28 bytes"):
        open_reader(tmp_path / "xb.fvecs", dimension=6)


def test_fvecs_row_of_another_d_is_named(tmp_path: Path) -> None:
    content = bytearray(fvecs(numbers()))
    content[28 * 5] = 7
    (tmp_path / "xb.fvecs").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected vectors of d=6, got d=7 \(file .*xb\.fvecs, row 5\)"):
        list(open_reader(tmp_path / "xb.fvecs", dimension=6, batch_rows=2).batches())


@pytest.mark.parametrize("content", [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x40", b"\x01"])
def test_fvecs_of_impossible_d_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "xb.fvecs").write_bytes(content)
    with pytest.raises(ValueError, match=r"xb\.fvecs"):
        open_reader(tmp_path / "xb.fvecs", dimension=6)


def test_fvecs_that_shrinks_while_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "xb.fvecs"
    path.write_bytes(fvecs(numbers()))
    batches = open_reader(path, dimension=6, batch_rows=3).batches()
    next(batches)
    path.write_bytes(fvecs(numbers())[: 28 * 4])
    with pytest.raises(ValueError, match="cut short"):
        list(batches)
