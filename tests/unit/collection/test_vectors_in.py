"""Vectors as callers hand them in: every kind of array, checked whole, never changed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import faissbase
from faissbase.collection.inputs import as_matrix, stored_form
from faissbase.types import METRICS, Metric

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
BASE = np.array(ROWS, np.float32)
DTYPES = [
    *(np.float16, np.float32, np.float64, np.longdouble),
    *(np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
]
LAYOUTS: dict[str, Callable[[], Any]] = {
    "fortran": lambda: np.asfortranarray(BASE),
    "reversed": lambda: BASE[::-1].copy()[::-1],
    "mirrored": lambda: BASE[:, ::-1].copy()[:, ::-1],
    "sliced": lambda: np.repeat(np.repeat(BASE, 2, 0), 2, 1)[::2, ::2],
    "transposed": lambda: BASE.T.copy().T,
    "big-endian": lambda: BASE.astype(">f4"),
    "read-only": lambda: np.frombuffer(BASE.tobytes(), np.float32).reshape(2, 3),
    "list": lambda: ROWS,
    "tuple": lambda: tuple(map(tuple, ROWS)),
    "list of arrays": lambda: list(BASE),
    "list of ints": lambda: [[1, 2, 3], [4, 5, 6]],
    "column of lists": lambda: pd.Series(ROWS, index=[7, 3]),
    "column of arrays": lambda: pd.Series(list(BASE)),
    "data frame": lambda: pd.DataFrame(ROWS, index=[7, 3]),
}
ARROWS: dict[str, Callable[[], Any]] = {
    "fixed size": lambda: pa.array(ROWS, pa.list_(pa.float32(), 3)),
    "list": lambda: pa.array(ROWS, pa.list_(pa.float64())),
    "large list": lambda: pa.array(ROWS, pa.large_list(pa.float32())),
    "ints": lambda: pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.uint8(), 3)),
    "half": lambda: pa.array(BASE.astype(np.float16).tolist(), pa.list_(pa.float32(), 3)),
    "slice of fixed size": lambda: pa.array([[0.0] * 3, *ROWS, [9.0] * 3], pa.list_(pa.float32(), 3))[1:3],
    "slice of list": lambda: pa.array([[0.0] * 3, *ROWS, [9.0] * 3], pa.list_(pa.float32()))[1:3],
    "chunked": lambda: pa.chunked_array([pa.array([row], pa.list_(pa.float32(), 3)) for row in ROWS]),
    "chunked lists": lambda: pa.chunked_array([[ROWS[0]], [ROWS[1]]]),
}


class Tensor:
    """As much of torch's tensor as is asked for."""

    def __init__(self, array: Any, dtype: str = "torch.float32") -> None:
        self._array, self.dtype = array, dtype

    def detach(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self._array)

    def numpy(self) -> Any:
        if self.dtype == "torch.bfloat16":
            raise TypeError("numpy knows no bfloat16")
        return self._array


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_type_is_taken(dtype: Any) -> None:
    matrix, is_single = as_matrix(BASE.astype(dtype), 3)
    assert matrix.dtype == np.float32
    assert not is_single
    np.testing.assert_array_equal(matrix, BASE)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_taken(name: str) -> None:
    matrix, _ = as_matrix(LAYOUTS[name](), 3)
    assert matrix.flags.c_contiguous
    np.testing.assert_array_equal(matrix, BASE)


@pytest.mark.parametrize("name", ARROWS)
def test_arrow_lists_are_taken(name: str) -> None:
    matrix, is_single = as_matrix(ARROWS[name](), 3)
    np.testing.assert_array_equal(matrix, BASE)
    assert not is_single


def test_one_arrow_array_of_numbers_is_one_vector() -> None:
    matrix, is_single = as_matrix(pa.array([1.0, 2.0, 3.0]), 3)
    assert is_single
    np.testing.assert_array_equal(matrix, BASE[:1])


