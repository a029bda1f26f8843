"""A target is replaced whole or not touched."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.storage.tables import open_writer
from faissbase.types import Batch

ReadAll = Callable[..., Batch]

WRITABLE = ["npy", "fvecs", "bvecs", "parquet", "arrow", "jsonl", "csv"]


def rows(n: int = 3, **lists: Any) -> Batch:
    return Batch(np.ones((n, 2), np.float32), **lists)


def write_and_stop(path: Path) -> None:
    with open_writer(path, dimension=2) as writer:
        writer.write(rows())
        raise KeyboardInterrupt


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", WRITABLE)
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_and_stop(path)
    gc.collect(1)  # what this test has made; all that the worker holds would take a fifth of a second
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == [path.name]


_KILLED = """
import os, signal, sys
import numpy as np
from faissbase.storage.tables import open_writer
from faissbase.types import Batch

open_writer(sys.argv[1], dimension=2).write(Batch(np.ones((3, 2), np.float32)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("suffix", ["jsonl", "npy"])
def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path, suffix: str) -> None:
    path, mine = tmp_path / f"a.{suffix}", tmp_path / f"a.{suffix}.2026-11.tmp"
    mine.write_text("mine")
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = set(names_in(tmp_path))
    assert left > {mine.name}
    with open_writer(path, dimension=2) as first, open_writer(path, dimension=2) as second:
        assert left.isdisjoint(set(names_in(tmp_path)) - {mine.name})
        first.write(rows(2))
        second.write(rows(3))
    assert {name for name in names_in(tmp_path) if name.endswith(".tmp")} == {mine.name}


@pytest.mark.parametrize("suffix", WRITABLE)
def test_the_target_appears_only_when_closed(tmp_path: Path, read_all: ReadAll, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    writer = open_writer(path, dimension=2)
    writer.write(rows())
    assert not path.exists()
    writer.close()
    writer.close()
    assert len(read_all(path, dimension=2).vectors) == 3
    sidecar = [f"{path.name}.rows.jsonl"] if suffix in ("npy", "fvecs", "bvecs") else []
    assert names_in(tmp_path) == [path.name, *sidecar]


def test_an_older_file_and_its_rows_are_replaced(tmp_path: Path, read_all: ReadAll) -> None:
    for ids in (["a", "b", "c"], ["d"]):
        with open_writer(tmp_path / "a.npy", dimension=2) as writer:
            writer.write(rows(len(ids), ids=ids))
        assert read_all(tmp_path / "a.npy", dimension=2).ids == ids


def test_a_crash_between_the_two_renames_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npy"
    with open_writer(path, dimension=2) as writer:
        writer.write(rows(1, ids=["old"]))
    writer = open_writer(path, dimension=2)
    writer.write(rows(1, ids=["new"]))
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(UnavailableError, match=r"cannot write .*a\.npy: Input/output error"):
        writer.close()
    assert not path.exists()
    assert len([name for name in names_in(tmp_path) if name.endswith(".tmp")]) == 1


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (Batch(np.ones((1, 3), np.float32)), r"expected vectors of shape \(n, 2\), got \(1, 3\)"),
        (Batch(np.ones(2, np.float32)), r"got \(2,\)"),
        (rows(ids=["a"]), "expected 3 ids, one for each vector, got 1"),
        (rows(metadatas=[{}]), "expected 3 metadatas"),
        (rows(documents=[None] * 4), "expected 3 documents, one for each vector, got 4"),
        (
            rows(ids=["d", "e", "f"]),
            r"expected ids in all batches of .* or in none, got both kinds \(row 3\)",
        ),
        (rows(metadatas=[{}, {}, {"x": object()}]), "row 5 cannot be written as JSON"),
        (rows(documents=[None, "\ud800", None]), "cannot be written as JSON|not valid Unicode"),
    ],
)
@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_batch_that_does_not_fit_discards_the_file(
    tmp_path: Path, batch: Batch, message: str, suffix: str
) -> None:
    writer = open_writer(tmp_path / f"a.{suffix}", dimension=2)
    writer.write(rows())
    with pytest.raises(InvalidInputError, match=message):
        writer.write(batch)
    with pytest.raises(NotReadyError, match="is closed"):
        writer.write(rows())
    writer.close()
    gc.collect(1)  # what this test has made; all that the worker holds would take a fifth of a second
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("value", [-1, 256, 0.5, np.nan])
def test_bvecs_refuses_what_is_no_byte(tmp_path: Path, value: float) -> None:
    vectors = np.ones((4, 2), np.float32)
    vectors[3, 1] = value
    with open_writer(tmp_path / "ok.bvecs", dimension=2) as writer:
        writer.write(rows())
        with pytest.raises(InvalidInputError, match=rf"integers from 0 to 255, got {value:.1f}.* \(row 6\)"):
            writer.write(Batch(vectors))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_text_refuses_what_json_cannot_say(tmp_path: Path, suffix: str, value: float) -> None:
    vectors = np.ones((4, 2), np.float32)
    vectors[2, 1] = value
    writer = open_writer(tmp_path / f"a.{suffix}", dimension=2)
    with pytest.raises(InvalidInputError, match="the vector of row 2 has one"):
        writer.write(Batch(vectors))


def test_batches_of_no_rows_change_nothing(tmp_path: Path, read_all: ReadAll) -> None:
    with open_writer(tmp_path / "a.parquet", dimension=2) as writer:
        writer.write(rows(0))
        writer.write(rows(2, ids=["a", "b"]))
        writer.write(rows(0))
    assert read_all(tmp_path / "a.parquet", dimension=2).ids == ["a", "b"]


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_full_disk_discards_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer = open_writer(tmp_path / f"a.{suffix}", dimension=2)
    writer.write(rows())
    with pytest.raises(UnavailableError, match=rf"cannot write .*a\.{suffix}: No space left on device"):
        writer.close()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_disk_that_is_full_while_rows_are_written_discards_the_file(tmp_path: Path, suffix: str) -> None:
    many = rows(30_000, ids=[str(row) for row in range(30_000)], documents=["text"] * 30_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    message = rf"cannot write .*a\.{suffix}: File too large"
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with (
            pytest.raises(UnavailableError, match=message),
            open_writer(tmp_path / f"a.{suffix}", dimension=2) as writer,
        ):
            writer.write(many)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names_in(tmp_path) == []


def test_a_target_must_have_a_folder_and_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"make the folder .*none first"):
        open_writer(tmp_path / "none" / "a.npy", dimension=2)
    (tmp_path / "a.npy").mkdir()
    with pytest.raises(AlreadyExistsError, match="a folder has that name"):
        open_writer(tmp_path / "a.npy", dimension=2)


def test_two_writers_of_one_target_do_not_mix(tmp_path: Path, read_all: ReadAll) -> None:
    first, second = (open_writer(tmp_path / "a.jsonl", dimension=2) for _ in range(2))
    first.write(rows(1, ids=["first"]))
    second.write(rows(2, ids=["second", "third"]))
    first.close()
    assert read_all(tmp_path / "a.jsonl", dimension=2).ids == ["first"]
    second.close()
    assert read_all(tmp_path / "a.jsonl", dimension=2).ids == ["second", "third"]
