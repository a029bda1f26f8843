"""Many who read or one who changes; what a fork cannot share. Knows threads and processes only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class Closable(Protocol):
    @property
    def is_closed(self) -> bool: ...


C = TypeVar("C", bound=Closable)
_of_parents: list[Closable] = []  # to be neither used nor closed: the parent goes on using them


class EachProcess(Generic[C]):
    """A client for each process: on connections that a fork shares, each would get the other's answers.

    ``make`` makes one. What was closed before the fork stays closed.
    """

    def __init__(self, make: Callable[[], C]) -> None:
        self._make = make
        self._client = make()
        self._process = os.getpid()

    def own(self) -> C:
        """The one of this process."""
        if self._process != os.getpid():
            _of_parents.append(self._client)
            if not self._client.is_closed:
                self._client = self._make()
            self._process = os.getpid()
        return self._client


class Sharing:
    """A lock that many readers hold together, or one writer alone; a writer that waits lets no reader in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n_readers = 0
        self._n_waiting = 0
        self._is_written = False

    def take(self, *, alone: bool) -> None:
        """Wait until it is free for one more reader, or for a writer, and hold it."""
        with self._changed:
            if not alone:
                self._changed.wait_for(lambda: not self._is_written and not self._n_waiting)
                self._n_readers += 1
                return
            self._n_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_written and not self._n_readers)
                self._is_written = True
            finally:
                self._n_waiting -= 1
                if not self._is_written:
                    self._changed.notify_all()  # the readers that this writer has held up

    def give_back(self, *, alone: bool) -> None:
        """End what `take` began."""
        with self._changed:
            if alone:
                self._is_written = False
            else:
                self._n_readers -= 1
            if alone or not self._n_readers:
                self._changed.notify_all()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Beside other readers."""
        self.take(alone=False)
        try:
            yield
        finally:
            self.give_back(alone=False)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Alone."""
        self.take(alone=True)
        try:
            yield
        finally:
            self.give_back(alone=True)
