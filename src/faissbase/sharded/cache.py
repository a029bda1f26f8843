"""Shards on this machine: downloaded once, checked, and kept while anybody has them open.

<cache>/<dataset uuid>/<shard>/         a collection's files, as the shard's builder wrote them; the vectors
                                        may come last, while the shard answers already
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from faissbase.errors import CorruptionError, FaissbaseError, UnavailableError
from faissbase.sharded import references
from faissbase.sharded.arriving import ArrivingRows
from faissbase.sharded.bucket import Bucket, File, checksum_of
from faissbase.sharded.manifest import Shard
from faissbase.storage.files import FolderLock, draft_folder, os_errors, remove_drafts
from faissbase.types import Slots

WAITS_BYTES = 64 << 20
_DOWNLOADS = 4
_ROWS = re.compile(r"vectors\.\d+\.f32")


class Cache:
    """The shards of one dataset in a folder. Several processes may share it.

    ``waits_bytes``: a shard is opened before its vectors are here where they take more.
    """

    def __init__(self, folder: Path, bucket: Bucket, waits_bytes: int = WAITS_BYTES) -> None:
        self.folder = folder
        self._bucket = bucket
        self._waits_bytes = waits_bytes
        self._hidden: dict[str, Slots] = {}
        self._seen_late: set[str] = set()  # objects that are to come last, and were there and of their size
        with os_errors(f"cannot create {folder}"):
            folder.mkdir(parents=True, exist_ok=True)

    def shard(self, shard: Shard) -> Path:
        """The folder with the files of a shard, downloaded where they are not there yet.

        Raises
        ------
        CorruptionError
            An object is not what the manifest says, or gone.
        UnavailableError
            The store fails.
        """
        folder = self._with(shard, shard.files)
        for file in self._late(shard):
            if not (folder / file.path).exists():
                with os_errors(f"cannot write to {self.folder}"), draft_folder(self.folder) as draft:
                    references.download(self._bucket, file, draft / "late")
                    _moved(draft / "late", folder / file.path)
        return folder

    def ready(self, shard: Shard) -> Path:
        """The folder of a shard with all that it takes to open it: `arrival` brings what is not there yet."""
        late = self._late(shard)
        return self._with(shard, [file for file in shard.files if file not in late], late)

    def arrival(self, shard: Shard, dimension: int) -> ArrivingRows | None:
        """The rows of a shard that is `ready`, on their way; None where they are in its folder.

        Raises
        ------
        CorruptionError
            Their object has another size, or is gone.
        """
        folder = self.folder / shard.name
        for file in self._late(shard):
            if not (folder / file.path).exists():
                if file.key not in self._seen_late:
                    _check_size(self._bucket, file)
                return ArrivingRows(self._bucket, file, folder, dimension)
        return None

    def _late(self, shard: Shard) -> tuple[File, ...]:
        """What a shard can answer without, a few rows aside: vectors beside an index of codes.

        A graph over the vectors, and a shard that is scanned, need all of them for the first answer.
        """
        if self._bucket.is_here or shard.index == "Flat" or shard.index.startswith("HNSW"):
            return ()
        rows = (file for file in shard.files if _ROWS.fullmatch(file.path))
        return tuple(file for file in rows if file.size_bytes > self._waits_bytes)

    def _with(self, shard: Shard, files: Sequence[File], late: Sequence[File] = ()) -> Path:
        target = self.folder / shard.name
        if not target.exists():
            with os_errors(f"cannot write to {self.folder}"), draft_folder(self.folder) as draft:
                self._download(files, draft / shard.name, late)
                _moved(draft / shard.name, target)
        if not target.exists():
            raise UnavailableError(f"{target} was removed while it was being used: try again")
        return target

    def adopt(self, shard: Shard, folder: Path) -> None:
        """Take over the files of a shard that was made here; ``folder`` may be gone then."""
        wanted = {file.path for file in shard.files}
        for path in folder.rglob("*"):
            if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
        with suppress(OSError):  # it is downloaded then
            os.rename(folder, self.folder / shard.name)

    def is_sound(self, shard: Shard) -> bool:
        """Whether all that it takes to open a shard is here as it was made: reads every byte."""
        folder = self.folder / shard.name
        late = [file for file in self._late(shard) if not (folder / file.path).exists()]
        with suppress(OSError):
            here = (file for file in shard.files if file not in late)
            return all(checksum_of(folder / file.path) == file.checksum for file in here)
        return False

    def wait_for(self, shard: Shard) -> None:
        """Wait until nobody is about to remove a shard: who does has its folder alone, for a moment."""
        with suppress(FaissbaseError):  # it is gone already
            lock = FolderLock(self.folder / shard.name)
            try:
                lock.wait(shared=True)
            finally:
                lock.release()

    def drop(self, shard: Shard) -> None:
        """Remove a shard from this machine, unless somebody has it open."""
        _remove(self.folder / shard.name)

    def _download(self, files: Sequence[File], folder: Path, late: Sequence[File]) -> None:
        """Bring ``files``, and look meanwhile whether those that come later are there."""
        for parent in {(folder / file.path).parent for file in files}:
            parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="faissbase-download") as threads:
            sizes = [threads.submit(_check_size, self._bucket, file) for file in late]
            list(threads.map(lambda file: references.download(self._bucket, file, folder / file.path), files))
            for size in sizes:
                size.result()
        self._seen_late |= {file.key for file in late}

    def hidden(self, shard: Shard) -> Slots:
        """The slots of a shard that do not count any more, ascending."""
        if shard.hidden is None:
            return np.empty(0, np.int64)
        known = self._hidden.get(shard.hidden.key)
        if known is None:
            known = self._hidden[shard.hidden.key] = self._read_hidden(shard, shard.hidden)
        return known

    def note_hidden(self, key: str, slots: Slots) -> None:
        """Know what an object of hidden slots holds without reading it again."""
        self._hidden[key] = slots

    def _read_hidden(self, shard: Shard, hidden: File) -> Slots:
        with os_errors(f"cannot write to {self.folder}"), draft_folder(self.folder) as draft:
            path = draft / "hidden"
            references.download(self._bucket, hidden, path)
            slots: Slots = np.fromfile(path, np.int64)
        if len(slots) != shard.n_hidden or (len(slots) and not 0 <= slots[0] <= slots[-1] < shard.rows):
            raise CorruptionError(f"{hidden.key} does not fit shard {shard.name}")
        return slots

    def keep_only(self, shards: Sequence[Shard]) -> None:
        """Remove the shards that are not among these, but for those that somebody has open."""
        kept = {shard.name for shard in shards}
        hidden = {shard.hidden.key for shard in shards if shard.hidden}
        self._hidden = {key: slots for key, slots in list(self._hidden.items()) if key in hidden}
        remove_drafts(self.folder)
        for folder in self.folder.iterdir():
            if folder.name not in kept and (folder / "records.sqlite").exists():
                _remove(folder)


def _moved(draft: Path, target: Path) -> None:
    """Give what is finished its name, unless somebody else was as fast: theirs is the same."""
    with suppress(FileExistsError, OSError):
        os.rename(draft, target)


def _check_size(bucket: Bucket, file: File) -> None:
    size_bytes = references.size(bucket, file)
    if size_bytes != file.size_bytes:
        raise CorruptionError(
            f"{bucket.url}/{file.key} is damaged: expected {file.size_bytes} bytes, got {size_bytes}"
        )


def _remove(folder: Path) -> None:
    with suppress(OSError, FaissbaseError):  # another process may be at it too
        lock = FolderLock(folder)
        try:
            if lock.take(shared=False):
                with draft_folder(folder.parent) as draft:  # at once, or whoever opens it finds half of it
                    os.rename(folder, draft / folder.name)
        finally:
            lock.release()
