"""The OpenAPI document of a running server, and what somebody meets who tries everything in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.e2e.server.running import PATIENCE_S, Running, done, new_key

from faissbase.server.watching import openapi

N_EXAMPLES = 2
SEED = 1


def test_the_server_describes_itself(server: Running) -> None:
    _, key = new_key(server.folder, "acme", "read")
    with server.client(key) as http:
        answer = http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert done(answer) == msgspec.json.decode(msgspec.json.encode(openapi(None)))  # type: ignore[arg-type]


@pytest.mark.slow
def test_no_request_that_the_document_suggests_is_too_much(server: Running, tmp_path: Path) -> None:
    _, key = new_key(server.folder, "acme", "admin")
    with server.client(key) as http:
        done(http.post("/index", json={"name": "docs", "dimension": 2}), 201)
    (tmp_path / "schemathesis.toml").write_text('[parameters]\n"path.index" = "docs"\n')
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{server.url}/v1/openapi.json",
        *("--header", f"X-API-Key: {key}"),
        *("--checks", "not_a_server_error"),
        *("--phases", "coverage,fuzzing"),
        *("--exclude-method", "DELETE"),
        *("--max-examples", str(N_EXAMPLES), "--seed", str(SEED)),
        *("--generation-database", "none", "--no-color"),
    ]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert ran.returncode == 0, ran.stdout
    assert "traceback" not in "".join(server.lines).lower()