@pytest.mark.parametrize("dtype", ["torch.float32", "torch.bfloat16"])
def test_tensors_are_taken(dtype: str) -> None:
    np.testing.assert_array_equal(as_matrix(Tensor(BASE, dtype), 3)[0], BASE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((row for row in ROWS), "got generator: give a list or an array"),
        ([[1, 2, 3], [1, None, 3]], "got 'None' of type NoneType in row 1"),
        (pd.Series([ROWS[0], None]), "got 'None' of type NoneType in row 1"),
        (pd.Series([ROWS[0], [1.0]]), "same length"),
        ([[1, 2, "3"]], "got dtype <U"),
        (np.array(ROWS, object), "got Python objects: give an array of float32"),
        (pd.DataFrame(ROWS).astype("Float64"), "got Python objects: give an array of float32"),
        ([[1, 2, 2**70]], "got Python objects: give an array of float32"),
        (np.array([[1.5, 2, True]], object), "got 'True' of type bool in row 0"),
        (np.array([np.ones(3), None], object), "got 'None' of type NoneType in row 1"),
        (pa.table({"v": [1.0, 2.0, 3.0]}), "must be one column, got an Arrow Table"),
        (pa.record_batch({"v": [1.0, 2.0, 3.0]}), "must be one column, got an Arrow RecordBatch"),
    ],
)
def test_what_is_no_vector_is_named(wrong: Any, message: str) -> None:
    with pytest.raises(faissbase.InvalidInputError, match=message):
        as_matrix(wrong, 3)


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 3)), np.zeros(0), pa.array([], pa.float32())])
def test_nothing_is_no_vectors(empty: Any) -> None:
    assert as_matrix(empty, 3)[0].shape == (0, 3)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3)])
def test_an_empty_arrow_array_is_no_vectors(kind: pa.DataType) -> None:
    assert as_matrix(pa.array([], kind), 3)[0].shape == (0, 3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["fortran", "sliced", "read-only"])
def test_the_caller_keeps_its_arrays_as_they_were(
    memory: faissbase.Database, name: str, metric: Metric
) -> None:
    docs = memory.create_collection("docs", 3, metric)
    given = LAYOUTS[name]()
    before = given.copy()
    docs.upsert(["a", "b"], given)
    docs.update(["a", "b"], vectors=given)
    docs.search(given, 1)
    docs.range_search(given, 1.0)
    np.testing.assert_array_equal(given, before)


def test_what_the_caller_does_to_its_array_later_changes_nothing(memory: faissbase.Database) -> None:
    docs = memory.create_collection("docs", 3, "l2")
    given = BASE.copy()
    docs.upsert(["a", "b"], given)
    given[:] = 0
    [record] = docs.get("a", include_vectors=True)
    assert record.vector is not None
    assert record.vector.tolist() == ROWS[0]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ([[1, 2, 3], [4, np.nan, 6]], "row 1 holds nan at position 1: not finite in float32"),
        ([[1, 2, 3], [4, 5, -np.inf]], "row 1 holds -inf at position 2"),
        ([[1, 2, 1e39]], "row 0 holds 1e+39 at position 2"),
        ([[np.inf, -np.inf, 0]], "row 0 holds inf at position 0"),
        (np.full((1, 3), np.iinfo(np.uint64).max, np.uint64) * 1e30, "row 0 holds"),
        (np.ones((2, 4)), "expected vectors of d=3, got d=4"),
        (np.ones(4), "expected vectors of d=3, got d=4"),
        (np.zeros((2, 0)), "expected vectors of d=3, got d=0"),
        (np.ones((1, 2, 3)), "expected vectors of shape (n, 3), got shape (1, 2, 3)"),
        (np.float32(1), "got shape ()"),
        ([[1, 2, 3], [4, 5]], "vectors must all have the same length"),
        ([["a", "b", "c"]], "vectors must be numbers, got dtype <U1"),
        ([[True, False, True]], "vectors must be numbers, got dtype bool"),
        ([[1j, 2, 3]], "vectors must be numbers, got dtype complex128"),
        ([[None, 2, 3]], "vectors must be numbers, got"),
        (np.zeros((1, 3), "M8[s]"), "vectors must be numbers, got dtype datetime64[s]"),
        (None, "vectors must be numbers"),
        ("abc", "vectors must be numbers"),
        ({"a": [1, 2, 3]}, "vectors must be numbers"),
        (pa.array([[1.0, None, 3.0]]), "vectors hold nulls"),
        (pa.array([None, [1.0, 2.0, 3.0]], pa.list_(pa.float32(), 3)), "vectors hold nulls"),
        (pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)), "expected vectors of d=3, got d=2"),
        (pa.array([[1.0, 2.0, 3.0], [4.0, 5.0]]), "vectors must all have the same length"),
    ],
)
def test_what_is_no_matrix_of_finite_numbers_is_refused(vectors: Any, message: str) -> None:
    with pytest.raises(faissbase.InvalidInputError) as refused:
        as_matrix(vectors, 3)
    assert message in str(refused.value)


def test_arrow_lists_of_unequal_length_are_refused_though_their_total_fits() -> None:
    with pytest.raises(faissbase.InvalidInputError):
        as_matrix(pa.array([[1.0, 2.0, 3.0], [4.0]]), 2)


