"""Objects by ranges: in order, few at a time, torn and failing ones asked for again and never believed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from xxhash import xxh3_128_hexdigest

from faissbase.errors import UnavailableError
from faissbase.sharded import ranges

CONTENT = bytes(range(256)) * 41 + b"end"


def read(start: int, size_bytes: int) -> bytes:
    return CONTENT[start : start + size_bytes]


def test_pieces_come_in_order_and_make_the_whole() -> None:
    found = list(ranges.pieces(read, 0, len(CONTENT), 1000))
    assert [start for start, _ in found] == list(range(0, len(CONTENT), 1000))
    assert b"".join(piece for _, piece in found) == CONTENT
    assert list(ranges.pieces(read, 0, 0)) == []


def test_several_are_under_way_and_no_more_than_are_allowed() -> None:
    together, lock, under_way, most = threading.Barrier(3, timeout=20), threading.Lock(), 0, 0

    def slow(start: int, size_bytes: int) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait()  # three at a time, or this breaks
        with lock:
            under_way -= 1
        return read(start, size_bytes)

    found = ranges.pieces(slow, 0, 9_000, 1000, connections=3)
    assert b"".join(piece for _, piece in found) == CONTENT[:9_000]
    assert most == 3


def test_what_is_not_taken_is_not_asked_for() -> None:
    asked: list[int] = []

    def noted(start: int, size_bytes: int) -> bytes:
        asked.append(start)
        return read(start, size_bytes)

    found = ranges.pieces(noted, 0, len(CONTENT), 100, connections=2)
    next(found)
    found.close()
    assert len(asked) <= 3


@pytest.mark.parametrize("fault", ["torn", "empty", "failing"])
def test_a_range_that_fails_is_asked_for_again(tmp_path: Path, fault: str) -> None:
    failed: set[int] = set()

    def faulty(start: int, size_bytes: int) -> bytes:
        if start in failed:
            return read(start, size_bytes)
        failed.add(start)
        if fault == "failing":
            raise UnavailableError("refused")
        return read(start, size_bytes // 2 if fault == "torn" else 0)

    assert b"".join(piece for _, piece in ranges.pieces(faulty, 0, len(CONTENT), 1000)) == CONTENT
    assert len(failed) == 11
    with open(tmp_path / "copy", "wb") as out:
        assert ranges.copy_to(out.fileno(), read, len(CONTENT)) == xxh3_128_hexdigest(CONTENT)
    assert (tmp_path / "copy").read_bytes() == CONTENT


def test_a_store_that_never_brings_a_whole_range_is_an_error() -> None:
    with pytest.raises(UnavailableError, match="asked for 1000 bytes from 3000 on, the store brought 999"):
        list(ranges.pieces(lambda start, size: read(start, size - (start == 3000)), 0, 9000, 1000))
