"""Callers who show a certificate: of an authority that is taken away while the server runs, none gets in."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from tests.unit.server.serving import PATIENCE_S, Serving, serving, wait_until

from faissbase.server import run

ASKED = b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@dataclass(frozen=True)
class Gate:
    """A server that takes callers of the authorities in a file, and a caller of each."""

    at: Serving
    file: Path
    leaving: trustme.CA
    staying: trustme.CA

    def caller(self, authority: trustme.CA, version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.staying.configure_trust(context)
        authority.issue_cert("caller@example.org").configure_cert(context)
        context.minimum_version = context.maximum_version = version
        return context

    def connect(self, caller: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        plain = socket.create_connection(self.at.address, PATIENCE_S)
        return caller.wrap_socket(plain, server_hostname="127.0.0.1", session=session)

    def remove_one(self) -> None:
        """Leave one authority in the file, and wait until the server has seen it."""
        before = self.at.runner.config.ssl
        draft = self.file.with_suffix(".new")
        self.staying.cert_pem.write_to_path(draft)
        os.replace(draft, self.file)
        wait_until(lambda: self.at.runner.config.ssl is not before)


def is_served(connection: ssl.SSLSocket) -> bool:
    try:
        connection.sendall(ASKED)
        received = b""
        while not received.endswith(b"}"):
            piece = connection.recv(65_536)
            if not piece:
                return False
            received += piece
    except (ssl.SSLError, OSError):
        return False
    return received.startswith(b"HTTP/1.1 200 ")


def gets_in(gate: Gate, caller: ssl.SSLContext, session: ssl.SSLSession | None = None) -> bool:
    try:
        connection = gate.connect(caller, session)
    except (ssl.SSLError, OSError):
        return False
    with closing(connection):
        return is_served(connection)


@pytest.fixture
def gate(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr(run, "_TICKS_A_LOOK", 1)
    leaving, staying = trustme.CA(), trustme.CA()
    server, file = tmp_path / "server.pem", tmp_path / "callers.pem"
    staying.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(server)
    file.write_bytes(leaving.cert_pem.bytes() + staying.cert_pem.bytes())
    tls = {"tls_cert": str(server), "tls_key": str(server), "tls_client_ca": str(file)}
    with serving(folder, **tls) as at:
        yield Gate(at, file, leaving, staying)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_callers_of_an_authority_that_was_taken_away_do_not_get_in(
    gate: Gate, version: ssl.TLSVersion
) -> None:
    leaving, staying = gate.caller(gate.leaving, version), gate.caller(gate.staying, version)
    assert gets_in(gate, leaving)
    assert gets_in(gate, staying)
    gate.remove_one()
    assert not gets_in(gate, leaving)
    assert gets_in(gate, staying)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_no_session_from_before_lets_them_in(gate: Gate, version: ssl.TLSVersion) -> None:
    leaving = gate.caller(gate.leaving, version)
    with closing(gate.connect(leaving)) as connection:
        assert is_served(connection)
        session = connection.session
    with closing(gate.connect(leaving, session)) as connection:
        assert is_served(connection)
        assert connection.session_reused
    gate.remove_one()
    assert not gets_in(gate, leaving, session)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_connections_from_before_are_ended(gate: Gate, version: ssl.TLSVersion) -> None:
    with closing(gate.connect(gate.caller(gate.leaving, version))) as connection:
        assert is_served(connection)
        gate.remove_one()
        assert not is_served(connection)


def test_a_handshake_from_before_the_change_does_not_let_in(gate: Gate) -> None:
    plain = socket.create_connection(gate.at.address, PATIENCE_S)
    caller = gate.caller(gate.leaving, ssl.TLSVersion.TLSv1_3)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = caller.wrap_bio(there, back, server_hostname="127.0.0.1")
    with closing(plain):
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        plain.sendall(back.read())
        there.write(plain.recv(65_536))
        gate.remove_one()
        tls.do_handshake()
        tls.write(ASKED)
        plain.sendall(back.read())
        with suppress(ConnectionResetError):
            assert plain.recv(65_536) == b""
