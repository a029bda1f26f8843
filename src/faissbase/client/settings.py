"""Where a server is, and how patient its client."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from faissbase._version import __version__
from faissbase.client.exchange import FILE_TIMEOUT_S, TIMEOUT_S
from faissbase.errors import InvalidInputError

KEY_VARIABLE = "FAISSBASE_API_KEY"
_CONNECT_TIMEOUT_S = 5.0
_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and who calls it.

    Attributes
    ----------
    url : str
        ``http://`` or ``https://``, with the port and without a path.
    api_key : str or None
    timeout_s : float
        How long an answer may take.
    verify : bool or str
        Whether the server's certificate is checked; or a file of authorities to check it by.
    """

    url: str
    api_key: str | None = None
    timeout_s: float = TIMEOUT_S
    verify: bool | str = True


def address_of(
    url: str, api_key: str | None = None, timeout_s: float = TIMEOUT_S, verify: bool | str = True
) -> Address:
    """A checked address; the key is that of ``FAISSBASE_API_KEY`` where none is given."""
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_fine = False
    if not is_fine or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
        raise InvalidInputError(f"a server's address is http(s)://host:port, got {url!r}")
    is_number = isinstance(timeout_s, int | float) and not isinstance(timeout_s, bool)
    if not is_number or not timeout_s > 0:
        raise InvalidInputError(f"timeout_s must be a number above 0, got {timeout_s!r}")
    key = api_key if api_key is not None else os.environ.get(KEY_VARIABLE)
    if key is not None and not (key.isascii() and key.isprintable()):
        raise InvalidInputError("an API key is one line of plain letters and digits")
    return Address(f"{parts.scheme}://{parts.netloc}", key, timeout_s, verify)


def client_options(address: Address) -> dict[str, Any]:
    """What both of httpx's clients are made with."""
    headers = {"content-type": "application/json", "user-agent": f"faissbase/{__version__}"}
    if address.api_key is not None:
        headers["x-api-key"] = address.api_key
    verify: Any = address.verify
    if isinstance(verify, str):
        import ssl

        try:
            verify = ssl.create_default_context(cafile=verify)
        except OSError as error:  # also where it is no PEM
            raise InvalidInputError(f"verify={verify!r}: {error.strerror or error}") from error
    return {
        "base_url": address.url,
        "headers": headers,
        "timeout": _timeout(address, address.timeout_s),
        "limits": httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
        "verify": verify,
    }


def long_timeout(address: Address) -> httpx.Timeout:
    """How long is waited for what takes long: files, and indexes that are built."""
    return _timeout(address, max(address.timeout_s, FILE_TIMEOUT_S))


def _timeout(address: Address, read_s: float) -> httpx.Timeout:
    connect_s = min(_CONNECT_TIMEOUT_S, address.timeout_s)
    return httpx.Timeout(address.timeout_s, connect=connect_s, read=read_s)
