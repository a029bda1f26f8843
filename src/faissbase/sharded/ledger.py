"""What a build has done so far: an object for each result, made once, so that any run goes on from there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from faissbase.errors import CorruptionError, NotFoundError
from faissbase.sharded.bucket import Bucket, File, open_bucket


def builds_folder(name: str) -> str:
    """Where the results of a dataset's builds are: what they name belongs to no version yet."""
    return f"{name}/builds"


class Ledger:
    """The results of one build of a dataset."""

    def __init__(self, bucket: Bucket, name: str, build: str) -> None:
        self._bucket = bucket
        self.folder = f"{builds_folder(name)}/{build}"

    def read(self, stage: str) -> dict[str, Any] | None:
        """What a stage has left; None where it is not done."""
        key = self._key(stage)
        try:
            found: dict[str, Any] = orjson.loads(self._bucket.get(key))
        except NotFoundError:
            return None
        except orjson.JSONDecodeError as error:
            raise CorruptionError(f"{self._bucket.url}/{key} is no result of a build: {error}") from error
        return found

    def keep(self, stage: str, facts: dict[str, Any]) -> dict[str, Any]:
        """Record the result of a stage, or, where another run was faster, take over that one's."""
        if self._bucket.create(self._key(stage), orjson.dumps(facts, option=orjson.OPT_SERIALIZE_NUMPY)):
            return facts
        found = self.read(stage)
        return facts if found is None else found

    def forget(self, stage: str) -> None:
        """Have a stage done again."""
        self._bucket.delete([self._key(stage)])

    def remove(self) -> None:
        """Remove all there is, once the dataset is published."""
        self._bucket.delete([stored.key for stored in self._bucket.list(self.folder)])

    def _key(self, stage: str) -> str:
        return f"{self.folder}/{stage}.json"


@dataclass(frozen=True)
class Place:
    """Where a build puts its results, and works. A value that other processes get a copy of.

    Attributes
    ----------
    url, options
        Of the bucket.
    name : str
        Of the dataset.
    build : str
        Of the build: a fingerprint of what it is made from, and how.
    folder : Path
        For what is not finished, on a disk with room for a shard of each worker.
    """

    url: str
    name: str
    build: str
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def bucket(self) -> Bucket:
        return open_bucket(self.url, self.options)

    def ledger(self) -> Ledger:
        return Ledger(self.bucket(), self.name, self.build)


def are_there(bucket: Bucket, files: Iterable[File]) -> bool:
    """Whether the objects of these files are all there, and as long as they were."""
    wanted = {file.key: file.size_bytes for file in files}
    folders = {key.rpartition("/")[0] for key in wanted}
    found = {stored.key: stored.size_bytes for folder in folders for stored in bucket.list(folder)}
    return all(found.get(key) == size for key, size in wanted.items())
