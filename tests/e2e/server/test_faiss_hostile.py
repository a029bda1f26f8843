"""Clients of the drop-in route that want to do harm: each gets a clear error, and nobody else notices."""

from __future__ import annotations

import os
import signal
import socket
import struct
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
import orjson
import pytest
from tests.e2e.server.faiss_calls import MEDIA, PATH, Caller, Failed, Thing, framed, rows, unframed, worker_of
from tests.e2e.server.running import Running, address_of, done, made, new_key

_MEMORY_BYTES = 768 << 20
_D = 8


class World:
    """A server with two tenants; keys of the first that may write, read, or use one index alone."""

    def __init__(self, running: Running, keys: dict[str, str]) -> None:
        self.running, self.keys = running, keys

    def caller(self, key: str = "write", session: str | None = None) -> Caller:
        return Caller(self.running, self.keys[key], session)

    def worker(self, tenant: str = "acme") -> int:
        return worker_of(self.running, tenant)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = made(tmp_path_factory.mktemp("hostile") / "db")
    keys = {
        "write": new_key(folder, "acme", "write")[1],
        "read": new_key(folder, "acme", "read")[1],
        "some": new_key(folder, "acme", "write", indexes=["allowed"])[1],
        "other": new_key(folder, "other", "write")[1],
    }
    with Running(folder, "--faiss-memory-bytes", _MEMORY_BYTES, "--body-timeout-s", 2) as running:
        yield World(running, keys)


@pytest.fixture
def caller(world: World) -> Caller:
    return world.caller()


@pytest.fixture
def bystander(world: World) -> Iterator[None]:
    """Somebody of another tenant, whose index is as before at the end."""
    other = world.caller("other")
    index = other.factory("Flat")
    other.call(index, "add", rows(5))
    yield
    assert other.get(index, "ntotal") == 5


def _is_fine(caller: Caller) -> None:
    index = caller.factory("Flat")
    caller.call(index, "add", rows(3))
    assert caller.get(index, "ntotal") == 3


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
    _is_fine(caller)
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
    _is_fine(caller)


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
    _is_fine(caller)


def test_a_body_whose_sender_goes_is_let_go(world: World, caller: Caller) -> None:
    content = framed(_HELLO)
    for _ in range(40):  # more than there are connections to the tenant's process
        with socket.create_connection(address_of(world.running.url)) as connection:
            head = _request(world, f"Content-Length: {len(content)}")
            connection.sendall(head.encode() + b"\r\n\r\n" + content[:9])
    _is_fine(caller)


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, "9" * 5000, "1e3", str(2**40)])
def test_a_length_that_is_none_or_too_much_is_refused(world: World, length: str, caller: Caller) -> None:
    found = _raw(world, _request(world, f"Content-Length: {length}"), b"1234", is_closed=True)
    assert found[9:10] == b"4", found[:200]
    _is_fine(caller)


def test_a_body_without_a_length_is_refused(world: World, caller: Caller) -> None:
    response = caller.http.post(PATH, content=iter([framed(_HELLO)]))
    assert response.status_code == 422
    _is_fine(caller)


def test_other_media_and_methods_are_refused(caller: Caller) -> None:
    assert caller.post(framed(_HELLO), **{"content-type": "application/json"}).status_code == 415
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        assert caller.http.request(method, PATH).status_code == 405


def test_without_a_key_nothing_is_answered(world: World) -> None:
    assert Caller(world.running).post(framed(_HELLO)).status_code == 401
    assert Caller(world.running, "fb_x_y").post(framed(_HELLO)).status_code == 401


# ---- keys ----------------------------------------------------------------------------------------


def _saved(caller: Caller, name: str, n: int = 10) -> int:
    index = caller.factory("Flat")
    caller.call(index, "add", rows(n))
    caller.ask("save", name=name, target=index)
    return index


def test_a_read_key_searches_named_indexes_and_changes_nothing(world: World, caller: Caller) -> None:
    _saved(caller, "shared")
    read = world.caller("read")
    index = read.open("shared")
    assert read.call(index, "search", rows(2), 3)[1].shape == (2, 3)
    assert read.call(index, "reconstruct", 3).shape == (_D,)
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
    _saved(caller, "allowed")
    _saved(caller, "secret")
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
    index = _saved(caller, "private")
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
    index = _saved(caller, f"mine-{key}")
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


