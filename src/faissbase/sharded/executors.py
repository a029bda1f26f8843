"""Where tasks run: in this process, or in others of this machine. Knows functions and processes: no shards.

A worker that is killed takes nothing with it: its task is run again, in a new process.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from faissbase.ann.cores import cores
from faissbase.errors import FaissbaseError, InternalError, InvalidInputError, UnavailableError

T = TypeVar("T")
R = TypeVar("R")

MOST_AGAIN = 3
"""A task whose worker dies is run again so many times."""

# Before anything is imported: OpenMP and BLAS read their number of threads once.
_BOOT = """\
import json, os, sys
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = sys.argv[2]
sys.path[:] = json.loads(sys.argv[3])
from faissbase.sharded.executors import serve
serve(int(sys.argv[1]))
"""


class Executor(Protocol):
    """Runs independent tasks. Tasks must bear to be run more than once."""

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """``(i, task(items[i]))`` for every item, as they are done.

        Parameters
        ----------
        task : callable
            A function of a module, for another process has to find it by its name.
        items : sequence
            What it is given, one at a time; picklable, as its results are.

        Raises
        ------
        FaissbaseError
            What a task has raised; what had not been done then is not done any more.
        UnavailableError
            The workers of one task have died again and again.
        """
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class InlineExecutor:
    """Runs tasks in this process, one after another."""

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        for i, item in enumerate(items):
            yield i, task(item)

    def close(self) -> None:
        return None


@dataclass(slots=True, eq=False)
class _Worker:
    """A process, and the item that it works on."""

    process: subprocess.Popen[bytes]
    connection: Connection
    item: int | None = None

    def end(self) -> int:
        """Kill it; what it has ended by, which is a negative signal where it was killed."""
        self.connection.close()
        self.process.kill()
        return self.process.wait()


class ProcessesExecutor:
    """Runs tasks in processes of this machine, which live as long as the executor.

    Parameters
    ----------
    workers : int, optional
        Processes; one a core where none is given.
    threads : int, optional
        Of each, for FAISS and NumPy; an even share of the cores where none is given, of a worker that has
        less company more.
    """

    def __init__(self, workers: int | None = None, threads: int | None = None) -> None:
        workers = cores() if workers is None else workers
        if workers < 1:
            raise InvalidInputError(f"workers must be 1 or more, got {workers}")
        self._n_workers = workers
        self._threads_given = threads
        self._threads = 1
        self._idle: list[_Worker] = []

    def run(self, task: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[int, R]]:
        self._share_cores(len(items))
        waiting = deque(range(len(items)))
        tries = [0] * len(items)
        busy: dict[Connection, _Worker] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self._n_workers:
                    worker = self._given(task, items, waiting.popleft())
                    busy[worker.connection] = worker
                for ready in wait(list(busy)):
                    assert isinstance(ready, Connection)
                    worker = busy.pop(ready)
                    assert worker.item is not None
                    try:
                        is_done, result = ready.recv()
                    except (EOFError, OSError):
                        tries[worker.item] += 1
                        _check_tries(worker, tries[worker.item])
                        waiting.appendleft(worker.item)
                        continue
                    self._idle.append(worker)
                    if not is_done:
                        raise result
                    yield worker.item, result
        finally:
            for worker in busy.values():
                worker.end()

    def close(self) -> None:
        idle, self._idle = self._idle, []
        for worker in idle:
            worker.end()

    def _share_cores(self, n_items: int) -> None:
        """Have as many threads in each worker as keep the cores busy: told a process when it starts."""
        n_busy = max(1, min(self._n_workers, n_items))
        threads = self._threads_given or max(1, cores() // n_busy)
        if threads != self._threads:
            self.close()
            self._threads = threads

    def _given(self, task: Callable[[T], R], items: Sequence[T], item: int) -> _Worker:
        """A worker that has begun with an item; one that has died while it was idle is replaced."""
        while True:
            worker = self._idle.pop() if self._idle else self._started()
            try:
                worker.connection.send((task, items[item]))
            except (BrokenPipeError, ConnectionError):
                worker.end()
                continue
            worker.item = item
            return worker

    def _started(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            words = [str(theirs.fileno()), str(self._threads), json.dumps(sys.path)]
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, *words],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the driver, whose end ends its workers
            )
        return _Worker(process, Connection(ours.detach()))


def _check_tries(worker: _Worker, tries: int) -> None:
    """Give up on a task that kills its workers."""
    code = worker.end()
    if tries > MOST_AGAIN:
        reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise UnavailableError(
            f"the worker of task {worker.item} has died {tries} times, last by {reason}: is there enough "
            "memory for so many workers? what is done stays done, run it again with fewer"
        )


def serve(descriptor: int) -> None:
    """The life of a worker: takes tasks and answers, until the driver is gone."""
    connection = Connection(descriptor)
    tasks: queue.SimpleQueue[tuple[Callable[[Any], Any], Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    while True:
        task, item = tasks.get()
        connection.send(_outcome(task, item))


def _receive(connection: Connection, tasks: queue.SimpleQueue[Any]) -> None:
    """Hand on what comes; end the process at once, whatever it does, when the driver is gone."""
    with suppress(EOFError, OSError):
        while True:
            tasks.put(_unpickled(connection.recv_bytes()))
    os._exit(1)


def _unpickled(content: bytes) -> Any:
    import pickle

    try:
        return pickle.loads(content)
    except Exception as error:  # noqa: BLE001  # told to the driver, where the worker would just be gone
        return _raising, InternalError(f"a task cannot be read by its worker: {error}")


def _raising(error: FaissbaseError) -> None:
    raise error


def _outcome(task: Callable[[Any], Any], item: Any) -> tuple[bool, Any]:
    """Whether it was done, and its result or error."""
    try:
        return True, task(item)
    except FaissbaseError as error:
        return False, error
    except Exception as error:  # noqa: BLE001  # a worker's outermost handler
        return False, InternalError(f"{type(error).__name__}: {error}; a bug in faissbase")
