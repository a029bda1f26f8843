"""Named FAISS indexes: in the routes of indexes, and after the end of the processes that had them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.e2e.server.faiss_calls import Caller, Failed, Thing, framed, rows, special, unframed, worker_of
from tests.e2e.server.running import Running, done, made, new_key, refused

from faissbase.dropin import frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "db")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(made(tmp_path_factory.mktemp("shared") / "db")) as found:
        yield found


@pytest.fixture
def running(shared: Running) -> Running:
    """The server of this module, with no index left on it."""
    with shared.client() as client:
        for each in done(client.get("/index"))["indexes"]:
            done(client.delete(f"/index/{each['name']}"), 204)
    return shared


def _saved(caller: Caller, name: str, factory: str = "Flat", n: int = 10) -> int:
    index = caller.factory(factory)
    if factory != "Flat":
        caller.call(index, "train", rows(200))
    if n:
        caller.call(index, "add", rows(n))
    caller.ask("save", name=name, target=index)
    return index


# ---- REST ----------------------------------------------------------------------------------------


def test_a_named_index_is_listed_described_searched_and_deleted(running: Running) -> None:
    caller = Caller(running)
    index = _saved(caller, "named", "IVF2,Flat")
    caller.call(index, "add", rows(5, seed=3))
    wanted = caller.call(index, "search", rows(2), 3)
    with running.client() as client:
        [found] = done(client.get("/index"))["indexes"]
        assert (found["name"], found["kind"], found["index_type"]) == ("named", "faiss", "IndexIVFFlat")
        info = done(client.get("/index/named"))
        assert (info["dimension"], info["metric"], info["ntotal"]) == (8, "l2", 15)
        assert done(client.get("/index/named/ntotal")) == {"ntotal": 15}
        many = done(client.post("/index/named/search", json={"vectors": rows(2).tolist(), "k": 3}))["results"]
        assert [[hit["id"] for hit in hits] for hits in many] == wanted[1].astype(str).tolist()
        one = done(client.post("/index/named/search", json={"vector": rows(1)[0].tolist(), "k": 3}))[
            "results"
        ]
        assert [hit["distance"] for hit in one] == pytest.approx(wanted[0][0].tolist())
        assert one[0]["score"] >= one[1]["score"]
        assert one[0]["metadata"] == {}
        assert done(client.delete("/index/named"), 204) is None
        assert done(client.get("/index"))["indexes"] == []
        refused(client.get("/index/named"), 404, "not_found")


def test_what_makes_no_sense_for_one_is_refused_clearly(running: Running) -> None:
    _saved(Caller(running), "named")
    vector = rows(1)[0].tolist()
    with running.client() as client:
        for more in ({"filter": {"a": 1}}, {"text": "x"}, {"nprobe": 3}, {"explain": True}):
            answer = client.post("/index/named/search", json={"vector": vector, **more})
            refused(answer, 422, "invalid_input")
        refused(client.post("/index/named/search", json={"vector": [1.0]}), 422, "invalid_input")
        upsert = {"vectors": [{"id": "a", "values": vector}]}
        refused(client.post("/index/named/vectors", json=upsert), 409, "conflict")
        refused(client.post("/index/named/optimize", json={}), 409, "conflict")


def test_a_name_is_taken_by_either_kind(running: Running) -> None:
    caller = Caller(running)
    index = _saved(caller, "first")
    with running.client() as client:
        body = {"name": "first", "dimension": 8, "metric": "l2"}
        refused(client.post("/index", json=body), 409, "already_exists")
        done(client.post("/index", json=body | {"name": "second"}), 201)
    with pytest.raises(AssertionError, match="already_exists"):
        caller.ask("save", name="second", target=index)


def test_indexes_of_both_kinds_count_for_the_quota(folder: Path) -> None:
    with Running(folder, "--max-indexes", 2) as running, running.client() as client:
        caller = Caller(running)
        index = _saved(caller, "one")
        body = {"name": "two", "dimension": 8, "metric": "l2"}
        done(client.post("/index", json=body), 201)
        refused(client.post("/index", json=body | {"name": "three"}), 429, "quota_exceeded")
        with pytest.raises(AssertionError, match="quota_exceeded"):
            caller.ask("save", name="three", target=index)


def test_of_two_who_give_one_name_at_a_time_one_wins(running: Running) -> None:
    caller = Caller(running)
    index = caller.factory("Flat")
    caller.call(index, "add", rows(2000))
    wins: list[str] = []
    with running.client() as client:

        def save(name: str) -> None:
            response = caller.post(
                framed({"op": "save", "session": caller.session, "name": name, "target": index})
            )
            if response.status_code == 200 and "error" not in unframed(response.content)[0]:
                wins.append(f"{name} as a FAISS index")
            else:
                assert "already_exists" in response.text

        def create(name: str) -> None:
            response = client.post("/index", json={"name": name, "dimension": 8, "metric": "l2"})
            if response.status_code == 201:
                wins.append(f"{name} as a collection")
            else:
                refused(response, 409, "already_exists")

        for n in range(20):
            both = [threading.Thread(target=each, args=(f"n{n}",)) for each in (save, create)]
            for thread in both if n % 2 else both[::-1]:
                thread.start()
            for thread in both:
                thread.join()
        assert sorted(win.split()[0] for win in wins) == sorted(f"n{n}" for n in range(20)), wins
        names = [each["name"] for each in done(client.get("/index"))["indexes"]]
        assert len(names) == len(set(names)) == 20


def test_a_named_index_grows_within_the_quota_of_its_tenant(folder: Path) -> None:
    with Running(folder, "--max-tenant-bytes", 2_000_000) as running:
        caller = Caller(running)
        index = _saved(caller, "one", n=10_000)
        anonymous = caller.factory("Flat")
        caller.call(anonymous, "add", rows(100_000))  # what has no name counts for memory alone
        for _ in range(4):
            caller.call(index, "add", rows(10_000))
        with pytest.raises(AssertionError, match=r"quota_exceeded.*may hold"):
            caller.call(index, "add", rows(30_000))
        assert caller.get(index, "ntotal") == 50_000
        with pytest.raises(AssertionError, match="quota_exceeded"):
            caller.call(index, "merge_from", Thing(anonymous), 0)
        with pytest.raises(AssertionError, match="quota_exceeded"):
            caller.ask("save", name="two", target=anonymous)
        assert [each["name"] for each in caller.ask("list")] == ["one"]
        n = caller.get(index, "ntotal")
        caller.call(index, "remove_ids", np.arange(n))  # what makes it smaller goes on
        assert caller.get(caller.open("one"), "ntotal") == 0
        body = {"name": "docs", "dimension": 8, "metric": "l2"}
        with running.client() as client:
            refused(client.post("/index", json=body | {"name": "one"}), 409, "already_exists")


@pytest.mark.parametrize("way", ["copied", "replaced", "merged", "by keyword"])
def test_a_named_index_takes_no_more_of_others_than_its_tenant_may_hold(folder: Path, way: str) -> None:
    with Running(folder, "--max-tenant-bytes", 400_000) as running:
        caller = Caller(running)
        small, big = caller.factory("IVF4,Flat"), caller.factory("IVF4,Flat")
        for index, n in ((small, 1_000), (big, 20_000)):
            caller.call(index, "train", rows(1_000))
            caller.call(index, "add", rows(n))
        caller.ask("save", name="one", target=small)
        with pytest.raises(AssertionError, match=r"quota_exceeded.*may hold"):
            _given(caller, small, big, way)
        stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        assert stored < 400_000


def _given(caller: Caller, small: int, big: int, way: str) -> None:
    """Give the index ``small`` what ``big`` has."""
    lists = Thing(caller.get(big, "invlists"))
    if way == "copied":
        caller.call(big, "copy_subset_to", Thing(small), 0, 0, 20_000)
    elif way == "replaced":
        caller.call(small, "replace_invlists", lists)
    elif way == "merged":
        caller.call(caller.get(small, "invlists"), "merge_from", lists, 0)
    else:
        kwargs = frames.encode({"otherIndex": Thing(big), "add_id": 0}, [], special)
        caller.ask("call", name="merge_from", target=small, kwargs=kwargs)


def test_a_part_that_takes_the_place_of_another_counts_for_the_quota(folder: Path) -> None:
    with Running(folder, "--max-tenant-bytes", 400_000) as running:
        caller, n = Caller(running), 15_000
        index, large = caller.factory("IDMap,SQ8"), caller.factory("Flat")
        caller.call(index, "train", rows(1_000))
        caller.call(index, "add_with_ids", rows(n), np.arange(n))
        caller.call(large, "add", rows(n))
        caller.ask("save", name="one", target=index)
        with pytest.raises(AssertionError, match=r"quota_exceeded.*may hold"):
            caller.set(index, "index", {"object": large})
        assert caller.get(index, "ntotal") == n


def test_a_named_index_of_bits_is_searched_by_bytes(running: Running) -> None:
    caller = Caller(running)
    index = int(caller.ask("function", name="index_binary_factory", args=[32, "BFlat"]))
    bits = np.random.default_rng(1).integers(0, 256, (20, 4), dtype=np.uint8)
    caller.call(index, "add", bits)
    caller.ask("save", name="bits", target=index)
    wanted_d, wanted_i = caller.call(index, "search", bits[3:5], 3)
    with running.client() as client:
        body = {"vectors": bits[3:5].tolist(), "k": 3}
        found = done(client.post("/index/bits/search", json=body))["results"]
        assert [[int(hit["id"]) for hit in hits] for hits in found] == wanted_i.tolist()
        assert [[hit["distance"] for hit in hits] for hits in found] == wanted_d.tolist()
        assert found[0][0]["score"] >= found[0][1]["score"]
        for vector in ([1, 2, 3, 256], [1, 2, 3, 0.5], [-1, 2, 3, 4]):
            text = refused(client.post("/index/bits/search", json={"vector": vector}), 422, "invalid_input")
            assert "4 whole numbers from 0 to 255" in text
        refused(client.post("/index/bits/search", json={"vector": [1] * 32}), 422, "invalid_input")


def test_a_key_for_some_indexes_sees_those(folder: Path) -> None:
    _, write = new_key(folder, "acme", "write")
    _, some = new_key(folder, "acme", "read", indexes=["allowed"])
    _, other = new_key(folder, "other", "write")
    with Running(folder) as running:
        for name in ("allowed", "secret"):
            _saved(Caller(running, write), name)
        with running.client(some) as client:
            assert [each["name"] for each in done(client.get("/index"))["indexes"]] == ["allowed"]
            refused(client.get("/index/secret"), 404, "not_found")
            refused(client.delete("/index/allowed"), 403, "access")
        with running.client(other) as client:
            assert done(client.get("/index"))["indexes"] == []
            refused(client.get("/index/allowed"), 404, "not_found")


# ---- durability ----------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["server and worker", "worker"])
def test_acknowledged_calls_survive_a_kill_in_their_middle(folder: Path, who: str) -> None:
    acknowledged: list[int] = []
    with Running(folder) as running:
        caller = Caller(running)
        index = _saved(caller, "kept", "IVF4,Flat", n=0)

        def add() -> None:
            for n in range(10_000):
                try:
                    caller.call(index, "add", rows(50, seed=n))
                    acknowledged.append(n)
                    if n % 5 == 4:
                        caller.call(index, "remove_ids", np.arange(n, n + 2))
                except Exception:  # noqa: BLE001  # the process is gone, in whatever way that shows
                    return

        thread = threading.Thread(target=add)
        thread.start()
        while len(acknowledged) < 30:
            thread.join(0.01)
        if who == "worker":
            os.kill(worker_of(running), signal.SIGKILL)
        else:
            _kill(running)
        thread.join()
    with Running(folder) as running:
        caller = Caller(running)
        index = caller.open("kept")
        n, n_removals = len(acknowledged), len(acknowledged) // 5
        n_found = caller.get(index, "ntotal")
        assert 50 * n - 2 * (n_removals + 1) <= n_found <= 50 * (n + 1)
        for seed in acknowledged[-20:]:
            distances, _ = caller.call(index, "search", rows(50, seed=seed)[10:11], 1)
            assert distances[0, 0] == 0


def _kill(running: Running) -> None:
    """Kill the server and the process with its objects, which ends soon without it."""
    worker = worker_of(running)
    running.process.kill()
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)


def test_a_reset_and_what_came_after_it_survive(folder: Path) -> None:
    with Running(folder) as running:
        caller = Caller(running)
        index = _saved(caller, "kept")
        caller.call(index, "reset")
        caller.call(index, "add", rows(3))
        _kill(running)
    with Running(folder) as running:
        caller = Caller(running)
        assert caller.get(caller.open("kept"), "ntotal") == 3


# How long what follows the last whole call is, and what; where a bit is turned.
_TORN: dict[str, Callable[[bytes], bytes]] = {
    "1 byte": lambda content: content + content[:1],
    "10 bytes": lambda content: content + content[:10],
    "100 bytes": lambda content: content + content[:100],
    "all but a byte": lambda content: content + content[: len(content) // 3 - 1],
    "zeros": lambda content: content + bytes(5000),
}
_FLIPPED: dict[str, Callable[[bytes], int]] = {
    "first": lambda content: 0,
    "length": lambda content: 13,
    "head": lambda content: 30,
    "middle": lambda content: len(content) // 2,
    "last": lambda content: len(content) - 1,
}


def _flip(file: Path, at: int, bit: int = 0x10) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= bit
    file.write_bytes(content)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """A server over copies of one index, each with three calls in its journal, and damaged as its name says.

    The processes that had the index were killed.
    """
    folder = made(tmp_path_factory.mktemp("damaged") / "db")
    with Running(folder) as running:
        caller = Caller(running)
        index = _saved(caller, "kept")
        for seed in range(3):
            caller.call(index, "add", rows(10, seed=seed))
        _kill(running)
    kept = folder / "default/.faiss/kept"
    for number, tear in enumerate(_TORN.values()):
        [journal] = shutil.copytree(kept, kept.with_name(f"torn{number}")).glob("journal.*")
        journal.write_bytes(tear(journal.read_bytes()))
    for number, place in enumerate(_FLIPPED.values()):
        [journal] = shutil.copytree(kept, kept.with_name(f"flipped{number}")).glob("journal.*")
        _flip(journal, place(journal.read_bytes()))
    [file] = shutil.copytree(kept, kept.with_name("index")).glob("index.*.faiss")
    _flip(file, file.stat().st_size // 2, 1)
    with Running(folder) as running:
        yield Caller(running)


def _ntotal(caller: Caller, name: str = "kept") -> Any:
    return caller.get(caller.open(name), "ntotal")


@pytest.mark.parametrize("number", range(len(_TORN)), ids=list(_TORN))
def test_a_torn_end_is_cut(damaged: Caller, number: int) -> None:
    assert _ntotal(damaged, f"torn{number}") == 40


@pytest.mark.parametrize("number", range(len(_FLIPPED)), ids=list(_FLIPPED))
def test_a_flipped_bit_is_told_and_never_a_shorter_index(damaged: Caller, number: int) -> None:
    with pytest.raises(Failed) as failed:
        _ntotal(damaged, f"flipped{number}")
    assert failed.value.kind == "corruption"


def test_a_damaged_index_file_is_told_and_others_serve(damaged: Caller) -> None:
    with pytest.raises(Failed) as failed:
        _ntotal(damaged, "index")
    assert failed.value.kind == "corruption"
    assert _ntotal(damaged) == 40


def test_a_clean_stop_leaves_an_empty_journal(folder: Path) -> None:
    with Running(folder) as running:
        caller = Caller(running)
        index = _saved(caller, "kept")
        caller.call(index, "add", rows(10))
        assert running.stop() == 0
    [journal] = (folder / "default/.faiss/kept").glob("journal.*")
    assert journal.stat().st_size == 0
    assert json.loads((journal.parent / "index.json").read_text())["ntotal"] == 20
    with Running(folder) as running:
        assert _ntotal(Caller(running)) == 20


def test_two_handles_are_one_index_and_a_deleted_one_is_told(running: Running) -> None:
    first, second = Caller(running), Caller(running)
    index = _saved(first, "shared")
    other = second.open("shared")
    second.call(other, "add", rows(2))
    assert first.get(index, "ntotal") == 12
    second.ask("delete", name="shared")
    for attempt in ("add", "search"):
        with pytest.raises(Failed) as failed:
            first.call(index, attempt, rows(1), *([1] if attempt == "search" else []))
        assert failed.value.kind == "conflict"
    _saved(first, "shared", n=4)
    assert second.get(second.open("shared"), "ntotal") == 4


@pytest.mark.parametrize("name", ["", "..", ".x", "a/b", "a\0", "x" * 129, "ä"])
def test_a_name_that_is_none_is_refused(running: Running, name: str) -> None:
    caller = Caller(running)
    index = caller.factory("Flat")
    with pytest.raises(Failed) as failed:
        caller.ask("save", name=name, target=index)
    assert failed.value.kind == "invalid_input"
