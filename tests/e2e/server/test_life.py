"""The process itself: how it starts, what it refuses to be, how it ends and what is there afterwards."""

from __future__ import annotations

import resource
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import orjson
import pytest
import trustme
from tests.e2e.server.running import PATIENCE_S, Running, done, environment, made, new_key, refused, run

import faissbase
from faissbase.database.database import Database
from faissbase.storage.sqlite import PAGE_BYTES

D = 8
N_WRITERS = 4
N_BATCH = 5
N_BEFORE_KILL = 60
N_SEARCHED = 1500
K = 50
N_CARED_FOR = 3000
LONGEST_S = 2.0
JSON = {"content-type": "application/json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "data")


@pytest.fixture
def key(folder: Path) -> str:
    return new_key(folder, "acme", "admin")[1]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    stop = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < stop, what
        time.sleep(0.005)


# ---- killed -----------------------------------------------------------------------------------------


@dataclass
class Writer:
    """Stores batches until the server is gone; remembers what was acknowledged."""

    running: Running
    key: str
    number: int
    acknowledged: dict[str, list[float]] = field(default_factory=dict)

    def work(self) -> None:
        rng = np.random.default_rng(self.number)
        with self.running.client(self.key) as http:
            try:
                for step in range(100_000):
                    rows = rng.normal(size=(N_BATCH, D)).astype(np.float32).tolist()
                    batch = {f"{self.number}-{step}-{i}": row for i, row in enumerate(rows)}
                    records = [{"id": id, "values": row} for id, row in batch.items()]
                    done(http.post("/index/docs/vectors", json={"vectors": records}))
                    self.acknowledged |= batch
            except httpx.TransportError:
                return


def test_a_killed_server_has_lost_nothing_that_it_acknowledged(folder: Path, key: str) -> None:
    with Running(folder) as running:
        with running.client(key) as http:
            done(http.post("/index", json={"name": "docs", "dimension": D, "metric": "l2"}), 201)
        writers = [Writer(running, key, number) for number in range(N_WRITERS)]
        threads = [threading.Thread(target=writer.work) for writer in writers]
        for thread in threads:
            thread.start()
        enough = N_BEFORE_KILL * N_BATCH
        wait_until(lambda: sum(len(each.acknowledged) for each in writers) > enough, "too few writes")
        running.kill()
        for thread in threads:
            thread.join(PATIENCE_S)
    expected = {id: row for writer in writers for id, row in writer.acknowledged.items()}
    with Running(folder) as running, running.client(key) as http:
        assert holds(http, expected)
        assert done(http.post("/index/docs/verify"))["ok"]
        done(http.post("/index/docs/vectors", json={"vectors": [{"id": "after", "values": [0] * D}]}))
        assert running.stop() == 0


def holds(http: httpx.Client, expected: dict[str, list[float]]) -> bool:
    """Whether every record is there with its vector, and no batch is there in part."""
    body = {"filter": {}, "include_vectors": True, "limit": 10_000}
    found = {
        each["id"]: each["values"]
        for each in done(http.post("/index/docs/vectors/get", json=body))["vectors"]
    }
    assert {id: found.get(id) for id in expected} == expected
    return len(found) % N_BATCH == 0


# ---- told to stop -----------------------------------------------------------------------------------


@pytest.fixture
def searched(folder: Path) -> npt.NDArray[np.float64]:
    """Vectors of the collection ``docs`` of the tenant ``acme`` in the folder."""
    xb: npt.NDArray[np.float64] = np.random.default_rng(0).normal(size=(N_SEARCHED, 64)).round(3)
    with Database(folder, read_only=False, durability="full", tenant="acme") as db:
        db.create_collection("docs", 64, "l2").add([str(i) for i in range(len(xb))], xb)
    return xb


def gauge(http: httpx.Client, name: str) -> float:
    [line] = [line for line in http.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_requests_that_run_are_answered_before_the_end(
    folder: Path, key: str, searched: npt.NDArray[np.float64]
) -> None:
    answers: list[httpx.Response] = []
    body = orjson.dumps({"vectors": searched.tolist(), "k": K, "include": []})

    def ask() -> None:
        with running.client(key) as http:
            answers.append(http.post("/index/docs/search", content=body, headers=JSON))

    with Running(folder, "--threads", 8) as running, running.client(key) as watcher:
        threads: list[threading.Thread] = []

        def all_run() -> bool:
            if not any(thread.is_alive() for thread in threads):  # answered between two looks, or never asked
                answers.clear()
                threads[:] = [threading.Thread(target=ask) for _ in range(3)]
                for thread in threads:
                    thread.start()
            return gauge(watcher, "faissbase_requests_waiting") == 1 + len(threads)

        wait_until(all_run, "they were answered too fast")
        assert running.stop() == 0
        for thread in threads:
            thread.join(PATIENCE_S)
    assert [answer.status_code for answer in answers] == [200] * len(threads)
    assert {answer.content.count(b'"id"') for answer in answers} == {N_SEARCHED * K}
    assert [line["message"] for line in running.logged() if line["level"] != "info"] == []


def test_a_stopped_server_left_everything_to_the_next(folder: Path, key: str, searched: Any) -> None:
    with Running(folder) as running, running.client(key) as http:
        done(http.post("/index/docs/vectors", json={"vectors": [{"id": "new", "values": [0] * 64}]}))
        assert running.stop() == 0
    assert [path.name for path in folder.glob("*/*/*-wal")] == []
    with Database(folder, read_only=True, durability="full", tenant="acme") as db:
        assert len(db.get_collection("docs")) == N_SEARCHED + 1


# ---- while others wait ------------------------------------------------------------------------------


def test_a_search_does_not_wait_for_the_care_of_an_index(folder: Path, key: str) -> None:
    xb = np.random.default_rng(0).normal(size=(N_CARED_FOR, 64)).astype(np.float32)
    with Database(folder, read_only=False, durability="relaxed", tenant="acme") as db:
        db.create_collection("docs", 64, "l2", "HNSW").add([str(i) for i in range(len(xb))], xb)
    with Running(folder) as running, running.client(key) as http:
        cares = [f"/index/docs/{care}" for care in ("optimize", "verify", "verify")]
        threads = [threading.Thread(target=request, args=(running, key, path)) for path in cares]
        for thread in threads:
            thread.start()
        slowest, n = 0.0, 0
        while any(thread.is_alive() for thread in threads):
            began = time.monotonic()
            found = done(http.post("/index/docs/search", json={"vector": xb[n].tolist(), "k": 1}))
            slowest, n = max(slowest, time.monotonic() - began), n + 1
            assert len(found["results"]) == 1
        assert n > 1
        assert slowest < LONGEST_S
        assert done(http.get("/index/docs/stats"))["slots_indexed"] == N_CARED_FOR


def request(running: Running, key: str, path: str) -> None:
    with running.client(key) as http:
        done(http.post(path))


def test_many_tenants_do_not_use_up_the_files_that_a_process_may_open(folder: Path) -> None:
    tenants = [f"t{i}" for i in range(5)]
    for tenant in tenants:
        with Database(folder, read_only=False, durability="relaxed", tenant=tenant) as db:
            for i in range(8):
                db.create_collection(f"c{i}", 2)
    keys = [new_key(folder, tenant, "read")[1] for tenant in tenants]
    few_files = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (128, 128))
    with Running(folder, is_forked=False, preexec_fn=few_files) as running:
        for text in keys:
            with running.client(text) as http:
                for i in range(8):
                    assert done(http.post(f"/index/c{i}/search", json={"vector": [1, 2]})) == {"results": []}


# ---- who may come ------------------------------------------------------------------------------------


def test_a_public_address_is_served_where_it_is_meant(folder: Path, key: str) -> None:
    with Running(folder, "--host", "0.0.0.0", "--insecure") as running:
        assert running.url.startswith("http://0.0.0.0:")
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/index", headers={"X-API-Key": key}, trust_env=False).status_code == 200


def test_a_signal_as_soon_as_the_address_is_told_ends_it(folder: Path) -> None:
    program = """
import os, signal, sys
from faissbase.server.run import serve
from faissbase.server.settings import Settings
serve(Settings(data=sys.argv[1], port=0), lambda url, is_open: os.kill(os.getpid(), signal.SIGTERM))
"""
    command = [sys.executable, "-c", program, str(folder)]
    assert subprocess.run(command, timeout=PATIENCE_S, check=False, env=environment()).returncode == 0


def test_a_second_server_does_not_take_the_port_of_the_first(folder: Path, tmp_path: Path) -> None:
    with Running(folder) as running, running.client() as http:
        port = running.url.rpartition(":")[2]
        ran = run("serve", "--data", tmp_path / "other", "--port", port)
        assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (4, "", 1)
        assert ran.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}: Address already in use")
        assert done(http.get("/health"))["ready"]


