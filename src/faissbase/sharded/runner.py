"""Shards served by actors on a Ray cluster, from a laptop to many machines.

Workers and their controller are detached actors with names in the namespace ``faissbase``; who connects finds
them there and asks the workers directly. Calls are never repeated by Ray: the router does that, on another
replica.
"""

from __future__ import annotations

import logging
import math
import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from faissbase.collection.bounds import UNBOUNDED, Bounds
from faissbase.errors import (
    AlreadyExistsError,
    FaissbaseError,
    InternalError,
    NotFoundError,
    NotReadyError,
    UnavailableError,
)
from faissbase.sharded import deployment
from faissbase.sharded.bucket import open_bucket
from faissbase.sharded.controller import Controller, Status
from faissbase.sharded.database import REFRESH_S, ShardedDatabase
from faissbase.sharded.deployment import NAME, Deployment, Node
from faissbase.sharded.fanout import Tally
from faissbase.sharded.joining import NAMESPACE, first_line, join, last_line, ray_module
from faissbase.sharded.placement import Placement
from faissbase.sharded.router import TIMEOUT_S
from faissbase.sharded.routes import FollowedRoutes, RoutedDatabase
from faissbase.sharded.worker import Call, Health, Reply, ShardServer, Version, WorkerGoneError

T = TypeVar("T")
R = TypeVar("R")

_LOOK_S = 0.5
_ANSWER_S = 1.0
_OPEN_S = 600.0
_CONTROL_S = 30.0
_CALLS = 64
_ON_HEAD = {"node:__internal_head__": 0.001}  # whose end is the cluster's end anyway
_CARE = {"concurrency_group": "care"}


# ---- actors ------------------------------------------------------------------------------------------


class _WorkerActor:
    """A `ShardServer` in a process of its own."""

    def __init__(self, deployment: Deployment) -> None:
        self._server = ShardServer(
            open_bucket(deployment.url, deployment.storage_options),
            Path(deployment.cache),
            life=uuid.uuid4().hex,
            node=ray_module().get_runtime_context().get_node_id(),
            now=time.monotonic,
            memory_budget=deployment.memory_budget,
            cores=math.ceil(deployment.cpus_per_worker) or None,
        )

    def answer(self, call: bytes) -> bytes:
        return _packed(self._server.answer(pickle.loads(call)))

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
        except (FaissbaseError, ray_module().exceptions.RayError):
            logging.getLogger(__name__).warning("a round of the controller failed", exc_info=True)
        time.sleep(_LOOK_S)


class _RayFleet:
    """The workers of a deployment, found by their names."""

    def __init__(self, deployment: Deployment) -> None:
        self._ray = ray_module()
        self._deployment = deployment
        self._prefix = f"{deployment.name}/worker-"

    def names(self) -> list[str]:
        found = self._ray.util.list_named_actors(all_namespaces=True)
        names = [each["name"] for each in found if each["namespace"] == NAMESPACE]
        return sorted(name for name in names if name.startswith(self._prefix))

    def nodes(self) -> set[str]:
        return {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}

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

    def open(
        self, key: Version, shards: Mapping[str, tuple[str, ...]], is_living: Callable[[str], bool]
    ) -> set[str]:
        asked = self._asked(
            shards, lambda worker, name: worker.open.options(**_CARE).remote(key, shards[name])
        )
        waiting = {ref: name for name, ref in asked.items() if ref is not None}
        done: set[str] = set()
        while waiting:  # a call to a node that is cut off would end a long time later
            ready = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=_LOOK_S)[0]
            done |= {name for ref in ready if (name := waiting.pop(ref)) and self._value(ref)}
            waiting = {ref: name for ref, name in waiting.items() if is_living(name)}
        return done

    def keep(self, dataset: str, versions: Iterable[int]) -> None:
        kept = list(versions)
        asked = self._asked(
            self.names(), lambda worker, name: worker.keep.options(**_CARE).remote(dataset, kept)
        )
        self._told(asked, _ANSWER_S)

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
    made = ray_module().remote(concurrency_groups={"care": 8})(kind)
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
        ray = ray_module()
        answer: Future[Reply] = Future()
        try:
            told = self._actor.answer.remote(_packed(call)).future()
        except ray.exceptions.RayError as error:
            raise WorkerGoneError(f"worker {self.name} is gone: {first_line(error)}") from error
        told.add_done_callback(lambda done: self._pass_on(done, answer))
        return answer

    def _pass_on(self, told: Future[bytes], answer: Future[Reply]) -> None:
        error = told.exception()
        if error is None:
            try:
                answer.set_result(pickle.loads(told.result()))
            except (pickle.UnpicklingError, AttributeError, ImportError, EOFError, TypeError) as unreadable:
                answer.set_exception(WorkerGoneError(f"worker {self.name} cannot be read: {unreadable}"))
        elif isinstance(error, ray_module().exceptions.RayTaskError):
            answer.set_exception(InternalError(f"worker {self.name} failed: {last_line(error)}"))
        else:
            answer.set_exception(WorkerGoneError(f"worker {self.name} is gone: {first_line(error)}"))


