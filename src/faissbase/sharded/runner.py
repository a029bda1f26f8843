"""Shards served by actors on a Ray cluster, from a laptop to many machines.

The only module that imports ray (extra ``ray``), and only once something of it is used. Workers and their
controller are detached actors with names in the namespace ``faissbase``; who connects finds them there and
asks the workers directly. Calls are never repeated by Ray: the router does that, on another replica.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from faissbase.errors import (
    AccessError,
    AlreadyExistsError,
    FaissbaseError,
    InternalError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.controller import Controller, Status
from faissbase.sharded.database import REFRESH_S, ShardedDatabase
from faissbase.sharded.fanout import Tally
from faissbase.sharded.group import Group, OpenGroup
from faissbase.sharded.manifest import Manifest
from faissbase.sharded.placement import Placement
from faissbase.sharded.router import TIMEOUT_S, RoutedGroup
from faissbase.sharded.scaling import Bounds
from faissbase.sharded.worker import Call, Health, Reply, ShardServer, Version, WorkerGoneError

NAMESPACE = "faissbase"
NAME = "faissbase"
SCHEME = "ray"
_LOOK_S = 0.5
_ANSWER_S = 1.0
_OPEN_S = 600.0
_CONTROL_S = 30.0
_CALLS = 64
_CARE = {"concurrency_group": "care"}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What a deployment is made of; every actor of it knows this.

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


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise NotReadyError('shards are served by Ray: pip install "faissbase[ray]"') from error
    return ray


# ---- actors ------------------------------------------------------------------------------------------


class _WorkerActor:
    """A `ShardServer` in a process of its own."""

    def __init__(self, deployment: Deployment) -> None:
        self._server = ShardServer(
            open_bucket(deployment.url, deployment.storage_options),
            Path(deployment.cache),
            life=uuid.uuid4().hex,
            node=_ray().get_runtime_context().get_node_id(),
            now=time.monotonic,
            memory_budget=deployment.memory_budget,
        )

    def answer(self, call: Call) -> Reply:
        return self._server.answer(call)

    def health(self) -> Health:
        return self._server.health()

    def open(self, key: Version, shards: tuple[str, ...]) -> bool:
        return not self._server.open(*key, shards)

    def keep(self, dataset: str, versions: list[int]) -> None:
        self._server.keep(dataset, versions)


class _ControllerActor:
    """A `Controller` in a process of its own; may be started again at any time."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        bucket = open_bucket(deployment.url, deployment.storage_options)
        fleet = _RayFleet(deployment)
        self._controller = Controller(bucket, fleet, deployment.bounds, deployment.replicas, time.monotonic)
        for rounds in (self._controller.look, self._mend):
            threading.Thread(target=_often, args=(rounds,), daemon=True).start()

    def _mend(self) -> None:
        self._controller.mend()
        self._controller.follow()

    def deployment(self) -> Deployment:
        return self._deployment

    def status(self) -> Status:
        return self._controller.status()

    def open_all(self, names: list[str]) -> None:
        self._controller.open_all(names)

    def placements(self, keys: list[Version]) -> dict[Version, Placement] | FaissbaseError:
        try:
            return {key: self._controller.placement(*key) for key in keys}
        except FaissbaseError as error:
            return error


def _often(work: Callable[[], None]) -> None:
    while True:
        try:
            work()
        except (FaissbaseError, _ray().exceptions.RayError):
            logging.getLogger(__name__).warning("a round of the controller failed", exc_info=True)
        time.sleep(_LOOK_S)


