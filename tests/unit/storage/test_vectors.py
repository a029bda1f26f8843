"""The slot file: what is written is read, growth, short files, several handles on one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.errors import CorruptionError, UnavailableError
from faissbase.storage.vectors import VectorFile
from faissbase.types import Float32

D = 12
STEP_BYTES = 64 << 10


def _random(n: int, seed: int = 1) -> Float32:
    return np.random.default_rng(seed).standard_normal((n, D), dtype=np.float32)


def _write_and_sync(file: VectorFile, rows: Float32) -> None:
    file.write(0, rows)
    file.sync()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[VectorFile]:
    opened = VectorFile(tmp_path / "vectors.0.f32", D, writable=True, create=True)
    yield opened
    opened.close()


def test_rows_are_read_back_from_their_slots(file: VectorFile) -> None:
    rows = _random(10)
    file.write(0, rows[:4])
    file.write(4, rows[4:])
    np.testing.assert_array_equal(file.view(10), rows)
    np.testing.assert_array_equal(file.read(3, 5), rows[3:8])
    assert file.read(3, 5).dtype == np.float32


def test_a_slot_may_be_written_again(file: VectorFile) -> None:
    file.write(0, _random(6))
    again = _random(2, seed=2)
    file.write(3, again)
    np.testing.assert_array_equal(file.view(6)[3:5], again)


def test_a_view_cannot_be_written(file: VectorFile) -> None:
    file.write(0, _random(2))
    with pytest.raises(ValueError, match="read-only"):
        file.view(2)[0, 0] = 1.0


def test_the_file_grows_in_steps_that_take_no_disk(file: VectorFile) -> None:
    file.write(0, _random(1))
    size = file.path.stat().st_size
    assert size >= STEP_BYTES
    assert size % STEP_BYTES == 0
    assert file.path.stat().st_blocks * 512 < STEP_BYTES
    file.write(1, _random(20))
    assert file.path.stat().st_size == size


def test_rows_survive_growth(file: VectorFile) -> None:
    rows = _random(20_000)
    for start in range(0, len(rows), 3_000):
        file.write(start, rows[start : start + 3_000])
    np.testing.assert_array_equal(file.view(len(rows)), rows)
    assert file.path.stat().st_size > rows.nbytes


def test_a_view_stays_valid_when_the_file_grows_and_is_closed(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "f", D, writable=True, create=True)
    rows = _random(5)
    file.write(0, rows)
    view = file.view(5)
    file.write(5, _random(50_000))
    file.view(50_005)
    file.close()
    np.testing.assert_array_equal(view, rows)


def test_a_short_write_goes_on_where_it_stopped(file: VectorFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite, rows = os.pwrite, _random(100)
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:1_000], offset))
    file.write(2, rows)
    np.testing.assert_array_equal(file.view(102)[2:], rows)


def test_a_reader_follows_a_writer_of_another_handle(file: VectorFile) -> None:
    reader = VectorFile(file.path, D, writable=False)
    for n in (3, 10_000):
        rows = _random(n)
        file.write(0, rows)
        np.testing.assert_array_equal(reader.view(n), rows)
    reader.close()


def test_two_writers_never_cut_the_file_short(file: VectorFile) -> None:
    other = VectorFile(file.path, D, writable=True)
    rows = _random(30_000)
    file.write(0, rows)
    other.write(30_000, _random(1, seed=2))
    np.testing.assert_array_equal(file.view(30_000), rows)
    other.close()


def test_reading_beyond_the_end_says_how_long_the_file_is(file: VectorFile) -> None:
    file.write(0, _random(1))
    n_slots = file.path.stat().st_size // file.row_bytes
    with pytest.raises(CorruptionError, match=f"holds {file.path.stat().st_size} bytes"):
        file.read(n_slots - 1, 5)
    with pytest.raises(CorruptionError, match=r"are needed for its \d+ slots; run repair"):
        file.view(n_slots + 5)


def test_an_empty_file_has_nothing_to_view(file: VectorFile) -> None:
    assert file.is_shorter_than(1)
    assert not file.is_shorter_than(0)
    with pytest.raises(CorruptionError):
        file.view(1)
    with pytest.raises(CorruptionError):
        file.read(0, 1)


def test_a_file_cut_short_is_seen_at_once(file: VectorFile) -> None:
    file.write(0, _random(10))
    os.truncate(file.path, 4 * file.row_bytes + 1)
    assert not file.is_shorter_than(4)
    assert file.is_shorter_than(5)


def test_extending_adds_zeros_and_never_shortens(file: VectorFile) -> None:
    rows = _random(5_000)
    file.write(0, rows)
    size = file.path.stat().st_size
    file.extend(10)
    assert file.path.stat().st_size == size
    file.extend(50_000)
    assert not file.is_shorter_than(50_000)
    assert not file.view(50_000)[5_000:].any()
    np.testing.assert_array_equal(file.view(5_000), rows)


def test_a_missing_file_is_not_made_unless_asked(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="cannot open"):
        VectorFile(tmp_path / "missing", D, writable=True)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "fdatasync"])
def test_a_call_that_fails_is_an_error_of_ours(
    file: VectorFile, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UnavailableError, match=r"vectors\.0\.f32: No space left"):
        _write_and_sync(file, _random(1))
    monkeypatch.undo()
    _write_and_sync(file, _random(3))
    np.testing.assert_array_equal(file.view(3), _random(3))


def test_closing_twice_closes_nothing_else(tmp_path: Path) -> None:
    file = VectorFile(tmp_path / "f", D, writable=True, create=True)
    file.close()
    other = VectorFile(tmp_path / "g", D, writable=True, create=True)
    file.close()
    other.write(0, _random(1))
    other.close()
