"""What FAISS is asked by clients that want to do harm: it is refused, or their own process alone ends."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import faiss
import numpy as np
import pytest
from tests.e2e.server.faiss_calls import Caller, Failed, Thing, framed, rows, unframed
from tests.e2e.server.faiss_world import D, World, is_fine, saved
from tests.e2e.server.running import done

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
    is_fine(caller)
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
    is_fine(caller)
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
    is_fine(caller)
    assert world.worker() == worker


@pytest.mark.parametrize("name", ["omp_set_num_threads", "omp_set_nested"])
def test_a_switch_of_the_process_is_nobodys_to_call(caller: Caller, name: str) -> None:
    with pytest.raises(Failed, match="runs in this process"):
        caller.ask("function", name=name, args=[1])
    with pytest.raises(Failed, match="cannot be made"):
        caller.ask("make", name="SIMDConfig", args=[])


def test_the_tenants_have_processes_of_their_own(world: World) -> None:
    for key in ("write", "other"):
        world.caller(key).factory("Flat")
    assert world.worker("acme") != world.worker("other")


def test_an_index_cannot_be_made_a_part_of_itself(world: World, caller: Caller) -> None:
    worker = None
    for name, attach in (("IndexShards", "add_shard"), ("IndexReplicas", "add_replica")):
        outer, inner = (caller.ask("make", name=name, args=[D]) for _ in range(2))
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
    is_fine(caller)


# ---- what FAISS does not survive -----------------------------------------------------------------


def _call_with(caller: Caller, target: int, name: str, arrays: list[Any], params: Any) -> Any:
    args = [{"array": 0}, 3]
    kwargs = {"dict": [["params", params]]}
    return caller.ask("call", arrays, name=name, target=target, args=args, kwargs=kwargs)


def test_calls_that_end_faiss_are_refused(world: World, caller: Caller, bystander: None) -> None:
    refining = caller.factory("IVF4,PQ4+4")
    flat, empty = (caller.factory(text) for text in ("Flat", "HNSW8"))
    graph = int(caller.ask("make", name="IndexNNDescentFlat", args=[D, 100]))
    worker = world.worker()
    caller.call(refining, "train", rows(400))
    caller.call(refining, "add_with_ids", rows(10), np.arange(10) + 10**9)
    selector = {"value": ["IDSelectorRange", [9, 20], {"dict": []}, {"dict": []}]}
    params = {"value": ["SearchParameters", [], {"dict": [["sel", selector]]}, {"dict": []}]}
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("keeps its refining codes", lambda: caller.call(refining, "search", rows(1), 3)),
        ("is in IDSelectorRange", lambda: _call_with(caller, flat, "search", [rows(1)], params)),
        ("without vectors", lambda: caller.call(empty, "range_search", rows(1), 1.0)),
    ]
    for why, attempt in attempts:
        with pytest.raises(Failed, match=why):
            attempt()
    # FAISS reads numbers that were never written, which now and then are fit: mostly refused, never its end.
    with suppress(Failed):
        caller.call(graph, "add", rows(120))
    is_fine(caller)
    assert world.worker() == worker


# ---- files ---------------------------------------------------------------------------------------


def _file(factory: str) -> bytes:
    index = faiss.index_factory(D, factory)
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
    index = faiss.IndexIDMap2(faiss.IndexLSH(D, 8))
    index.add_with_ids(rows(200), np.arange(200))
    return bytes(faiss.serialize_index(index))


def _on_disk(folder: str) -> Any:
    """An index whose lists are in a file, as it says itself."""
    index = faiss.index_factory(D, "IVF4,Flat")
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
        return faiss.IndexPreTransform(faiss.RandomRotationMatrix(D, D), index)
    if nest == "Refine":
        index.reset()
        return faiss.IndexRefine(index, faiss.IndexFlatL2(D))
    if nest == "quantizer":
        return faiss.IndexIVFFlat(index, D, 200)
    if nest == "Shards":
        outer = faiss.IndexShards(D)
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
    index = saved(caller, name)
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