class _RayFleet:
    """The workers of a deployment, found by their names."""

    def __init__(self, deployment: Deployment) -> None:
        self._ray = _ray()
        self._deployment = deployment
        self._prefix = f"{deployment.name}/worker-"

    def names(self) -> list[str]:
        found = self._ray.util.list_named_actors(all_namespaces=True)
        names = [each["name"] for each in found if each["namespace"] == NAMESPACE]
        return sorted(name for name in names if name.startswith(self._prefix))

    def start(self) -> str:
        name = self._prefix + uuid.uuid4().hex[:8]
        options: dict[str, Any] = {"num_cpus": self._deployment.cpus_per_worker}
        if self._deployment.memory_per_worker is not None:
            options["memory"] = self._deployment.memory_per_worker
        _actor(_WorkerActor, name, _CALLS, scheduling_strategy="SPREAD", **options).remote(self._deployment)
        return name

    def stop(self, name: str) -> None:
        with suppress(ValueError):  # it is gone already
            self._ray.kill(self._ray.get_actor(name, NAMESPACE), no_restart=True)

    def health(self, names: Iterable[str]) -> dict[str, Health | None]:
        asked = self._asked(names, lambda worker, name: worker.health.options(**_CARE).remote())
        return self._told(asked, _ANSWER_S)

    def open(self, key: Version, shards: Mapping[str, tuple[str, ...]]) -> set[str]:
        asked = self._asked(
            shards, lambda worker, name: worker.open.options(**_CARE).remote(key, shards[name])
        )
        return {name for name, is_open in self._told(asked, _OPEN_S).items() if is_open}

    def keep(self, dataset: str, versions: Iterable[int]) -> None:
        kept = list(versions)
        asked = self._asked(
            self.names(), lambda worker, name: worker.keep.options(**_CARE).remote(dataset, kept)
        )
        self._told(asked, _CONTROL_S)

    def _asked(self, names: Iterable[str], ask: Callable[[Any, str], Any]) -> dict[str, Any]:
        """By worker, the reference to what it will say; None of those that are not there."""
        asked: dict[str, Any] = {}
        for name in names:
            try:
                asked[name] = ask(self._ray.get_actor(name, NAMESPACE), name)
            except (ValueError, self._ray.exceptions.RayError):
                asked[name] = None
        return asked

    def _told(self, asked: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """What was said in time; None by those that are gone."""
        refs = [ref for ref in asked.values() if ref is not None]
        ready = set(self._ray.wait(refs, num_returns=len(refs), timeout=timeout_s)[0]) if refs else set()
        return {name: self._value(ref) for name, ref in asked.items() if ref is None or ref in ready}

    def _value(self, ref: Any) -> Any:
        if ref is None:
            return None
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError:
            return None


def _actor(kind: type, name: str, calls: int, **options: Any) -> Any:
    """What starts an actor that outlives who started it, and is started again when it ends."""
    made = _ray().remote(concurrency_groups={"care": 8})(kind)
    return made.options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=-1,
        max_task_retries=0,
        max_concurrency=calls,
        **options,
    )


# ---- asking ------------------------------------------------------------------------------------------


