"""Calls as bytes: what goes in comes out, and what is no frame is refused."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from faissbase.dropin import frames

_MOST = 1 << 30
_dtypes = st.sampled_from(["u1", "i4", "i8", "f2", "f4", "f8", "?", "c8"])
_plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text("aäß☃\udcff", max_size=5)
)
_arrays = _dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
_values = st.recursive(
    _plain | _arrays,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


def _filler(data: bytes) -> frames.Fill:
    source = io.BytesIO(data)

    def fill(target: memoryview) -> None:
        if source.readinto(target) != target.nbytes:
            raise EOFError

    return fill


def _special(tag: str, content: Any) -> Any:
    return (tag, content)


def _travelled(value: Any) -> Any:
    arrays: list[frames.Array] = []
    pieces = frames.pack(frames.encode(value, arrays), arrays)
    body, found = frames.read(_filler(b"".join(pieces)), _MOST)
    return frames.decode(body, found, _special)


def _is_same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        same = left.dtype == right.dtype and left.shape == right.shape
        return bool(same and left.tobytes() == right.tobytes())
    if isinstance(left, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(_is_same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(_is_same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


@given(_values)
def test_what_travels_arrives_as_it_was(value: Any) -> None:
    assert _is_same(value, _travelled(value))


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), 1e300, -0.0, 2**64, -(2**63) - 1])
def test_numbers_that_json_has_not_arrive(number: float) -> None:
    assert repr(_travelled(number)) == repr(number)


def test_scalars_of_numpy_keep_their_type() -> None:
    for scalar in (np.int64(2), np.float32(0.5), np.uint8(255), np.bool_(True)):
        found = _travelled(scalar)
        assert (type(found), found) == (type(scalar), scalar)
    assert np.isnan(_travelled(float("nan")))


def test_an_array_in_pieces_arrives_in_one() -> None:
    strided = np.arange(20.0).reshape(4, 5)[:, ::2]
    assert np.array_equal(_travelled(strided), strided)


def test_what_does_not_travel_arrives_as_something_that_nobody_takes() -> None:
    class Money:
        pass

    for thing in (Money(), object(), {1, 2}, print):
        found = _travelled(thing)
        assert isinstance(found, frames.Opaque)
        assert type(found).__name__ == type(thing).__name__


def test_a_text_that_is_none_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        frames.pack("\ud800", [])


def _frame(head: Any, data: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else orjson.dumps(head)
    return len(text).to_bytes(4, "little") + text + data


@pytest.mark.parametrize(
    "data",
    [
        _frame(b"not json"),
        _frame([1]),
        _frame({"body": 1}),
        _frame({"body": 1, "arrays": 5}),
        _frame({"body": 1, "arrays": [["O", [1]]]}),
        _frame({"body": 1, "arrays": [["nonsense", [1]]]}),
        _frame({"body": 1, "arrays": [["<f4", [-1]]]}),
        _frame({"body": 1, "arrays": [["<f4", [1.5]]]}),
        _frame({"body": 1, "arrays": [["<f4", [True]]]}),
        _frame({"body": 1, "arrays": [["<f4", [1] * 20]]}),
        _frame({"body": 1, "arrays": [["<f4", [2**40]]]}),
        _frame({"body": 1, "arrays": [["<f4", [2**62, 2**62]]]}),
        (2**31).to_bytes(4, "little"),
    ],
    ids=lambda data: str(data[4:40]),
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.read(_filler(data), _MOST)


@pytest.mark.parametrize(
    "body",
    [
        {"array": 7},
        {"array": "x"},
        {"tuple": 5},
        {"dict": [[1]]},
        {"dict": [[[1], 2]]},
        {"scalar": ["<f4", "zz"]},
        {"scalar": ["O", "00"]},
        {"float": "x"},
        {"int": "x"},
        {"int": 5, "float": 6},
        {},
    ],
    ids=str,
)
def test_what_no_value_looks_like_is_refused(body: Any) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode(body, [np.zeros(3)], _special)


@pytest.mark.parametrize("dtype", ["U1", "U3", "U32"])
def test_texts_have_the_width_that_they_had(dtype: str) -> None:
    """FAISS tells the type of an array that it does not take."""
    for array in np.zeros((0, 3), dtype), np.array([["a", ""]], dtype):
        found = _travelled(array)
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)


def test_texts_of_a_journal_that_tells_no_width_are_read() -> None:
    found = frames.decode({"cells": ["U", [2], ["1.5", "2"]]}, [], _special)
    assert found.tolist() == ["1.5", "2"]


@pytest.mark.parametrize("width", [-1, 2**40, "3", None])
def test_texts_of_a_width_that_is_none_are_refused(width: Any) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode({"cells": ["U", [1], ["a"], width]}, [], _special)
