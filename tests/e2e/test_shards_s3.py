"""The command builds from objects of an S3 server into another bucket of it, with workers of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

import faissbase
from faissbase.sharded.bucket import open_bucket
from faissbase.storage.tables.open import open_writer
from faissbase.types import Batch

moto = pytest.importorskip("moto.server")
D = 8


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "aws_endpoint": f"http://{host}:{port}",
        "aws_access_key_id": "key",
        "aws_secret_access_key": "secret",
        "aws_region": "us-east-1",
    }
    server.stop()


def make_bucket(options: dict[str, Any], name: str) -> None:
    import urllib.request

    request = urllib.request.Request(f"{options['aws_endpoint']}/{name}", method="PUT")
    urllib.request.urlopen(request).close()


def test_objects_become_a_dataset_in_another_bucket(tmp_path: Path, options: dict[str, Any]) -> None:
    for name in ("raw", "out"):
        make_bucket(options, name)
    x = np.random.default_rng(0).standard_normal((90, D), np.float32)
    raw = open_bucket("s3://raw/in", options)
    for i in range(2):
        path = tmp_path / f"rows{i}.parquet"
        with open_writer(path, dimension=D) as out:
            rows = range(45 * i, 45 * i + 45)
            out.write(Batch(x[rows], [f"i{row}" for row in rows], [{"row": row} for row in rows]))
        raw.upload(path, "", path.name)
    words = ["shards", "build", "s3://raw/in/rows*.parquet", "--out", "s3://out/prod", "--name", "docs"]
    words += ["--metric", "l2", "--rows-per-shard", "40", "--workers", "2", "--work", "work", "--json"]
    environment = os.environ | {name.upper(): value for name, value in options.items()}
    ran = subprocess.run(
        [sys.executable, "-m", "faissbase", *words],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert orjson.loads(ran.stdout)["shards"] == 3
    with faissbase.connect("s3://out/prod", cache=tmp_path / "cache", storage_options=options) as db:
        docs = db.get_collection("docs")
        assert docs.search(x, k=1).ids == [[f"i{row}"] for row in range(90)]
        assert docs.get("i77")[0].metadata == {"row": 77}
