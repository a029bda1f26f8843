"""What a deployment of workers is made of, and whether nodes have room for it. Knows only numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from faissbase.errors import InvalidInputError
from faissbase.sharded.controller import Status
from faissbase.sharded.scaling import Bounds

NAME = "faissbase"
SCHEME = "ray"


@dataclass(frozen=True, slots=True)
class Deployment:
    """What every actor of a deployment knows.

    Attributes
    ----------
    name : str
    url : str
        Of the bucket.
    cache : str
        A folder on every node, on a disk with room for the shards that are placed there.
    workers, max_workers, replicas : int
    storage_options : dict
    cpus_per_worker : float
        Of Ray's resources, to be reserved.
    memory_per_worker : int or None
        Bytes to be reserved.
    memory_budget : int or None
    """

    name: str
    url: str
    cache: str
    workers: int
    max_workers: int
    replicas: int
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    cpus_per_worker: float = 1.0
    memory_per_worker: int | None = None
    memory_budget: int | None = None

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.workers, self.max_workers)


@dataclass(frozen=True, slots=True)
class Node:
    """A machine, and what of it may be reserved."""

    address: str
    cpus: float
    memory_bytes: float


def check(facts: Deployment) -> None:
    """Refuse what no cluster could run."""
    if facts.replicas < 1:
        raise InvalidInputError(f"expected replicas >= 1, got {facts.replicas}")
    if facts.replicas > facts.workers:
        raise InvalidInputError(
            f"{facts.replicas} replicas need as many workers, got {facts.workers}: add workers"
        )
    if facts.cpus_per_worker < 0 or (facts.memory_per_worker or 0) < 0:
        raise InvalidInputError(
            f"expected cpus_per_worker and memory_per_worker >= 0, got {facts.cpus_per_worker} and "
            f"{facts.memory_per_worker}"
        )
    if not facts.name or "/" in facts.name:
        raise InvalidInputError(f"a deployment's name has no '/', got {facts.name!r}")
    _ = facts.bounds


def n_fitting(facts: Deployment, node: Node) -> int:
    """How many workers a node has room for when nothing else runs on it."""
    rooms: list[float] = [facts.workers]
    if facts.cpus_per_worker:
        rooms.append(node.cpus / facts.cpus_per_worker)
    if facts.memory_per_worker:
        rooms.append(node.memory_bytes / facts.memory_per_worker)
    return int(min(rooms))


def room(facts: Deployment, nodes: Sequence[Node]) -> str:
    """What workers want and what the nodes have, in words."""
    wanted = f"each worker wants {facts.cpus_per_worker:g} CPU"
    if facts.memory_per_worker:
        wanted += f" and {_gib(facts.memory_per_worker)}"
    told = [
        f"{node.address} has {node.cpus:g} CPU and {_gib(node.memory_bytes)}, "
        f"room for {n_fitting(facts, node)}"
        for node in nodes
    ]
    there = "; ".join(told) or "there are no nodes"
    return f"{wanted}; {there}: add nodes, or ask for fewer or smaller workers"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


def missing(status: Status) -> str:
    """Who does not answer, in words."""
    silent = [name for name, node in status.workers.items() if node is None]
    return f"{len(silent)} of {len(status.workers)} workers do not answer"


def is_deployed(url: str) -> bool:
    """Whether it leads to a deployment, and not to a store."""
    return urlsplit(url).scheme == SCHEME


def parsed(address: str) -> tuple[str | None, str]:
    """Where the cluster is (None: on this machine), and the name of the deployment.

    >>> parsed("ray://auto"), parsed("ray://head:10001/images")
    ((None, 'faissbase'), ('ray://head:10001', 'images'))
    """
    parts = urlsplit(address)
    if parts.scheme != SCHEME or not parts.netloc or parts.query or parts.fragment:
        raise InvalidInputError(
            f"expected ray://auto or ray://host:port, with /name or without, got {address!r}"
        )
    place = None if parts.netloc == "auto" else f"ray://{parts.netloc}"
    return place, parts.path.strip("/") or NAME
