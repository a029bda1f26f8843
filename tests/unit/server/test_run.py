"""The socket before anything is served on it, and the certificates of a server that runs."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvicorn

from faissbase.server.app import Server
from faissbase.server.keys import Keys
from faissbase.server.run import _config, _listening, _Uvicorn
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants


def config_of(folder: Path, **more: Any) -> uvicorn.Config:
    server = Server(
        Settings(port=0, **more), Keys(folder), Tenants(folder, durability="full", memory_budget=None)
    )
    server.close()
    return _config(server.settings, server)


def test_who_is_told_the_address_can_connect(folder: Path) -> None:
    with _listening(config_of(folder)) as listening, socket.create_connection(listening.getsockname()):
        pass


# ---- certificates -----------------------------------------------------------------------------------


class Files:
    """A certificate and its key in files; `renew` replaces them."""

    def __init__(self, folder: Path) -> None:
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self._n = 0

    def renew(self, *, key_too: bool = True) -> bytes:
        """Write new ones, with or without the key; the certificate as it is shown to callers."""
        made = trustme.CA().issue_cert("127.0.0.1")
        made.cert_chain_pems[0].write_to_path(self.cert)
        if key_too:
            made.private_key_pem.write_to_path(self.key)
        self._n += 1
        for path in (self.cert, self.key):
            os.utime(path, (self._n, self._n))
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())


def shown_by(context: ssl.SSLContext) -> bytes | None:
    """The certificate that a caller is shown, by a handshake in memory."""
    caller = ssl.create_default_context()
    caller.check_hostname, caller.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [caller.wrap_bio(back, there), context.wrap_bio(there, back, server_side=True)]
    open_sides = list(sides)
    for _ in range(10):
        for side in list(open_sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_sides.remove(side)
    assert open_sides == []
    return sides[0].getpeercert(binary_form=True)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def running(folder: Path, files: Files) -> tuple[_Uvicorn, ssl.SSLContext]:
    config = config_of(folder, tls_cert=str(files.cert), tls_key=str(files.key))
    assert config.ssl is not None
    assert isinstance(config.loaded_app, Server)
    return _Uvicorn(config, config.loaded_app), config.ssl


def test_a_renewed_certificate_is_taken_up(folder: Path, files: Files) -> None:
    first = files.renew()
    runner, context = running(folder, files)
    runner._look_at_tls(context)
    assert shown_by(context) == first
    second = files.renew()
    assert shown_by(context) == first
    runner._look_at_tls(context)
    assert shown_by(context) == second != first


def test_a_certificate_without_its_key_leaves_the_old_one_in_use(folder: Path, files: Files) -> None:
    first = files.renew()
    runner, context = running(folder, files)
    files.renew(key_too=False)
    runner._look_at_tls(context)
    assert shown_by(context) == first
    last = files.renew()
    runner._look_at_tls(context)
    assert shown_by(context) == last


def test_a_certificate_half_written_leaves_the_old_one_in_use(folder: Path, files: Files) -> None:
    first = files.renew()
    runner, context = running(folder, files)
    files.cert.write_bytes(files.cert.read_bytes()[:200])
    runner._look_at_tls(context)
    files.cert.unlink()
    runner._look_at_tls(context)
    assert shown_by(context) == first
