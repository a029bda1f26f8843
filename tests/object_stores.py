"""Stores for tests of shards: moto's S3 server in this process, and as Google's; Azurite where it is."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import shutil
import socket
import subprocess
import threading
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


class _AsGoogle:
    """moto's S3 server, spoken to as Google's store is by its XML interface, which is S3's but for this.

    Whoever asks shows a token, and an object is created once by the generation that it must have.
    **Source**: XML API, request headers and preconditions (docs.cloud.google.com/storage).
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"
        assert not any(name.startswith("HTTP_X_AMZ") for name in environ)
        if environ.pop("HTTP_X_GOOG_IF_GENERATION_MATCH", None) == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            kept = [(name, value) for name, value in headers if not name.lower().startswith("x-amz")]
            return start_response(status, [*kept, ("x-goog-generation", "1")], *more)

        return self._app(environ, start)


@contextmanager
def google_server() -> Iterator[dict[str, Any]]:
    """A store that speaks Google's language, with an empty bucket `BUCKET`; the options that lead to it."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, _AsGoogle(app), threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
        connection.request("PUT", f"/{BUCKET}", headers={"Authorization": "Bearer"})
        assert connection.getresponse().status == 200
        connection.close()
        key = {"gcs_base_url": f"http://127.0.0.1:{server.port}", "disable_oauth": True}
        key |= dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
        yield {"google_service_account_key": json.dumps(key)}
    finally:
        server.shutdown()
        thread.join()


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
