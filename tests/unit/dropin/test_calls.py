"""Calls of FAISS without a network: what is done once, and what is kept for a call that comes again."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faissbase.dropin.calls import Calls, Rights
from faissbase.dropin.faults import fault
from faissbase.dropin.reading import Reader


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path, 60.0, Reader.__new__(Reader))  # no file of others is read here


def _answer(calls: Calls, arrays: Any = None, **body: Any) -> dict[str, Any]:
    rights = Rights("acme", "key", may_write=True)
    found: dict[str, Any] = calls.answer({"session": "s", **body}, arrays or [], rights)[0]
    assert "error" not in found, found
    return found


def test_a_change_that_is_sent_twice_is_done_once(calls: Calls) -> None:
    number = _answer(calls, op="make", name="IndexFlatL2", args=[4])["result"]["object"][0]
    rows = [np.zeros((3, 4), np.float32)]
    for _ in range(2):
        _answer(calls, rows, op="call", name="add", target=number, args=[{"array": 0}], call="7")
    assert _answer(calls, op="get", name="ntotal", target=number)["result"] == 3


def test_what_only_reads_is_done_again_and_its_answer_kept_for_nobody(calls: Calls) -> None:
    number = _answer(calls, op="make", name="IndexFlatL2", args=[4], call="1")["result"]["object"][0]
    whole = {"op": "function", "name": "serialize_index", "args": [{"object": number}], "call": "2"}
    _answer(calls, **whole)
    _answer(calls, **whole)
    assert list(calls.sessions.find("key s")._answers) == ["1"]


def test_an_index_that_a_full_disk_has_no_room_for_is_not_fetched_and_no_path_is_told(
    calls: Calls, tmp_path: Path
) -> None:
    number = _answer(calls, op="make", name="IndexFlatL2", args=[4])["result"]["object"][0]
    rows = [np.zeros((5000, 4), np.float32)]
    _answer(calls, rows, op="call", name="add", target=number, args=[{"array": 0}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        body = {"op": "fetch", "session": "s", "target": number}
        found = calls.answer(body, [], Rights("acme", "key", may_write=True))[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the file" in found["error"]["args"][0]
    assert str(tmp_path) not in str(found)
    assert not list(tmp_path.glob(".out-*"))


def test_an_error_of_numpys_travels_as_what_it_is_one_of_with_its_text() -> None:
    with pytest.raises(MemoryError) as raised:
        np.empty(2**60, np.float32)
    found = fault(raised.value)["error"]
    assert found["type"] == "MemoryError"
    assert found["args"] == [str(raised.value)]


@pytest.mark.parametrize(
    ("name", "more"),
    [("merge_from", [0]), ("copy_subset_to", [0, 0, 9])],
    ids=["merge_from", "copy_subset_to"],
)
def test_an_index_that_was_merged_is_filled_and_merged_again(
    calls: Calls, name: str, more: list[int]
) -> None:
    rows = [np.eye(4, dtype=np.float32)]
    made = {"op": "function", "name": "index_factory", "args": [4, "IVF2,Flat"]}
    first = _answer(calls, **made)["result"]["object"][0]
    _answer(calls, rows, op="call", name="train", target=first, args=[{"array": 0}])
    second = _answer(calls, op="function", name="clone_index", args=[{"object": first}])["result"]["object"][
        0
    ]
    for n in (4, 8):
        _answer(calls, rows, op="call", name="add", target=second, args=[{"array": 0}])
        _answer(calls, op="call", name=name, target=first, args=[{"object": second}, *more])
        if name == "merge_from":
            assert _answer(calls, op="get", name="ntotal", target=first)["result"] == n
    for one, other in ((first, second), (second, first)):
        _answer(calls, op="call", name=name, target=one, args=[{"object": other}, *more])


def test_an_index_is_not_merged_into_itself(calls: Calls) -> None:
    made = {"op": "function", "name": "index_factory", "args": [4, "IVF2,Flat"]}
    number = _answer(calls, **made)["result"]["object"][0]
    rights, itself = Rights("acme", "key", may_write=True), {"object": number}
    for body in (
        {"op": "function", "name": "merge_into", "args": [itself, itself, True]},
        {"op": "call", "name": "merge_from", "target": number, "args": [itself]},
    ):
        [refused] = calls.answer({"session": "s", **body}, [], rights)[0].values()
        assert "given to itself" in refused["args"][0]
