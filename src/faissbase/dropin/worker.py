"""The process in which the FAISS objects of one tenant live, so that what ends it is nobody else's loss.

Whoever has started it sends it connections over one socket and ends it by closing that. On a connection: what
the caller may do and how long the frame is, as JSON after its length, a frame with what is asked, and back
the length of the answer, how many objects are held, whether the connection goes on, and the answer's frame.
Run as ``python -m faissbase.dropin.worker FD FOLDER LEASE_S MEMORY_BYTES GPU_BYTES``.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, cast

import faiss
import orjson

from faissbase.dropin import frames
from faissbase.dropin.calls import Calls, Rights
from faissbase.dropin.reading import Reader
from faissbase.storage.files import FolderLock
from faissbase.storage.malloc import return_freed_memory, share_freed_memory

ANSWER = struct.Struct("<QI?")
LENGTH = struct.Struct("<I")
_MOST_RIGHTS_BYTES = 1 << 20
_BUFFER_BYTES = 4 << 20
_READ_BYTES = 64 << 10
_LOOKS_S = 5.0
_LOCK_PATIENCE_S = 150.0  # so long, and more, the one before has to write its indexes
_SAID_BYTES = 1 << 20
_TRIMMED_BYTES = 64 << 20


class _Said:
    """What FAISS prints, which belongs on the caller's terminal."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files = []
        self._at = [0, 0]
        for target in (1, 2):
            fd = os.memfd_create(f"said-{target}")
            os.dup2(fd, target)
            self._files.append(fd)
        self._flush = ctypes.CDLL(None).fflush

    def news(self) -> list[str]:
        """What has been printed to standard output and standard error since the last call."""
        with self._lock:
            self._flush(None)
            return [self._new(which, fd) for which, fd in enumerate(self._files)]

    def _new(self, which: int, fd: int) -> str:
        at, stop = self._at[which], os.fstat(fd).st_size
        found = os.pread(fd, min(stop - at, _SAID_BYTES), at) if stop > at else b""
        self._at[which] = stop
        if stop > _SAID_BYTES:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            self._at[which] = 0
        return found.decode(errors="replace")


class Worker:
    """Serves connections, each by a thread of its own."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._said = _Said()
        self._n_cores = faiss.omp_get_max_threads()
        self._threads = threading.local()

    def serve(self, connection: socket.socket) -> None:
        """Answer what is asked on a connection, until it is closed."""
        with connection, suppress(OSError, EOFError):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            with cast("BufferedReader", connection.makefile("rb", _READ_BYTES)) as source:
                fill = _filler(source)
                while self._serve_one(fill, connection):
                    pass

    def _serve_one(self, fill: frames.Fill, connection: socket.socket) -> bool:
        """Answer one request; False where what follows it cannot be told from it."""
        length = bytearray(LENGTH.size)
        fill(memoryview(length))
        head = bytearray(min(LENGTH.unpack(length)[0], _MOST_RIGHTS_BYTES))
        fill(memoryview(head))
        allowed = orjson.loads(head)
        try:
            body, arrays = _only_frame(fill, allowed["n_bytes"])
        except (frames.FrameError, MemoryError, RecursionError) as error:
            text = str(error) or "not enough memory for these arrays"
            self._send(connection, _refusal(text), [], goes_on=False)
            return False
        try:
            answer, found = self._answer(body, arrays, Rights.of(allowed))
        except MemoryError:
            answer, found = {"error": {"type": "MemoryError", "args": []}}, []
        n_bytes = sum(array.nbytes for array in arrays)
        del arrays
        self._send(connection, answer, found)
        if n_bytes > _TRIMMED_BYTES:
            return_freed_memory()
        return True

    def _answer(
        self, body: Any, arrays: list[frames.Array], rights: Rights
    ) -> tuple[Any, list[frames.Array]]:
        if not isinstance(body, dict):
            return _refusal("expected a JSON object"), []
        self._set_threads(body.get("omp"))
        answer, found = self._calls.answer(body, arrays, rights)
        out, err = self._said.news()
        if out or err:
            answer = {**answer, "said": [out, err]}
        return answer, found

    def _set_threads(self, wanted: Any) -> None:
        """As many OpenMP threads for this call as its client wants; the setting is the thread's own."""
        n = min(max(wanted, 1), self._n_cores) if type(wanted) is int else self._n_cores
        if getattr(self._threads, "n", None) != n:
            faiss.omp_set_num_threads(n)
            self._threads.n = n

    def _send(
        self, connection: socket.socket, body: Any, arrays: list[frames.Array], *, goes_on: bool = True
    ) -> None:
        try:
            pieces = frames.pack(body, arrays)
        except ValueError as error:  # nothing that FAISS gives: the connection is for the next call
            pieces = frames.pack(_refusal(f"the answer cannot travel: {error}"), [])
        n_bytes = sum(piece.nbytes for piece in pieces)
        n_held = self._calls.sessions.n_held()
        pieces[0] = memoryview(ANSWER.pack(n_bytes, n_held, goes_on) + pieces[0].tobytes())
        small = [piece for piece in pieces if piece.nbytes <= _BUFFER_BYTES]
        if len(small) == len(pieces):
            _send_all(connection, pieces)
            return
        for piece in pieces:
            connection.sendall(piece)


