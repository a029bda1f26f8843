"""How a program and its server find each other, part, and what is left on the server."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from tests.e2e.faiss.running import HERE, environment, n_calls, run, wait_until
from tests.e2e.server.faiss_calls import worker_of
from tests.e2e.server.running import Running, made, new_key
from tests.e2e.server.test_tls import told

import faiss_proxy
from faiss_proxy.connection import Connection
from faiss_proxy.settings import active
from faissbase.errors import AccessError, UnavailableError

SOON_S = 10
XB = np.random.default_rng(1).random((2_000, 16), np.float32)


def _active() -> Connection:
    connection = active()
    assert connection is not None
    return connection


def test_a_fork_uses_its_parents_index_and_leaves_it_there(server: Running, tmp_path: Path) -> None:
    done = run(HERE / "programs" / "forked.py", cwd=tmp_path, FAISS_PROXY_API_URL=server.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "200 [[0], [1]]\n"


def test_sixteen_threads_search_one_index(server: Running) -> None:
    local = faiss.IndexFlatL2(16)
    local.add(XB)
    expected = local.search(XB[:160], 3)
    found: dict[int, Any] = {}
    with faiss_proxy.remote(server.url):
        index = faiss_proxy.to_remote(local)

    def ask(number: int) -> None:
        rows = range(number * 10, number * 10 + 10)
        found.update({row: index.search(XB[row : row + 1], 3) for row in rows})

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for part in (0, 1):
        ours = np.concatenate([found[row][part] for row in range(160)])
        assert ours.tobytes() == expected[part].tobytes()


def test_blocks_choose_where_new_indexes_live(server: Running) -> None:
    assert type(faiss_proxy.IndexFlatL2(4)) is faiss.IndexFlatL2
    with faiss_proxy.remote(server.url):
        there = faiss_proxy.IndexFlatL2(4)
        with faiss_proxy.local():
            assert type(faiss_proxy.IndexFlatL2(4)) is faiss.IndexFlatL2
        assert "object" in repr(faiss_proxy.IndexFlatL2(4))
    before = n_calls(server)
    there.add(np.eye(4, dtype=np.float32))
    assert there.ntotal == 4
    wait_until(lambda: n_calls(server) >= before + 2, "an object has left its server")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"FAISS_PROXY_URL": "http://localhost:1"}, "no such setting: FAISS_PROXY_URL"),
        ({"FAISS_PROXY_API_KEY": "fb_x"}, "FAISS_PROXY_API_URL is not"),
        ({"FAISS_PROXY_API_URL": "localhost:1"}, "api_url must be like"),
    ],
    ids=["unknown", "no address", "no url"],
)
def test_a_typo_in_the_environment_is_an_error(tmp_path: Path, settings: dict[str, str], said: str) -> None:
    done = run("-c", "import faiss_proxy", cwd=tmp_path, **settings)
    assert done.returncode == 1
    assert said in done.stderr


def test_a_server_that_is_not_there_is_an_error_soon_and_no_local_answer() -> None:
    began = time.monotonic()
    with faiss_proxy.remote("http://127.0.0.1:9"), pytest.raises(UnavailableError, match="cannot be reached"):
        faiss_proxy.IndexFlatL2(4)
    assert time.monotonic() - began < SOON_S


def test_a_server_that_ends_is_an_error_soon(tmp_path: Path) -> None:
    with Running(made(tmp_path / "data")) as gone, faiss_proxy.remote(gone.url):
        index = faiss_proxy.IndexFlatL2(4)
        gone.kill()
        began = time.monotonic()
        with pytest.raises(UnavailableError):
            index.search(np.eye(4, dtype=np.float32), 1)
        assert time.monotonic() - began < SOON_S


def test_keys_are_checked_and_are_of_the_tenant_that_is_meant(tmp_path: Path) -> None:
    folder = made(tmp_path / "data")
    _, key = new_key(folder, "acme", "read", "write")
    with Running(folder) as server:
        for wrong in ("fb_wrong", None):
            with faiss_proxy.remote(server.url, wrong), pytest.raises(AccessError):
                faiss_proxy.IndexFlatL2(4)
        with faiss_proxy.remote(server.url, key, "umbrella"), pytest.raises(AccessError, match="'umbrella'"):
            faiss_proxy.IndexFlatL2(4)
        with faiss_proxy.remote(server.url, key, "acme"):
            assert faiss_proxy.IndexFlatL2(4).d == 4


def test_tls_by_the_servers_own_certificate(tmp_path: Path) -> None:
    with Running(made(tmp_path / "data"), "--tls-self-signed") as server:
        path, _ = told(server)
        with faiss_proxy.remote(server.url, ca_file=path):
            index = faiss_proxy.IndexFlatL2(16)
            index.add(XB)
            assert index.search(XB[:3], 1)[1].tolist() == [[0], [1], [2]]
        with faiss_proxy.remote(server.url), pytest.raises(UnavailableError, match="certificate"):
            faiss_proxy.IndexFlatL2(16)


def test_the_server_lets_go_of_what_python_has_let_go_of(server: Running) -> None:
    with faiss_proxy.remote(server.url, timeout_s=98):  # a connection of its own
        indexes = [faiss_proxy.IndexFlatL2(4) for _ in range(5)]
        connection = _active()
        assert connection.touch([])["n_held"] == 5
        del indexes[1:]
        wait_until(lambda: connection.touch([])["n_held"] == 1, "objects that nobody has are held")
        assert indexes[0].ntotal == 0


def test_a_client_that_dies_loses_what_has_no_name_after_its_lease(tmp_path: Path) -> None:
    with Running(made(tmp_path / "data"), "--faiss-lease-s", 1) as server:
        client = subprocess.Popen(
            [sys.executable, HERE / "programs" / "killed.py"],
            env=environment(FAISS_PROXY_API_URL=server.url),
            stdout=subprocess.PIPE,
            text=True,
        )
        with client, ExitStack() as stack, faiss_proxy.remote(server.url):
            stack.callback(client.kill)
            assert client.stdout is not None
            assert client.stdout.readline() == "held\n"
            own = faiss_proxy.IndexFlatL2(4)
            connection = _active()
            assert connection.touch([])["n_held_by_tenant"] == 4
            client.kill()
            wait_until(lambda: connection.touch([])["n_held_by_tenant"] == 1, "the dead hold objects")
            assert own.ntotal == 0


def test_an_object_that_was_lost_is_never_taken_for_a_later_one(tmp_path: Path) -> None:
    with Running(made(tmp_path / "data")) as server, faiss_proxy.remote(server.url):
        old = faiss_proxy.IndexFlatL2(16)
        old.add(XB)
        os.kill(worker_of(server), signal.SIGKILL)
        with pytest.raises((UnavailableError, faiss_proxy.RemoteError)):
            assert old.ntotal
        later = [faiss_proxy.IndexFlatL2(16) for _ in range(20)]
        with pytest.raises(faiss_proxy.RemoteError, match="not have this object any more"):
            old.add(XB)
        del old  # and letting go of it lets go of nothing else
        assert [each.ntotal for each in later] == [0] * len(later)


def test_blocks_for_the_same_server_share_a_connection_and_their_objects(server: Running) -> None:
    n_threads = threading.active_count()
    made_here = []
    for _ in range(20):
        with faiss_proxy.remote(server.url):
            made_here.append(faiss_proxy.IndexFlatL2(4))
    assert threading.active_count() <= n_threads + 1
    with faiss_proxy.remote(server.url):
        assert faiss_proxy.IndexIVFFlat(made_here[0], 4, 2).nlist == 2
    with (
        faiss_proxy.remote(server.url, timeout_s=99),
        pytest.raises(faiss_proxy.RemoteError, match="another"),
    ):
        faiss_proxy.IndexIVFFlat(made_here[0], 4, 2)


def test_a_connection_that_nobody_has_leaves_no_thread(server: Running) -> None:
    n_threads = threading.active_count()
    for n in range(30):
        with faiss_proxy.remote(server.url, timeout_s=100 + n):
            faiss_proxy.IndexFlatL2(4)
    wait_until(lambda: threading.active_count() <= n_threads + 10, "threads of no use are left")


def test_a_call_keeps_no_array_of_its_caller(server: Running) -> None:
    with faiss_proxy.remote(server.url):
        index = faiss_proxy.IndexFlatL2(16)
        gc.collect()
        gc.disable()
        try:
            xb = XB.copy()
            index.add(xb)
            kept = weakref.ref(xb)
            del xb
            assert kept() is None
        finally:
            gc.enable()
