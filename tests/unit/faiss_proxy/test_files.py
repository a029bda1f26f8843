"""Files of this machine that an index on a server is written to."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conformance.faiss.outcomes import outcome

_XB = np.random.default_rng(0).random((50, 8), dtype=np.float32)


def _filled(f: Any) -> Any:
    index = f.IndexFlatL2(8)
    index.add(_XB)
    return index


def test_a_file_stays_as_it_is_when_what_was_to_replace_it_is_gone(
    modules: tuple[Any, Any], tmp_path: Path
) -> None:
    f, file = modules[1], tmp_path / "kept.index"
    index = _filled(f)
    f.write_index(index, str(file))
    before = file.read_bytes()
    index._handle.connection.end()  # as if the server had been restarted
    with pytest.raises(f.RemoteError, match=r"make or read it again.*open_index"):
        f.write_index(index, str(file))
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir() if each.suffix == ".part"] == []


def test_files_are_written_where_and_as_faiss_writes_them(modules: tuple[Any, Any], tmp_path: Path) -> None:
    found = []
    for f in modules:
        folder = tmp_path / f.__name__
        folder.mkdir()
        linked, pipe = folder / "linked", folder / "pipe"
        linked.symlink_to(folder / "real")
        (folder / "real").write_bytes(b"before")
        (folder / "real").chmod(0o640)
        f.write_index(_filled(f), str(linked))
        os.mkfifo(pipe)
        reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        f.write_index(_filled(f), str(pipe))
        piped = os.read(reading, 1 << 16)
        os.close(reading)
        errors = [outcome(partial(f.write_index, _filled(f), to)) for to in ("/no/x", str(tmp_path))]
        found.append(
            (
                linked.is_symlink(),
                (folder / "real").read_bytes(),
                linked.stat().st_mode & 0o777,
                piped,
                errors,
            )
        )
    assert found[0] == found[1]
    assert found[0][1] == found[0][3]


def test_a_damaged_file_is_called_by_its_name(modules: tuple[Any, Any], tmp_path: Path) -> None:
    f, file = modules[1], tmp_path / "cut.index"
    f.write_index(_filled(f), str(file))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RuntimeError, match=f"read error in {file}: "):
        f.read_index(str(file))
