"""The health check of the image finds a server that is ready, with and without TLS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trustme
from tests.unit.server.serving import Serving, serving

from faissbase.server.probe import is_ready
from faissbase.server.self_signed import self_signed


def environment(at: Serving, **more: str) -> dict[str, str]:
    return {"FAISSBASE_HOST": "0.0.0.0", "FAISSBASE_PORT": str(at.address[1]), **more}


def test_a_server_is_ready_until_it_stops_or_loses_its_folder(folder: Path, tmp_path: Path) -> None:
    with serving(folder) as at:
        told = environment(at)
        assert is_ready(told)
        (tmp_path / "own.toml").write_text(f"port = {at.address[1]}\n")
        assert is_ready({"FAISSBASE_CONFIG": str(tmp_path / "own.toml")})
        folder.rename(tmp_path / "away")
        assert not is_ready(told)
        (tmp_path / "away").rename(folder)
    assert not is_ready(told)


def test_a_server_with_tls_is_asked_over_tls(folder: Path) -> None:
    files = self_signed(folder, "127.0.0.1")
    with serving(folder, tls_cert=str(files.cert), tls_key=str(files.key)) as at:
        assert is_ready(environment(at, FAISSBASE_TLS_CERT="cert.pem"))
        assert is_ready(environment(at, FAISSBASE_TLS_SELF_SIGNED="true"))
        assert not is_ready(environment(at))


def test_of_a_server_that_wants_a_certificate_it_is_seen_that_it_listens(
    folder: Path, tmp_path: Path
) -> None:
    files, authority = self_signed(folder, "127.0.0.1"), tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(authority)
    cert, key = str(files.cert), str(files.key)
    with serving(folder, tls_cert=cert, tls_key=key, tls_client_ca=str(authority)) as at:
        told = environment(at, FAISSBASE_TLS_CERT="cert.pem", FAISSBASE_TLS_CLIENT_CA="ca.pem")
        assert is_ready(told)
    assert not is_ready(told)


def test_it_costs_little() -> None:
    listing = "import sys, faissbase.server.probe; print(sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    ).stdout
    for name in ("faiss", "msgspec", "apsw", "uvicorn"):
        assert f"'{name}'" not in loaded