# ---- what FAISS is asked -------------------------------------------------------------------------

REFUSED = {
    "hnsw m 0": ("IndexHNSWFlat", [8, 0]),
    "hnsw m 1": ("IndexHNSWFlat", [8, 1]),
    "hnsw m -4": ("IndexHNSWFlat", [8, -4]),
    "hnsw pq m 0": ("IndexHNSWSQ", [8, 8, 0]),
    "nsg r 0": ("IndexNSGFlat", [8, 0]),
    "a negative dimension": ("IndexFlatL2", [-1]),
    "pq of 0 parts": ("ProductQuantizer", [8, 0, 8]),
    "pq of 0 bits": ("ProductQuantizer", [8, 4, 0]),
    "a residual quantizer of nothing": ("ResidualQuantizer", [8, 0, 4]),
    "a local search quantizer of nothing": ("LocalSearchQuantizer", [8, 0, 4]),
    "lists on disk": ("OnDiskInvertedLists", [4, 8, "/tmp/x"]),
    "a python callback": ("PyCallbackIDSelector", [1]),
    "a file": ("FileIOWriter", ["/tmp/x"]),
    "a private class": ("_swigfaiss", []),
    "a module": ("os", []),
}


@pytest.mark.parametrize("made", REFUSED.values(), ids=REFUSED.keys())
def test_what_would_end_the_process_is_not_made(
    world: World, caller: Caller, made: tuple[str, list[Any]]
) -> None:
    worker = world.worker() if caller.ask("hello") else 0
    with pytest.raises(Failed):
        caller.ask("make", name=made[0], args=made[1])
    _is_fine(caller)
    assert world.worker() == worker


FACTORIES = [
    "HNSW0",
    "HNSW1",
    "HNSW0_SQ8",
    "IVF4_HNSW1,Flat",
    "IDMap,HNSW0",
    "NSG0",
    "RQ0x4",
    "LSQ0x4",
    "PLSQ2x0x4",
    "PQ4x0",
    "PQ0",
    "IVF0,Flat",
    "IMI0x0",
    "LSQ1000x16",
    "RQ4x24",
    "IVF100000000,Flat",
    "IMI2x16,Flat",
    "OPQ4_2000000,PQ4",
    "PQ4x24",
    "HNSW100000000",
]


def _used(caller: Caller, text: str) -> None:
    index = caller.factory(text)
    caller.call(index, "train", rows(300))
    caller.call(index, "add", rows(10))
    caller.call(index, "search", rows(1), 3)


@pytest.mark.parametrize("text", [*FACTORIES, pytest.param("PCA4," * 4000 + "Flat", id="20,000 letters")])
def test_a_hostile_factory_string_is_refused(
    world: World, caller: Caller, text: str, bystander: None
) -> None:
    worker = world.worker() if caller.ask("hello") else 0
    with pytest.raises(Failed):
        _used(caller, text)
    _is_fine(caller)
    assert world.worker() == worker


