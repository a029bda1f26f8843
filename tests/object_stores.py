"""Stores for tests of shards: moto's S3 server in this process, Azurite where it is installed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.client import HTTPConnection
from typing import Any

BUCKET = "vectors"


@contextmanager
def s3_server() -> Iterator[dict[str, Any]]:
    """An S3 server with an empty bucket `BUCKET`; the options that lead to it."""
    from boto3 import client  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would tell of every request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint, region = f"http://{host}:{port}", "us-east-1"
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "x"}
        client("s3", endpoint_url=endpoint, region_name=region, **keys).create_bucket(Bucket=BUCKET)
        yield {"aws_endpoint": endpoint, "aws_region": region, **keys}
    finally:
        server.stop()


# The account of every Azurite, public.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


@contextmanager
def azure_server() -> Iterator[dict[str, Any] | None]:
    """Microsoft's Azurite with an empty container `BUCKET`; None where there is none to start.

    ``npm install -g azurite`` brings the command, 360 MB: too much for every run of these tests.
    """
    command = shutil.which("azurite-blob")
    if command is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--silent")
    server = subprocess.Popen([command, *options, "--skipApiVersionCheck"], stdout=subprocess.DEVNULL)
    try:
        _make_container(port)
        yield {
            "azure_storage_endpoint": f"http://127.0.0.1:{port}/{_ACCOUNT}",
            "azure_storage_account_name": _ACCOUNT,
            "azure_storage_account_key": _KEY,
        }
    finally:
        server.kill()  # it would wait for connections that are kept
        server.wait(20)


def _make_container(port: int) -> None:
    """Once the server answers. **Source**: Authorize with Shared Key (learn.microsoft.com)."""
    date = datetime.now(timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}\n"
    signed = "PUT\n" + 11 * "\n" + headers + f"/{_ACCOUNT}/{_ACCOUNT}/{BUCKET}\nrestype:container"
    mac = hmac.new(base64.b64decode(_KEY), signed.encode(), hashlib.sha256).digest()
    given = {"x-ms-date": date, "x-ms-version": _VERSION, "Content-Length": "0"}
    given["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(mac).decode()}"
    until = time.monotonic() + 30
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("PUT", f"/{_ACCOUNT}/{BUCKET}?restype=container", headers=given)
            answer = connection.getresponse()
            assert answer.status == 201, answer.read()
            return
        except ConnectionError:
            assert time.monotonic() < until, "Azurite does not answer"
            time.sleep(0.05)
        finally:
            connection.close()
