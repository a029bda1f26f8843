"""A tenant's backup holds all of its indexes and nothing else, and leaves nothing behind."""

from __future__ import annotations

import io
import signal
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests.e2e.server.running import PATIENCE_S, Running, address_of, done, made, new_key, refused, run

import faissbase
from faissbase.database.backup import restore
from faissbase.database.database import Database

ACME, OTHER = "acme", "other"
N, D = 20_000, 512  # more than what a connection keeps in its buffers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made(tmp_path_factory.mktemp("backups") / "data")
    vectors = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)
    for tenant, n in ((ACME, N), (OTHER, 10)):
        with Database(folder, read_only=False, durability="relaxed", tenant=tenant) as db:
            docs = db.create_collection("docs", D, "l2", "Flat")
            docs.add([f"{tenant}-{i}" for i in range(n)], vectors[:n])
            db.create_collection("empty", 2)
    return folder


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    made = {scope: new_key(folder, ACME, scope)[1] for scope in ("read", "write", "admin")}
    made["limited"] = new_key(folder, ACME, "admin", indexes=["docs"])[1]
    made[OTHER] = new_key(folder, OTHER, "admin")[1]
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[Running]:
    with Running(folder, "--body-timeout-s", 2) as running:
        yield running
        if running.process.poll() is None:
            assert running.stop() == 0


def names_of(content: bytes) -> set[str]:
    """The tenants that files of a backup belong to, and the manifest."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {name.split("/")[0] for name in tar.getnames()}


def drafts(folder: Path) -> list[Path]:
    return list(folder.glob(".faissbase-draft-*"))


def asked(server: Running, key: str) -> socket.socket:
    """A connection that has asked for a backup, and reads nothing of it."""
    found = socket.create_connection(address_of(server.url))
    found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    found.sendall(f"POST /v1/backup HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode())
    return found


def wait_until_served(server: Running, http: httpx.Client) -> bytes:
    """A backup, once no other is in its way."""
    stop = time.monotonic() + PATIENCE_S
    while time.monotonic() < stop:
        answer = http.post("/backup")
        if answer.status_code == 200:
            return answer.content
        refused(answer, 409, "conflict")
        time.sleep(0.05)
    raise AssertionError("the backup before it is never over")


def test_a_backup_holds_one_tenant_and_is_restored(
    server: Running, keys: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    with server.client(keys[OTHER]) as http:
        answer = http.post("/backup", json={})
        assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-tar"
    assert "other.faissbase" in answer.headers["content-disposition"]
    assert names_of(answer.content) == {OTHER, "manifest.json"}
    path = tmp_path / "other.faissbase"
    path.write_bytes(answer.content)
    again = run("restore", path, "--into", tmp_path / "same")
    assert again.returncode == 0, again.stderr
    assert "other/docs, other/empty" in again.stderr + again.stdout
    with Database(tmp_path / "same", read_only=True, durability="full", tenant=OTHER) as db:
        assert [record.id for record in db.get_collection("docs").get()] == [f"other-{i}" for i in range(10)]
    moved = run("restore", path, "--into", tmp_path / "moved", "--tenant", "default")
    assert "docs, empty" in moved.stderr + moved.stdout
    with faissbase.connect(tmp_path / "moved") as local:
        assert len(local.get_collection("docs")) == 10
    assert drafts(folder) == []


def test_only_an_admin_of_all_indexes_may(server: Running, keys: dict[str, str]) -> None:
    for kind in ("read", "write", "limited"):
        with server.client(keys[kind]) as http:
            refused(http.post("/backup"), 403, "access")


def test_searches_and_writes_go_on_while_a_backup_is_sent(
    server: Running, keys: dict[str, str], folder: Path
) -> None:
    with server.client(keys["admin"]) as http, http.stream("POST", "/backup") as answer:
        assert answer.status_code == 200
        pieces = answer.iter_raw()
        content = next(pieces)
        assert drafts(folder) == []
        with server.client(keys["admin"]) as other:
            refused(other.post("/backup"), 409, "conflict")
            done(other.post("/index/docs/search", json={"vector": [0] * D, "k": 3}))
            record = {"id": "late", "values": [1] * D}
            done(other.post("/index/docs/vectors", json={"vectors": [record]}))
            done(other.delete("/index/docs/vectors/late"))
        with server.client(keys[OTHER]) as other:
            assert other.post("/backup").status_code == 200
        content += b"".join(pieces)
    assert len(content) == int(answer.headers["content-length"]) > 4 * N * D
    with server.client(keys["admin"]) as http:
        assert names_of(wait_until_served(server, http)) == {ACME, "manifest.json"}


def test_whoever_goes_or_takes_nothing_is_left(server: Running, keys: dict[str, str], folder: Path) -> None:
    with ExitStack() as stack:
        stack.enter_context(asked(server, keys["admin"])).recv(100)
        http = stack.enter_context(server.client(keys["admin"]))
        assert names_of(wait_until_served(server, http)) == {ACME, "manifest.json"}
    asked(server, keys["admin"]).close()
    with server.client(keys["admin"]) as http:
        assert names_of(wait_until_served(server, http)) == {ACME, "manifest.json"}
        done(http.get("/health"))
    assert drafts(folder) == []
    assert not [line for line in server.lines if "Traceback" in line]


def test_what_a_killed_server_has_left_is_gone_after_the_next_start(
    server: Running, keys: dict[str, str], folder: Path
) -> None:
    connection = asked(server, keys["admin"])
    stop = time.monotonic() + PATIENCE_S
    while not drafts(folder) and time.monotonic() < stop:
        time.sleep(0.001)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(PATIENCE_S)
    connection.close()
    assert drafts(folder)
    with Running(folder) as again, again.client(keys["admin"]) as http:
        assert drafts(folder) == []
        assert names_of(http.post("/backup").content) == {ACME, "manifest.json"}
        assert again.stop() == 0


def test_the_client_leaves_no_half_of_a_file(server: Running, keys: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "acme.faissbase"
    writer = faissbase.connect(server.url, api_key=keys["write"])
    with writer, pytest.raises(faissbase.AccessError, match="admin"):
        writer.backup(path)
    with faissbase.connect(server.url, api_key=keys["admin"]) as db:
        db.backup(path)
    assert list(tmp_path.iterdir()) == [path]
    with faissbase.connect(restore(path, tmp_path / "again", tenant="default")) as db:
        assert len(db.get_collection("docs")) == N
