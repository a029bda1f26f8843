"""Every text is embedded once, in this process and in the next one."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest

from faissbase.embedding import CachedEmbedder, HashedEmbedder
from faissbase.errors import CorruptionError, InvalidInputError, NotReadyError, UnavailableError
from faissbase.types import Float32


class _Counting:
    """Remembers what it was asked for."""

    def __init__(self, name: str = "counting", dimension: int = 64) -> None:
        self.name = name
        self.dimension = dimension
        self.asked: list[str] = []

    def embed(self, texts: list[str]) -> Float32:
        self.asked.extend(texts)
        return HashedEmbedder(self.dimension).embed(texts)


def test_a_text_is_embedded_once() -> None:
    inner = _Counting()
    cached = CachedEmbedder(inner)
    first = cached.embed(["a", "b", "a"])
    second = cached.embed(["b", "c"])
    assert inner.asked == ["a", "b", "c"]
    assert np.array_equal(first, HashedEmbedder(64).embed(["a", "b", "a"]))
    assert np.array_equal(second, HashedEmbedder(64).embed(["b", "c"]))
    assert (cached.hits, cached.misses) == (2, 3)
    assert (cached.name, cached.dimension, cached.embed([]).shape) == ("counting", 64, (0, 64))


def test_the_text_used_longest_ago_goes_first() -> None:
    inner = _Counting()
    cached = CachedEmbedder(inner, capacity=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cached.embed([text])
    assert inner.asked == ["a", "b", "c", "b"]


def test_what_is_kept_cannot_be_changed_from_outside() -> None:
    cached = CachedEmbedder(_Counting())
    cached.embed(["a"])[:] = 0
    assert np.array_equal(cached.embed(["a"]), HashedEmbedder(64).embed(["a"]))


def test_a_file_keeps_them_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.sqlite"
    texts = [f"text {i}" for i in range(1_200)]
    first = CachedEmbedder(_Counting(), path=path)
    wanted = first.embed(texts)
    first.close()
    inner = _Counting()
    again = CachedEmbedder(inner, path=path)
    assert np.array_equal(again.embed(texts), wanted)
    assert inner.asked == []


def test_models_share_a_file_and_no_vector(tmp_path: Path) -> None:
    path = tmp_path / "embeddings.sqlite"
    CachedEmbedder(_Counting("one"), path=path).embed(["a"])
    other, larger = _Counting("other"), _Counting("one", 128)
    CachedEmbedder(other, path=path).embed(["a"])
    assert CachedEmbedder(larger, path=path).embed(["a"]).shape == (1, 128)
    assert (other.asked, larger.asked) == (["a"], ["a"])


def test_threads_share_it(tmp_path: Path) -> None:
    cached = CachedEmbedder(_Counting(), capacity=8, path=tmp_path / "embeddings.sqlite")
    wanted = HashedEmbedder(64).embed([str(i) for i in range(50)])
    wrong: list[int] = []

    def ask(start: int) -> None:
        for i in range(200):
            row = (start * 7 + i) % 50
            if not np.array_equal(cached.embed([str(row)])[0], wanted[row]):
                wrong.append(row)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cached.hits + cached.misses == 1_600


def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    with pytest.raises(CorruptionError, match=r"letter.txt is no cache"):
        CachedEmbedder(_Counting(), path=path)
    assert path.read_text().startswith("Dear reader")
    with pytest.raises(UnavailableError, match="nowhere"):
        CachedEmbedder(_Counting(), path=tmp_path / "nowhere" / "file.sqlite")
    with pytest.raises(InvalidInputError, match="capacity"):
        CachedEmbedder(_Counting(), capacity=0)


def test_a_text_that_is_kept_keeps_no_others_in_memory() -> None:
    cached = CachedEmbedder(_Counting(), capacity=2)
    cached.embed([f"text {i}" for i in range(100)])
    assert [vector.base for vector in cached._kept.values()] == [None, None]


def test_use_after_close_does_not_call_the_file_damaged(tmp_path: Path) -> None:
    cached = CachedEmbedder(_Counting(), path=tmp_path / "e.sqlite")
    cached.close()
    cached.close()
    with pytest.raises(NotReadyError, match="closed"):
        cached.embed(["a"])


def test_a_vector_that_is_cut_short_is_made_again(tmp_path: Path) -> None:
    cached = CachedEmbedder(_Counting(), path=tmp_path / "e.sqlite")
    wanted = cached.embed(["a"])
    cached.close()
    with sqlite3.connect(tmp_path / "e.sqlite") as file:
        file.execute("update vectors set vector = substr(vector, 1, 7)")
    again = CachedEmbedder(_Counting(), path=tmp_path / "e.sqlite")
    assert np.array_equal(again.embed(["a"]), wanted)
    again.close()


def test_a_file_that_is_locked_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("faissbase.embedding.cached._BUSY_S", 0.01)
    cached = CachedEmbedder(_Counting(), path=tmp_path / "e.sqlite")
    wanted = cached.embed(["a"])
    other = sqlite3.connect(tmp_path / "e.sqlite", isolation_level=None)
    other.execute("begin exclusive")
    assert cached.embed(["a", "b"])[0].tolist() == wanted[0].tolist()
    assert "done without" in caplog.text
    other.close()
    cached.close()
