"""The slot file: ``float32[slots, d]``, one fixed-size row per slot, append-only, memory-mapped for reading.

Knows only slots and bytes: not which slots are alive, not what a commit is.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from faissbase.errors import CorruptionError
from faissbase.storage.arrival import Arrival
from faissbase.storage.files import os_errors, sync_data, write_at
from faissbase.types import Float32, Slots

_GROW_BYTES_MIN = 64 << 10
_GROW_BYTES_MAX = 64 << 20
FLOAT_BYTES = 4


class VectorFile:
    """One generation of a collection's vectors.

    The file is longer than its contents: it grows in steps (sparse, so unused room takes no disk), so that
    readers need not map it anew after every write. Readers never see a row before it is written, because
    they only ask for slots that a commit has announced.

    Where the rows are still on their way (``arrival``), `read` waits for those that it reads; whoever uses a
    `view` asks `Arrival.need` itself.
    """

    def __init__(
        self,
        path: Path,
        dimension: int,
        *,
        writable: bool,
        create: bool = False,
        arrival: Arrival | None = None,
    ) -> None:
        self._fd = -1
        self.arrival = arrival
        self._map: mmap.mmap | None = None
        flags = (os.O_RDWR if writable else os.O_RDONLY) | (os.O_CREAT if create else 0)
        with os_errors(f"cannot open {path}"):
            self._fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self.path = path
        self.dimension = dimension
        self.row_bytes = dimension * FLOAT_BYTES
        self._file_bytes = self._stat_bytes()

    def _stat_bytes(self) -> int:
        return os.fstat(self._fd).st_size

    def write(self, first_slot: int, vectors: Float32) -> None:
        """Put C-contiguous ``float32[n, d]`` into slots ``first_slot ..``. Not durable before `sync`."""
        start = first_slot * self.row_bytes
        with os_errors(f"cannot write vectors to {self.path}"):
            self._grow(start + vectors.nbytes)
            write_at(self._fd, memoryview(vectors.data).cast("B"), start)

    def _grow(self, needed_bytes: int) -> None:
        if needed_bytes <= self._file_bytes:
            return
        self._file_bytes = self._stat_bytes()  # another process may have grown it already
        if needed_bytes <= self._file_bytes:
            return
        step = min(max(needed_bytes, _GROW_BYTES_MIN), _GROW_BYTES_MAX)
        size = -(-(needed_bytes + step) // _GROW_BYTES_MIN) * _GROW_BYTES_MIN
        os.ftruncate(self._fd, size)
        self._file_bytes = size

    def extend(self, n_slots: int) -> None:
        """Make the file long enough for ``n_slots``; new slots read as zeros."""
        with os_errors(f"cannot extend {self.path}"):
            self._grow(n_slots * self.row_bytes)

    def sync(self) -> None:
        """Return once every row written so far, by any process, is on the device."""
        with os_errors(f"cannot sync {self.path}"):
            sync_data(self._fd)

    def may_be_row(self, slot_and_copy: tuple[Any, Any]) -> bool:
        """Whether a redo copy is of the length of a row, and names a slot."""
        slot, copy = slot_and_copy
        return isinstance(copy, bytes) and len(copy) == self.row_bytes and type(slot) is int and slot >= 0

    def read(self, first_slot: int, n_slots: int) -> Float32:
        """A copy of slots ``first_slot .. first_slot + n_slots`` that adds nothing to mapped memory."""
        self.need(range(first_slot, first_slot + n_slots))
        size = n_slots * self.row_bytes
        with os_errors(f"cannot read vectors from {self.path}"):
            data = os.pread(self._fd, size, first_slot * self.row_bytes)
        if len(data) < size:
            self._too_short(first_slot + n_slots)
        return np.frombuffer(data, dtype=np.float32).reshape(n_slots, self.dimension)

    def need(self, slots: Slots | Sequence[int]) -> None:
        """Return once the rows in these slots are there. Ask once for all: they come side by side."""
        if self.arrival is not None:
            self.arrival.need(slots)

    def view(self, n_slots: int) -> Float32:
        """``float32[n_slots, d]`` straight from the mapped file, read-only.

        Raises
        ------
        CorruptionError
            The file is shorter than that many slots.
        """
        mapped = self._map
        if mapped is None or len(mapped) < n_slots * self.row_bytes:
            mapped = self._map = self._mapped(n_slots)
        flat = np.frombuffer(mapped, dtype=np.float32, count=n_slots * self.dimension)
        return flat.reshape(n_slots, self.dimension)

    def _mapped(self, n_slots: int) -> mmap.mmap:
        size = self._stat_bytes()
        if size < n_slots * self.row_bytes or size == 0:
            self._too_short(n_slots)
        with os_errors(f"cannot map {self.path}"):
            return mmap.mmap(self._fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)

    def _too_short(self, n_slots: int) -> None:
        needed, found = n_slots * self.row_bytes, self._stat_bytes()
        raise CorruptionError(
            f"{self.path} holds {found} bytes, {needed} are needed for its {n_slots} slots; run repair()"
        )

    def open_file(self) -> BinaryIO:
        """The file from its start, for copying; it may have lost its name meanwhile."""
        if self.arrival is not None:
            self.arrival.need_all()
        file = os.fdopen(os.dup(self._fd), "rb")
        file.seek(0)
        return file

    @property
    def n_slots(self) -> int:
        """How many whole slots the file has room for."""
        return self._stat_bytes() // self.row_bytes

    def is_shorter_than(self, n_slots: int) -> bool:
        """True where the file has lost rows: reading the map there would kill the process."""
        return self._stat_bytes() < n_slots * self.row_bytes

    def close(self) -> None:
        """Close the file. Views handed out stay valid: the map lives as long as they do."""
        self._map = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()
