"""The tasks of a build on a Ray cluster; a task whose worker dies is run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from faissbase.errors import FaissbaseError, InternalError, InvalidInputError, UnavailableError
from faissbase.sharded.executors import MOST_AGAIN
from faissbase.sharded.joining import first_line, join, last_line, ray_module

T = TypeVar("T")
R = TypeVar("R")


class RayExecutor:
    """Runs the tasks of a build on a Ray cluster; see `executors.Executor`.

    A process that is part of none joins one, and leaves it with `close`.

    Parameters
    ----------
    workers : int, optional
        Tasks at the same time; as many as the cluster has processors where nothing is said.
    address : str, optional
        Of the cluster; the one on this machine where nothing is said, started where there is none.
    cpus_per_task : float
    """

    def __init__(
        self, workers: int | None = None, address: str | None = None, cpus_per_task: float = 1.0
    ) -> None:
        if workers is not None and workers < 1:
            raise InvalidInputError(f"workers must be 1 or more, got {workers}")
        self._has_joined = join(address, may_start=True, workers=workers or 1)
        self._ray = ray_module()
        self._workers = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1.0)))
        self._outcome = self._ray.remote(num_cpus=cpus_per_task, max_retries=0)(_outcome)

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        waiting = list(reversed(range(len(items))))
        tries = [0] * len(items)
        busy: dict[Any, int] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self._workers:
                    item = waiting.pop()
                    busy[self._outcome.remote(task, items[item])] = item
                for ref in self._ray.wait(list(busy))[0]:
                    item = busy.pop(ref)
                    result = self._result(ref, item, tries)
                    if result is None:
                        waiting.append(item)
                        continue
                    yield item, result[0]
        finally:
            for ref in busy:
                self._ray.cancel(ref, force=True)

    def _result(self, ref: Any, item: int, tries: list[int]) -> tuple[Any] | None:
        """What a task has brought; None where its worker has died and it is to be run again."""
        exceptions = self._ray.exceptions
        try:
            is_done, result = self._ray.get(ref)
        except exceptions.RayTaskError as error:
            raise InternalError(f"task {item} failed: {last_line(error)}") from error
        except exceptions.RayError as error:
            tries[item] += 1
            if tries[item] > MOST_AGAIN:
                raise UnavailableError(
                    f"the worker of task {item} has died {tries[item]} times, last: {first_line(error)}"
                ) from error
            return None
        if not is_done:
            raise result
        return (result,)

    def close(self) -> None:
        """Leave the cluster, unless this process was part of it before."""
        if self._has_joined:
            self._ray.shutdown()


def _outcome(task: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    """Whether a task was done, and its result or error."""
    try:
        return True, task(item)
    except FaissbaseError as error:
        return False, error
