"""Work that collections want done while their users do other things, by one thread of a database."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import Protocol

from faissbase.errors import FaissbaseError, NotFoundError, NotReadyError
from faissbase.storage.malloc import return_freed_memory

_IDLE_S = 5.0
_RETRY_S = 1.0
_log = logging.getLogger("faissbase")


class Maintained(Protocol):
    """What has work to be done."""

    @property
    def name(self) -> str: ...
    def maintain(self, stop: threading.Event) -> bool:
        """Do what is due; False where somebody else is at it, so that it has to be looked at again."""
        ...


class Background:
    """Runs one piece of work after another. Its thread is there only while there is work."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: dict[Maintained, None] = {}  # in order, none twice
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._stop = threading.Event()

    def submit(self, work: Maintained) -> None:
        """Have ``work`` done soon, once, however often it is submitted before that."""
        if self._process != os.getpid():  # a fork has inherited no thread
            self.__init__()  # type: ignore[misc]
        with self._condition:
            if self._stop.is_set() or work in self._waiting:
                return
            self._waiting[work] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="faissbase-background", daemon=True)
                self._thread.start()
                atexit.register(self.close)  # FAISS must not be at work while the interpreter goes down
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                if not self._waiting and not self._stop.is_set():
                    self._condition.wait(_IDLE_S)
                if self._stop.is_set() or not self._waiting:
                    self._thread = None
                    atexit.unregister(self.close)
                    return
                work = next(iter(self._waiting))
                del self._waiting[work]
            if not self._is_done(work):
                self._stop.wait(_RETRY_S)
                with self._condition:
                    self._waiting[work] = None

    def _is_done(self, work: Maintained) -> bool:
        try:
            return work.maintain(self._stop)
        except (NotFoundError, NotReadyError):
            pass  # deleted or closed meanwhile
        except FaissbaseError as error:
            # Searches stay right without what was to be built; the next write tries again.
            _log.warning("collection %r: background work failed: %s", work.name, error)
        except Exception:  # noqa: BLE001  # the loop must live on for the other collections
            _log.exception("collection %r: background work failed", work.name)
        finally:
            return_freed_memory()  # an index that was built leaves much behind
        return True

    def close(self) -> None:
        """Stop at the next point where work can be left, and wait for it."""
        if self._process != os.getpid():  # the thread is the parent's, and its lock may be held for ever here
            return
        with self._condition:
            self._stop.set()
            self._waiting.clear()
            self._condition.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
