"""The rows of a shard that answers before they are all here: those that a query needs come first.

A file as long as all rows takes them up. In the background it is filled from its front; rows that are needed
before are read from the store by themselves, and believed once they match the checksums of their records. The
whole is compared with the checksum of its object, and only then becomes a file of the shard's folder.

Knows a bucket, one file and its rows; not what asks for them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import numpy as np
from xxhash import xxh3_128

from faissbase.errors import CorruptionError, NotReadyError, UnavailableError
from faissbase.sharded import references
from faissbase.sharded.bucket import Bucket, File
from faissbase.sharded.ranges import PIECE_BYTES, pieces, whole_range
from faissbase.storage.arrival import CheckRows
from faissbase.storage.files import draft_folder, os_errors, write_at
from faissbase.storage.vectors import FLOAT_BYTES
from faissbase.types import Float32, Slots

CONNECTIONS = 32
"""Rows that are asked for at a time, beside the pieces in the background."""
MOST_ROWS = 2048
"""Where more are needed at once, all are waited for."""
_AT_A_TIME = 2  # shards of this process that are filled in the background
_LOOKED_S = 0.2
_HEAD_START_S = 0.5  # of the first question's rows before the background takes connections and processors
_GAP_BYTES = 16 << 10  # read along rather than asked around


class ArrivingRows:
    """An `Arrival` of rows from a bucket. Thread-safe; of one process.

    Parameters
    ----------
    bucket : Bucket
    file : File
        ``float32[n, dimension]``.
    folder : Path
        Of the shard: the file is put there once it is whole, if it is not there by then.
    dimension : int
    """

    def __init__(self, bucket: Bucket, file: File, folder: Path, dimension: int) -> None:
        self._read = partial(references.read, bucket, file)
        self._file = file
        self._where = f"{bucket.url}/{file.key}"
        self._target = folder / file.path
        self._row_bytes = FLOAT_BYTES * dimension
        self._n = file.size_bytes // self._row_bytes
        self._good = np.zeros(self._n, np.bool_)  # rows that are there and were compared
        self._there_bytes = 0  # of the front, filled in the background
        self._digest = xxh3_128()
        self._filling = threading.Lock()  # what is good is never written over
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._has_begun = threading.Event()  # the first rows are there, or all are waited for
        self._whole: Future[None] | None = None
        self._room = ExitStack()
        self.is_whole = False
        self.path = self._room.enter_context(draft_folder(folder.parent)) / "rows"
        with os_errors(f"cannot make {self.path}"):
            self._out = self._room.enter_context(open(self.path, "wb", buffering=0))  # noqa: SIM115  # by close()
            self._out.truncate(file.size_bytes)
        self._rows = np.memmap(self.path, np.float32, "r", shape=(self._n, dimension))
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="faissbase-rows")

    def check_with(self, check: CheckRows) -> None:
        self._check = check

    def begin(self) -> None:
        if not self.is_whole:
            self._coming()

    # ---- as they are needed ----------------------------------------------------------------------

    def need(self, slots: Slots | Sequence[int]) -> None:
        if self.is_whole:
            return
        coming = self._coming()
        if coming.done() and not isinstance(coming.exception(), UnavailableError):
            coming.result()  # or what is wrong with it
            return
        wanted = np.unique(np.asarray(slots, np.int64))
        wanted = wanted[(wanted >= 0) & (wanted < self._n)]
        missing = wanted[~self._good[wanted]]
        if len(missing) > MOST_ROWS:
            self.need_all()
        elif len(missing):
            self._bring(missing)

    def need_all(self) -> None:
        if not self.is_whole:
            self._has_begun.set()
            self._coming().result()

    def _bring(self, slots: Slots) -> None:
        """Have rows there, compared before they are written."""
        is_absent = (slots + 1) * self._row_bytes > self._there_bytes
        found = self._threads.map(self._run, self._runs(slots[is_absent]))
        rows = self._rows[slots]
        for first, run in found:
            mine = slice(*slots.searchsorted((first, first + len(run))))
            rows[mine] = run[slots[mine] - first]
        self._check(slots, rows)
        with self._filling, os_errors(f"cannot write {self.path}"):
            if not self.is_whole:
                for slot, row in zip(slots[is_absent].tolist(), rows[is_absent], strict=True):
                    write_at(self._out.fileno(), memoryview(row.data).cast("B"), slot * self._row_bytes)
                self._good[slots] = True
        self._has_begun.set()

    def _runs(self, slots: Slots) -> Iterator[tuple[int, int]]:
        """First and last of rows that are read together, ascending."""
        if not len(slots):
            return
        apart = np.flatnonzero(np.diff(slots) * self._row_bytes > _GAP_BYTES) + 1
        for run in np.split(slots, apart):
            yield int(run[0]), int(run[-1])

    def _run(self, ends: tuple[int, int]) -> tuple[int, Float32]:
        """The first row, and the rows from there on."""
        first, last = ends
        n_bytes = (last + 1 - first) * self._row_bytes
        content = whole_range(self._read, first * self._row_bytes, n_bytes)
        return first, np.frombuffer(content, np.float32).reshape(last + 1 - first, -1)

    # ---- in the background -----------------------------------------------------------------------

    def _coming(self) -> Future[None]:
        """All rows, on their way; again where the store failed the last time."""
        with self._starting:
            self._check_open()
            found = self._whole
            if found is None or (found.done() and isinstance(found.exception(), UnavailableError)):
                found = self._whole = Future()
                threading.Thread(
                    target=self._bring_all, args=(found,), name="faissbase-arriving", daemon=True
                ).start()
            return found

    def _bring_all(self, outcome: Future[None]) -> None:
        try:
            self._has_begun.wait(_HEAD_START_S)
            self._wait_for_turn()
            try:
                self._fill()
            finally:
                _turns.release()
            self._keep()
        except BaseException as error:  # noqa: BLE001  # whoever waits for the rows is told
            outcome.set_exception(error)
        else:
            outcome.set_result(None)
        if self._closing.is_set():
            self._room.close()

    def _wait_for_turn(self) -> None:
        while not _turns.acquire(timeout=_LOOKED_S):
            self._check_open()

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise NotReadyError(f"{self._target.parent} is closed")

    def _fill(self) -> None:
        """Go on from where the front ends, and compare the whole."""
        step = max(1, PIECE_BYTES // self._row_bytes) * self._row_bytes
        with closing(pieces(self._read, self._there_bytes, self._file.size_bytes, step)) as found:
            for start, piece in found:
                self._check_open()
                with self._filling:
                    self._write(start, piece)
                    self._there_bytes = start + len(piece)
                self._digest.update(piece)  # what could not be written comes again
        checksum = self._digest.hexdigest()
        if checksum != self._file.checksum:
            raise CorruptionError(
                f"{self._where} is damaged: expected checksum {self._file.checksum}, got {checksum}"
            )

    def _write(self, start: int, piece: bytes) -> None:
        """Put rows in their place that nobody has looked at yet, but for those that are good already."""
        first = start // self._row_bytes
        with os_errors(f"cannot write {self.path}"):
            good = self._good[first : first + len(piece) // self._row_bytes]
            if not good.any():
                write_at(self._out.fileno(), memoryview(piece), start)
                return
            rows = np.frombuffer(piece, np.float32).reshape(len(good), -1).copy()
            rows[good] = self._rows[first : first + len(good)][good]
            write_at(self._out.fileno(), memoryview(rows.data).cast("B"), start)

    def _keep(self) -> None:
        """Make the file one of the shard's, for whoever opens it next."""
        with suppress(OSError):  # the shard was removed: its rows stay open here
            os.rename(self.path, self._target)
        with self._filling:
            self.is_whole = True

    def close(self) -> None:
        """Stop bringing rows. A store that does not answer is not waited for."""
        self._closing.set()
        self._has_begun.set()
        self._threads.shutdown(wait=False)
        with self._starting:
            is_over = self._whole is None or self._whole.done()
        if is_over:  # or the thread in the background does it
            self._room.close()


def _after_fork() -> None:
    global _turns
    _turns = threading.BoundedSemaphore(_AT_A_TIME)


_turns = threading.BoundedSemaphore(_AT_A_TIME)
os.register_at_fork(after_in_child=_after_fork)