def _packed(value: Call | Reply) -> bytes:
    """As plain pickle has it: Ray's own takes two to three times the time for such small values."""
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def _found_worker(name: str) -> _RayWorker:
    ray = ray_module()
    try:
        return _RayWorker(name, ray.get_actor(name, NAMESPACE))
    except (ValueError, ray.exceptions.RayError) as error:
        raise WorkerGoneError(f"worker {name} is gone") from error


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
        bounds: Bounds = UNBOUNDED,
    ) -> RoutedDatabase:
        """Its datasets as a database; ``cache`` is a folder for what is written."""
        facts = self.deployment
        return RoutedDatabase(
            open_bucket(facts.url, facts.storage_options),
            Path(facts.cache) if cache is None else cache,
            FollowedRoutes(self._placements, _found_worker),
            Tally(time.monotonic),
            read_only=read_only,
            allow_partial=allow_partial,
            memory_budget=facts.memory_budget,
            refresh_s=refresh_s,
            timeout_s=timeout_s,
            bounds=bounds,
        )

    def _placements(self, keys: Sequence[Version]) -> dict[Version, Placement]:
        """What the controller says; from an actor that was started again, too."""
        told: dict[Version, Placement] | FaissbaseError
        told = _got(self._controller.placements.remote(list(keys)), _OPEN_S)
        if isinstance(told, FaissbaseError):
            raise told
        return told

    def stop(self) -> None:
        """End its actors. The datasets stay where they are."""
        ray = ray_module()
        ray.kill(self._controller, no_restart=True)
        fleet = _RayFleet(self.deployment)
        for name in fleet.names():
            fleet.stop(name)


def _got(ref: Any, timeout_s: float) -> Any:
    ray = ray_module()
    try:
        return ray.get(ref, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, FaissbaseError):
            raise error.cause from error
        raise InternalError(f"the controller failed: {last_line(error)}") from error
    except ray.exceptions.RayError as error:
        raise UnavailableError(f"the controller does not answer: {first_line(error)}") from error


def joined(address: str) -> str:
    """Join the cluster at ``ray://auto`` or ``ray://host:port``; the name of the deployment meant."""
    place, name = deployment.parsed(address)
    join(place)
    return name


def _controller(name: str) -> Any:
    try:
        return ray_module().get_actor(name, NAMESPACE)
    except ValueError as error:
        raise NotFoundError(
            f"no deployment {name!r} runs on this Ray cluster: start it with faissbase shards deploy URL"
        ) from error


# ---- deploying ----------------------------------------------------------------------------------------


