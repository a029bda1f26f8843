"""TLS by a certificate of the server's own: who trusts it is served, and it is the same after a restart."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from tests.e2e.server.running import PATIENCE_S, Running, done, made, new_key, run

import faissbase

TOLD = re.compile(r"its certificate is (\S+), SHA-256 ((?:[0-9A-F]{2}:){31}[0-9A-F]{2})")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path / "data")


def told(running: Running) -> tuple[str, str]:
    """The path and the fingerprint that it tells, after its address."""
    stop = time.monotonic() + PATIENCE_S
    while time.monotonic() < stop:
        for line in list(running.lines):
            if match := TOLD.search(line):
                return match[1], match[2]
        time.sleep(0.01)
    raise AssertionError(running.lines)


def test_who_trusts_the_certificate_is_served(folder: Path) -> None:
    _, key = new_key(folder, "acme", "write")
    with Running(folder, "--tls-self-signed") as running:
        path, fingerprint = told(running)
        with faissbase.connect(running.url, api_key=key, verify=path) as db:
            db.create_collection("docs", 2).add(["a"], [[1, 0]])
            assert len(db.get_collection("docs")) == 1
        with running.client(key, verify=True) as stranger, pytest.raises(httpx.ConnectError):
            stranger.get("/index")
        strict = ssl.create_default_context(cafile=path)
        strict.verify_flags |= ssl.VERIFY_X509_STRICT
        with running.client(key, verify=strict) as http:
            done(http.get("/index"))
        shown = ssl.get_server_certificate(("127.0.0.1", int(running.url.rpartition(":")[2])))
        assert shown.strip() == Path(path).read_text().strip()
        assert running.stop() == 0
    assert any(f'connect("{running.url}", verify="{path}")' in line for line in running.lines)
    with Running(folder, "--tls-self-signed") as running:
        assert told(running) == (path, fingerprint)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_trusts_it_by_its_file(folder: Path) -> None:
    with Running(folder, "--tls-self-signed") as running:
        line = ["curl", "-s", "--cacert", told(running)[0], f"{running.url}/v1/health"]
        answer = subprocess.run(line, capture_output=True, text=True, check=True)
        assert '"ready":true' in answer.stdout
        del line[2:4]
        assert subprocess.run(line, capture_output=True).returncode == 60


def test_a_public_address_needs_keys_with_it_and_nothing_else(folder: Path) -> None:
    words = ("--host", "0.0.0.0", "--tls-self-signed")
    refused = run("serve", "--data", folder, "--port", 0, *words)
    assert refused.returncode == 4
    assert "there is no API key yet" in refused.stderr
    _, key = new_key(folder, "acme", "read")
    with Running(folder, *words) as running:
        url = running.url.replace("0.0.0.0", "localhost")
        with faissbase.connect(url, api_key=key, verify=told(running)[0]) as db:
            assert list(db.list_collections()) == []
        assert running.stop() == 0
    assert any(f'connect("{url}"' in line for line in running.lines)