SETTINGS: list[tuple[str, str, Any]] = [
    ("HNSW8", "hnsw.efSearch", 2**31 - 1),
    ("HNSW8", "hnsw.efSearch", -(2**31)),
    ("HNSW8", "hnsw.efConstruction", 2**31 - 1),
    ("HNSW8", "hnsw.max_level", 2**20),
    ("HNSW8", "hnsw.entry_point", 10**6),
    ("HNSW8", "hnsw.upper_beam", -7),
    ("NSG8", "nsg.search_L", 2**31 - 1),
    ("NSG8", "nsg.search_L", -5),
    ("IVF2,PQ4x4", "use_precomputed_table", 1),
    ("IVF2,PQ4x4", "use_precomputed_table", 2),
    ("IVF2,PQ4x4", "use_precomputed_table", -9),
    ("IVF2,PQ4x4", "use_precomputed_table", 99),
    ("IVF2,PQ4x4", "by_residual", False),
    ("IVF2,PQ4x4", "polysemous_ht", -9),
    ("IVF2,PQ4x4", "scan_table_threshold", 2**40),
    ("IVF2,Flat", "nprobe", 0),
    ("IVF2,Flat", "nprobe", 2**60),
    ("IVF2,Flat", "parallel_mode", 99),
    ("IVF2,Flat", "nlist", 10**6),
    ("IVF2,Flat", "own_invlists", True),
    ("IVF2,Flat", "own_fields", True),
    ("IVF2,Flat", "code_size", 1),
    ("PQ4x4", "search_type", 99),
    ("PQ4x4", "polysemous_ht", 10**6),
    ("PQ4x4", "pq.M", 10**4),
    ("PQ4x4", "pq.nbits", 24),
    ("PQ4x4fs", "implem", 99),
    ("PQ4x4fs", "qbs", 0x99999),
    ("PQ4x4fs", "qbs", -1),
    ("PQ4x4fs", "bbs", 7),
    ("IVF2,PQ4x4fs", "qbs2", 0x7FFFFFF),
    ("IVF2,PQ4x4fs", "implem", 12345),
    ("PQ4x4,RFlat", "k_factor", 1e30),
    ("PQ4x4,RFlat", "k_factor", -1.0),
    ("RaBitQ", "qb", 99),
    ("RQ2x4", "rq.max_beam_size", -1),
    ("Flat", "d", 100),
    ("Flat", "ntotal", 10**9),
    ("Flat", "ntotal", -1),
    ("Flat", "is_trained", False),
    ("Flat", "metric_type", 99),
    ("Flat", "metric_type", 22),
    ("HNSW8", "metric_type", 99),
    ("SQ8", "metric_type", 99),
    ("PCA4,Flat", "is_trained", False),
]


@pytest.mark.parametrize(
    ("factory", "field", "value"), SETTINGS, ids=[f"{f} {name}={value}" for f, name, value in SETTINGS]
)
def test_a_field_leads_nowhere_outside(
    world: World, caller: Caller, factory: str, field: str, value: Any
) -> None:
    """It is refused, or whatever is done with the index afterwards is."""
    index = caller.factory(factory)
    caller.call(index, "train", rows(400))
    caller.call(index, "add", rows(400))
    worker = world.worker()
    owner, name = index, field
    if "." in field:
        part, name = field.split(".")
        owner = caller.get(index, part)
    for attempt in (
        lambda: caller.set(owner, name, value),
        lambda: caller.call(index, "search", rows(40), 5),
        lambda: caller.call(index, "search", rows(1), 1),
        lambda: caller.call(index, "range_search", rows(2), 0.5),
        lambda: caller.call(index, "add", rows(20)),
        lambda: caller.call(index, "search", rows(3), 200),
        lambda: caller.call(index, "reconstruct_n"),
        lambda: caller.ask("fetch", target=index),
        lambda: caller.call(index, "reset"),
    ):
        try:
            attempt()
        except Failed:
            continue
    _is_fine(caller)
    assert world.worker() == worker


def test_an_index_cannot_be_made_a_part_of_itself(world: World, caller: Caller) -> None:
    worker = None
    for name, attach in (("IndexShards", "add_shard"), ("IndexReplicas", "add_replica")):
        outer, inner = (caller.ask("make", name=name, args=[_D]) for _ in range(2))
        worker = worker or world.worker()
        caller.call(outer, attach, Thing(inner))
        for target, part in ((outer, outer), (inner, outer), (inner, inner)):
            with pytest.raises(Failed, match="itself"):
                caller.call(target, attach, Thing(part))
    index = caller.factory("IVF2,Flat")
    with pytest.raises(Failed):
        caller.call(index, "merge_from", Thing(index), 0)
    assert world.worker() == worker


def _filled(caller: Caller, index: int) -> None:
    for _ in range(40):
        caller.call(index, "add", rows(20_000, 1024))


def test_memory_is_bounded_for_the_tenant_alone(world: World, caller: Caller, bystander: None) -> None:
    index = caller.factory("Flat", 1024)
    with pytest.raises(Failed) as failed:
        _filled(caller, index)
    assert failed.value.kind in ("MemoryError", "FrameError"), failed.value
    caller.ask("end")
    _is_fine(caller)


# ---- files ---------------------------------------------------------------------------------------


