"""Files of others: read in a process of its own, with limits, and written again by us.

A damaged file can make FAISS crash, ask for all memory or never end; one of inverted lists on disk names any
file of this machine. So a file is first read where that hurts nobody, and what is used is what FAISS has
written then.
"""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from faissbase.dropin.allowed import Refused
from faissbase.dropin.frames import Array
from faissbase.dropin.kinds import KINDS, kind_of
from faissbase.storage.files import os_errors
from faissbase.storage.foreign import has_lists_on_disk

_FACTOR, _LEAST_BYTES = 6, 1 << 30
_CPU_S = 600
_REFUSED = 3
_ANSWER_BYTES = 16
_ADVICE = (
    "inverted lists on disk cannot be sent to the server: bring them into memory first, with "
    "faiss.read_index and ArrayInvertedLists"
)


class Reader:
    """A process that has FAISS loaded, and makes another for each file; begun while there are no threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair()
        with theirs:
            if os.fork() == 0:
                self._ours.close()
                _serve(theirs)
                os._exit(0)

    def read(self, data: Array, kind: str, folder: Path) -> Any:
        """The object in the bytes ``uint8[n]`` of a file.

        Raises
        ------
        RuntimeError
            FAISS's own, where it cannot read them; or they took too much memory or time.
        Refused
            Inverted lists on disk.
        """
        if kind not in KINDS:
            raise Refused(f"a file of {kind!r} cannot be sent to the server")
        with (
            os_errors("cannot keep a file for reading"),
            tempfile.TemporaryDirectory(dir=folder, prefix=".in-") as name,
        ):
            given, clean, told = (Path(name) / file for file in ("given", "clean", "told"))
            with open(given, "wb") as file:
                file.write(data.data)
            status = self._status_of([str(given), str(clean), str(told), kind])
            said = told.read_text() if told.exists() else ""
            said = said.replace(str(given), "the file").replace(str(clean), "the file")
            if status == _REFUSED:
                raise Refused(said)
            if status:
                raise RuntimeError(said or "the file is damaged: reading it ended the process that tried")
            return KINDS[kind].read(str(clean))

    def _status_of(self, job: list[str]) -> int:
        """How the process has ended that has read a file."""
        with self._lock:
            self._ours.sendall(orjson.dumps(job) + b"\n")
            answer = self._ours.recv(_ANSWER_BYTES)
        if not answer:
            raise RuntimeError("the process that reads files has ended")
        return int(answer)


def _serve(jobs: socket.socket) -> None:
    """Have a process read each file that is asked for, until nobody asks any more."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):
        os.dup2(null, fd)
    for line in jobs.makefile("rb"):
        child = os.fork()
        if child == 0:
            given, clean, told, kind = orjson.loads(line)
            os._exit(_main(Path(given), Path(clean), Path(told), kind))
        _, status = os.waitpid(child, 0)
        jobs.sendall(b"%d" % os.waitstatus_to_exitcode(status))


def written(thing: Any, folder: Path) -> Array:
    """The bytes ``uint8[n]`` of the file that FAISS writes of an object; they are on disk, and go with it."""
    kind = kind_of(thing)
    if kind is None:
        raise Refused(f"a {type(thing).__name__} cannot be fetched by itself, the index that it is of can")
    with (
        os_errors("cannot keep a file for sending"),
        tempfile.TemporaryDirectory(dir=folder, prefix=".out-") as name,
    ):
        path = str(Path(name) / "out")
        try:
            kind.write(thing, path)
        except RuntimeError as error:
            raise RuntimeError(str(error).replace(path, "the file")) from None
        return np.memmap(path, np.uint8, "r")


def _main(given: Path, clean: Path, told: Path, kind: str) -> int:
    """Read a file and write it anew; what is wrong with it goes into ``told``."""
    size = given.stat().st_size
    most = _FACTOR * size + _LEAST_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    read, write = KINDS[kind].read, KINDS[kind].write
    if has_lists_on_disk(given):
        told.write_text(_ADVICE)
        return _REFUSED
    try:
        write(read(str(given)), str(clean))
        read(str(clean))  # as it will be read where it must not fail
    except MemoryError:
        told.write_text("not enough memory")
        return 1
    except Exception as error:  # noqa: BLE001  # whoever has asked is to know
        told.write_text(str(error))
        return 1
    return 0
