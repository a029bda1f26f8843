"""A certificate that the server signs itself, for a first try: made once and kept in the data folder."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from faissbase.storage.files import alone_in, os_errors

FOLDER = ".tls"  # no tenant's name begins with a dot
_VALID = timedelta(days=365)
_LEAST_LEFT = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(days=1)
_EVERYWHERE = ("0.0.0.0", "::", "")
_Names = frozenset[x509.GeneralName]


@dataclass(frozen=True, slots=True)
class Files:
    """Where a certificate is (PEM), which callers may read, and its private key."""

    cert: Path
    key: Path

    @property
    def sha256(self) -> str:
        """The certificate's fingerprint, as browsers and openssl show it."""
        der = ssl.PEM_cert_to_DER_cert(self.cert.read_text())
        return hashlib.sha256(der).digest().hex(":").upper()


def files_in(data: Path) -> Files:
    return Files(data / FOLDER / "cert.pem", data / FOLDER / "key.pem")


def self_signed(data: Path, host: str, *, clock: Callable[[], float] = time.time) -> Files:
    """The certificate of the data folder, good for a month at least, for this machine and ``host``."""
    files = files_in(data)
    folder = files.cert.parent
    names = _names(host)
    now = datetime.fromtimestamp(clock(), timezone.utc)
    with os_errors(f"cannot keep a certificate in {folder}"):
        folder.mkdir(mode=0o700, exist_ok=True)
        folder.chmod(0o700)
        with alone_in(folder):
            if not _is_good(files, names, now):
                _make(files, names, now)
    return files


def _names(host: str) -> _Names:
    """What callers on this machine and elsewhere may call it."""
    called = {"localhost", "127.0.0.1", "::1", socket.gethostname(), host}.difference(_EVERYWHERE)
    return frozenset(_name(each) for each in called if each.isascii())


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return x509.DNSName(text)


def _is_good(files: Files, names: _Names, now: datetime) -> bool:
    """Whether the files are there and belong together, for all names, and for long enough."""
    try:
        cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        there = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, x509.ExtensionNotFound):
        return False
    is_pair = key.public_key() == cert.public_key()
    return is_pair and names.issubset(there) and cert.not_valid_after_utc - now >= _LEAST_LEFT


def _make(files: Files, names: _Names, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(files.key, private)
    _write(files.cert, _signed(key, names, now).public_bytes(serialization.Encoding.PEM))


def _signed(key: ec.EllipticCurvePrivateKey, names: _Names, now: datetime) -> x509.Certificate:
    """A certificate of a server, no authority: whoever trusts it trusts no other by it."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "faissbase")])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(sorted(names, key=repr)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return builder.sign(key, hashes.SHA256())


def _write(path: Path, content: bytes) -> None:
    """A whole file, for its owner alone."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