class _RayWorker:
    """A `Worker` that is an actor."""

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor

    def call(self, call: Call) -> Future[Reply]:
        ray = _ray()
        answer: Future[Reply] = Future()
        try:
            told = self._actor.answer.remote(call).future()
        except ray.exceptions.RayError as error:
            raise WorkerGoneError(f"worker {self.name} is gone: {_first_line(error)}") from error
        told.add_done_callback(lambda done: self._pass_on(done, answer))
        return answer

    def _pass_on(self, told: Future[Reply], answer: Future[Reply]) -> None:
        error = told.exception()
        if error is None:
            answer.set_result(told.result())
        elif isinstance(error, _ray().exceptions.RayTaskError):
            answer.set_exception(InternalError(f"worker {self.name} failed: {_last_line(error)}"))
        else:
            answer.set_exception(WorkerGoneError(f"worker {self.name} is gone: {_first_line(error)}"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


class RayRoutes:
    """Which actor has which shards open, as the controller said a moment ago.

    Where the controller is away, what it said last goes on to count.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._controller = _controller(name)
        self._placements: dict[Version, Placement] = {}
        self._workers: dict[str, _RayWorker] = {}
        self._groups: weakref.WeakSet[RoutedGroup] = weakref.WeakSet()
        self._changed = threading.Event()
        self._closing = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="faissbase-routes", daemon=True)
        self._follower.start()

    def groups(self, name: str, *, allow_partial: bool, timeout_s: float, tally: Tally) -> OpenGroup:
        """What opens the versions of a dataset."""

        def opened(manifest: Manifest, before: Group | None) -> Group:
            self._ask([(name, manifest.version)], _OPEN_S)
            group = RoutedGroup(manifest, self, tally, allow_partial=allow_partial, timeout_s=timeout_s)
            self._groups.add(group)
            return group

        return opened

    def placement(self, dataset: str, version: int) -> Placement:
        return self._placements[dataset, version]

    def worker(self, name: str) -> _RayWorker:
        found = self._workers.get(name)
        if found is None:
            try:
                found = _RayWorker(name, _ray().get_actor(name, NAMESPACE))
            except (ValueError, _ray().exceptions.RayError) as error:
                raise WorkerGoneError(f"worker {name} is gone") from error
            self._workers[name] = found
        return found

    def doubt(self, name: str) -> None:
        self._changed.set()

    def _ask(self, keys: list[Version], timeout_s: float) -> None:
        ray = _ray()
        try:
            told = ray.get(self._controller.placements.remote(keys), timeout=timeout_s)
        except ray.exceptions.RayError as error:
            raise UnavailableError(
                f"the controller of {self._name!r} does not answer: {_first_line(error)}"
            ) from error
        if isinstance(told, FaissbaseError):
            raise told
        self._placements.update(told)

    def _follow(self) -> None:
        """Ask again and again about the versions that somebody has open."""
        while not self._closing.is_set():
            self._changed.wait(_LOOK_S)
            self._changed.clear()
            keys = list({(group.dataset, group.version) for group in list(self._groups)})
            for gone in set(self._placements) - set(keys):
                self._placements.pop(gone)
            with suppress(FaissbaseError):  # what was said last counts; the next round tries again
                if keys and not self._closing.is_set():
                    self._ask(keys, _CONTROL_S)
            self._closing.wait(0.05)

    def close(self) -> None:
        self._closing.set()
        self._changed.set()
        self._follower.join()


class RoutedDatabase(ShardedDatabase):
    """The datasets of a deployment: read through its workers, written to its bucket."""

    def __init__(
        self,
        cluster: RayCluster,
        cache: Path,
        *,
        read_only: bool,
        allow_partial: bool,
        refresh_s: float,
        timeout_s: float,
    ) -> None:
        self._routes = RayRoutes(cluster.deployment.name)
        self.tally = Tally(time.monotonic)

        def groups(name: str) -> OpenGroup:
            return self._routes.groups(
                name, allow_partial=allow_partial, timeout_s=timeout_s, tally=self.tally
            )

        super().__init__(
            open_bucket(cluster.deployment.url, cluster.deployment.storage_options),
            cache,
            read_only=read_only,
            allow_partial=allow_partial,
            memory_budget=cluster.deployment.memory_budget,
            refresh_s=refresh_s,
            groups=groups,
        )

    def close(self) -> None:
        super().close()
        self._routes.close()


class RayCluster:
    """A deployment that runs."""

    def __init__(self, name: str) -> None:
        self._controller = _controller(name)
        self.deployment: Deployment = _got(self._controller.deployment.remote(), _CONTROL_S)

    def status(self) -> Status:
        """Its workers, and what is missing."""
        status: Status = _got(self._controller.status.remote(), _CONTROL_S)
        return status

    def wait(self, timeout_s: float) -> Status:
        """Its status once it is at full strength, or when the time is over."""
        until = time.monotonic() + timeout_s
        while not (status := self.status()).is_at_full_strength and time.monotonic() < until:
            time.sleep(0.1)
        return status

    def open_all(self) -> None:
        """Have the newest versions of all its datasets opened."""
        with ShardedDatabase(
            open_bucket(self.deployment.url, self.deployment.storage_options), Path(self.deployment.cache)
        ) as db:
            names = db.list_collections()
        _got(self._controller.open_all.remote(names), _OPEN_S)

    def connect(
        self,
        cache: Path | None = None,
        *,
        read_only: bool = False,
        allow_partial: bool = False,
        refresh_s: float = REFRESH_S,
        timeout_s: float = TIMEOUT_S,
    ) -> RoutedDatabase:
        """Its datasets as a database; ``cache`` is a folder for what is written."""
        return RoutedDatabase(
            self,
            Path(self.deployment.cache) if cache is None else cache,
            read_only=read_only,
            allow_partial=allow_partial,
            refresh_s=refresh_s,
            timeout_s=timeout_s,
        )

    def stop(self) -> None:
        """End its actors. The datasets stay where they are."""
        ray = _ray()
        ray.kill(self._controller, no_restart=True)
        fleet = _RayFleet(self.deployment)
        for name in fleet.names():
            fleet.stop(name)


def _got(ref: Any, timeout_s: float) -> Any:
    ray = _ray()
    try:
        return ray.get(ref, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FaissbaseError):
            raise error.cause from error
        raise InternalError(f"the controller failed: {_last_line(error)}") from error
    except ray.exceptions.RayError as error:
        raise UnavailableError(f"the controller does not answer: {_first_line(error)}") from error


def _controller(name: str) -> Any:
    try:
        return _ray().get_actor(name, NAMESPACE)
    except ValueError as error:
        raise NotFoundError(
            f"no deployment {name!r} runs on this Ray cluster: start it with "
            "faissbase shards serve URL --executor ray"
        ) from error


# ---- joining -----------------------------------------------------------------------------------------


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
    ray = _ray()
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
            f"RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to that of its head ({_first_line(error)})"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NotReadyError(
            f"no Ray cluster at {address or 'this machine'} that can be joined: {_first_line(error)}; "
            "faissbase shards serve URL --executor ray starts one, and so does ray start --head"
        ) from error


def _cpus(workers: int) -> int:
    """What a cluster on this machine says it has: room for the workers, whatever there is."""
    import os

    return max(os.cpu_count() or 1, workers + 1)


def deploy(  # noqa: PLR0913  # all that a deployment is made of
    url: str,
    *,
    workers: int = 2,
    replicas: int = 2,
    max_workers: int | None = None,
    cache: str | Path,
    name: str = NAME,
    address: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    cpus_per_worker: float = 1.0,
    memory_per_worker: int | None = None,
    memory_budget: int | None = None,
    wait_s: float = 60.0,
) -> RayCluster:
    """Serve the datasets of a bucket by actors, and return once all of them are open.

    Parameters
    ----------
    url : str
        Of the bucket; every node has to reach it.
    workers : int
        Actors; ``max_workers`` lets their number grow with what waits for them.
    replicas : int
        Actors that hold each shard, on different nodes where there are several.
    cache : path
        A folder on every node.
    name : str
        Several deployments may run on one cluster.
    address : str, optional
        Of the cluster; the one on this machine where nothing is said, started where there is none.
    cpus_per_worker, memory_per_worker
        What Ray reserves for each; see `Deployment`.
    wait_s : float
        How long nodes and actors may take to come up.

    Raises
    ------
    NotReadyError
        The cluster has no room for the workers, says where and how much.
    AlreadyExistsError
        A deployment of that name runs.
    """
    most = workers if max_workers is None else max_workers
    bucket = open_bucket(url, storage_options)
    facts = Deployment(
        name,
        bucket.url,
        str(Path(cache).absolute()),
        workers,
        most,
        replicas,
        dict(storage_options or {}),
        cpus_per_worker,
        memory_per_worker,
        memory_budget,
    )
    _check(facts)
    join(address, may_start=True, workers=most)
    _await_room(facts, wait_s)
    _start_controller(facts)
    cluster = RayCluster(name)
    status = cluster.wait(wait_s)
    if not status.is_at_full_strength:
        cluster.stop()
        raise NotReadyError(f"{_missing(status)} after {wait_s:g} s; {_room(facts)}")
    cluster.open_all()
    return cluster


def _check(facts: Deployment) -> None:
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


def _start_controller(facts: Deployment) -> None:
    ray = _ray()
    try:
        _actor(_ControllerActor, facts.name, 32, num_cpus=0).remote(facts)
    except ray.exceptions.ActorAlreadyExistsError as error:
        raise AlreadyExistsError(
            f"a deployment {facts.name!r} runs on this cluster: stop it, or give another name"
        ) from error
    except ray.exceptions.RayError as error:
        raise UnavailableError(f"Ray cannot start the controller: {_first_line(error)}") from error


def _await_room(facts: Deployment, wait_s: float) -> None:
    """Wait until the nodes that are there could hold all workers."""
    until = time.monotonic() + wait_s
    while sum(_fit(facts, node) for node in _nodes()) < facts.workers:
        if time.monotonic() >= until:
            raise NotReadyError(
                f"there is no room for {facts.workers} workers after {wait_s:g} s; {_room(facts)}"
            )
        time.sleep(0.2)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in _ray().nodes() if node["Alive"]]


def _fit(facts: Deployment, node: Mapping[str, Any]) -> int:
    """How many workers a node has room for when nothing else runs on it."""
    resources = node["Resources"]
    rooms = [float(facts.workers)]
    if facts.cpus_per_worker:
        rooms.append(resources.get("CPU", 0.0) / facts.cpus_per_worker)
    if facts.memory_per_worker:
        rooms.append(resources.get("memory", 0.0) / facts.memory_per_worker)
    return int(min(rooms))


def _room(facts: Deployment) -> str:
    """What workers want and what the nodes have, in words."""
    wanted = f"each worker wants {facts.cpus_per_worker:g} CPU"
    if facts.memory_per_worker:
        wanted += f" and {_gib(facts.memory_per_worker)}"
    nodes = [
        f"{node['NodeManagerAddress']} has {node['Resources'].get('CPU', 0):g} CPU and "
        f"{_gib(node['Resources'].get('memory', 0))}, room for {_fit(facts, node)}"
        for node in _nodes()
    ]
    told = "; ".join(nodes) or "there are no nodes"
    return f"{wanted}; {told}: add nodes, or ask for fewer or smaller workers"


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"


def _missing(status: Status) -> str:
    silent = [name for name, node in status.workers.items() if node is None]
    return f"{len(silent)} of {len(status.workers)} workers do not answer"


def connect(
    address: str,
    *,
    cache: Path | None = None,
    read_only: bool = False,
    allow_partial: bool = False,
    refresh_s: float = REFRESH_S,
) -> RoutedDatabase:
    """The datasets of a deployment at ``ray://auto`` or ``ray://host:port``, with ``/name`` or without."""
    place, name = parsed(address)
    join(place)
    cluster = RayCluster(name)
    return cluster.connect(cache, read_only=read_only, allow_partial=allow_partial, refresh_s=refresh_s)


def parsed(address: str) -> tuple[str | None, str]:
    """Where the cluster is, as `join` wants it, and the name of the deployment.

    >>> parsed("ray://auto"), parsed("ray://head:10001/images")
    ((None, 'faissbase'), ('ray://head:10001', 'images'))
    """
    parts = urlsplit(address)
    if parts.scheme != SCHEME or not parts.netloc or parts.query or parts.fragment:
        raise InvalidInputError(f"expected ray://auto or ray://host:port, with /name or not, got {address!r}")
    place = None if parts.netloc == "auto" else f"ray://{parts.netloc}"
    return place, parts.path.strip("/") or NAME
