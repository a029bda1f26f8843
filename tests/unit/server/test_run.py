"""The socket before anything is served on it, and the certificates of a server that runs."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvicorn
from tests.unit.server.conftest import Clock
from tests.unit.server.serving import PATIENCE_S, Serving, serving, wait_until

from faissbase.server import logs, run
from faissbase.server.app import Server
from faissbase.server.databases import folder_databases
from faissbase.server.keys import Keys
from faissbase.server.run import _config, _listening
from faissbase.server.self_signed import self_signed
from faissbase.server.settings import Settings
from faissbase.server.tenants import Tenants

DAY_S = 86_400


def config_of(folder: Path, **more: Any) -> uvicorn.Config:
    server = Server(Settings(port=0, **more), Keys(folder), Tenants(folder, folder_databases(folder)))
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


def shown_at(address: tuple[str, int]) -> bytes:
    """The certificate that a caller is shown."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(address))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def at(folder: Path, files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A server that looks at its files all the time."""
    monkeypatch.setattr(run, "_TICKS_A_LOOK", 1)
    files.renew()
    with serving(folder, tls_cert=str(files.cert), tls_key=str(files.key)) as at:
        yield at


def test_a_renewed_certificate_is_taken_up(at: Serving, files: Files) -> None:
    first = shown_at(at.address)
    second = files.renew()
    wait_until(lambda: shown_at(at.address) != first)
    assert shown_at(at.address) == second


@pytest.fixture
def warned(at: Serving, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the server tells that it cannot use its files."""
    event = threading.Event()
    monkeypatch.setattr(logs.LOGGER, "warning", lambda *words: event.set())
    return event


def test_a_certificate_without_its_key_leaves_the_old_one_in_use(
    at: Serving, files: Files, warned: threading.Event
) -> None:
    first = shown_at(at.address)
    files.renew(key_too=False)
    assert warned.wait(PATIENCE_S)
    assert shown_at(at.address) == first
    last = files.renew()
    wait_until(lambda: shown_at(at.address) != first)
    assert shown_at(at.address) == last


def test_a_certificate_half_written_leaves_the_old_one_in_use(
    at: Serving, files: Files, warned: threading.Event
) -> None:
    first = shown_at(at.address)
    files.cert.write_bytes(files.cert.read_bytes()[:200])
    assert warned.wait(PATIENCE_S)
    assert shown_at(at.address) == first
    warned.clear()
    files.cert.unlink()
    assert warned.wait(PATIENCE_S)
    assert shown_at(at.address) == first


def test_a_certificate_is_taken_up_once_files_can_be_opened_again(
    at: Serving, files: Files, warned: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more_files(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    first = shown_at(at.address)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", no_more_files)
        files.renew()
        assert warned.wait(PATIENCE_S)
        assert shown_at(at.address) == first
    wait_until(lambda: shown_at(at.address) != first)


def test_the_servers_own_certificate_is_renewed_before_its_end_while_it_runs(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_TICKS_A_LOOK", 1)
    monkeypatch.setattr(run, "_TICKS_A_RENEWAL", 1)
    files = self_signed(folder, "127.0.0.1", clock=clock)
    renew = partial(run._renew_certificate, folder, "127.0.0.1", clock)
    with serving(folder, renew, tls_cert=str(files.cert), tls_key=str(files.key)) as at:
        first = shown_at(at.address)
        renew()
        assert shown_at(at.address) == first
        clock.now_s += 336 * DAY_S
        wait_until(lambda: shown_at(at.address) != first)
        assert shown_at(at.address) == ssl.PEM_cert_to_DER_cert(files.cert.read_text())
