"""Being part of a Ray cluster: the only module that imports ray (extra ``ray``), and only once it is used."""

from __future__ import annotations

import logging
import os
import re
import socket
from typing import Any

from faissbase.ann.cores import cores
from faissbase.errors import AccessError, NotReadyError

NAMESPACE = "faissbase"
_REFUSED = "InvalidAuthToken"
_HEAD = re.compile(r"[^/\s]+:\d{1,5}")
_REACHED_S = 10.0
_REMEDY = (
    "faissbase shards deploy URL starts one, and so does ray start --head; one with a token is joined with "
    "RAY_AUTH_MODE=token and the RAY_AUTH_TOKEN of its head"
)


def ray_module() -> Any:
    try:
        import ray
    except ImportError as error:
        raise NotReadyError('shards are served by Ray: pip install "faissbase[ray]"') from error
    return ray


def join(address: str | None, *, may_start: bool = False, workers: int = 1) -> bool:
    """Be part of a Ray cluster: the one this process is in, that at an address, or the one on this machine.

    False where this process was part of one already.

    Parameters
    ----------
    address : str or None
        ``"host:port"``, ``"ray://host:port"``, or None for the one that runs on this machine.
    may_start : bool
        Start one in this process where none runs.

    Raises
    ------
    NotReadyError
        Ray is not installed, no cluster is there, or it is of another version.
    AccessError
        The cluster wants another token.
    """
    ray = ray_module()
    if ray.is_initialized():
        return False
    named = address or os.environ.get("RAY_ADDRESS", "")
    if _HEAD.fullmatch(named):
        _check_listening(named)
    quiet = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if not may_start or address is not None:
                raise
            ray.init(address="local", num_cpus=_cpus(workers), include_dashboard=False, **quiet)
    except (ray.exceptions.AuthenticationError, ConnectionError, RuntimeError, ValueError) as error:
        refusal = _refusal(error, ray.exceptions.AuthenticationError)
        if refusal is not None:
            raise AccessError(
                f"the Ray cluster at {named or 'this machine'} refuses the token: set RAY_AUTH_MODE=token, "
                f"and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to that of its head ({refusal})"
            ) from error
        raise NotReadyError(
            f"no Ray cluster at {named or 'this machine'} that can be joined: {_short(error)}; {_REMEDY}"
        ) from error
    return True


def _check_listening(address: str) -> None:
    """Say at once that nobody is at ``host:port``: Ray tries a head that is gone for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_S).close()
    except OSError as error:
        raise NotReadyError(f"no Ray cluster at {address}: {error}; {_REMEDY}") from error


def _refusal(error: BaseException | None, kind: type[BaseException]) -> str | None:
    """What says that a token was refused, among an error and its causes: Ray tells of a failed connection."""
    while error is not None:
        lines = str(error).splitlines()
        found = next((line for line in lines if _REFUSED in line), None)
        if found is not None or isinstance(error, kind):
            return found or first_line(error)
        error = error.__cause__ or error.__context__
    return None


def _cpus(workers: int) -> int:
    """What a cluster on this machine says it has: room for the workers, whatever there is."""
    return max(cores(), workers + 1)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
