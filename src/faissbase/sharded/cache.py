"""Shards on this machine: downloaded once, checked, and kept while anybody has them open.

<cache>/<dataset uuid>/<shard>/         a collection's files, as the shard's builder wrote them
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from faissbase.errors import CorruptionError
from faissbase.sharded.bucket import Bucket
from faissbase.sharded.manifest import Shard
from faissbase.storage.files import FolderLock, draft_folder, os_errors, remove_drafts
from faissbase.types import Slots

_DOWNLOADS = 4


class Cache:
    """The shards of one dataset in a folder. Several processes may share it."""

    def __init__(self, folder: Path, bucket: Bucket) -> None:
        self.folder = folder
        self._bucket = bucket
        with os_errors(f"cannot create {folder}"):
            folder.mkdir(parents=True, exist_ok=True)

    def shard(self, shard: Shard) -> Path:
        """The folder with the files of a shard, downloaded where they are not there yet.

        Raises
        ------
        CorruptionError
            An object is not what the manifest says.
        UnavailableError, NotFoundError
            The store fails, or an object is gone.
        """
        target = self.folder / shard.name
        if not target.exists():
            with os_errors(f"cannot write to {self.folder}"), draft_folder(self.folder) as draft:
                self._download(shard, draft / shard.name)
                with suppress(FileExistsError, OSError):  # somebody else was as fast: theirs is the same
                    os.rename(draft / shard.name, target)
        if not target.exists():
            raise CorruptionError(f"{target} was removed while it was being used: try again")
        return target

    def _download(self, shard: Shard, folder: Path) -> None:
        for parent in {(folder / file.path).parent for file in shard.files}:
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="faissbase-download") as threads:
            list(threads.map(lambda file: self._bucket.download(file, folder / file.path), shard.files))

    def hidden(self, shard: Shard) -> Slots:
        """The slots of a shard that do not count any more, ascending."""
        if shard.hidden is None:
            return np.empty(0, np.int64)
        with os_errors(f"cannot write to {self.folder}"), draft_folder(self.folder) as draft:
            path = draft / "hidden"
            self._bucket.download(shard.hidden, path)
            slots: Slots = np.fromfile(path, np.int64)
        if len(slots) != shard.n_hidden or (len(slots) and not 0 <= slots[0] <= slots[-1] < shard.rows):
            raise CorruptionError(f"{shard.hidden.key} does not fit shard {shard.name}")
        return slots

    def keep_only(self, names: Iterable[str]) -> None:
        """Remove the shards that are not among ``names``, but for those that somebody has open."""
        kept = set(names)
        remove_drafts(self.folder)
        for folder in self.folder.iterdir():
            if folder.name not in kept and (folder / "records.sqlite").exists():
                _remove(folder)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # another process may be at it too
        lock = FolderLock(folder)
        try:
            if lock.take(shared=False):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