def deploy(  # noqa: PLR0913  # all that a deployment is made of
    url: str,
    *,
    workers: int = 2,
    replicas: int = 2,
    max_workers: int | None = None,
    cache: str | Path,
    name: str = NAME,
    address: str | None = None,
    may_start: bool = True,
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
        Of the cluster; the one on this machine where nothing is said.
    may_start : bool
        Start a cluster in this process where none runs; it ends with the process.
    cpus_per_worker, memory_per_worker
        What Ray reserves for each; see `Deployment`.
    wait_s : float
        How long nodes and actors may take to come up.

    Raises
    ------
    NotReadyError
        The cluster has no room for the workers, says where and how much.
    AlreadyExistsError
        Another deployment of that name runs. The same one is taken for this.
    """
    most = workers if max_workers is None else max_workers
    at, folder = open_bucket(url, storage_options).url, str(Path(cache).absolute())
    options = dict(storage_options or {})
    facts = Deployment(
        name, at, folder, workers, most, replicas, options, cpus_per_worker, memory_per_worker, memory_budget
    )
    deployment.check(facts)
    join(address, may_start=may_start, workers=most)
    return _deployed(facts, wait_s)


def _deployed(facts: Deployment, wait_s: float) -> RayCluster:
    """Start what does not run yet and have it open everything; where that fails, end what was started."""
    _await_room(facts, wait_s)
    is_new = _start(facts)
    cluster = RayCluster(facts.name)
    try:
        _await_strength(cluster, wait_s)
        cluster.open_all()
    except FaissbaseError:
        if is_new:
            cluster.stop()
        raise
    return cluster


def _await_strength(cluster: RayCluster, wait_s: float) -> None:
    status = cluster.wait(wait_s)
    if not status.is_at_full_strength:
        told = deployment.room(cluster.deployment, _nodes())
        raise NotReadyError(f"{deployment.missing(status)} after {wait_s:g} s; {told}")


def _start(facts: Deployment) -> bool:
    """Start workers and their controller, all at once; False where the same runs already."""
    ray = ray_module()
    fleet = _RayFleet(facts)
    try:
        _actor(_ControllerActor, facts.name, _CALLS, num_cpus=0, resources=_ON_HEAD).remote(facts)
        for _ in range(len(fleet.names()), facts.workers):
            fleet.start()
    except ray.exceptions.ActorAlreadyExistsError as error:
        running = RayCluster(facts.name).deployment
        if running != facts:
            raise AlreadyExistsError(
                f"another deployment {facts.name!r} runs on this cluster, of {running.workers} workers for "
                f"{running.url}: stop it, or give another name"
            ) from error
        return False
    except ray.exceptions.RayError as error:
        raise UnavailableError(f"Ray cannot start the workers: {first_line(error)}") from error
    return True


def _await_room(facts: Deployment, wait_s: float) -> None:
    """Wait until the nodes that are there could hold all workers."""
    until = time.monotonic() + wait_s
    while sum(deployment.n_fitting(facts, node) for node in _nodes()) < facts.workers:
        if time.monotonic() >= until:
            raise NotReadyError(
                f"there is no room for {facts.workers} workers after {wait_s:g} s; "
                f"{deployment.room(facts, _nodes())}"
            )
        time.sleep(0.2)


def _nodes() -> list[Node]:
    living = [node for node in ray_module().nodes() if node["Alive"]]
    return [
        Node(
            node["NodeManagerAddress"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("memory", 0.0),
        )
        for node in living
    ]


def connect(
    address: str,
    *,
    cache: Path | None = None,
    read_only: bool = False,
    allow_partial: bool = False,
    refresh_s: float = REFRESH_S,
) -> RoutedDatabase:
    """The datasets of a deployment at ``ray://auto`` or ``ray://host:port``, with ``/name`` or without."""
    cluster = RayCluster(joined(address))
    return cluster.connect(cache, read_only=read_only, allow_partial=allow_partial, refresh_s=refresh_s)
