"""Being part of a Ray cluster: the only module that imports ray (extra ``ray``), and only once it is used."""

from __future__ import annotations

import logging
import os
from typing import Any

from faissbase.errors import AccessError, NotReadyError

NAMESPACE = "faissbase"


def ray_module() -> Any:
    try:
        import ray
    except ImportError as error:
        raise NotReadyError('shards are served by Ray: pip install "faissbase[ray]"') from error
    return ray


def join(address: str | None, *, may_start: bool = False, workers: int = 1) -> None:
    """Be part of a Ray cluster: the one this process is in, that at an address, or the one on this machine.

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
        return
    quiet = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            ray.init(address=address or "auto", **quiet)
        except ConnectionError:
            if not may_start or address is not None:
                raise
            ray.init(address="local", num_cpus=_cpus(workers), include_dashboard=False, **quiet)
    except ray.exceptions.AuthenticationError as error:
        raise AccessError(
            f"the Ray cluster at {address or 'this machine'} refuses the token: set RAY_AUTH_MODE=token, and "
            f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to that of its head ({first_line(error)})"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NotReadyError(
            f"no Ray cluster at {address or 'this machine'} that can be joined: {_short(error)}; "
            "faissbase shards deploy URL starts one, and so does ray start --head; one with a "
            "token is joined with RAY_AUTH_MODE=token and the RAY_AUTH_TOKEN of its head"
        ) from error


def _cpus(workers: int) -> int:
    """What a cluster on this machine says it has: room for the workers, whatever there is."""
    return max(os.cpu_count() or 1, workers + 1)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