def _file(factory: str) -> bytes:
    index = faiss.index_factory(_D, factory)
    index.train(rows(200))
    index.add(rows(200))
    return bytes(faiss.serialize_index(index))


def _sent(caller: Caller, content: bytes, kind: str = "index") -> int:
    data = np.frombuffer(content, np.uint8)
    return int(caller.ask("read", [data], args=[{"array": 0}, kind]))


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8", "IVF4,PQ4x4", "PCA4,SQ8", "IDMap2,LSH"])
def test_damaged_files_are_refused_or_read(world: World, caller: Caller, factory: str) -> None:
    whole = _file(factory) if not factory.startswith("IDMap") else _file_with_ids()
    index = _sent(caller, whole)
    assert caller.get(index, "ntotal") == 200
    worker = world.worker()
    random = np.random.default_rng(5)
    for n in range(8):
        damaged = bytearray(whole)
        span = 200 if n % 2 else len(whole)  # the head is where it hurts
        for at in random.integers(0, span, 1 + n % 4):
            damaged[at] = random.integers(256)
        try:
            _sent(caller, bytes(damaged[: len(damaged) - (n == 7) * 99]))
        except Failed:
            continue
    assert world.worker() == worker


def _file_with_ids() -> bytes:
    index = faiss.IndexIDMap2(faiss.IndexLSH(_D, 8))
    index.add_with_ids(rows(200), np.arange(200))
    return bytes(faiss.serialize_index(index))


def _on_disk(folder: str) -> Any:
    """An index whose lists are in a file, as it says itself."""
    index = faiss.index_factory(_D, "IVF4,Flat")
    index.train(rows(200))
    lists = faiss.OnDiskInvertedLists(index.nlist, index.code_size, f"{folder}/lists")
    index.replace_invlists(lists)
    index.add(rows(200))
    return index, lists


NESTS = ("plain", "IDMap", "PreTransform", "Refine", "Shards", "quantizer", "IDMap in Shards")


@pytest.mark.parametrize("nest", NESTS)
def test_lists_on_disk_are_refused_wherever_they_are(world: World, caller: Caller, nest: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        index, lists = _on_disk(folder)
        content = bytes(faiss.serialize_index(_nested(nest, index)))
        assert b"ilod" in content
        with pytest.raises(Failed, match="on disk cannot be sent"):
            _sent(caller, content)
        with pytest.raises(Failed):
            _sent(caller, content, "binary")
        del lists


def _nested(nest: str, index: Any) -> Any:
    if nest == "IDMap":
        index.reset()
        return faiss.IndexIDMap(index)
    if nest == "PreTransform":
        return faiss.IndexPreTransform(faiss.RandomRotationMatrix(_D, _D), index)
    if nest == "Refine":
        index.reset()
        return faiss.IndexRefine(index, faiss.IndexFlatL2(_D))
    if nest == "quantizer":
        return faiss.IndexIVFFlat(index, _D, 200)
    if nest == "Shards":
        outer = faiss.IndexShards(_D)
        outer.add_shard(index)
        # Shards cannot be written: what can, stands for them.
        return faiss.IndexPreTransform(index)
    if nest == "IDMap in Shards":
        index.reset()
        return faiss.IndexPreTransform(faiss.IndexIDMap(index))
    return index


# ---- the process itself --------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=lambda how: how.name)
def test_a_process_that_ends_is_its_tenants_loss_alone(
    world: World, caller: Caller, how: signal.Signals, bystander: None
) -> None:
    name = f"kept-{how.name}"
    index = _saved(caller, name)
    os.kill(world.worker(), how)
    response = caller.post(
        framed({"op": "get", "session": caller.session, "name": "ntotal", "target": index})
    )
    if response.status_code == 503:  # else the next process has answered already, and knows of no object
        assert how.name in response.json()["error"]["message"]
    else:
        assert unframed(response.content)[0]["error"]["refused"] == "Gone"
    assert caller.get(caller.open(name), "ntotal") == 10


def test_at_the_end_the_server_is_as_at_first(world: World) -> None:
    with world.running.client() as client:
        assert done(client.get("/health/ready"))["ready"] is True
    assert not [line for line in world.running.logged() if line["level"] == "error"]
