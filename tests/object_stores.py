"""Stores for tests of shards: moto's S3 server in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
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
