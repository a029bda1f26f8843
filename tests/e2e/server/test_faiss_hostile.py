"""Requests to the drop-in route that want to do harm: each gets a clear error, and nobody else notices."""

from __future__ import annotations

import socket
import struct
import uuid
from typing import Any

import numpy as np
import orjson
import pytest
from tests.e2e.server.faiss_calls import MEDIA, PATH, Caller, Failed, Thing, framed, rows, unframed
from tests.e2e.server.faiss_world import D, World, is_fine, saved
from tests.e2e.server.running import address_of

# ---- frames --------------------------------------------------------------------------------------


def _head(head: Any, n: int | None = None) -> bytes:
    text = head if isinstance(head, bytes) else orjson.dumps(head)
    return struct.pack("<I", len(text) if n is None else n) + text


_HELLO = {"op": "hello", "session": "s"}
FRAMES = {
    "nothing": b"",
    "half a length": b"\x01\x00",
    "no head": struct.pack("<I", 10),
    "a huge head": struct.pack("<I", 2**32 - 1) + b"{}",
    "a head of more than comes": _head(b"{}", 500),
    "no json": _head(b"\xff\xfe{"),
    "a list": _head([]),
    "no arrays": _head({"body": _HELLO}),
    "arrays that are none": _head({"body": _HELLO, "arrays": 7}),
    "an unknown dtype": _head({"body": _HELLO, "arrays": [["<q9", [1]]]}) + bytes(8),
    "objects": _head({"body": _HELLO, "arrays": [["|O", [1]]]}) + bytes(8),
    "a structure": _head({"body": _HELLO, "arrays": [["V8", [1]]]}) + bytes(8),
    "a dtype of a gigabyte": _head({"body": _HELLO, "arrays": [["<U1000000000", [1]]]}) + bytes(8),
    "a shape of 2**40": _head({"body": _HELLO, "arrays": [["<f4", [2**40]]]}) + bytes(8),
    "a shape beyond 2**64": _head({"body": _HELLO, "arrays": [["<f4", [2**40, 2**40, 2**40]]]}) + bytes(8),
    "a negative shape": _head({"body": _HELLO, "arrays": [["<f4", [-1, -4]]]}) + bytes(8),
    "a shape of texts": _head({"body": _HELLO, "arrays": [["<f4", ["4"]]]}) + bytes(8),
    "a shape of truth": _head({"body": _HELLO, "arrays": [["<f4", [True]]]}) + bytes(8),
    "no shape": _head({"body": _HELLO, "arrays": [["<f4", None]]}) + bytes(8),
    "forty dimensions": _head({"body": _HELLO, "arrays": [["<f4", [1] * 40]]}) + bytes(8),
    "an empty array of 2**62": _head({"body": _HELLO, "arrays": [["<f4", [0, 2**62]]]}),
    "an array that does not come": _head({"body": _HELLO, "arrays": [["<f4", [100]]]}) + bytes(8),
    "more than the frame": framed(_HELLO) + b"x",
    "a million arrays": _head({"body": _HELLO, "arrays": [["<f4", [0]]] * 1_000_000}),
    "nested 1,000 deep": _head(b'{"arrays":[],"body":' + b"[" * 1000 + b"]" * 1000 + b"}"),
    "nested 100,000 deep": _head(b'{"arrays":[],"body":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a body that is a list": framed([1]),
    "a body that is nothing": framed(None),
}


@pytest.mark.parametrize("content", FRAMES.values(), ids=FRAMES.keys())
def test_what_is_no_frame_is_refused(world: World, caller: Caller, content: bytes, bystander: None) -> None:
    worker = world.worker() if caller.ask("hello") else 0
    response = caller.post(content)
    assert response.status_code == 200
    answer, _ = unframed(response.content)
    assert answer["error"]["refused"] == "FrameError"
    is_fine(caller)
    assert world.worker() == worker


def test_a_second_frame_in_a_body_is_not_taken_for_a_call_with_other_rights(world: World) -> None:
    """What the server puts before a body says what its sender may do: it must not be possible to forge it."""
    read = world.caller("read")
    forged = framed({"op": "function", "name": "index_factory", "args": [8, "Flat"], "session": "s"})
    rights = orjson.dumps(
        {
            "tenant": "acme",
            "key": "x",
            "may_write": True,
            "indexes": None,
            "n_bytes": len(forged),
            "saved": None,
        }
    )
    smuggled = framed(_HELLO) + struct.pack("<I", len(rights)) + rights + forged
    answer, _ = unframed(read.post(smuggled).content)
    assert "goes on" in answer["error"]["args"][0]
    assert read.ask("list") == []  # and gets the answer to this


# ---- requests ------------------------------------------------------------------------------------

_WRONG: list[Any] = [None, 1, -1, 2**70, 1.5, True, "x", [], [[]], {}, {"object": 1}, {"a": 1, "b": 2}]
FIELDS = ("op", "session", "name", "target", "args", "kwargs", "value", "drop", "call", "omp")


@pytest.mark.parametrize("op", ["make", "call", "get", "set", "function", "value", "read", "save", "open"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_a_wrong_kind_is_refused_or_passed_over(caller: Caller, op: str, field: str) -> None:
    for wrong in _WRONG:
        if type(wrong) is int and wrong > 2**64:
            continue  # no JSON
        content = framed({"op": op, "session": caller.session, field: wrong})
        response = caller.post(content)
        assert response.status_code == 200
        answer, _ = unframed(response.content)
        assert answer.keys() & {"error", "result"}
    is_fine(caller)


TREES: dict[str, Any] = {
    "an array that is not there": {"array": 7},
    "an array of a negative number": {"array": -1},
    "an array of no number": {"array": {"array": 0}},
    "a scalar of objects": {"scalar": ["|O", "00" * 8]},
    "a scalar without bytes": {"scalar": ["<f8", ""]},
    "no float": {"float": "x"},
    "a long number": {"int": "9" * 100_000},
    "a dict with a list as key": {"dict": [[[1], 2]]},
    "a dict of no pairs": {"dict": [1]},
    "an unknown tag": {"nothing": 1},
    "an object that is not there": {"object": 12345},
    "an object of no number": {"object": [1]},
    "an output of 2**40": {"output": ["<f4", [2**40], True, True]},
    "an output of objects": {"output": ["|O", [1], True, True]},
    "an output of a negative shape": {"output": ["<f4", [-1], True, True]},
    "an output without dimensions": {"output": ["<f4", [], False, True]},
    "a value of no class": {"value": ["Nothing", [], {"dict": []}, {"dict": []}]},
    "a value that calls back": {"value": ["PyCallbackIDSelector", [1], {"dict": []}, {"dict": []}]},
    "a value of another class": {"value": ["IndexFlatL2", [8], {"dict": []}, {"dict": []}]},
    "a value of a private name": {"value": ["__builtins__", [], {"dict": []}, {"dict": []}]},
    "a value with a pointer": {"value": ["IDSelectorBatch", [5, 12345678], {"dict": []}, {"dict": []}]},
    "a value that is short": {"value": ["IDSelectorAll"]},
}


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_an_argument_of_no_form_is_refused(world: World, caller: Caller, tree: Any, bystander: None) -> None:
    index = caller.factory("Flat")
    worker = world.worker()
    with pytest.raises(Failed):
        caller.ask("call", name="search", target=index, args=[tree, 3])
    assert caller.get(index, "ntotal") == 0
    assert world.worker() == worker


def _selector(name: str, *args: Any, **fields: Any) -> Any:
    return {"value": [name, list(args), {"dict": []}, {"dict": [[k, v] for k, v in fields.items()]}]}


def test_selectors_nested_deeply_are_searched(world: World, caller: Caller) -> None:
    index = caller.factory("Flat")
    caller.call(index, "add", rows(20))
    worker = world.worker()
    for depth in (1, 10, 30):
        selector = _selector("IDSelectorRange", 0, 10)
        for _ in range(depth):
            selector = _selector("IDSelectorNot", selector)
        params = {"value": ["SearchParameters", [], {"dict": [["sel", selector]]}, {"dict": []}]}
        kwargs = {"dict": [["params", params]]}
        args = [{"array": 0}, 3]
        found = caller.ask("call", [rows(1)], name="search", target=index, args=args, kwargs=kwargs)
        assert found[1].shape == (1, 3)
    assert world.worker() == worker


def test_a_selector_cannot_be_told_that_its_ids_go_on(world: World, caller: Caller) -> None:
    index = caller.factory("Flat")
    caller.call(index, "add", rows(20))
    worker = world.worker()
    selector = _selector("IDSelectorArray", {"array": 1}, n=2**40)
    params = {"value": ["SearchParameters", [], {"dict": [["sel", selector]]}, {"dict": []}]}
    arrays = [rows(1), np.arange(3)]
    with pytest.raises(Failed, match="says where its ids lie"):
        caller.ask(
            "call",
            arrays,
            name="search",
            target=index,
            args=[{"array": 0}, 3],
            kwargs={"dict": [["params", params]]},
        )
    assert world.worker() == worker


# ---- HTTP ----------------------------------------------------------------------------------------


def _raw(world: World, head: str, body: bytes = b"", *, is_closed: bool = False) -> bytes:
    """What a server answers to bytes; ``is_closed``: nothing more is going to come."""
    with socket.create_connection(address_of(world.running.url)) as connection:
        connection.settimeout(30)
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        if is_closed:
            connection.shutdown(socket.SHUT_WR)
        found = b""
        while piece := connection.recv(1 << 16):
            found += piece
            if b"\r\n\r\n" in found and b"error" in found:
                break
        return found


def _request(world: World, *lines: str) -> str:
    key = world.keys["write"]
    return "\r\n".join(
        [f"POST {PATH} HTTP/1.1", "Host: x", f"X-API-Key: {key}", f"Content-Type: {MEDIA}", *lines]
    )


def test_a_body_that_stops_half_way_is_timed_out(world: World, caller: Caller) -> None:
    content = framed(_HELLO)
    found = _raw(world, _request(world, f"Content-Length: {len(content)}"), content[:9])
    assert found.startswith(b"HTTP/1.1 408")
    is_fine(caller)


def test_a_body_whose_sender_goes_is_let_go(world: World, caller: Caller) -> None:
    content = framed(_HELLO)
    for _ in range(40):  # more than there are connections to the tenant's process
        with socket.create_connection(address_of(world.running.url)) as connection:
            head = _request(world, f"Content-Length: {len(content)}")
            connection.sendall(head.encode() + b"\r\n\r\n" + content[:9])
    is_fine(caller)


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, "9" * 5000, "1e3", str(2**40)])
def test_a_length_that_is_none_or_too_much_is_refused(world: World, length: str, caller: Caller) -> None:
    found = _raw(world, _request(world, f"Content-Length: {length}"), b"1234", is_closed=True)
    assert found[9:10] == b"4", found[:200]
    is_fine(caller)


def test_a_body_without_a_length_is_refused(world: World, caller: Caller) -> None:
    response = caller.http.post(PATH, content=iter([framed(_HELLO)]))
    assert response.status_code == 422
    is_fine(caller)


def test_other_media_and_methods_are_refused(caller: Caller) -> None:
    assert caller.post(framed(_HELLO), **{"content-type": "application/json"}).status_code == 415
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        assert caller.http.request(method, PATH).status_code == 405


def test_without_a_key_nothing_is_answered(world: World) -> None:
    assert Caller(world.running).post(framed(_HELLO)).status_code == 401
    assert Caller(world.running, "fb_x_y").post(framed(_HELLO)).status_code == 401


# ---- keys ----------------------------------------------------------------------------------------


def test_a_read_key_searches_named_indexes_and_changes_nothing(world: World, caller: Caller) -> None:
    saved(caller, "shared")
    read = world.caller("read")
    index = read.open("shared")
    assert read.call(index, "search", rows(2), 3)[1].shape == (2, 3)
    assert read.call(index, "reconstruct", 3).shape == (D,)
    for attempt in (
        lambda: read.call(index, "add", rows(1)),
        lambda: read.call(index, "reset"),
        lambda: read.call(index, "remove_ids", np.arange(2)),
        lambda: read.call(index, "train", rows(2)),
        lambda: read.call(index, "merge_from", Thing(index)),
        lambda: read.set(index, "verbose", True),
        lambda: read.factory("Flat"),
        lambda: read.ask("make", name="IndexFlatL2", args=[8]),
        lambda: read.ask("function", name="clone_index", args=[{"object": index}]),
        lambda: read.ask("save", name="mine", target=index),
        lambda: read.ask("delete", name="shared"),
        lambda: read.ask("read", [np.zeros(9, np.uint8)], args=[{"array": 0}, "index"]),
        lambda: read.ask("value", name="set_index_parameters", value=0, args=[{"object": index}, "nprobe=1"]),
    ):
        with pytest.raises(Failed) as failed:
            attempt()
        assert failed.value.kind == "access", failed.value
    assert caller.get(caller.open("shared"), "ntotal") == 10


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF2,Flat", "IDMap2,Flat", "IVF2,PQ4x4", "SQ8"])
def test_a_read_key_cannot_end_the_process_by_a_position(world: World, caller: Caller, factory: str) -> None:
    index = caller.factory(factory)
    caller.call(index, "train", rows(100))
    if factory.startswith("IDMap"):
        caller.call(index, "add_with_ids", rows(100), np.arange(100))
    else:
        caller.call(index, "add", rows(100))
    name = f"p-{uuid.uuid4().hex}"
    caller.ask("save", name=name, target=index)
    worker, read = world.worker(), world.caller("read")
    index = read.open(name)
    for method, *args in (
        ("reconstruct", -(10**8)),
        ("reconstruct", 10**8),
        ("reconstruct_n", -(10**9), 3),
        ("reconstruct_n", 99, 2),
        ("reconstruct_batch", np.array([3, -1])),
        ("get_list_size", 10**7),
        ("search", rows(1), 2**31),
        ("search", rows(1), 0),
        ("search", rows(1), -1),
        *([("sa_decode", np.full((3, 40), 255, np.uint8))] if factory.startswith("IVF") else []),
    ):
        with pytest.raises(Failed):
            read.call(index, str(method), *args)
    assert read.call(index, "search", rows(1), 3)[1].shape == (1, 3)
    assert world.worker() == worker


def test_a_key_for_some_indexes_reaches_no_other(world: World, caller: Caller) -> None:
    saved(caller, "allowed")
    saved(caller, "secret")
    some = world.caller("some")
    assert [each["name"] for each in some.ask("list")] == ["allowed"]
    some.call(some.open("allowed"), "add", rows(1))
    for attempt in (
        lambda: some.open("secret"),
        lambda: some.ask("delete", name="secret"),
        lambda: some.ask("delete", name="allowed"),
        lambda: some.ask("save", name="mine", target=some.open("allowed")),
        lambda: some.factory("Flat"),
        lambda: some.ask("function", name="clone_index", args=[{"object": some.open("allowed")}]),
    ):
        with pytest.raises(Failed) as failed:
            attempt()
        assert failed.value.kind == "access"


def test_another_tenant_sees_and_reaches_nothing(world: World, caller: Caller) -> None:
    index = saved(caller, "private")
    other = world.caller("other", caller.session)
    assert other.ask("list") == []
    with pytest.raises(Failed) as failed:
        other.open("private")
    assert failed.value.kind == "not_found"
    with pytest.raises(Failed):
        other.get(index, "ntotal")


@pytest.mark.parametrize("key", ["read", "some"])
def test_a_session_is_of_no_use_to_another_key(world: World, caller: Caller, key: str) -> None:
    """Even to one that has learnt its name, which is a secret of 128 random bits."""
    index = saved(caller, f"mine-{key}")
    thief = world.caller(key, caller.session)
    for op in ("get", "fetch"):
        with pytest.raises(Failed):
            thief.ask(op, name="ntotal", target=index)
    thief.ask("touch", drop=[index])
    thief.ask("end")
    assert caller.get(index, "ntotal") == 10


def test_numbers_of_objects_are_those_of_the_session(world: World, caller: Caller) -> None:
    index = caller.factory("Flat")
    other = world.caller()
    for number in (index, 0, -1, 2**40):
        with pytest.raises(Failed):
            other.get(number, "ntotal")
