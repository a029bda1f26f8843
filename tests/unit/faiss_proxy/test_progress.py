"""How far a large transfer is, on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from faiss_proxy import connection
from faiss_proxy.connection import show_progress

_MB = 1_000_000


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, step_s: float) -> str:
    monkeypatch.setattr(sys, "stderr", screen)
    times = iter(range(100))
    moved = show_progress("fetching", clock=lambda: next(times) * step_s)
    for done in range(1, 11):
        moved(done * 50 * _MB, 500 * _MB)
    return screen.getvalue()


def test_a_transfer_of_more_than_a_second_is_shown_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = _shown(monkeypatch, _Screen(), 0.3).split("\r")[1:]
    assert lines[0] == "fetching: 40 % of 500 MB"
    assert lines[-1] == "fetching: 100 % of 500 MB\n"


@pytest.mark.parametrize(("screen", "step_s"), [(_Screen(), 0.01), (io.StringIO(), 0.3)])
def test_a_short_one_and_one_that_nobody_watches_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, screen: io.StringIO, step_s: float
) -> None:
    assert _shown(monkeypatch, screen, step_s) == ""


def test_what_comes_is_told_piece_by_piece_where_it_is_long() -> None:
    told: list[tuple[int, int]] = []
    piece = connection._PIECE_BYTES
    source = io.BytesIO(bytes(2 * piece + 7 + 5))
    fill = connection._filler(source, lambda done, n_bytes: told.append((done, n_bytes)))  # type: ignore[arg-type]
    fill(memoryview(bytearray(5)))
    assert told == []
    fill(memoryview(bytearray(2 * piece + 7)))
    assert told == [(n, 2 * piece + 7) for n in (piece, 2 * piece, 2 * piece + 7)]