def _refusal(text: str) -> dict[str, Any]:
    return {"error": {"refused": "FrameError", "args": [text]}}


def _only_frame(fill: frames.Fill, n_bytes: int) -> tuple[Any, list[frames.Array]]:
    """The frame that is the whole of a body of ``n_bytes``: what follows it is the next caller's.

    Raises
    ------
    FrameError
        The body is no frame, ends within it or goes on behind it.
    """
    left = n_bytes

    def bounded(target: memoryview) -> None:
        nonlocal left
        if target.nbytes > left:
            raise frames.FrameError(f"the body of {n_bytes:,} bytes ends before the frame in it")
        left -= target.nbytes
        fill(target)

    found = frames.read(bounded, n_bytes)
    if left:
        raise frames.FrameError(f"the body goes on for {left:,} bytes behind the frame in it")
    return found


def _send_all(connection: socket.socket, pieces: list[memoryview]) -> None:
    sent = connection.sendmsg(pieces)
    for piece in pieces:
        if sent < piece.nbytes:
            connection.sendall(piece[sent:])
        sent = max(0, sent - piece.nbytes)


def _filler(source: BufferedReader) -> frames.Fill:
    def fill(target: memoryview) -> None:
        done = 0
        while done < target.nbytes:
            n = source.readinto(target[done:])
            if not n:
                raise EOFError
            done += n

    return fill


def _limit(memory_bytes: int) -> None:
    """A crash leaves no core, and no index takes more than its share of memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        status = Path("/proc/self/status").read_text().splitlines()
        data = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData"))
        most = data + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _lock(folder: Path) -> FolderLock:
    """The folder, for this process alone; one that is just ending is waited for."""
    lock, until = FolderLock(folder), time.monotonic() + _LOCK_PATIENCE_S
    while not lock.take(shared=False):
        if time.monotonic() > until:
            sys.exit("another server uses the FAISS indexes of this folder")
        time.sleep(0.05)
    return lock


def main(control_fd: int, folder: Path, lease_s: float, memory_bytes: int, gpu_bytes: int) -> None:
    """Serve until the other end of ``control_fd`` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    share_freed_memory()
    reader = Reader()  # before there are threads, limits or locks
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = _lock(folder)
    _limit(memory_bytes)
    calls = Calls(folder, lease_s, reader, gpu_bytes)
    worker = Worker(calls)
    threading.Thread(target=_look, args=(calls,), daemon=True).start()
    with socket.socket(fileno=control_fd) as control:
        while True:
            message, fds, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                break
            for fd in fds:
                _serve_apart(worker, socket.socket(fileno=fd))
    calls.names.settle()
    lock.release()
    os._exit(0)  # threads may be in FAISS: nothing of them is needed any more


def _serve_apart(worker: Worker, connection: socket.socket) -> None:
    try:
        threading.Thread(target=worker.serve, args=(connection,), daemon=True).start()
    except (RuntimeError, MemoryError):  # no room for a thread: the others go on
        connection.close()


def _look(calls: Calls) -> None:
    while True:
        time.sleep(_LOOKS_S)
        calls.sessions.end_silent()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
