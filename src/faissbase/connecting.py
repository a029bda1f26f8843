"""``connect`` and ``aconnect``: a folder, a server, a bucket or workers on Ray behind one word."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from faissbase.client.exchange import TIMEOUT_S
from faissbase.database import database
from faissbase.database.database import DEFAULT_TENANT, Database
from faissbase.errors import InvalidInputError, NotReadyError
from faissbase.sharded import database as shards
from faissbase.sharded.bucket import is_url
from faissbase.sharded.database import REFRESH_S, ShardedDatabase
from faissbase.sharded.deployment import is_deployed
from faissbase.sharded.places import ShardPlaces
from faissbase.types import Durability

if TYPE_CHECKING:
    from faissbase.client.aremote import AsyncDatabase
    from faissbase.client.remote import RemoteDatabase


@overload
def connect(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    durability: Durability = "full",
    memory_budget: int | None = None,
) -> Database: ...
@overload
def connect(
    path: str,
    *,
    read_only: bool = False,
    memory_budget: int | None = None,
    cache: str | os.PathLike[str] | None,
    storage_options: Mapping[str, Any] | None = None,
    allow_partial: bool = False,
    refresh_s: float = 1.0,
) -> ShardedDatabase: ...
@overload
def connect(
    path: str, *, api_key: str | None, timeout_s: float = TIMEOUT_S, verify: bool | str = True
) -> RemoteDatabase: ...
def connect(  # noqa: PLR0913  # one word for three kinds of places, each with settings of its own
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    durability: Durability = "full",
    memory_budget: int | None = None,
    api_key: str | None = None,
    timeout_s: float = TIMEOUT_S,
    verify: bool | str = True,
    cache: str | os.PathLike[str] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    allow_partial: bool = False,
    refresh_s: float = REFRESH_S,
) -> Any:
    """Open a folder as a database, making it where there is none, a server's, or one in object storage.

    Parameters
    ----------
    path : path, ":memory:", address or URL of a bucket
        ``~/`` is the home folder. ``":memory:"`` keeps everything in a temporary folder that goes away with
        the database. An address is ``https://host:port`` of ``faissbase serve``, and needs the extra
        ``client``. A bucket is ``s3://bucket/prefix``, ``gs://``, ``az://`` or ``file:///folder``, and needs
        the extra ``scale``: its
        collections are shards, see docs/scale.md. ``ray://auto`` and ``ray://host:port`` are the shards that
        ``faissbase shards deploy`` runs, and need the extra ``ray``.
    read_only : bool
        Never write: any number of readers beside writers of other processes.
    durability : {"full", "relaxed"}
        With ``"full"`` an acknowledged write is on the device. With ``"relaxed"`` small writes are not
        synced: a killed process loses nothing, a crash of the machine may lose the last writes, never
        consistency.
    memory_budget : int, optional
        Bytes that the indexes of one collection may take in memory; the vectors themselves stay in the mapped
        file. Where the usual index does not fit, one with smaller codes is built.
    api_key : str, optional
        Of a server; that of ``FAISSBASE_API_KEY`` in the environment where none is given.
    timeout_s : float
        How long an answer of a server may take, in seconds.
    verify : bool or str
        Whether a server's certificate is checked, or a file of authorities to check it by.
    cache : path, optional
        Where shards of a bucket are kept on this machine; ``$XDG_CACHE_HOME/faissbase`` or
        ``~/.cache/faissbase`` where nothing is said.
    storage_options : dict, optional
        What a bucket's store needs, as ``{"aws_endpoint": "http://...", "aws_region": ...}``; by the names of
        its variables in the environment, in lower case.
    allow_partial : bool
        Of a bucket: answer from the shards that can be had; ``complete`` of an answer tells whether all were.
    refresh_s : float
        Of a bucket: how often to look for what others have written, in seconds; 0 for never.

    Raises
    ------
    InvalidInputError
        Not a folder, a folder with something else in it, or an option that the other kind takes.
    NotFoundError
        ``read_only`` and no database there.
    """
    text = _text_of(path)
    given: dict[str, Any] = {
        "read_only": read_only,
        "durability": durability,
        "memory_budget": memory_budget,
        "api_key": api_key,
        "timeout_s": timeout_s,
        "verify": verify,
        "cache": cache,
        "storage_options": storage_options,
        "allow_partial": allow_partial,
        "refresh_s": refresh_s,
    }
    kind = _kind_of(text)
    _check_options(given, kind, text)
    taken = {name: given[name] for name in _OPTIONS[kind]}
    if kind == "folder":
        if _ADDRESS.fullmatch(text):
            raise InvalidInputError(
                f"a server's address begins with http:// or https://, got {text!r}; a folder of that name is "
                f"'./{text}'"
            )
        return connect_folder(path, **taken)
    if kind == "server":
        return _on_server(text, **taken)
    taken["cache"] = at_home(cache).absolute() if cache is not None else cache_folder()
    return _on_ray(text, **taken) if kind == "ray" else shards.connect(text, **taken)


_ADDRESS = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*:\d{1,5}|\[[0-9A-Fa-f:.]+\](?::\d{1,5})?")  # host:port
_OPTIONS = {
    "folder": ("read_only", "durability", "memory_budget"),
    "server": ("api_key", "timeout_s", "verify"),
    "bucket": ("read_only", "memory_budget", "cache", "storage_options", "allow_partial", "refresh_s"),
    "ray": ("read_only", "cache", "allow_partial", "refresh_s"),
}
_DEFAULTS = {
    "read_only": False,
    "durability": "full",
    "timeout_s": TIMEOUT_S,
    "verify": True,
    "allow_partial": False,
    "refresh_s": REFRESH_S,
}


def _text_of(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    try:
        is_path = isinstance(text, str) and b"\0" not in text.encode()
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise InvalidInputError(f"a path is text of UTF-8 without NUL, got {path!r}")
    return text


def _kind_of(text: str) -> str:
    if is_deployed(text):
        return "ray"
    if is_url(text):
        return "bucket"
    return "server" if "://" in text else "folder"


def _check_options(given: Mapping[str, Any], kind: str, text: str) -> None:
    """Refuse an option that another kind of place takes: none is ignored."""
    for name, value in given.items():
        if name not in _OPTIONS[kind] and value != _DEFAULTS.get(name):
            others = " or ".join(f"a {other}" for other in _OPTIONS if name in _OPTIONS[other])
            raise InvalidInputError(f"{name} is for {others}, and {text!r} is a {kind}")


def _on_server(text: str, *, api_key: str | None, timeout_s: float, verify: bool | str) -> RemoteDatabase:
    try:
        from faissbase.client.remote import RemoteDatabase
        from faissbase.client.settings import address_of
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return RemoteDatabase(address_of(text, api_key, timeout_s, verify))


def connect_folder(
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    durability: Durability = "full",
    memory_budget: int | None = None,
    tenant: str = DEFAULT_TENANT,
) -> Database:
    """A folder as a database, also where some of its collections are in object storage by now."""

    def opened(url: str, read_only: bool) -> ShardedDatabase:
        return shards.connect(url, cache_folder(), read_only=read_only, memory_budget=memory_budget)

    return database.connect(
        at_home(path) if os.fspath(path) else path,
        read_only=read_only,
        durability=durability,
        memory_budget=memory_budget,
        tenant=tenant,
        places=ShardPlaces(opened),
    )


def _on_ray(text: str, **options: Any) -> ShardedDatabase:
    from faissbase.sharded import runner  # ray costs nobody else anything

    return runner.connect(text, **options)


def at_home(path: str | os.PathLike[str]) -> Path:
    """The path, ``~/`` being the home folder: shells leave it in ``--data=~/db``."""
    found = Path(path)
    return found.expanduser() if found.parts[:1] == ("~",) else found


def cache_folder() -> Path:
    """Where shards are kept on this machine when nothing else is said."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "faissbase"


def aconnect(
    url: str, *, api_key: str | None = None, timeout_s: float = TIMEOUT_S, verify: bool | str = True
) -> AsyncDatabase:
    """The database that a server holds, for ``async`` code: the methods of `connect`'s, awaited."""
    try:
        from faissbase.client.aremote import AsyncDatabase
        from faissbase.client.settings import address_of
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    return AsyncDatabase(address_of(url, api_key, timeout_s, verify))


def _missing(error: ModuleNotFoundError) -> Exception:
    if error.name is not None and error.name.startswith("faissbase"):
        return error
    return NotReadyError(f'a server is reached by {error.name}: pip install "faissbase[client]"')
