"""Which server calls go to: one for the process, another or none for a block."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakValueDictionary

from faiss_proxy.connection import Connection

_PREFIX = "FAISS_PROXY_"
_VARIABLES = ("API_URL", "API_KEY", "TENANT_ID", "CA_FILE", "TIMEOUT_S", "CACHE_BYTES")
_UNSET: list[Connection | None] = []

_known: WeakValueDictionary[tuple[object, ...], Connection] = WeakValueDictionary()
_recent: deque[Connection] = deque(maxlen=8)  # blocks that come again find theirs, with nothing left in it
_process: list[Connection | None] = [None]
_block: ContextVar[list[Connection | None]] = ContextVar("faiss_proxy", default=_UNSET)


def configure(
    api_url: str | None,
    api_key: str | None = None,
    tenant_id: str | None = None,
    *,
    ca_file: str | None = None,
    timeout_s: float = 3600.0,
    cache_bytes: int = 0,
) -> None:
    """Have FAISS's classes and functions run on a server from now on; ``None`` for none, as at first.

    Parameters
    ----------
    api_url : str or None
        Where ``faissbase serve`` is reached, such as ``"https://vectors.example.com"``.
    api_key : str, optional
        A key of ``faissbase keys create``.
    tenant_id : str, optional
        The tenant that the key must be of; a key of another one is refused.
    ca_file : str, optional
        Authorities (PEM) to know the server by, instead of the system's.
    timeout_s : float
        So long a call may take.
    cache_bytes : int
        Room for answers of searches, which are given again once the server has said that the index is as it
        was: nothing is searched or sent twice, and nothing is stale. 0 for none.

    Raises
    ------
    ValueError
        No address of a server.
    """
    made = None
    if api_url is not None:
        made = _connection(api_url, api_key, tenant_id, ca_file, timeout_s, cache_bytes)
    elif api_key is not None or tenant_id is not None:
        raise ValueError("api_url says where the server is; without it no other setting has a meaning")
    _process[0] = made


def _connection(
    url: str, key: str | None, tenant: str | None, ca_file: str | None, timeout_s: float, cache_bytes: int
) -> Connection:
    """The connection with these settings, which all who choose them share, and their objects with it."""
    asked = (os.getpid(), url, key, tenant, ca_file, timeout_s, cache_bytes)
    found = _known.get(asked)
    if found is None:
        made = Connection(url, key, tenant, ca_file=ca_file, timeout_s=timeout_s, cache_bytes=cache_bytes)
        found = _known.setdefault(asked, made)
    if found not in _recent:
        _recent.append(found)
    return found


def active() -> Connection | None:
    """The server that calls go to; None for this process itself."""
    block = _block.get()
    return block[0] if block else _process[0]


@contextmanager
def remote(
    api_url: str | None = None,
    api_key: str | None = None,
    tenant_id: str | None = None,
    *,
    ca_file: str | None = None,
    timeout_s: float = 3600.0,
    cache_bytes: int = 0,
) -> Iterator[None]:
    """Have a block run on a server: a given one, or the configured one inside of ``with local():``."""
    if api_url is None:
        connection = _process[0]
        if connection is None:
            raise ValueError("no server is configured: give api_url, or call configure(api_url=...) first")
    else:
        connection = _connection(api_url, api_key, tenant_id, ca_file, timeout_s, cache_bytes)
    with _chosen(connection):
        yield


@contextmanager
def local() -> Iterator[None]:
    """Have a block run in this process, whatever is configured."""
    with _chosen(None):
        yield


@contextmanager
def _chosen(connection: Connection | None) -> Iterator[None]:
    token = _block.set([connection])
    try:
        yield
    finally:
        _block.reset(token)


def configure_by(environment: Mapping[str, str] = os.environ) -> None:
    """Take the settings from ``FAISS_PROXY_*`` variables.

    Raises
    ------
    ValueError
        One is unknown, or has no such value.
    """
    given = {name: value for name, value in environment.items() if name.startswith(_PREFIX) and value}
    unknown = [name for name in given if name.removeprefix(_PREFIX) not in _VARIABLES]
    if unknown:
        known = ", ".join(_PREFIX + name for name in _VARIABLES)
        raise ValueError(f"no such setting: {unknown[0]}; there are {known}")
    if not given:
        return
    timeout_s = _number(given, "TIMEOUT_S", "3600")
    cache_bytes = int(_number(given, "CACHE_BYTES", "0"))
    url, key, tenant, ca_file = (given.get(_PREFIX + name) for name in _VARIABLES[:4])
    if url is None:
        raise ValueError(f"{next(iter(given))} is set, and {_PREFIX}API_URL is not")
    configure(url, key, tenant, ca_file=ca_file, timeout_s=timeout_s, cache_bytes=cache_bytes)


def _number(given: Mapping[str, str], name: str, default: str) -> float:
    text = given.get(_PREFIX + name, default)
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{_PREFIX}{name} must be a number, got {text!r}") from None
