"""Arrays of the caller's that are given to be filled."""

from __future__ import annotations

from typing import Any

import numpy as np

_XB = np.random.default_rng(0).random((50, 8), dtype=np.float32)


def _filled(f: Any) -> Any:
    index = f.IndexFlatL2(8)
    index.add(_XB)
    distances, labels = np.full((4, 3), 7, np.float32), np.full((4, 3), 7)
    distances.flags.writeable = False
    found = index.search(_XB[:4], 3, D=distances, I=labels)
    assert found[0] is distances
    assert found[1] is labels
    return *found, distances.flags.writeable


def test_an_array_that_is_read_only_is_filled_as_by_faiss(modules: tuple[Any, Any]) -> None:
    here, there = map(_filled, modules)
    assert all(map(np.array_equal, here, there))


def test_memory_that_nobody_can_write_to_is_left_and_what_was_found_is_given(
    modules: tuple[Any, Any],
) -> None:
    index = modules[1].IndexFlatL2(8)
    index.add(_XB)
    fixed = np.frombuffer(bytes(4 * 12), np.float32).reshape(4, 3)
    distances, labels = index.search(_XB[:4], 3, D=fixed)
    assert np.array_equal(distances, index.search(_XB[:4], 3)[0])
    assert labels[:, 0].tolist() == [0, 1, 2, 3]
    assert not fixed.any()
