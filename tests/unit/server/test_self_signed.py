"""The certificate that a server makes for itself: what it is good for, how long it is kept, and where."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import stat
import tarfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import DNSName, IPAddress
from tests.unit.server.conftest import Clock

import faissbase
from faissbase.database.backup import restore
from faissbase.server.self_signed import FOLDER, Files, self_signed

DAY_S = 86_400
HOST = "127.0.0.1"


def names_of(files: Files) -> set[str]:
    cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
    found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*found.get_values_for_type(DNSName), *map(str, found.get_values_for_type(IPAddress))}


def test_it_stands_for_this_machine_and_the_host(folder: Path, clock: Clock) -> None:
    always = {"localhost", "127.0.0.1", "::1", socket.gethostname()}
    for host in ("0.0.0.0", "::", "localhost", "127.0.0.1"):
        assert names_of(self_signed(folder, host, clock=clock)) == always
    for host in ("10.1.2.3", "fd00::1", "fe80::1%eth0", "vectors.example.org"):
        assert names_of(self_signed(folder, host, clock=clock)) == {*always, host.partition("%")[0]}


def test_it_is_for_its_owner_alone(folder: Path, clock: Clock) -> None:
    (folder / FOLDER).mkdir(mode=0o755)
    files = self_signed(folder, HOST, clock=clock)
    assert stat.S_IMODE(files.cert.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    assert {path.name for path in files.cert.parent.iterdir()} == {"cert.pem", "key.pem"}


def test_it_is_kept_until_a_month_before_its_end(folder: Path, clock: Clock) -> None:
    first = self_signed(folder, HOST, clock=clock).sha256
    clock.now_s += 334 * DAY_S
    assert self_signed(folder, HOST, clock=clock).sha256 == first
    clock.now_s += 2 * DAY_S
    second = self_signed(folder, HOST, clock=clock).sha256
    assert second != first
    assert self_signed(folder, HOST, clock=clock).sha256 == second


def test_it_is_made_anew_for_a_host_it_does_not_stand_for(folder: Path, clock: Clock) -> None:
    first = self_signed(folder, HOST, clock=clock).sha256
    second = self_signed(folder, "10.1.2.3", clock=clock).sha256
    assert second != first
    for host in (HOST, "0.0.0.0", "10.1.2.3"):
        assert self_signed(folder, host, clock=clock).sha256 == second


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_files_that_do_not_belong_together_are_made_anew(
    folder: Path, tmp_path: Path, clock: Clock, name: str
) -> None:
    (tmp_path / "other").mkdir()
    other = self_signed(tmp_path / "other", HOST, clock=clock).cert.parent / name
    path = folder / FOLDER / name
    for content in (b"", b"\xff", other.read_bytes(), None):
        first = self_signed(folder, HOST, clock=clock).sha256
        path.unlink() if content is None else path.write_bytes(content)
        files = self_signed(folder, HOST, clock=clock)
        assert files.sha256 != first
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.cert, files.key)


def test_it_vouches_for_nobody_else(folder: Path, clock: Clock) -> None:
    cert = x509.load_pem_x509_certificate(self_signed(folder, HOST, clock=clock).cert.read_bytes())
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not cert.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    assert ipaddress.ip_address("::1") in cert.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(IPAddress)


def test_the_database_takes_it_for_no_tenant_and_no_damage(folder: Path, tmp_path: Path) -> None:
    files = self_signed(folder, HOST)
    with faissbase.connect(folder) as db:
        docs = db.create_collection("docs", 2)
        docs.add(["a"], [[1, 0]])
        assert db.verify_catalog() == []
        assert docs.verify().ok
        db.backup(tmp_path / "backup.tar")
    with tarfile.open(tmp_path / "backup.tar") as tar:
        assert [name for name in tar.getnames() if FOLDER in name] == []
    assert not (restore(tmp_path / "backup.tar", tmp_path / "restored") / FOLDER).exists()
    assert faissbase.repair_catalog(folder) == ["docs"]
    for path in folder.glob("catalog.sqlite*"):
        path.unlink()
    with faissbase.connect(folder) as db:
        assert db.list_collections() == ["docs"]
    assert files.cert.exists()


def test_a_folder_that_holds_nothing_else_may_become_a_database(tmp_path: Path) -> None:
    self_signed(tmp_path, HOST)
    faissbase.connect(tmp_path).close()
