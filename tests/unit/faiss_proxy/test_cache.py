"""Answers kept on the client."""

from __future__ import annotations

import numpy as np

from faiss_proxy.cache import Cache, Kept, key_of

_ROOM = 10_000


def _answer(version: str, n_bytes: int = 1000) -> Kept:
    return Kept(version, None, [np.zeros(n_bytes, np.uint8)])


def test_what_was_used_longest_ago_goes_first() -> None:
    cache = Cache(_ROOM)
    for number in range(5):
        cache.keep(b"%d" % number, _answer(str(number)))
    assert cache.find(b"0") is not None
    for number in range(5, 8):
        cache.keep(b"%d" % number, _answer(str(number)))
    there = [number for number in range(8) if cache.find(b"%d" % number) is not None]
    assert there == [0, 3, 4, 5, 6, 7]


def test_a_newer_answer_takes_the_place_of_the_older() -> None:
    cache = Cache(_ROOM)
    for version in range(100):
        cache.keep(b"same", _answer(str(version)))
    found = cache.find(b"same")
    assert found is not None
    assert found.version == "99"


def test_an_answer_larger_than_the_room_is_not_kept() -> None:
    cache = Cache(_ROOM)
    cache.keep(b"small", _answer("1"))
    cache.keep(b"large", _answer("1", 2 * _ROOM))
    assert cache.find(b"large") is None
    cache.keep(b"again", _answer("1"))
    assert cache.find(b"again") is not None


def test_questions_differ_by_every_byte() -> None:
    pieces = [memoryview(b"search"), memoryview(b"\0\0\0")]
    assert key_of(pieces) == key_of(pieces)
    assert key_of(pieces) != key_of([memoryview(b"search"), memoryview(b"\0\0\1")])