def test_the_server_is_open_until_the_first_key_is_made(folder: Path) -> None:
    with Running(folder) as running, running.client() as http:
        done(http.post("/index", json={"name": "docs", "dimension": 2}), 201)
        with running.client("fb_000000000000_x") as stranger:
            refused(stranger.get("/index"), 401, "unauthenticated")
        _, text = new_key(folder, "default", "read")
        refused(http.get("/index"), 401, "unauthenticated")
        with running.client(text) as owner:
            assert [each["name"] for each in done(owner.get("/index"))["indexes"]] == ["docs"]


def test_the_first_key_may_be_made_by_http_and_closes_the_server(folder: Path) -> None:
    with Running(folder) as running, running.client() as http:
        made_key = done(http.post("/keys", json={"scopes": ["admin"]}), 201)
        refused(http.post("/keys", json={"scopes": ["admin"]}), 401, "unauthenticated")
        with running.client(made_key["key"]) as owner:
            assert done(owner.delete(f"/keys/{made_key['id']}"))["state"] == "revoked"
        refused(http.get("/index"), 401, "unauthenticated")


def test_an_open_server_is_closed_to_pages_of_others(folder: Path) -> None:
    with Running(folder) as running, running.client() as http:
        done(http.post("/index", json={"name": "docs", "dimension": 2}), 201)
        for header in ({"origin": "http://elsewhere.example"}, {"host": "elsewhere.example"}):
            assert http.post("/index/docs/reset", headers=header).status_code in (401, 403)