def test_arrow_views_of_lists_are_taken_wherever_their_numbers_lie() -> None:
    numbers = pa.array([4.0, 5.0, 6.0, 1.0, 2.0, 3.0])
    views = pa.ListViewArray.from_arrays(pa.array([3, 0], pa.int32()), pa.array([3, 3], pa.int32()), numbers)
    np.testing.assert_array_equal(as_matrix(views, 3)[0], [[1, 2, 3], [4, 5, 6]])
    uneven = pa.ListViewArray.from_arrays(pa.array([0, 3], pa.int32()), pa.array([2, 4], pa.int32()), numbers)
    with pytest.raises(faissbase.InvalidInputError, match="same length"):
        as_matrix(uneven, 3)


@pytest.mark.parametrize(
    "vectors",
    [
        pa.array([[True, False]]),
        pa.array([["a", "b"]]),
        pa.array([[[1.0], [2.0]]]),
        pa.array([{"x": 1.0, "y": 2.0}]),
    ],
)
def test_arrow_arrays_of_other_things_are_refused(vectors: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError):
        as_matrix(vectors, 2)


def test_one_chunked_array_of_numbers_is_one_vector() -> None:
    assert as_matrix(pa.chunked_array([[1.0], [2.0]]), 2)[0].tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("value", [3e38, 1e38])
def test_a_length_whose_square_float32_cannot_hold_is_refused(value: float) -> None:
    matrix = np.array([[0, 1], [value, 0]], np.float32)
    with pytest.raises(faissbase.InvalidInputError, match="row 1 has a squared norm"):
        stored_form(matrix, 2, "l2")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("metric", METRICS)
def test_what_is_not_finite_is_named_whatever_its_row_adds_up_to(bad: float, metric: Metric) -> None:
    matrix = np.ones((30, 3))
    matrix[7] = 1e38, bad, -1e38
    with pytest.raises(faissbase.InvalidInputError, match=re.escape(f"row 7 holds {bad} at position 1: not")):
        stored_form(matrix, 3, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_the_longest_vectors_allowed_have_finite_distances(
    memory: faissbase.Database, metric: Metric
) -> None:
    docs = memory.create_collection("docs", 2, metric)
    docs.upsert(["a", "b"], [[8.9e18, 0], [-8.9e18, 0]])
    for hits in (docs.search([8.9e18, 0], 2), docs.search([[8.9e18, 0]] * 25, 2)[0]):
        assert [hit.id for hit in hits] == ["a", "b"]
        assert all(np.isfinite([hit.distance, hit.score]).all() for hit in hits)


def test_cosine_refuses_the_zero_vector_and_names_its_row() -> None:
    with pytest.raises(faissbase.InvalidInputError, match="row 1 is the zero vector"):
        stored_form([[1, 0], [0, 0]], 2, "cosine")


def test_cosines_of_the_smallest_numbers_are_right(memory: faissbase.Database) -> None:
    """Their lengths have few digits as float32, where they have any."""
    xb = (np.random.default_rng(0).normal(size=(20, 8)) * 1e-44).astype(np.float32)
    xb[:, 0] = 1e-44
    docs = memory.create_collection("docs", 8)
    docs.add([str(i) for i in range(20)], xb)
    unit = xb.astype(np.float64) / np.linalg.norm(xb.astype(np.float64), axis=1, keepdims=True)
    for i, hits in enumerate(docs.search(xb, 20)):
        np.testing.assert_allclose(
            [hit.distance for hit in hits], sorted(unit @ unit[i], reverse=True), atol=1e-6
        )


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-3, 1.0, 3.0, 1e18])
def test_cosine_gives_vectors_back_as_long_as_they_were(memory: faissbase.Database, scale: float) -> None:
    given = (np.random.default_rng(1).normal(size=(20, 5)) * scale).astype(np.float32)
    docs = memory.create_collection("docs", 5)
    docs.upsert([str(i) for i in range(20)], given)
    found = np.array([record.vector for record in docs.get(include_vectors=True)])
    np.testing.assert_allclose(found, given, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("d", [1, 65_535])
def test_the_smallest_and_the_largest_dimension_work(memory: faissbase.Database, d: int) -> None:
    xb = np.random.default_rng(2).normal(size=(5, d)).astype(np.float32)
    docs = memory.create_collection("docs", d, "l2")
    docs.upsert(list("abcde"), xb)
    assert [hit.id for hit in docs.search(xb[3], 1)] == ["d"]
    assert docs.search(np.tile(xb, (5, 1)), 1).ids == [[id] for id in "abcde" * 5]
    np.testing.assert_array_equal(docs.get("c", include_vectors=True)[0].vector, xb[2])


@pytest.mark.parametrize("d", [0, -1, 65_536, 3.0, "3", True, None])
def test_other_dimensions_are_refused(memory: faissbase.Database, d: Any) -> None:
    with pytest.raises(faissbase.InvalidInputError, match="dimension must be a whole number from 1 to 65535"):
        memory.create_collection("docs", d)
