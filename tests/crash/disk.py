"""A disk that forgets, on a crash of the machine, what was written to it and not synced.

What each file held at its last sync is remembered beside what was written since. `Disk.lose_power` then makes
a folder as such a crash may leave it: of every page any number of the latest writes is missing, unless a sync
came after them. Removals count at once, new names only after their folder was synced; file systems may do
both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tests.crash.watch import watched

PAGE_BYTES = 4096


class _File:
    """What is on the device for certain, and the writes since, in order."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.pending: list[tuple[int, bytes]] = []

    def sync(self, size: int) -> None:
        content = bytearray(self.durable)
        for offset, data in self.pending:
            _put(content, offset, data)
        content.extend(bytes(max(0, size - len(content))))
        self.durable, self.pending = bytes(content), []

    def truncate(self, size: int) -> None:
        self.durable = self.durable[:size]
        self.pending = [(offset, data[: size - offset]) for offset, data in self.pending if offset < size]

    def after_power_loss(self, size_now: int, rng: np.random.Generator | None) -> bytes:
        """Only what was synced; with ``rng``, of every page also a random number of the writes since.

        Sometimes most pages of a file, or all, have come to the device.
        """
        content = bytearray(self.durable)
        if rng is not None:
            share_whole = rng.choice([0.0, 0.9, 1.0])
            for pieces in self._pieces_by_page().values():
                is_whole = rng.random() < share_whole
                for offset, data in pieces if is_whole else pieces[: rng.integers(len(pieces) + 1)]:
                    _put(content, offset, data)
            if rng.random() < 0.5:  # the new length has reached the device and the new bytes have not
                content.extend(bytes(max(0, size_now - len(content))))
        return bytes(content)

    def _pieces_by_page(self) -> dict[int, list[tuple[int, bytes]]]:
        pieces: dict[int, list[tuple[int, bytes]]] = {}
        for offset, data in self.pending:
            done = 0
            while done < len(data):
                page, within = divmod(offset + done, PAGE_BYTES)
                piece = data[done : done + PAGE_BYTES - within]
                pieces.setdefault(page, []).append((offset + done, piece))
                done += len(piece)
        return pieces


def _put(content: bytearray, offset: int, data: bytes) -> None:
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    content[offset : offset + len(data)] = data


class Disk:
    """The files below ``root``; a watcher. ``before_call``, where set, is called before writes and syncs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.before_call: Callable[[], None] | None = None
        self._lock = threading.RLock()
        self._files: dict[Path, _File] = {}
        self._named: set[Path] = set()

    def before(self, call: str, path: Path) -> None:
        if self.before_call is not None and call in ("pwrite", "fsync", "fdatasync", "xWrite", "xSync"):
            with self._lock:
                self.before_call()

    def after(self, call: str, path: Path, *facts: Any) -> None:
        if path != self.root and self.root not in path.parents:
            return
        with self._lock:
            if call in ("pwrite", "xWrite"):
                self._wrote(path, *facts)
            elif call in ("fsync", "fdatasync", "xSync"):
                self._synced(path, by_sqlite=call == "xSync")
            elif call in ("unlink", "xDelete"):
                self._removed(path)
            elif call in ("link", "replace"):
                self._renamed(path, Path(facts[0]), is_link=call == "link")
            elif call == "xTruncate":
                self._files.setdefault(path, _File()).truncate(facts[0])

    def _wrote(self, path: Path, offset: int, n_bytes: int) -> None:
        with open(path, "rb") as source:  # read back, for the page checksums are put in on the way
            data = os.pread(source.fileno(), n_bytes, offset)
        self._files.setdefault(path, _File()).pending.append((offset, data))

    def _synced(self, path: Path, *, by_sqlite: bool) -> None:
        if path.is_dir():
            self._named.update(path.glob("*"))
            return
        self._files.setdefault(path, _File()).sync(path.stat().st_size)
        if by_sqlite and path.name.endswith(("-wal", "-journal")) and path not in self._named:
            self._named.update(path.parent.glob("*"))  # with a journal's first sync SQLite syncs its folder

    def _removed(self, path: Path) -> None:
        self._files.pop(path, None)
        self._named.discard(path)

    def _renamed(self, path: Path, new_path: Path, *, is_link: bool) -> None:
        self._files[new_path] = self._files.get(path, _File())
        self._named.discard(new_path)
        if not is_link:
            self._removed(path)

    def forget_unsynced(self, path: Path) -> None:
        """What a failed sync may do: the writes since the last one are lost, and no later sync saves them."""
        with self._lock:
            self._files.setdefault(path, _File()).pending.clear()

    def lose_power(self, target: Path, rng: np.random.Generator | None) -> Path:
        """A copy of ``root`` as a crash of the machine might leave it; see `_File.after_power_loss`."""
        with self._lock:
            for path in sorted(self.root.rglob("*")):
                if path.is_file() and self._is_named(path) and not path.name.endswith("-shm"):
                    file = self._files.get(path, _File())
                    to = target / path.relative_to(self.root)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    to.write_bytes(file.after_power_loss(path.stat().st_size, rng))
        return target

    def _is_named(self, path: Path) -> bool:
        return path == self.root or (path in self._named and self._is_named(path.parent))


@contextmanager
def forgetful(root: Path) -> Iterator[Disk]:
    """A `Disk` for ``root`` that sees every write, sync and removal meanwhile."""
    disk = Disk(root)
    with watched(disk):
        yield disk