# ---- TLS --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """Files of one authority: of the server, and of callers; ``trust`` knows the authority."""

    ca: Path
    server: Path
    caller: Path
    trust: ssl.SSLContext


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name, file in (("127.0.0.1", "server.pem"), ("caller@example.org", "caller.pem")):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(folder / file)
    trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    return Certificates(folder / "ca.pem", folder / "server.pem", folder / "caller.pem", trust)


def test_tls_is_spoken_to_who_trusts_the_authority(
    folder: Path, key: str, certificates: Certificates
) -> None:
    pem = certificates.server
    with Running(folder, "--tls-cert", pem, "--tls-key", pem) as running:
        assert running.url.startswith("https://127.0.0.1:")
        with running.client(key, verify=certificates.trust) as http:
            assert done(http.get("/index")) == {"indexes": []}
        with running.client(key, verify=True) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get("/index")
        with running.client(key) as http, pytest.raises(httpx.TransportError):
            http.get(running.url.replace("https", "http"))
        assert running.stop() == 0
    assert "traceback" not in "".join(running.lines).lower()


def test_callers_show_a_certificate_where_they_have_to(
    folder: Path, key: str, certificates: Certificates
) -> None:
    pem = certificates.server
    options = ("--tls-cert", pem, "--tls-key", pem, "--tls-client-ca", certificates.ca)
    known = ssl.create_default_context(cafile=str(certificates.ca))
    known.load_cert_chain(certificates.caller)
    unknown = ssl.create_default_context(cafile=str(certificates.ca))
    trustme.CA().issue_cert("caller@example.org").configure_cert(unknown)
    with Running(folder, *options) as running, ExitStack() as stack:
        http = stack.enter_context(running.client(key, verify=known))
        assert done(http.get("/index")) == {"indexes": []}
        for context in (certificates.trust, unknown):
            stranger = stack.enter_context(running.client(key, verify=context))
            with pytest.raises(httpx.TransportError):
                stranger.get("/health")
        assert done(http.get("/health"))["ready"]


# ---- what is damaged --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """An open server whose index ``docs`` is damaged, and ``sound`` is not."""
    folder = tmp_path_factory.mktemp("damaged") / "data"
    with faissbase.connect(folder) as db:
        for name in ("docs", "sound"):
            ids = [str(i) for i in range(300)]
            db.create_collection(name, 2, "l2").add(ids, [[i, 0] for i in range(300)], documents=ids)
        uuid = db.describe("docs").uuid
    [records] = folder.glob(f"*/{uuid}/records.sqlite")
    content = bytearray(records.read_bytes())
    for at in range(2 * PAGE_BYTES + 900, len(content), PAGE_BYTES):
        content[at] ^= 0x55
    records.write_bytes(content)
    with Running(folder) as running:
        yield running


def test_a_damaged_index_is_told_and_the_sound_one_served(damaged: Running) -> None:
    with damaged.client() as http:
        refused(http.get("/index/docs/vectors"), 500, "corruption")
        assert not done(http.post("/index/docs/verify"))["ok"]
        assert len(done(http.post("/index/sound/search", json={"vector": [0, 0]}))["results"]) == 10
        assert done(http.post("/index/sound/verify"))["ok"]


def test_nothing_that_is_told_of_damage_says_where_the_files_are(damaged: Running) -> None:
    with damaged.client() as http:
        for method, path in (("POST", "verify"), ("GET", "stats"), ("GET", "vectors"), ("GET", "ntotal")):
            assert str(damaged.folder) not in http.request(method, f"/index/docs/{path}").text


def test_a_damaged_index_does_not_hide_the_others(damaged: Running) -> None:
    with damaged.client() as http:
        assert "sound" in [each["name"] for each in done(http.get("/index"))["indexes"]]
        metrics = http.get("/metrics")
        assert metrics.status_code == 200
        assert 'faissbase_index_records{index="sound"} 300' in metrics.text


@pytest.mark.parametrize("name", ["data", "e"])
def test_errors_read_the_same_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    made(tmp_path / name)
    with Running(Path(name), cwd=tmp_path) as running, running.client() as http:
        done(http.post("/index", json={"name": "docs", "dimension": 1}), 201)
        body = {"vectors": [{"id": "a", "values": [1], "metadata": []}]}
        message = refused(http.post("/index/docs/vectors", json=body), 422, "invalid_input")
    assert message == "metadata of vectors[0] ('a') must be an object"
