"""A dataset that nobody sees yet: its shards are in the bucket, its manifest is a file of this machine."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from faissbase.collection.store import Config
from faissbase.errors import AlreadyExistsError, ConflictError
from faissbase.sharded.bucket import Bucket, check_creates_once
from faissbase.sharded.dataset import Dataset
from faissbase.sharded.manifest import Manifest, from_json
from faissbase.storage.files import write_whole


class Draft(Dataset):
    """A dataset of one process, until `publish` makes it the newest version of the real one.

    Parameters
    ----------
    bucket : Bucket
    config : Config
        What the dataset is; its id becomes the dataset's.
    path : Path
        The file with the manifest; one that is there is gone on with, if it is for the same bucket.
    """

    def __init__(self, bucket: Bucket, config: Config, path: Path) -> None:
        super().__init__(bucket, config.name)
        self._path = path
        self._real = Dataset(bucket, config.name)
        self._manifest, self._published = self._found() or (self._new(config), [])
        self._save()

    def _new(self, config: Config) -> Manifest:
        facts = (config.uuid, config.name, config.dimension, config.metric, config.index_type)
        return Manifest(1, uuid.uuid4().hex, *facts)

    def _found(self) -> tuple[Manifest, list[tuple[int, str]]] | None:
        """What an interrupted move has left."""
        if not self._path.exists():
            return None
        facts = orjson.loads(self._path.read_bytes())
        if facts["url"] != self.bucket.url:
            return None
        published = [(version, token) for version, token in facts["published"]]
        return from_json(orjson.dumps(facts["manifest"]), str(self._path)), published

    def _save(self) -> None:
        facts = {
            "url": self.bucket.url,
            "published": self._published,
            "manifest": orjson.Fragment(self._manifest.to_json()),
        }
        write_whole(self._path, orjson.dumps(facts))

    # ---- as a dataset ----------------------------------------------------------------------------

    def latest(self, after: int = 0) -> Manifest | None:
        return self._manifest if self._manifest.version > after else None

    def newest(self) -> Manifest:
        return self._manifest

    def commit(self, change: Callable[[Manifest], Manifest | None]) -> Manifest:
        wanted = change(self._manifest)
        if wanted is not None:
            self._manifest = replace(wanted, version=self._manifest.version + 1, token=uuid.uuid4().hex)
            self._save()
        return self._manifest

    # ---- for everybody ---------------------------------------------------------------------------

    @property
    def published_version(self) -> int:
        """The version of the real dataset that `publish` has made."""
        return self._published[-1][0]

    def check_free(self) -> None:
        """Raise `AlreadyExistsError` where the name is another dataset's."""
        newest = self._real.latest()
        if newest is None or newest.is_deleted or self._is_ours(newest):
            return
        raise AlreadyExistsError(f"collection {self.name!r} exists already in {self.bucket.url}")

    def _is_ours(self, manifest: Manifest) -> bool:
        return (manifest.version, manifest.token) in self._published

    def publish(self) -> None:
        """Make what there is the newest version of the dataset that others see; once, if it is called again.

        Raises
        ------
        AlreadyExistsError
            The name is another dataset's by now.
        ConflictError
            Another process was faster.
        """
        self.check_free()
        newest = self._real.latest()
        if newest is not None and self._is_ours(newest) and newest.shards == self._manifest.shards:
            self._published = [(newest.version, newest.token)]
            return
        if newest is None:
            check_creates_once(self.bucket)
        version = 1 if newest is None else newest.version + 1
        following = replace(self._manifest, version=version, token=uuid.uuid4().hex)
        self._published = [*self._published, (version, following.token)]
        self._save()  # first: whoever goes on after a kill knows its own
        if not self._real._created(following):
            raise ConflictError(f"another process has made version {version} of {self.name!r}: try again")
